"""Numbers as shapes: what the templates draw, as SVG with classes and no style of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1000, 200
"""The drawing's own units; the page stretches it."""


@dataclass(frozen=True)
class Point:
    """From this time (Unix seconds) on, so much was used."""

    at: float
    used: float


@dataclass(frozen=True)
class Steps:
    """A step line below a limit, in the drawing's units, and what its axes say."""

    line: str
    area: str
    dots: str
    limit: float
    """Height of the limit's line."""
    top: float
    """Epsilon at the upper edge."""
    start: int
    end: int


def parts(total: float, *amounts: float) -> list[tuple[float, float]]:
    """Start and width of each part of a bar, in the drawing's units; what is past the total is cut off."""
    placed, start = [], 0.0
    for amount in amounts:
        width = min(WIDTH - start, WIDTH * amount / total) if total > 0 else 0.0
        placed.append((round(start, 1), round(width, 1)))
        start += width
    return placed


def steps(points: Sequence[Point], limit: float) -> Steps | None:
    """The line through points in order of time; None where there is nothing to draw."""
    if len(points) < 2:
        return None
    top = max(limit, *(p.used for p in points)) * 1.08 or 1.0
    start, end = points[0].at, points[-1].at
    span = (end - start) or 1.0

    def x(at: float) -> float:
        return round(WIDTH * (0.01 + 0.98 * (at - start) / span), 1)

    def y(used: float) -> float:
        return round(HEIGHT * (1 - used / top), 1)

    line = f"M{x(points[0].at)} {y(points[0].used)}" + "".join(f"H{x(p.at)}V{y(p.used)}" for p in points[1:])
    return Steps(
        line=line,
        area=f"{line}V{HEIGHT}H{x(start)}Z",
        dots="".join(f"M{x(p.at)} {y(p.used)}h0" for p in points[1:]),
        limit=y(limit),
        top=top,
        start=int(start),
        end=int(end),
    )
