"""The private measurement of a job: the last phase of its program, priced by itself within the job's price."""

from math import ceil, log
from typing import Any

from domain.kit.refusals import Invalid
from domain.models.allow_list import BaseModelFacts
from dpcore.terms import accounting
from dpcore.terms.estimators import Measurement
from dpcore.terms.measuring import LARGEST_ERROR, expected_error, expected_noise, measured_on
from dpcore.terms.program import Phase, Program, one_look
from dpcore.terms.tasks import CAUSAL_LM, TaskKind
from ledger.budgets import Balance

PARAM = "measure.share"
_ALONE = (accounting.Part(1.0, 1),)


def measurement(
    measure: float,
    epsilon: float,
    share: float | None,
    trains: str,
    *,
    task: TaskKind,
    size: int,
    model: BaseModelFacts,
    budget: Balance,
) -> Phase:
    """One look at what the budget holds out, at `measure` of its cap. epsilon, share: of the whole job, of which it is
    a part; size: the file's declared one; trains: what trained what is measured. Raises Invalid, naming the field,
    where nothing is held out, nothing would be left to train with, or the noise would drown the figure."""
    if not budget.held_out:
        raise Invalid(
            "this budget holds nothing out, so that there is nothing to measure a result on: only a budget that was "
            "opened with held_out pays for a measurement; a public validation_file costs nothing",
            code="nothing_held_out",
            param=PARAM,
        )
    if share is not None and measure >= share:
        raise _too_large(measure, f"a share of {share:g}")
    try:
        noise = accounting.calibrate_share(measure, budget.cap, budget.filter, _ALONE)
    except accounting.DoesNotFit as error:
        words = f"a measurement cannot be had for a share of {measure:g} of this budget"
        raise Invalid(words, code="measure_too_small", param=PARAM, smallest_share=error.smallest) from None
    if share is None and _epsilon(noise, budget) >= epsilon:
        raise _too_large(measure, f"epsilon {epsilon:g}")
    units, most_loss = measured_on(size, budget.held_out), most_loss_of(task, model)
    _require_telling(noise, units, most_loss, budget)
    return one_look(trains, noise, units=units, most_loss=most_loss)


def most_loss_of(task: TaskKind, model: BaseModelFacts) -> float | None:
    """What a record's loss is cut at: that of a guess among all words, in nats; None where answers are right or
    wrong."""
    return ceil(log(max(3, model.facts.vocab_size)) * 100) / 100 if task in CAUSAL_LM else None


def promised(program: Program, budget: Balance) -> dict[str, Any] | None:
    """What a job's measurement costs and how sure it will be, by public numbers alone; None of a job without one."""
    phase = program.measurement
    if phase is None or not isinstance(phase.estimator, Measurement):
        return None
    noise, units = phase.mechanism.noise_multiplier, phase.estimator.units
    scale = phase.estimator.most_loss or 1.0
    return {
        "share": budget.share_of(phase.cost(budget.filter.orders)),
        "units": units,
        "expected_standard_error": scale * expected_error(noise, units),
        "expected_noise_error": scale * expected_noise(noise, units),
        "most_loss": phase.estimator.most_loss,
    }


def _epsilon(noise: float, budget: Balance) -> float:
    """Of one look alone: at a small epsilon another order may admit a job than that at which shares add up."""
    return accounting.epsilon_alone(accounting.curve(noise, 1.0, budget.filter.orders), budget.delta, budget.filter)


def _too_large(measure: float, whole: str) -> Invalid:
    return Invalid(
        f"a measurement at a share of {measure:g} leaves nothing to train with: the whole job, of which it is a part, "
        f"has {whole}",
        code="measure_too_large",
        param=PARAM,
    )


def _require_telling(noise: float, units: int, most_loss: float | None, budget: Balance) -> None:
    """Raises Invalid where the noise alone would hide what is measured, with the share that would do."""
    most = LARGEST_ERROR / (most_loss or 1.0)
    if units and expected_noise(noise, units) <= most:
        return
    quiet = most * units  # by `expected_noise`
    enough = None
    if quiet >= accounting.MIN_NOISE_MULTIPLIER:
        least = accounting.share_up(accounting.curve(quiet, 1.0, budget.filter.orders), budget.cap, budget.filter)
        enough = least if least < 1 else None
    what = "of the mean loss, in nats," if most_loss else "of the accuracy"
    way = "no share of this budget would do" if enough is None else f"a share of {enough:g} would do"
    raise Invalid(
        f"about {units} units are held out, on which the noise alone gives a standard error {what} above "
        f"{LARGEST_ERROR:g}: {way}, or a file with more of them",
        code="measure_too_small",
        param=PARAM,
        smallest_share=enough,
    )
