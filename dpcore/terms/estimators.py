"""What turns the units of a draw into a clipped sum; `dpcore/estimators/` has a module for each kind, of its name."""

from typing import Annotated, Literal

from pydantic import Field

from dpcore.terms.strict import StrictModel


class FirstOrder(StrictModel):
    """Gradients of the units, clipped."""

    kind: Literal["first_order"] = "first_order"

    @property
    def passes(self) -> int:
        """Over each record of a draw."""
        return 1


class ZerothOrder(StrictModel):
    """What forward passes say of random directions: `directions` numbers a unit, clipped together, so that all
    directions of a draw are one output with one price (Zhang et al. 2024, DPZero; Tang et al. 2024, DP-ZO)."""

    kind: Literal["zeroth_order"] = "zeroth_order"
    directions: int = Field(ge=1, le=1024, description="K: random directions in each step")
    scale: float = Field(default=1e-3, gt=0, le=1, description="how far weights are moved along a direction")

    @property
    def passes(self) -> int:
        """Over each record of a draw, of two forward passes each."""
        return self.directions


class Delta(StrictModel):
    """How far local training on the whole file moves the weights, clipped as one vector. Its steps are not noised, and
    nothing of them is kept but that. Whoever is added or removed may turn the clipped vector into any other, so that
    one unit moves it by twice the clip norm, and every output is on the whole file."""

    kind: Literal["delta"] = "delta"
    local_steps: int = Field(ge=1, le=10_000, description="of local training, in each output")
    sample_rate: float = Field(gt=0, le=1, description="of the draws of local training, by which nothing is saved")
    batch_size: int = Field(ge=1, description="divisor of a local step's sum")
    learning_rate: float = Field(gt=0, description="of local training")

    @property
    def passes(self) -> int:
        """Records that an output takes: its divisor is one."""
        return self.local_steps * self.batch_size


class Local(StrictModel):
    """How far each drawn user moves the weights by training on its own records alone: one clipped vector a user
    (McMahan et al. 2018, Algorithm 1). Its steps are not noised, and nothing of them is kept but that."""

    kind: Literal["local"] = "local"
    local_steps: int = Field(default=1, ge=1, le=10_000, description="of a user's training, in each round")
    batch_size: int = Field(
        default=16, ge=1, description="records of a local step at most; the next one takes the next"
    )
    learning_rate: float = Field(gt=0, description="of a user's training")
    most_tokens: int = Field(
        default=2**20, ge=1, description="of a user that are looked at: its first records that have room in them"
    )

    @property
    def passes(self) -> int:
        """Over each record of a local step."""
        return self.local_steps

    @property
    def records_each(self) -> int:
        """Of a user that a pass looks at, at most."""
        return self.batch_size


class Histogram(StrictModel):
    """How often each token of the vocabulary stands in a user's records, clipped as one vector; no model has a part in
    it. What trains is a count of each token, whose step is the noised one."""

    kind: Literal["histogram"] = "histogram"
    most_tokens: int = Field(
        default=2**20, ge=1, description="of a user that are counted: its first records that have room in them"
    )

    @property
    def passes(self) -> int:
        """The model is not run."""
        return 0


class Measurement(StrictModel):
    """How good the model is on units that it has not learnt from: each adds its score, in [0, 1], and that it is there,
    as one vector of a bounded norm (`dpcore/terms/measuring.py`). No weight moves."""

    kind: Literal["measurement"] = "measurement"
    most_loss: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="null: a record scores 1 where the answer is right; else its loss, cut at this, as a part of it",
    )
    units: int = Field(ge=1, description="in the held-out part, by the declared size: public, and about as many")

    @property
    def passes(self) -> int:
        """Records that are looked at: an output's divisor is one."""
        return self.units


Estimator = Annotated[FirstOrder | ZerothOrder | Delta | Local | Histogram | Measurement, Field(discriminator="kind")]

OF_USERS = (Local, Histogram)
"""Estimators that need to know whose a record is."""
