"""A silo's own program: what it does to its private file over all rounds, and what its messages may hold.

Everybody who sees a message, the server and other tenants included, is one who must learn nothing, so that a silo's
price counts the noise of its own alone: that others add theirs counts for nothing.
"""

import math
from typing import Literal

from pydantic import Field

from dpcore.terms import accounting
from dpcore.terms.accounting import Filter
from dpcore.terms.estimators import Delta
from dpcore.terms.federated.options import Options
from dpcore.terms.hyperparameters import Defaults, Hyperparameters, phase, require_batch, resolved
from dpcore.terms.hyperparameters import Request as AnyRequest
from dpcore.terms.mechanisms import Gaussian
from dpcore.terms.program import Phase, Program, Unit, parts, scaled

NAME = "federated-lora"
_BATCH = 512
_RATES = {"fedadam": 0.5, "fedavg": 8.0}
"""Of local steps. Adam's own steps are the longer ones: 0.03 for each of 50,000 weights is a step of 6.7."""


class Request(AnyRequest):
    """What a caller may ask for, of each silo; `auto` values follow from public values only."""

    steps: Literal["auto"] = "auto"  # rounds times local steps
    optimizer: Literal["sgd"] = Field(default="sgd", description="without momentum: nothing of a round outlives it")
    weight_averaging: float = Field(default=0.0, ge=0, le=0, description="none: the server takes the mean of rounds")
    clip_norm: float = Field(
        default=1.0,
        ge=1e-6,
        le=1e6,
        description=(
            "of a unit's gradient; of a delta in units of the learning rate times local steps, which is about the "
            "longest way that local steps can go"
        ),
    )


def resolve(request: Request, options: Options, *, declared_size: int) -> Hyperparameters:
    """The numbers of one silo. Raises FieldError for a batch larger than its declared size."""
    require_batch(request, declared_size)
    steps = options.rounds * options.local_steps
    default = Defaults(steps=steps, batch_size=_BATCH, learning_rate=_RATES[options.server])
    return Hyperparameters(**resolved(request, default, declared_size), betas=(0.0, 0.999))


def phases(options: Options, hyperparameters: Hyperparameters, *, declared_size: int) -> tuple[Phase, ...]:
    """One phase, before its noise is chosen: of all local steps of all rounds, each on a Poisson draw of the silo's own
    rate, or of one output on the whole file in each round."""
    plain = phase(hyperparameters, name="train", trains="lora", declared_size=declared_size)
    plain = plain.model_copy(update={"steps": options.rounds * options.local_steps})
    if options.clipping == "record":
        return (plain,)
    rate, batch = hyperparameters.learning_rate, hyperparameters.batch_size
    delta = Delta(
        local_steps=options.local_steps, sample_rate=batch / declared_size, batch_size=batch, learning_rate=rate
    )
    changes = {
        "estimator": delta,
        "mechanism": Gaussian(noise_multiplier=1.0),
        "steps": options.rounds,
        "clip_norm": hyperparameters.clip_norm * rate * options.local_steps,
        "clipping": "flat",
        "expected_batch": 1,
        "learning_rate": 1.0,
    }
    return (Phase.model_validate(dict(plain) | changes),)


def silo_program(
    options: Options,
    hyperparameters: Hyperparameters,
    *,
    declared_size: int,
    epsilon: float,
    delta: float,
    filter: Filter,
    unit: Unit,
    max_length: int,
    seed: int,
) -> Program:
    """A silo's program with the least noise at which it takes at most `epsilon` of an empty budget with this filter and
    this delta. The seed is the job's, the same for all silos. Raises DoesNotFit."""
    unscaled = phases(options, hyperparameters, declared_size=declared_size)
    noise = accounting.calibrate(epsilon, delta, filter, parts(unscaled))
    return Program(
        method=NAME,
        options=options.model_dump(mode="json"),
        unit=unit,
        max_length=max_length,
        seed=seed,
        phases=scaled(unscaled, noise),
    )


_FAR = 10.0
"""A vector of P normal values is longer than sqrt(P) + 10 once in 10^21 times."""
_SLACK = 2.0
"""The sensitivity is above the clip norm by rounding: far less than this."""


def longest_message(
    program: Program, options: Options, *, declared_size: int, numbers: int, round: int
) -> float | None:
    """The L2 norm that a silo's message of so many numbers does not exceed in this round, whatever its file holds:
    every declared unit drawn in each step, all gradients alike, and noise at its far end. None where the clip norm
    follows the data. From public values alone, so that a longer message is refused without being a finding."""
    (phase,) = program.phases
    if phase.clipping == "adaptive":
        return None
    delta = isinstance(phase.estimator, Delta)
    units, moves = (1, 2 * phase.clip_norm) if delta else (declared_size, phase.clip_norm)
    noise = phase.mechanism.noise_multiplier * moves * (math.sqrt(numbers) + _FAR)
    each = _SLACK * (units * phase.clip_norm + noise) / phase.expected_batch
    first = round * options.steps_each
    return each * sum(phase.learning_rate * (1 - t / phase.steps) for t in range(first, first + options.steps_each))
