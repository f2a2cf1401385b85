"""What a job does to private data: its phases in order, with every number that the guarantee rests on, in one frozen
object. Public, fixed before the first record is read, never changed."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from dpcore.terms import accounting
from dpcore.terms.estimators import (
    OF_USERS,
    Delta,
    Estimator,
    FirstOrder,
    Histogram,
    Local,
    Measurement,
    ZerothOrder,
)
from dpcore.terms.measuring import CLIP_NORM
from dpcore.terms.mechanisms import Gaussian, Mechanism
from dpcore.terms.strict import Listed, StrictModel

CHUNKS = 20
"""A run asks for its steps in at most this many chunks, so that progress tells no more than the public schedule."""

Clipping = Literal["automatic", "flat", "per-layer", "adaptive"]
"""How a unit's contribution is bounded: `dpcore/mechanism/clipping.py`."""

Optimizer = Literal["adamw", "adam-bc", "sgd"]
"""What is done with the noised means: `dpcore/optimise.py`."""

Unit = Literal["record", "user"]

MOST_VIEWS = 32
"""Of a picture: each is a pass of its own."""

HeadStart = Literal["random", "words"]
"""How a classifier's head starts: from the seed, or, where it can, from its labels' words: `dpcore/word_head.py`."""


class Phase(StrictModel):
    """A part of a program with one mechanism and a number of steps.

    Guarantee: a run of at most `steps` iterations is the adaptive composition of that many outputs of `mechanism`, each
    a clipped sum whose noise has the mechanism's multiple of its L2 sensitivity when one unit is added or removed.
    Sampling, clipping, noise and the divisor all read this one object, so that they cannot disagree with what was
    priced. How a machine cuts the work into pieces is in `Speed`, which cannot change the mechanism.
    """

    name: str = Field(min_length=1, max_length=60)
    trains: str = Field(description="what trains, by the name of the method that trains just that")
    estimator: Estimator = FirstOrder()

    # The mechanism.
    mechanism: Mechanism
    steps: int = Field(ge=1, le=10_000_000, description="most iterations that may ever run")
    clip_norm: float = Field(
        ge=1e-6, le=1e6, description="C: bound on the L2 norm of a unit's contribution; adaptive: at the first step"
    )
    clipping: Clipping = "automatic"
    expected_batch: int = Field(ge=1, description="public divisor of the noised sum; never the size of a draw")

    # How the noised sums are used: post-processing.
    optimizer: Optimizer = "adamw"
    learning_rate: float = Field(gt=0, description="at the first step; falls linearly to zero at the last")
    weight_decay: float = Field(default=0.0, ge=0)
    betas: Listed[tuple[float, float]] = (0.9, 0.999)
    weight_averaging: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the exponential average of the iterates; 0: the last one is kept"
    )

    @field_validator("betas")
    @classmethod
    def _decay_rates(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= b < 1 for b in betas):
            raise ValueError("betas must lie in [0, 1)")
        return betas

    @model_validator(mode="after")
    def _of_the_estimator(self) -> Self:
        # A zeroth-order unit is a few numbers, without layers, and its gradient's noise is not that of the sum.
        if isinstance(self.estimator, ZerothOrder) and (self.clipping == "per-layer" or self.optimizer == "adam-bc"):
            raise ValueError("a zeroth-order phase takes neither per-layer clipping nor adam-bc")
        whole = self.mechanism.sample_rate == 1 and self.expected_batch == 1
        if isinstance(self.estimator, Delta) and not (whole and self.clipping == "flat"):
            raise ValueError("a delta is of the whole file, one of them, and clipped flat")
        if isinstance(self.estimator, Local) and self.clipping not in ("flat", "adaptive"):
            raise ValueError("what a user's own training moves is clipped as one vector: flat, or adaptive")
        if isinstance(self.estimator, Histogram) and self.clipping not in ("flat", "automatic"):
            raise ValueError("a user's counts of words are clipped as one vector, to a norm that stays")
        if isinstance(self.estimator, Measurement):
            self._require_one_look()
        return self

    def _require_one_look(self) -> None:
        once = isinstance(self.mechanism, Gaussian) and self.steps == 1 and self.expected_batch == 1
        added = self.optimizer == "sgd" and self.learning_rate == 1 and self.betas[0] == 0 and not self.weight_decay
        if not (once and added and self.clipping == "flat" and self.clip_norm == CLIP_NORM):
            raise ValueError("a measurement is one sum over the whole held-out part, clipped as one vector")

    @property
    def measures(self) -> bool:
        """Whether it looks at the held-out part, and trains nothing."""
        return isinstance(self.estimator, Measurement)

    def cost(self, orders: tuple[int, ...], steps: int | None = None) -> accounting.Curve:
        """Of so many steps, by default all, at each order, in units of 1e-12 nat."""
        return accounting.cost(self.mechanism.curve(orders), self.steps if steps is None else steps)


def one_look(trains: str, noise_multiplier: float, *, units: int, most_loss: float | None = None) -> Phase:
    """The phase of a measurement: one noised sum over the whole held-out part, of which a step of plain descent with
    rate one keeps what it is. units, most_loss: as `Measurement` has them."""
    return Phase(
        name="measure",
        trains=trains,
        estimator=Measurement(most_loss=most_loss, units=units),
        mechanism=Gaussian(noise_multiplier=noise_multiplier),
        steps=1,
        clip_norm=CLIP_NORM,
        clipping="flat",
        expected_batch=1,
        optimizer="sgd",
        learning_rate=1.0,
        betas=(0.0, 0.999),
    )


class Program(StrictModel):
    """All phases of a job, and what they have in common.

    Everything that a run of it releases follows from the outputs of its phases' mechanisms and from the program.
    """

    method: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    unit: Unit = "record"
    relation: Literal["add_or_remove_one"] = "add_or_remove_one"
    max_length: int = Field(ge=2, description="tokens of a record after truncation, special tokens included")
    seed: int = Field(default=0, ge=0, lt=2**63, description="drives initialisation only, never sampling or noise")
    head: HeadStart = Field(
        default="random", description="how a classifier's head starts: from the seed, or its labels"
    )
    views: int = Field(
        default=1, ge=1, le=MOST_VIEWS, description="of each picture, whose mean gradient is clipped as one"
    )
    phases: Listed[tuple[Phase, ...]] = Field(min_length=1, max_length=8)

    @model_validator(mode="after")
    def _of_users(self) -> Self:
        if self.unit != "user" and of_users(self.phases):
            raise ValueError("local training is of users")
        return self

    @model_validator(mode="after")
    def _measured_last(self) -> Self:
        if any(phase.measures for phase in self.phases[:-1]) or not self.training:
            raise ValueError(
                "what is measured is what was trained: a measurement is the last phase, and not the only one"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _of_one_phase(cls, values: Any) -> Any:
        """A plan of the first revisions, which was its only phase, is read as a program of one."""
        return _read_plan(values) if isinstance(values, dict) and "phases" not in values else values

    @property
    def training(self) -> tuple[Phase, ...]:
        """The phases that train."""
        return tuple(phase for phase in self.phases if not phase.measures)

    @property
    def measurement(self) -> Phase | None:
        """The last phase, where it measures the result."""
        return self.phases[-1] if self.phases[-1].measures else None

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def before(self, index: int) -> int:
        """Steps of the phases before this one: the number of its first step among all."""
        return sum(phase.steps for phase in self.phases[:index])

    @property
    def chunk(self) -> int:
        """Iterations that are authorised at a time; a phase that is indivisible is authorised whole."""
        size = -(-self.steps // CHUNKS)
        while sum(chunks := self._chunks(size)) > CHUNKS:
            # The least size at which a phase has a chunk less.
            size = min(-(-p.steps // (n - 1)) for p, n in zip(self.phases, chunks, strict=True) if n > 1)
        return size

    def _chunks(self, size: int) -> list[int]:
        return [1 if phase.mechanism.indivisible else -(-phase.steps // size) for phase in self.phases]

    def cost(self, orders: tuple[int, ...]) -> accounting.Curve:
        """Of all phases, at each order, in units of 1e-12 nat."""
        return accounting.total([phase.cost(orders) for phase in self.phases])


def of_users(phases: Sequence[Phase]) -> bool:
    """Whether some phase needs to know whose each record is: its unit can only be the user."""
    return any(isinstance(phase.estimator, OF_USERS) for phase in phases)


def parts(phases: Sequence[Phase]) -> tuple[accounting.Part, ...]:
    """The phases as accounting calibrates them: their noise is relative to one another's."""
    return tuple(accounting.Part(p.mechanism.sample_rate, p.steps, p.mechanism.noise_multiplier) for p in phases)


def scaled(phases: Sequence[Phase], by: float) -> tuple[Phase, ...]:
    """The phases with so many times their noise."""
    return tuple(p.model_copy(update={"mechanism": p.mechanism.scaled(by)}) for p in phases)


_PHASE_OF_PLAN = frozenset(
    {"steps", "clip_norm", "clipping", "expected_batch", "optimizer", "learning_rate", "weight_decay", "betas"}
    | {"weight_averaging"}
)
_MECHANISM_OF_PLAN = frozenset({"sample_rate", "noise_multiplier"})


def _read_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """Unknown fields stay where they are, to be refused."""
    phase: dict[str, Any] = {name: plan[name] for name in _PHASE_OF_PLAN & plan.keys()}
    mechanism = {name: plan[name] for name in _MECHANISM_OF_PLAN & plan.keys()}
    phase |= {"name": "train", "trains": plan.get("method"), "mechanism": {"kind": "poisson_gaussian"} | mechanism}
    rest = {name: value for name, value in plan.items() if name not in _PHASE_OF_PLAN | _MECHANISM_OF_PLAN}
    return rest | {"phases": [phase]}
