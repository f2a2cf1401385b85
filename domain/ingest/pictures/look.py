"""What a picture looks like, as a set of tokens: copies that were scaled, compressed anew, mirrored or cropped a
little have most of them in common, so that sketches of sets find them as they find edited texts.

The idea is that of difference hashes (Krawetz 2013): a small grey picture, and of points near each other which is
brighter. A token is the outcome of a few such comparisons that lie far from each other, so that they have little to do
with one another. Where nothing is to be seen there is none. Those of the mirrored picture are among them, so that a
picture and its mirror have the same set.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

POINTS, APART = 11, 3
"""Points to a side of the small picture, and how far those are apart that are compared: a small crop moves what is
seen by less than that."""
TOGETHER, TOLD = 5, 3
"""Comparisons in a token, whose 32 outcomes different pictures seldom have in common; and of them those that must say
something."""
SEEN = 2.0
"""Grey levels of 256 between two points, of which less is nothing."""
CONTRAST = 4.0
"""Grey levels by which the points must differ from the best slanting plane, as a standard deviation: flat pictures and
plain gradients all look alike."""
FEWEST = 16
"""Tokens without which a picture looks like nothing."""
_WEIGHTS = 2 ** np.arange(TOGETHER)


def look(image: Image.Image) -> list[str] | None:
    """The tokens of a picture, of its mirror too, each once and in order; None for one that shows too little."""
    small = image.convert("L").resize((POINTS, POINTS), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.float64)
    if _rest(grey) < CONTRAST:
        return None
    found = {token for one in (grey, grey[:, ::-1]) for token in _tokens(one)}
    return sorted(found) if len(found) >= FEWEST else None


def _tokens(grey: npt.NDArray[np.float64]) -> list[str]:
    right, down = grey[:, APART:] - grey[:, :-APART], grey[APART:] - grey[:-APART]
    steps = np.concatenate([right.ravel(), down.ravel()])
    count = len(steps) // TOGETHER
    steps = steps[: count * TOGETHER].reshape(TOGETHER, count).T
    places = np.flatnonzero((np.abs(steps) >= SEEN).sum(axis=1) >= TOLD)
    values = (steps[places] > 0) @ _WEIGHTS
    return [f"{place}={value}" for place, value in zip(places.tolist(), values.tolist(), strict=True)]


def _rest(grey: npt.NDArray[np.float64]) -> float:
    """The standard deviation of what the best plane leaves of the points."""
    line = np.arange(POINTS) - (POINTS - 1) / 2
    flat = grey - grey.mean()
    down, right = (line @ flat).sum(), (flat @ line).sum()
    slant = (down * line[:, None] + right * line[None]) / (POINTS * (line @ line))
    return float((flat - slant).std())
