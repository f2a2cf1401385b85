"""Messages as integers modulo 2^64, so that masks hide them exactly and sums of them are exact."""

from collections.abc import Mapping

import numpy as np

from dpcore.terms.federated.options import MOST_MASKED

LIMIT = 2.0**12
"""Numbers of a message are cut to this size. They are noised and small: what is larger helps no model."""
STEP = 2.0**-24
"""Of the grid; of a float32 below 1 hardly a bit is lost."""


def weights_fit(weights: Mapping[str, int]) -> None:
    """Raises ValueError for weights, such as declared sizes, that a sum has no room for."""
    if any(weight < 1 for weight in weights.values()):
        raise ValueError("a silo's weight must be a whole number above zero")
    if sum(weights.values()) > MOST_MASKED:
        raise ValueError(f"the weights of all silos together must be at most {MOST_MASKED}; divide all by one number")


def encode(message: np.ndarray, weight: int) -> np.ndarray:
    """A message [n] of floats, times a public weight: uint64 [n]. Raises ValueError for one that is not finite.

    Rounding and cutting come after the silo's noise, and are no concern of its price.
    """
    if not np.isfinite(message).all():
        raise ValueError("the message is not finite")
    steps = np.rint(np.clip(message.astype(np.float64), -LIMIT, LIMIT) / STEP).astype(np.int64)
    return (steps * np.int64(weight)).view(np.uint64)


def decode(total: np.ndarray, weight: int) -> np.ndarray:
    """The weighted mean of the messages in a sum: float64 [n]. weight: of all of them together."""
    return total.view(np.int64).astype(np.float64) * (STEP / weight)
