"""How often a classifier is right, on a public file."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def accuracy(logits: Tensor, labels: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """accuracy: share of records with the right label; standard_error: of it; evaluated: records; majority: share of
    the most frequent label; per_class: records of each label, and the share of them that got it.

    logits: [n, names]; labels: places among the names.
    """
    predicted, wanted = logits.argmax(1), torch.tensor(labels)
    right, count = (predicted == wanted).double(), len(wanted)
    share, of_label = float(right.mean()), torch.bincount(wanted, minlength=len(names))
    hits = torch.bincount(wanted, weights=right, minlength=len(names))
    return {
        "accuracy": share,
        "standard_error": (share * (1 - share) / count) ** 0.5,
        "evaluated": count,
        "majority": int(of_label.max()) / count,
        "per_class": {
            label: {"records": int(n), "right": float(hit / n) if n else None}
            for label, n, hit in zip(names, of_label, hits, strict=True)
        },
    }


def are_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each record gets its own label: bool [m]; logits that are no numbers are wrong."""
    right: Tensor = (logits.argmax(1) == labels) & logits.isfinite().all(1)
    return right


def places(labels: Sequence[int], names: Sequence[str]) -> Tensor:
    """Labels as int64 [n]. Raises ValueError for one outside the public set, without naming it: it may be private."""
    found = torch.as_tensor(labels, dtype=torch.int64).reshape(-1)
    if bool(((found < 0) | (found >= len(names))).any()):
        raise ValueError("a record's label is not in the public label set")
    return found


def require_names(names: Sequence[str]) -> tuple[str, ...]:
    """A public label set. Raises ValueError for a repeated label, or fewer than two."""
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError("the label set must have at least two labels, each once")
    return tuple(names)
