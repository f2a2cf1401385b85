"""How one noised output is made: each mechanism knows its curve, how units are drawn for it, and its words.

The database prices with its own function from the same numbers, `dpcore/mechanism/` draws and adds the noise. Relation:
add or remove one unit.
"""

from typing import Annotated, Literal, Self

from pydantic import Field

from dpcore.terms import accounting
from dpcore.terms.strict import StrictModel

Noise = Annotated[float, Field(gt=0, le=1e6, description="sigma: noise deviation over sensitivity")]


class _Steps(StrictModel):
    """Gaussian noise in every step, each of which is an output with a price of its own."""

    noise_multiplier: Noise

    @property
    def indivisible(self) -> bool:
        """Whether its steps are one whole, of which only the end may be released."""
        return False

    def scaled(self, by: float) -> Self:
        """The same with so many times its noise, on the grid of 1e-6, rounded up."""
        return self.model_copy(update={"noise_multiplier": accounting.scaled(self.noise_multiplier, by)})


class PoissonGaussian(_Steps):
    """A Gaussian on a Poisson draw: each unit is in it with probability `sample_rate`, independently (Mironov, Talwar
    and Zhang 2019)."""

    kind: Literal["poisson_gaussian"] = "poisson_gaussian"
    sample_rate: float = Field(gt=0, le=1, description="q: each unit is in a draw with this probability")

    @property
    def words(self) -> str:
        """What it is called."""
        return "Poisson-subsampled Gaussian"

    def curve(self, orders: tuple[int, ...]) -> accounting.Curve:
        """Cost of one step at each order, units of 1e-12 nat, rounded up."""
        return accounting.curve(self.noise_multiplier, self.sample_rate, orders)

    def sentence(self, steps: int) -> str:
        """What so many steps of it are, for a guarantee."""
        return (
            f"at most {steps} steps, each on a Poisson draw at rate {self.sample_rate:.4g} with noise of "
            f"{self.noise_multiplier:.4g} times the clipping norm"
        )


class Gaussian(_Steps):
    """A Gaussian on the whole file: every unit takes part in every step, so that nothing is gained by a draw."""

    kind: Literal["gaussian"] = "gaussian"

    @property
    def words(self) -> str:
        """What it is called."""
        return "Gaussian on the whole file"

    @property
    def sample_rate(self) -> float:
        """Of every unit."""
        return 1.0

    def curve(self, orders: tuple[int, ...]) -> accounting.Curve:
        """Cost of one step at each order, units of 1e-12 nat, rounded up."""
        return accounting.curve(self.noise_multiplier, 1.0, orders)

    def sentence(self, steps: int) -> str:
        """What so many steps of it are, for a guarantee."""
        noise = f"{self.noise_multiplier:.4g} times the clipping norm"
        return f"at most {steps} steps, each on the whole file with noise of {noise}"


class Whole(StrictModel):
    """Steps of another mechanism as one whole: paid for when it begins, and nothing but its end is released."""

    kind: Literal["whole"] = "whole"
    of: PoissonGaussian | Gaussian = Field(discriminator="kind")

    @property
    def words(self) -> str:
        """What it is called."""
        return f"{self.of.words}, as one indivisible whole"

    @property
    def sample_rate(self) -> float:
        """Of the steps inside."""
        return self.of.sample_rate

    @property
    def noise_multiplier(self) -> float:
        """Of the steps inside."""
        return self.of.noise_multiplier

    @property
    def indivisible(self) -> bool:
        """Whether its steps are one whole, of which only the end may be released."""
        return True

    def curve(self, orders: tuple[int, ...]) -> accounting.Curve:
        """Cost of one step inside at each order, units of 1e-12 nat, rounded up."""
        return self.of.curve(orders)

    def scaled(self, by: float) -> Self:
        """The same with so many times its noise, on the grid of 1e-6, rounded up."""
        return self.model_copy(update={"of": self.of.scaled(by)})

    def sentence(self, steps: int) -> str:
        """What so many steps of it are, for a guarantee."""
        return f"{self.of.sentence(steps).replace('at most ', '', 1)}, of which only the last is released"


Mechanism = Annotated[PoissonGaussian | Gaussian | Whole, Field(discriminator="kind")]


def subsampled(batch: int, declared_size: int, *, noise: float = 1.0) -> PoissonGaussian:
    """Draws of so many units on average from a file of the declared size. noise: relative to a job's other phases."""
    return PoissonGaussian(sample_rate=batch / declared_size, noise_multiplier=noise)
