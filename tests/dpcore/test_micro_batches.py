"""How a draw is cut: few shapes, every record once, and what happens when memory runs out."""

import numpy as np
import pytest
import torch

from dpcore.machine.micro_batches import MicroBatches
from dpcore.terms.speed import Speed


def make(lengths, *, expected_batch=64, thin=True, recompute=lambda: False, **speed) -> MicroBatches:
    return MicroBatches(
        np.asarray(lengths),
        max_length=128,
        expected_batch=expected_batch,
        row_bytes=4,
        thin=thin,
        speed=Speed(**{"tokens": 1024, "lengths_per_doubling": 8} | speed),
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


def shapes(lengths, **options) -> int:
    seen = set()
    micro_batches = make(lengths, lengths_per_doubling="auto", **options)
    micro_batches.each(np.arange(len(lengths)), lambda now, length: seen.add(length), lambda _: None)
    return len(seen)


def test_the_number_of_lengths_follows_from_the_expected_batch_and_from_no_record():
    """Small batches get few lengths, so that their micro-batches are not all nearly empty; a draw changes nothing."""
    every = np.arange(1, 129)
    at = {expected: shapes(every, expected_batch=expected) for expected in (8, 32, 128, 512, 10_000)}
    assert at == {8: 14, 32: 14, 128: 24, 512: 40, 10_000: 40}
    assert shapes(every, expected_batch=256, thin=False) == at[128]
    micro_batches = make([64, 17], expected_batch=8, lengths_per_doubling="auto")
    padded = []
    for drawn in ([0, 1], [1], [0, 1]):
        micro_batches.each(np.asarray(drawn), lambda now, length: padded.append((list(now), length)), lambda _: None)
    assert padded == [([0], 64), ([1], 24), ([1], 24), ([0], 64), ([1], 24)]


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
