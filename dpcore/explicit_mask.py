"""Attention masks that are always there, with four dimensions, whoever else is in the batch.

transformers leaves a mask out when no record of a batch is padded: it asks the batch, and the answer chooses the
kernel, so that one padded neighbour moves the rounding of every other record.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask


@contextmanager
def explicit_masks() -> Iterator[None]:
    """Inside, no mask of a transformers model depends on a question to the batch, with PyTorch's attention or eager."""
    within = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] is _EXPLICIT["sdpa"]
    if not within:
        ALL_MASK_ATTENTION_FUNCTIONS.update(_EXPLICIT)  # in front of transformers' own, which stay as they are
    try:
        yield
    finally:
        for name in () if within else _EXPLICIT:
            del ALL_MASK_ATTENTION_FUNCTIONS[name]


def _explicit(mask: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    def make(*args: Any, **kwargs: Any) -> Tensor | None:
        return mask(*args, **kwargs | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})

    return make


_EXPLICIT = {"sdpa": _explicit(sdpa_mask), "eager": _explicit(eager_mask)}
"""By implementation of attention, those whose masks are tensors."""
