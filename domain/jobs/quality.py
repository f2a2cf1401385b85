"""How good a result is: what a public evaluation file says of it, or a charged measurement on units that were held out,
with how sure that is and what it is to be held against. All of it follows from the released model and public rows, or
from two noised sums that were paid for."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from dpcore.terms.estimators import Measurement
from dpcore.terms.measuring import mean_score, perplexity
from dpcore.terms.program import Phase


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


def measured(
    phase: Phase, sums: tuple[float, float] | None, deviation: float, share: float | None
) -> dict[str, Any] | None:
    """What a measurement says of the result. None where it was paid for and lost, or says nothing. deviation: of the
    noise in each of the sums; share: what it took of the budget."""
    if sums is None or not isinstance(phase.estimator, Measurement):
        return None
    most_loss = phase.estimator.most_loss
    found = mean_score(*sums, deviation)
    if found is not None and most_loss is not None:
        found = perplexity(found, most_loss)
    if found is None:
        return None
    return {
        "metric": "accuracy" if most_loss is None else "perplexity",
        "value": found.value,
        "evaluated": found.n,
        "standard_error": found.standard_error,
        "noise_error": found.noise_error,
        "most_loss": most_loss,
        "share": share,
    }


def together(public: Mapping[str, Any] | None, private: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a job shows: the public figure where there is one, with the private one beside it; else the private one."""
    if private is None:
        return None if public is None else dict(public)
    if public is not None:
        return {**public, "private": dict(private)}
    figure = {name: private[name] for name in ("metric", "value", "evaluated", "standard_error")}
    nothing: dict[str, Any] = dict.fromkeys(("untrained", "baseline", "file", "per_class"))
    return {**figure, **nothing, "source": "private", "private": dict(private)}


_MOST = 1e100
"""A perplexity beyond it says that the model diverged. The database takes no numbers that end only a double's range."""


def _finite(value: float | None) -> float | None:
    """JSON in the database has no writing for others."""
    return value if value is not None and isfinite(value) and abs(value) < _MOST else None
