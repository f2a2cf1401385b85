"""The plan of one training phase: every number that the privacy guarantee rests on, in one frozen object."""

import math
from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from dpcore.terms.strict import Listed, StrictModel

CHUNKS = 20
"""A run asks for its steps in at most this many chunks, so that progress tells no more than the public schedule."""

Clipping = Literal["automatic", "flat", "per-layer", "adaptive"]
"""How a unit's gradient is bounded: `dpcore/mechanism/clipping.py`."""

Optimizer = Literal["adamw", "adam-bc", "sgd"]
"""What is done with the noised means: `dpcore/optimise.py`."""


class Plan(StrictModel):
    """What is trained and with which mechanism. Public, fixed before the first record is read, never changed.

    Guarantee: a run of at most `steps` iterations under this plan is the adaptive composition of that many
    Poisson-subsampled Gaussian mechanisms with rate at most `sample_rate` and a noise standard deviation of at least
    `noise_multiplier` times the L2 sensitivity of the clipped sum, when one `unit` is added or removed. Everything the
    run releases follows from those outputs and from this plan.

    Sampling, clipping, noise and the divisor all read this one object, so that they cannot disagree with what was
    priced. How a machine cuts the work into pieces is in `Speed`, which cannot change the mechanism.
    """

    # The mechanism.
    sample_rate: float = Field(gt=0, le=1, description="q: each unit is in a draw with this probability")
    noise_multiplier: float = Field(gt=0, le=1e6, description="sigma: noise deviation over sensitivity")
    steps: int = Field(ge=1, le=10_000_000, description="most iterations that may ever run")
    clip_norm: float = Field(
        ge=1e-6, le=1e6, description="C: bound on the L2 norm of a unit's contribution; adaptive: at the first step"
    )
    clipping: Clipping = "automatic"
    expected_batch: int = Field(ge=1, description="public divisor of the noised sum; never the size of a draw")
    unit: Literal["record", "user"] = "record"
    relation: Literal["add_or_remove_one"] = "add_or_remove_one"

    # What is trained, and how the noised sums are used: post-processing.
    method: str
    options: dict[str, JsonValue] = Field(default_factory=dict)
    optimizer: Optimizer = "adamw"
    learning_rate: float = Field(gt=0, description="at the first step; falls linearly to zero at the last")
    weight_decay: float = Field(default=0.0, ge=0)
    betas: Listed[tuple[float, float]] = (0.9, 0.999)
    weight_averaging: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the exponential average of the iterates; 0: the last one is kept"
    )
    max_length: int = Field(ge=2, description="tokens of a record after truncation, special tokens included")
    seed: int = Field(default=0, ge=0, lt=2**63, description="drives initialisation only, never sampling or noise")

    @field_validator("betas")
    @classmethod
    def _decay_rates(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= b < 1 for b in betas):
            raise ValueError("betas must lie in [0, 1)")
        return betas

    @property
    def chunk(self) -> int:
        """Iterations that are authorised at a time."""
        return math.ceil(self.steps / CHUNKS)


class Speed(StrictModel):
    """How a machine cuts a draw into micro-batches. None of it changes what is computed beyond rounding."""

    tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="padded tokens in one micro-batch; auto: found for the machine on public records"
    )
    lengths_per_doubling: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="padded lengths between a length and its double: more of them, less padding, but more "
        "micro-batches that are not full; auto: as many as suit the expected batch",
    )
    buffer_bytes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="per-example gradients of one micro-batch"
    )
    recompute: bool = Field(
        default=False,
        description="layers keep their inputs only; without it, from when one single record does not fit",
    )


class Phase(StrictModel):
    """A part of a job with one mechanism, before its noise multiplier is chosen."""

    name: str
    sample_rate: float = Field(gt=0, le=1)
    steps: int = Field(ge=1)
