"""How a draw is cut: few shapes, every record once, and what happens when memory runs out."""

import numpy as np
import pytest
import torch

from dpcore.micro_batches import MicroBatches
from dpcore.spec.plan import Speed


def make(lengths, *, recompute=lambda: False, **speed) -> MicroBatches:
    return MicroBatches(
        np.asarray(lengths),
        max_length=128,
        row_bytes=4,
        thin=True,
        speed=Speed(**{"tokens": 1024} | speed),
        device=torch.device("cpu"),
        release=lambda: None,
        recompute=recompute,
        should_stop=lambda: False,
    )


@pytest.mark.parametrize("per_doubling", [4, 8])
def test_padding_and_shapes_are_bounded_whatever_the_lengths(per_doubling):
    lengths, seen = np.random.default_rng(0).integers(1, 129, size=5000), {}

    def compute(now, length):
        assert (lengths[now] <= length).all()
        assert (length < lengths[now] * (1 + 1 / per_doubling)).all()
        return seen.setdefault(length, now)

    make(lengths, lengths_per_doubling=per_doubling).each(np.arange(5000), compute, lambda _: None)
    small = 2 * per_doubling  # up to here a length is its own
    doublings = np.log2(128 / small)
    assert len(seen) == small + per_doubling * doublings
    assert max(seen) == 128


def test_one_record_that_does_not_fit_is_recomputed_before_it_is_given_up():
    """Every record is taken once; with layers recomputed, micro-batches grow again."""
    switched, sizes, taken = [], [], []

    def compute(now, length):
        if not switched or len(now) > 4:
            raise torch.OutOfMemoryError("no memory")
        sizes.append(len(now))
        return now.tolist()

    def recompute():
        switched.append(True)
        return len(switched) == 1

    make([64] * 20, recompute=recompute).each(np.arange(20), compute, taken.extend)
    assert taken == list(range(20))
    assert len(switched) == 1
    assert max(sizes) == 4


def test_out_of_memory_that_nothing_helps_against_is_raised_and_nothing_is_taken():
    taken, calls = [], []

    def compute(now, length):
        calls.append(len(now))
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        make([64] * 20).each(np.arange(20), compute, taken.append)
    assert (calls, taken) == ([16, 8, 4, 2, 1], [])


def test_another_error_is_not_tried_again():
    calls = []

    def compute(now, length):
        calls.append(len(now))
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        make([64] * 20).each(np.arange(20), compute, lambda _: None)
    assert calls == [16]
