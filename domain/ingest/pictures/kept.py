"""What is kept of a picture: the base64 of a PNG of its pixels, scaled down to what a model may see, and no more."""

import base64
import io
from fractions import Fraction
from math import floor

from PIL import Image

DEFAULT_RESOLUTION = 224
LEAST_RESOLUTION, MOST_RESOLUTION = 16, 448
LONGER = 2
"""The longer side is at most so many times the resolution."""
_EFFORT = 3
"""Of zlib; pixels are the same with any."""


def size_kept(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Sides scaled down, in their proportion, so that the shorter is at most `resolution` and the longer at most twice
    that; never up."""
    short, long = sorted((width, height))
    scale = min(Fraction(1), Fraction(resolution, short), Fraction(LONGER * resolution, long))
    return _rounded(width * scale), _rounded(height * scale)


def kept(image: Image.Image, resolution: int) -> str:
    """The base64 of a PNG of an RGB picture so scaled, whose chunks are its header, its pixels and its end."""
    size = size_kept(*image.size, resolution)
    small = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
    target = io.BytesIO()
    Image.frombytes("RGB", size, small.tobytes()).save(target, "PNG", compress_level=_EFFORT)
    return base64.b64encode(target.getvalue()).decode()


def encoded(text: str) -> bytes:
    """The PNG that was kept. Raises ValueError."""
    return base64.b64decode(text, validate=True)


def _rounded(side: Fraction) -> int:
    return max(1, floor(side + Fraction(1, 2)))
