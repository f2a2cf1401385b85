"""Made-up pictures: simple shapes, from which the small model that sees was made, and cells as under a microscope, for
the demo. Nothing in them is of anybody."""

from collections.abc import Callable, Sequence
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 48
"""Pixels each way."""
_FINE = 4
"""A drawing is made so many times as large, so that its edges are smooth."""
_SHAPES = ("disc", "ring", "square", "bar", "triangle", "cross", "star", "crescent", "dots", "zigzag")
CELLS = ("round", "long", "branched", "dividing")
Draw = Callable[[ImageDraw.ImageDraw, float, np.random.Generator], None]


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` shapes in any colours, uint8 [count, SIDE, SIDE, 3], and which of 10 each is."""
    draws = np.random.default_rng(seed)
    kinds = draws.integers(len(_SHAPES), size=count)
    return np.stack([np.asarray(_drawing(_MAKE[_SHAPES[kind]], draws)) for kind in kinds]), kinds


def cells(count: int, seed: int) -> list[tuple[Image.Image, str]]:
    """`count` pictures of stained cells with what each looks like, all of CELLS equally often."""
    draws = np.random.default_rng(seed)
    order = draws.permutation(count) % len(CELLS)
    return [(_drawing(_MAKE[CELLS[kind]], draws, stained=True), CELLS[kind]) for kind in order]


def _drawing(shape: Draw, draws: np.random.Generator, *, stained: bool = False) -> Image.Image:
    """A shape somewhere, of some size, turned by some angle, on a ground that is not even."""
    side = SIDE * _FINE
    mask = Image.new("L", (side, side))
    shape(ImageDraw.Draw(mask), side * draws.uniform(0.2, 0.36), draws)
    moved = tuple(draws.uniform(-0.12, 0.12, size=2) * side)
    mask = mask.rotate(draws.uniform(0, 360), Image.Resampling.BILINEAR, translate=moved)
    if stained:
        mask = mask.filter(ImageFilter.GaussianBlur(draws.uniform(1, 5)))
    alpha = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)[..., None] / 255
    ground, ink = _colours(draws, stained=stained)
    slope = np.add.outer(*(draws.uniform(-30, 30) * np.linspace(-1, 1, SIDE) for _ in range(2)))[..., None]
    noise = draws.normal(0, draws.uniform(2, 14), (SIDE, SIDE, 3))
    made = ground + slope + alpha * (ink - ground) + noise
    return Image.fromarray(made.clip(0, 255).astype(np.uint8))


def _colours(draws: np.random.Generator, *, stained: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of the ground and of what is drawn on it, well apart."""
    if stained:  # violet on pink, as slides are
        return draws.normal((232, 200, 220), 8), draws.normal((130, 70, 150), 18)
    while True:
        ground, ink = draws.uniform(20, 235, size=(2, 3))
        if np.abs(ground - ink).max() > 90:
            return ground, ink


def _disc(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c, flat = _centre(), draws.uniform(0.9, 1)
    pen.ellipse((c - r, c - r * flat, c + r, c + r * flat), fill=255)


def _ring(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c = _centre()
    pen.ellipse((c - r, c - r, c + r, c + r), outline=255, width=int(r * draws.uniform(0.2, 0.35)))


def _square(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c, s = _centre(), r * 0.85
    pen.rectangle((c - s, c - s, c + s, c + s), fill=255)


def _bar(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c, thin = _centre(), r * draws.uniform(0.2, 0.35)
    pen.rounded_rectangle((c - r * 1.2, c - thin, c + r * 1.2, c + thin), radius=thin * draws.uniform(0, 1), fill=255)


def _triangle(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    _polygon(pen, [r * 1.1] * 3)


def _cross(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c, thin = _centre(), r * draws.uniform(0.2, 0.35)
    pen.rectangle((c - r, c - thin, c + r, c + thin), fill=255)
    pen.rectangle((c - thin, c - r, c + thin, c + r), fill=255)


def _star(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    _polygon(pen, [r * 1.15, r * draws.uniform(0.4, 0.5)] * 5)


def _crescent(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c, off = _centre(), r * draws.uniform(0.5, 0.7)
    pen.ellipse((c - r, c - r, c + r, c + r), fill=255)
    pen.ellipse((c - r + off, c - r, c + r + off, c + r), fill=0)


def _dots(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c, small = _centre(), r * draws.uniform(0.32, 0.42)
    for turn in range(3):
        x, y = c + r * 0.75 * cos(2 * pi * turn / 3), c + r * 0.75 * sin(2 * pi * turn / 3)
        pen.ellipse((x - small, y - small, x + small, y + small), fill=255)


def _zigzag(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c, high = _centre(), r * draws.uniform(0.4, 0.6)
    points = [(c - r * 1.2 + i * r * 0.6, c + (high if i % 2 else -high)) for i in range(5)]
    pen.line(points, fill=255, width=int(r * 0.3), joint="curve")


def _branched(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    """A small body with arms."""
    c, body, arms = _centre(), r * 0.4, int(draws.integers(4, 7))
    pen.ellipse((c - body, c - body, c + body, c + body), fill=255)
    for arm in range(arms):
        turn = 2 * pi * (arm + draws.uniform(-0.2, 0.2)) / arms
        reach = r * draws.uniform(1.0, 1.35)
        pen.line((c, c, c + reach * cos(turn), c + reach * sin(turn)), fill=255, width=int(r * 0.2))


def _dividing(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    """Two that part."""
    c, half, off = _centre(), r * 0.62, r * draws.uniform(0.55, 0.7)
    for side in (-1, 1):
        pen.ellipse((c + side * off - half, c - half, c + side * off + half, c + half), fill=255)


def _long(pen: ImageDraw.ImageDraw, r: float, draws: np.random.Generator) -> None:
    c, thin = _centre(), r * draws.uniform(0.28, 0.42)
    pen.ellipse((c - r * 1.3, c - thin, c + r * 1.3, c + thin), fill=255)


def _polygon(pen: ImageDraw.ImageDraw, radii: Sequence[float]) -> None:
    turns = [2 * pi * i / len(radii) for i in range(len(radii))]
    pen.polygon([(_centre() + r * cos(t), _centre() + r * sin(t)) for r, t in zip(radii, turns, strict=True)], fill=255)


def _centre() -> float:
    return SIDE * _FINE / 2


_MAKE: dict[str, Draw] = {
    **{"disc": _disc, "ring": _ring, "square": _square, "bar": _bar, "triangle": _triangle, "cross": _cross},
    **{"star": _star, "crescent": _crescent, "dots": _dots, "zigzag": _zigzag},
    **{"round": _disc, "long": _long, "branched": _branched, "dividing": _dividing},
}
