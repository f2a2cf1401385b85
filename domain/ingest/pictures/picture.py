"""A picture that was checked: what is kept of it, and by what it is recognised."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from PIL import __version__ as pillow
from PIL import features

from domain.ingest.pictures.bounds import Totals
from domain.ingest.pictures.decode import decoded
from domain.ingest.pictures.identity import VERSION, pixels_of
from domain.ingest.pictures.kept import encoded, kept, size_kept
from domain.ingest.pictures.look import look


@dataclass(frozen=True)
class Picture:
    """A picture of a row."""

    kept: str
    """base64 of a PNG."""
    pixels: str
    """What it is known by."""
    look: list[str] | None
    """Tokens of what it looks like; None where it shows too little."""
    side: int
    """Pixels of its shorter side, as it was sent."""
    scaled: bool
    """Whether it is kept smaller than it was sent."""


class Stored(NamedTuple):
    """A picture as a file of rows has it."""

    kept: str
    pixels: str | None


class PlainPictures:
    """Makes the pictures of one file plain, within the bounds of a file."""

    def __init__(self, resolution: int) -> None:
        self._resolution, self._totals = resolution, Totals()

    def picture(self, data: bytes) -> Picture:
        """Raises BadPicture, and TooMuch where the file is too large in all."""
        self._totals.sent(len(data))
        image = decoded(data)
        width, height = image.size
        small = kept(image, self._resolution)
        self._totals.kept(width * height, len(small))
        scaled = size_kept(width, height, self._resolution) != (width, height)
        return Picture(small, pixels_of(image), look(image), min(width, height), scaled)

    def stored(self, row: Stored) -> Picture:
        """One that was kept: it is known by the pixels that it once had. Raises BadPicture and ValueError."""
        found = self.picture(encoded(row.kept))
        return replace(found, kept=row.kept, pixels=row.pixels or found.pixels)


def decoder() -> str:
    """What decodes pictures here, with its versions."""
    parts = {"libjpeg-turbo": features.version("libjpeg_turbo"), "WebP": features.version("webp")}
    known = "".join(f", {name} {version}" for name, version in parts.items() if version)
    return f"Pillow {pillow}{known}; pixels {VERSION}"
