"""What a planned job may be expected to reach, as the API says it."""

from pydantic import Field

from api.jobs.privacy import Finite
from domain.jobs.advice import Advice, advise
from domain.jobs.resolving import Planned
from dpcore.terms.expectation import CEILING, Expectation
from dpcore.terms.facts import ModelFacts

NOTE = (
    "a guess, from a table measured on public sets and from this plan's numbers alone: nobody has looked at a row, and "
    "no job of this installation had a part in it"
)


class Guess(Finite):
    """What training may reach; nobody knows before."""

    gain: float = Field(description="part of what training without privacy would gain over a model that has not learnt")
    accuracy: float = Field(description=f"on texts that training without privacy gets right {CEILING:.0%} of the time")


class GuessAtShare(Guess):
    """Of the same steps and batch."""

    share: float


class JobAdvice(Finite):
    """Guesses at what comes out of a plan, and of its neighbours."""

    expected: Guess
    by_share: list[GuessAtShare]
    least_share: float | None = Field(
        description="of the budget, below which learning is unlikely with these steps and this batch; above 1: with "
        "all of it; null where a lowered limit leaves the main order nothing"
    )
    twice_the_rows: Guess = Field(description="with twice the declared size and twice the batch, at the same price")
    twice_the_steps: Guess | None = Field(description="at the same price; null where no noise would do")
    note: str = NOTE


def advice_of(planned: Planned, facts: ModelFacts) -> JobAdvice | None:
    """Null for a job of another method or task than were measured."""
    source = planned.sources[0]
    labels = len(source.labels or ())
    found = advise(planned.draft, planned.budget, facts, task=source.task, labels=labels)
    return None if found is None else _shown(found)


def _shown(found: Advice) -> JobAdvice:
    return JobAdvice(
        expected=_guess(found.now),
        by_share=[
            GuessAtShare(share=share, **_guess(guess).model_dump()) for share, guess in sorted(found.by_share.items())
        ],
        least_share=found.least_share,
        twice_the_rows=_guess(found.twice_the_rows),
        twice_the_steps=None if found.twice_the_steps is None else _guess(found.twice_the_steps),
    )


def _guess(guess: Expectation) -> Guess:
    return Guess(gain=round(guess.gain, 2), accuracy=round(guess.accuracy, 2))
