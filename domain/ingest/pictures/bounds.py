"""How much a picture, and a file of pictures, may be."""

MOST_BYTES = 32 * 2**20
"""Of a picture as it is sent."""
MOST_PIXELS = 2**26
"""Of a picture, as its header tells: 8192 x 8192. Decoded it takes four bytes a pixel, a few times."""
LEAST_SIDE = 8
"""Pixels of the shorter side."""
MOST_SCANS = 200
"""Of a JPEG: each goes over all of its pixels again. Programs write ten, and one or two for a preview."""
MOST_PICTURES = 2**18
MOST_ENCODED = 4 * 2**30
"""Bytes of all pictures of a file as they are sent, unpacked."""
MOST_DECODED = 2**36
"""Pixels of all pictures of a file."""
MOST_KEPT = 4 * 2**30
"""Bytes of all that is kept of a file."""
AT_ONCE = 4
"""Rows of a Parquet file in memory: each may have MOST_BYTES."""


class TooMuch(ValueError):
    """A file is larger in all than what is taken; its words name the bound."""


class Totals:
    """What the pictures of a file add up to."""

    def __init__(self) -> None:
        self._count = self._encoded = self._decoded = self._kept = 0

    def sent(self, size: int) -> None:
        """Another picture, of so many bytes. Raises TooMuch."""
        self._count += 1
        self._encoded += size
        if self._count > MOST_PICTURES:
            raise TooMuch(f"the file has more than {MOST_PICTURES} pictures: divide it")
        if self._encoded > MOST_ENCODED:
            raise TooMuch(f"the pictures have more than {MOST_ENCODED} bytes in all: divide the file")

    def kept(self, pixels: int, size: int) -> None:
        """It was decoded, and so much of it is kept. Raises TooMuch."""
        self._decoded += pixels
        self._kept += size
        if self._decoded > MOST_DECODED:
            raise TooMuch(f"the pictures have more than {MOST_DECODED} pixels in all: scale them down")
        if self._kept > MOST_KEPT:
            raise TooMuch(f"more than {MOST_KEPT} bytes would be kept: send a smaller resolution, or divide the file")
