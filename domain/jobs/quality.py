"""How good a result is: what a public evaluation file says of it, with how sure that is and what it is to be held
against. All of it follows from the released model and public rows."""

from collections.abc import Mapping
from math import isfinite
from typing import Any


def quality(validation: Mapping[str, Any]) -> dict[str, Any] | None:
    """A job's measured figures of a report, in the shape that a job shows. baseline: of an answer that has learnt
    nothing: the file's most frequent label, or what the untrained language model reaches. None where the value is no
    number: a model that diverged is released all the same, for it was paid for."""
    metric = "accuracy" if "accuracy" in validation else "perplexity"
    value = _finite(validation[metric])
    if value is None:
        return None
    before = _finite((validation.get("untrained") or {}).get(metric))
    return {
        "metric": metric,
        "value": value,
        "evaluated": validation.get("evaluated"),
        "standard_error": _finite(validation.get("standard_error")),
        "untrained": before,
        "baseline": validation.get("majority", before),
        "file": validation["file"],
        "per_class": validation.get("per_class"),
    }


_MOST = 1e100
"""A perplexity beyond it says that the model diverged. The database takes no numbers that end only a double's range."""


def _finite(value: float | None) -> float | None:
    """JSON in the database has no writing for others."""
    return value if value is not None and isfinite(value) and abs(value) < _MOST else None
