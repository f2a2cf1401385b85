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


Estimator = Annotated[FirstOrder | ZerothOrder, Field(discriminator="kind")]
