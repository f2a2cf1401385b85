"""How good a result is: what a public evaluation file says of it, with how sure that is and what it is to be held
against. All of it follows from the released model and public rows."""

from collections.abc import Mapping
from typing import Any


def quality(validation: Mapping[str, Any]) -> dict[str, Any]:
    """A job's measured figures of a report, in the shape that a job shows. baseline: of an answer that has learnt
    nothing: the file's most frequent label, or what the untrained language model reaches."""
    metric = "accuracy" if "accuracy" in validation else "perplexity"
    before = (validation.get("untrained") or {}).get(metric)
    return {
        "metric": metric,
        "value": validation[metric],
        "evaluated": validation.get("evaluated"),
        "standard_error": validation.get("standard_error"),
        "untrained": before,
        "baseline": validation.get("majority", before),
        "file": validation["file"],
        "per_class": validation.get("per_class"),
    }
