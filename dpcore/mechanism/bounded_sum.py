"""A sum over the units of a draw that one unit moves by a known amount at most, and the public grid that it ends on.

Before noise is added, a sum is rounded to multiples of `grid`, a power of two that follows from public values alone.
Rounding moves each of n numbers by half a step at most, so it adds grid * sqrt(n) to the distance between two sums:
with steps of 2^-28 of the bound that is 0.002 % for 22.7 million numbers, and `sensitivity` has it in.
"""

import math
from dataclasses import dataclass

import torch

ROUNDING_SLACK = 1e-6
"""What rounding may move the others by when one unit leaves, where no more was seen: of the clip norm, for each unit
expected in a draw."""

GRID_BITS = 28
"""At least as many bits lie between the bound and the grid. The noise, up to 1e6 bounds with tails of 9.4 deviations,
then has at most 52 bits in steps of the grid, so that sums of steps are exact in float64."""


@dataclass(frozen=True)
class BoundedSum:
    """`value`: float64 [n], changed in place; private until noise is added. `sensitivity`: what one unit moves the sum
    by at most, in L2, once it is rounded to multiples of `grid`."""

    value: torch.Tensor
    sensitivity: float
    grid: float


def zero(size: int, *, bound: float, device: torch.device, memory: torch.Tensor | None = None) -> BoundedSum:
    """The sum over no units, of `size` numbers, that one unit will move by at most `bound` in L2.

    memory: float64 [size] to be overwritten, where there is some: fresh memory costs more than what it is used for.
    """
    grid = grid_of(bound)
    value = torch.zeros(size, dtype=torch.float64, device=device) if memory is None else memory.zero_()
    return BoundedSum(value, bound + grid * math.sqrt(size), grid)


def grid_of(bound: float) -> float:
    """The step of the grid for sums that one unit moves by at most `bound`."""
    return 2.0 ** (math.floor(math.log2(bound)) - GRID_BITS)
