"""Ways to break private training, each put into the loop's own seams for the length of a `with`: nothing of the product
knows them."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np

from dpcore.engine import rehearsal
from dpcore.engine.wide import Wide, _joined
from dpcore.estimators.first_order import FirstOrder
from dpcore.mechanism import clipping, output
from dpcore.mechanism.keystream import Keystream, Streams


@contextmanager
def no_clipping() -> Iterator[None]:
    """Gradients are added as they are; what is not finite is still left out."""
    with patch.object(clipping, "factors", lambda norms, clip_norm, way: norms.isfinite().to(norms.dtype)):
        yield


@contextmanager
def half_the_noise() -> Iterator[None]:
    """Its deviation is half of what the plan says."""
    original = output.noised_mean

    def half(total, noise_multiplier, *rest, **more):
        return original(total, noise_multiplier / 2, *rest, **more)

    with patch.object(output, "noised_mean", half):
        yield


@contextmanager
def no_noise_and_no_clipping() -> Iterator[None]:
    """Plain training."""
    original = output.noised_mean

    def none(total, noise_multiplier, *rest, **more):
        return original(total, 1e-9, *rest, **more)

    with no_clipping(), patch.object(output, "noised_mean", none):
        yield


@contextmanager
def a_tied_weight_counted_once() -> Iterator[None]:
    """Of a weight that is embedding and head, the norm is the embedding's alone; both are added. The rehearsal compares
    norms with plain autograd's and refuses this before the first step, so that its eyes are shut too."""
    original = Wide.norms

    def norms(self):
        if not self._tokens:
            return original(self)
        products, self._left, self._right = (self._left, self._right), [], []
        found = original(self)
        self._left, self._right = (_joined(parts) for parts in products)
        return found

    blind = patch.object(rehearsal, "_distance", lambda *compared: 0.0)
    with patch.object(Wide, "norms", norms), blind:
        yield


@contextmanager
def users_clipped_record_by_record() -> Iterator[None]:
    """Each of a user's records is a unit of its own to the clipping."""

    def all_users(self, total, drawn, owners):
        self._add_records(total, np.concatenate([owners.records(user) for user in drawn]))

    def one_user(self, total, records):
        self._add_records(total, records)

    with patch.object(FirstOrder, "_add_users", all_users), patch.object(FirstOrder, "_add_user", one_user):
        yield


@contextmanager
def noise_drawn_twice() -> Iterator[None]:
    """Every step has the noise of the first."""
    original = Streams.at

    def at(self, purpose, step):
        if purpose != "noise":
            return original(self, purpose, step)
        return Keystream(hashlib.blake2b(self._secret, digest_size=32).digest())

    with patch.object(Streams, "at", at):
        yield


@contextmanager
def draws_of_fixed_size() -> Iterator[None]:
    """Exactly the expected batch, in place of a coin for each unit."""

    def draw(phase, stream, units):
        order = np.argsort(stream.integers(units), kind="stable")
        return np.sort(order[: min(phase.expected_batch, units)])

    with patch.object(output, "draw", draw):
        yield


@contextmanager
def divided_by_the_size_of_the_draw() -> Iterator[None]:
    """In place of the public expected batch."""
    drawn: list[int] = []
    draw, noised = output.draw, output.noised

    def remembered(phase, stream, units):
        made = draw(phase, stream, units)
        drawn.append(len(made))
        return made

    def divided(phase, *rest, **more):
        made = noised(phase, *rest, **more)
        return replace(made, mean=made.mean * (phase.expected_batch / max(1, drawn[-1])))

    with patch.object(output, "draw", remembered), patch.object(output, "noised", divided):
        yield


BROKEN: dict[str, Callable[[], AbstractContextManager[None]]] = {
    made.__name__.replace("_", " "): made
    for made in (
        no_clipping,
        half_the_noise,
        a_tied_weight_counted_once,
        users_clipped_record_by_record,
        noise_drawn_twice,
        draws_of_fixed_size,
        divided_by_the_size_of_the_draw,
        no_noise_and_no_clipping,
    )
}
