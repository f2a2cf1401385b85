"""Counting the pictures of a file for its report."""

from collections import Counter

from domain.ingest.pictures.picture import Picture, decoder
from domain.ingest.report import PictureSides


class PicturesSeen:
    """How large the pictures of one file were. Memory grows with their different sides alone."""

    def __init__(self, resolution: int) -> None:
        self._resolution = resolution
        self._sides: Counter[int] = Counter()
        self._scaled = 0

    def add(self, picture: Picture) -> None:
        """The next one."""
        self._sides[picture.side] += 1
        self._scaled += picture.scaled

    def sides(self) -> PictureSides | None:
        """By nearest rank; None where there was no picture."""
        if not self._sides:
            return None
        left = (self._sides.total() + 1) // 2
        median = 0
        for median in sorted(self._sides):
            left -= self._sides[median]
            if left <= 0:
                break
        return PictureSides(
            smallest=min(self._sides),
            median=median,
            largest=max(self._sides),
            resolution=self._resolution,
            scaled_down=self._scaled,
            decoder=decoder(),
        )
