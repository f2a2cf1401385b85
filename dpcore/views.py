"""Several views of each picture, whose mean gradient is clipped as one: augmentation at the price of none.

A view is the picture moved by a few pixels, its edges repeated. Which views a record has is drawn once an attempt from
a secret stream, for each record by itself: no two records are ever mixed, and who else is in the file moves nothing.
Pictures are not mirrored: left and right may be what a label is about.
(De, Berrada, Hayes, Smith and Balle 2022, section 3.2, "augmentation multiplicity".)
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from dpcore.mechanism.keystream import Keystream
from dpcore.tasks.image_classification import ImageClassification, Pictures

PART = 8
"""A view is moved by at most this part of a side, each way."""


@dataclass(frozen=True)
class Viewed:
    """The views of pictures, one picture's after the other. moved: pixels down and right, int64 [n x views, 2]."""

    pictures: Pictures
    views: int
    moved: np.ndarray

    def __len__(self) -> int:
        return len(self.moved)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each view: int64 [n x views]."""
        return np.repeat(self.pictures.lengths, self.views)

    def some(self, indices: np.ndarray) -> Pictures:
        """These views as pictures."""
        whose = indices // self.views
        taken = self.pictures.pixels[whose]
        made = np.stack([_moved(one, *by) for one, by in zip(taken, self.moved[indices], strict=True)])
        return replace(self.pictures, pixels=made, labels=self.pictures.labels[whose])


class OfViews:
    """A task whose record has the mean of its views' losses: each view's loss is its part of it."""

    def __init__(self, task: ImageClassification, views: int) -> None:
        self._task, self._views = task, views
        self.max_length, self.labels = task.max_length, task.labels

    @property
    def shortest(self) -> int:
        """Tokens of a picture."""
        return self._task.shortest

    def synthetic(self, count: int, length: int) -> Pictures:
        """Public stand-ins, which are no views."""
        return self._task.synthetic(count, length)

    mixed = synthetic

    def require_fit(self, model: nn.Module) -> None:
        """As the task does."""
        self._task.require_fit(model)

    def losses(
        self, model: nn.Module, records: Viewed | Pictures, indices: np.ndarray, length: int, **more: Any
    ) -> Tensor:
        """Of each view [m], over the number of views; of stand-ins as the task has it."""
        if isinstance(records, Pictures):
            return self._task.losses(model, records, indices, length, **more)
        some = records.some(indices)
        return self._task.losses(model, some, np.arange(len(indices)), length, **more) / self._views


def viewed(pictures: Pictures, views: int, stream: Keystream) -> Viewed:
    """So many views of each picture, drawn from a secret stream."""
    most = max(1, pictures.pixels.shape[-1] // PART)
    drawn = stream.integers(2 * views * len(pictures)) % np.uint64(2 * most + 1)
    return Viewed(pictures, views, drawn.astype(np.int64).reshape(-1, 2) - most)


def owners(count: int, of: np.ndarray | None, views: int) -> np.ndarray:
    """Whose each view is: its record, or its record's user: int64 [count x views]."""
    return np.repeat(np.arange(count) if of is None else of, views)


def _moved(picture: np.ndarray, down: int, right: int) -> np.ndarray:
    """uint8 [channels, side, side]."""
    _, high, wide = picture.shape
    rows, columns = (np.arange(high) - down).clip(0, high - 1), (np.arange(wide) - right).clip(0, wide - 1)
    return picture[:, rows[:, None], columns]
