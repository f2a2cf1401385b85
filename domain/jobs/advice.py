"""What a planned job may be expected to reach, and what another share, more rows or more steps would do: from the
shipped table and public values alone, never from what this installation's jobs reached."""

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

from domain.jobs.planning import Draft
from dpcore.terms import accounting
from dpcore.terms.expectation import Expectation, expected, least_signal, signal_to_noise
from dpcore.terms.facts import ModelFacts
from dpcore.terms.program import parts, scaled
from dpcore.terms.tasks import TaskKind
from ledger.budgets import Balance

SHARES = tuple(float(Fraction(1, part)) for part in (16, 8, 4, 2, 1))


@dataclass(frozen=True)
class Advice:
    """Guesses. Shares are of training alone: what a measurement takes comes on top."""

    now: Expectation
    by_share: dict[float, Expectation]
    """Of the same steps and batch at other shares; those at which no noise would do are left out."""
    least_share: float | None
    """Below which learning is unlikely; None where the limit was lowered until nothing fits at the main order."""
    twice_the_rows: Expectation
    """With twice the batch and the same steps, at the same price."""
    twice_the_steps: Expectation | None
    """At the same price; None where no noise would do."""


def advise(draft: Draft, budget: Balance, facts: ModelFacts, *, task: TaskKind, labels: int) -> Advice | None:
    """None for a method, and for tasks, that were not measured."""
    now = signal_to_noise(draft.program, facts, labels=labels, task=task)
    if now is None:
        return None
    training = draft.program.training
    (phase,) = training

    def guess(signal: float) -> Expectation:
        return expected(signal, labels=labels, words=draft.program.head == "words")

    by_share = {}
    for share in SHARES:
        noise = _noise(share, budget, parts(training))
        if noise is not None:
            by_share[share] = guess(now / noise)
    own = budget.share_of(phase.cost(budget.filter.orders))
    longer = parts([phase.model_copy(update={"steps": 2 * phase.steps})])
    noise = None if own is None or own > 1 else _noise(own, budget, longer)
    most = accounting.MAX_NOISE_MULTIPLIER / phase.mechanism.noise_multiplier
    loudest = scaled(training, min(now / least_signal(), most))
    return Advice(
        now=guess(now),
        by_share=by_share,
        least_share=budget.share_of(loudest[0].cost(budget.filter.orders)),
        twice_the_rows=guess(2 * now),
        twice_the_steps=None if noise is None else guess(now * sqrt(2) / noise),
    )


def _noise(share: float, budget: Balance, job: accounting.Parts) -> float | None:
    """What the noise would be multiplied by at this share of the budget."""
    try:
        return accounting.calibrate_share(share, budget.cap, budget.filter, job)
    except accounting.DoesNotFit:
        return None
