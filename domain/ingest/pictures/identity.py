"""By what a picture is known: its pixels, whatever container, data about it or file it comes in."""

import hashlib

from PIL import Image

VERSION = "1"
"""Of how pixels are read: upright, RGB of 8 bits, alpha on white, sixteen bits rounded. Another reading is another
version, or the same picture would be two."""


def pixels_of(image: Image.Image) -> str:
    """What an RGB picture is known by: version and SHA-256 of its size and of all its pixels, before it is scaled."""
    width, height = image.size
    found = hashlib.sha256(f"{width} {height}\n".encode())
    found.update(image.tobytes())
    return f"{VERSION}:{found.hexdigest()}"
