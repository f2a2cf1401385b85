"""What a job promises, phase by phase, and what of it was used, as the API says it."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dpcore.terms.accounting import SHARE_DIGITS


class Finite(BaseModel):
    """No number of it is one that JSON has no writing for."""

    model_config = ConfigDict(allow_inf_nan=False)


class JobPhase(Finite):
    """A part of the job with one mechanism."""

    name: str
    trains: str = Field(
        description="what trains, by the name of the method that trains just that; nothing: it measures"
    )
    mechanism: str = Field(description="poisson_gaussian, gaussian, or whole: a phase that is indivisible")
    indivisible: bool = Field(description="paid for whole when it begins; nothing but its end is released")
    sample_rate: float
    noise_multiplier: float
    steps: int
    steps_authorised: int
    epsilon: float | None = Field(description="of this phase alone; epsilons do not add up")
    share: float | None = Field(description="of the budget's cap at its main order; shares add up")


class PlannedMeasurement(Finite):
    """The last phase of a job that measures its result on what the budget holds out, by public numbers alone."""

    share: float | None = Field(description="of the budget's cap at its main order, within the job's")
    units: int = Field(description="held out, by the declared size: about as many are looked at")
    expected_standard_error: float = Field(
        description="at most, as if half of the answers were right: of the accuracy or, of a language model, of the "
        "mean loss in nats, which is that of the perplexity over the perplexity"
    )
    expected_noise_error: float = Field(description="the noise's part of it, at most")
    most_loss: float | None = Field(description="at which a record's loss is cut, in nats; null for an accuracy")


class JobPrivacy(Finite):
    """What the job promises and what of it has been used. Of several phases: the least noise and the largest rate of
    those that train, all steps."""

    budget: str
    unit: str
    epsilon: float
    share: float | None = Field(
        default=None, description="of the budget's cap at its main order; null for a job of an earlier version"
    )
    share_used: float | None = Field(
        default=None,
        description="of the steps that were authorised, rounded up; all of it where the job failed after the first",
    )
    main_order: bool | None = Field(
        default=None,
        description="whether the main order had room for it when it was planned; a job that only another order admits "
        "is outside what shares add up to",
    )
    asked: Literal["epsilon", "share"] | None = Field(
        default=None, description="what the request named; null where it named neither"
    )
    asked_for: float | None = Field(default=None, description="the epsilon or the share that it named")
    delta: float
    noise_multiplier: float
    sample_rate: float
    steps_planned: int
    steps_authorised: int
    phases: list[JobPhase]
    measure: PlannedMeasurement | None = Field(
        default=None, description="of a job that measures its result; its price is the last of the phases"
    )
    budget_left_before: float
    budget_left_after: float
    share_left_before: float | None = None
    share_left_after: float | None = None
    guarantee: str


def privacy_of(promised: Mapping[str, Any], method: str, done: Sequence[int], *, failed: bool = False) -> JobPrivacy:
    """What was promised, and what of it was authorised: steps of each phase."""
    phases = promised.get("phases") or [_only_phase(promised, method)]
    parts = [JobPhase(**phase, steps_authorised=steps) for phase, steps in zip(phases, done, strict=True)]
    used = promised.get("share") if failed and any(done) else _share_used(parts)
    return JobPrivacy(**{**promised, "phases": parts, "share_used": used}, steps_authorised=sum(done))


def _share_used(phases: Sequence[JobPhase]) -> float | None:
    """Of the steps that were authorised, rounded up; None where the phases have no shares."""
    used = Fraction(0)
    for phase in phases:
        if phase.share is None:
            return None
        used += Fraction(str(phase.share)) * phase.steps_authorised / phase.steps
    return ceil(used * SHARE_DIGITS) / SHARE_DIGITS


def _only_phase(promised: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Of a job of the first versions."""
    return {
        "name": "train",
        "trains": method,
        "mechanism": "poisson_gaussian",
        "indivisible": False,
        "sample_rate": promised["sample_rate"],
        "noise_multiplier": promised["noise_multiplier"],
        "steps": promised["steps_planned"],
        "epsilon": promised["epsilon"],
        "share": None,
    }
