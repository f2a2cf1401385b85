"""What a round of a job over users moves, and what the same job would cost on a larger population: arithmetic on public
values, for planning alone."""

from dataclasses import dataclass
from math import sqrt

from domain.jobs.planning import Draft
from domain.kit.refusals import Invalid
from dpcore.terms import accounting
from dpcore.terms.estimators import Local
from dpcore.terms.facts import ModelFacts
from dpcore.terms.mechanisms import PoissonGaussian
from dpcore.terms.methods import federated_lm
from dpcore.terms.program import Phase, Program, of_users, parts
from dpcore.terms.tasks import TaskKind
from ledger.budgets import Balance

NUMBER_BYTES = 4
LARGER = (10, 100)
"""Times as many users, where nobody names a population."""


@dataclass(frozen=True)
class Updates:
    """What a device would send in each round, and how it stands to the noise."""

    bytes: int
    model_ratio: float
    head_bytes: int
    """Of a local step's scores: of all words, or of the few that noise-contrastive estimation draws."""
    signal_to_noise: float
    """At most, of the mean update: as if all users pulled in one direction, as far as the clip norm lets them."""


@dataclass(frozen=True)
class Imagined:
    """The same rounds, with the same noise in the mean update, on a population that is not there."""

    population: int
    cohort: int
    """Users in a round, expected."""
    noise_multiplier: float
    epsilon: float
    delta: float


def updates(program: Program, facts: ModelFacts, task: TaskKind) -> Updates | None:
    """None for a job that is not over users."""
    if not of_users(program.phases):
        return None
    options = federated_lm.Options.model_validate(program.options)
    numbers = federated_lm.payload(options, facts, task=task)
    rounds = program.training[-1]
    noise = rounds.mechanism.noise_multiplier * sqrt(numbers)
    return Updates(
        bytes=NUMBER_BYTES * numbers,
        model_ratio=facts.parameters / numbers,
        head_bytes=federated_lm.head_bytes(options, facts, places=options.local_batch * program.max_length),
        signal_to_noise=rounds.expected_batch / noise,
    )


def imagined(
    draft: Draft, budget: Balance, declared_size: int, population: int | None, cohort: int | None
) -> list[Imagined]:
    """By default populations of ten and a hundred times as many users. Raises Invalid, naming the parameter, for a
    population that no job over users was planned for, one that is not larger, and a cohort that it does not hold."""
    if not of_users(draft.program.phases):
        if population is not None or cohort is not None:
            raise Invalid(
                "a larger population is imagined for methods over users alone, such as federated-lm",
                code="invalid_request",
                param="population" if population is not None else "cohort",
            )
        return []
    if population is None:
        if cohort is not None:
            raise Invalid("cohort is of an imagined population: name it too", code="invalid_request", param="cohort")
        return [_on(draft, budget, declared_size, times * declared_size, None) for times in LARGER]
    if population <= declared_size:
        raise Invalid(
            f"population {population} is not larger than the file's declared {declared_size} users",
            code="invalid_request",
            param="population",
        )
    if cohort is not None and cohort > population:
        raise Invalid(f"a population of {population} has no {cohort} users", code="invalid_request", param="cohort")
    return [_on(draft, budget, declared_size, population, cohort)]


def _on(draft: Draft, budget: Balance, declared_size: int, population: int, cohort: int | None) -> Imagined:
    rounds = draft.program.training[-1]
    users = cohort or -(-rounds.expected_batch * population // declared_size)
    phases = [_larger(phase, population, users) for phase in draft.program.training]
    delta = min(budget.delta, 0.1 / population)
    noise = phases[-1].mechanism.noise_multiplier
    # Tight, as for any job on its own: nothing is charged by it.
    return Imagined(population, users, noise, accounting.pld_epsilon(parts(phases), delta), delta)


def _larger(phase: Phase, population: int, users: int) -> Phase:
    """The phase on so many users, of whom so many are drawn, with the same noise in its mean. One on the whole file
    keeps its noise: it gets the less of it in the mean."""
    mechanism = phase.mechanism
    if not isinstance(phase.estimator, Local) or not isinstance(mechanism, PoissonGaussian):
        return phase
    # A mean over fewer users than here needs less noise in the sum.
    noise = mechanism.noise_multiplier * users / phase.expected_batch
    changed = PoissonGaussian(sample_rate=users / population, noise_multiplier=min(noise, 1e6))
    return phase.model_copy(update={"mechanism": changed, "expected_batch": users})
