"""How much each silo counts: by its declared size, which is public."""

from collections.abc import Collection, Mapping
from fractions import Fraction


def weights(sizes: Mapping[str, int], came: Collection[str]) -> dict[str, Fraction]:
    """The parts of the silos whose messages came, in the order of their names: they add up to one.

    sizes: declared, of all silos. Raises KeyError for one that is none of them, ValueError where nobody came.
    """
    if not came:
        raise ValueError("no silo's message came")
    total = sum(sizes[silo] for silo in came)
    return {silo: Fraction(sizes[silo], total) for silo in sorted(came)}
