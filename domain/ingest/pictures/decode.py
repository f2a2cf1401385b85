"""An encoded picture as its pixels: upright, in RGB of 8 bits, without anything else that was in the file.

Pillow sees one of three formats, the one that the first bytes tell. What a header says of the size is looked at before
a pixel is decoded. The colour profile is dropped without conversion, as is all that says where, when and with what a
picture was taken.
"""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageFile

from domain.ingest.pictures import png
from domain.ingest.pictures.bad import (
    BadPicture,
    broken,
    moves,
    other_colours,
    too_many_bytes,
    too_many_pixels,
    too_small,
)
from domain.ingest.pictures.bounds import LEAST_SIDE, MOST_BYTES, MOST_PIXELS, MOST_SCANS
from domain.ingest.pictures.kinds import PictureFormat, format_of

_BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for files that are not what they should be."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OPAQUE = frozenset(["1", "L", "P", "RGB", "CMYK"])
_WITH_ALPHA = frozenset(["LA", "PA", "RGBA"])
_SIXTEEN = frozenset(["I;16", "I;16B", "I;16L"])


def decoded(data: bytes) -> Image.Image:
    """The pixels of an encoded picture: mode RGB, upright, with an empty `info`. Raises BadPicture."""
    if len(data) > MOST_BYTES:
        raise too_many_bytes()
    kind = format_of(data)
    exif = None
    if kind == "PNG":
        data, exif = png.plain(data)
    elif kind == "JPEG" and data.count(b"\xff\xda") > MOST_SCANS:
        raise broken()
    # Both are of the whole process, which does nothing else.
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = MOST_PIXELS, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken tags, which are dropped
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decoded(data, kind, exif)
        except BadPicture:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise too_many_pixels() from None
        except _BROKEN:
            raise broken() from None


def _decoded(data: bytes, kind: PictureFormat, exif: bytes | None) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise too_many_pixels()
        if min(width, height) < LEAST_SIDE:
            raise too_small()
        if kind == "WEBP" and getattr(image, "n_frames", 1) > 1:  # further pictures in a JPEG are previews
            raise moves()
        image.load()
        turn = _TURNS.get(_orientation(image.info.get("exif") if exif is None else exif))
        rgb = _rgb(image)
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}
    return rgb


def _rgb(image: Image.Image) -> Image.Image:
    """What is not there is white; sixteen bits become eight by rounding."""
    if image.mode in _SIXTEEN:
        values = np.asarray(image).astype(np.uint32)
        grey = ((values + 128) // 257).astype(np.uint8)
        if isinstance(clear := image.info.get("transparency"), int):
            grey[values == clear] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in _WITH_ALPHA or (image.mode in _OPAQUE and "transparency" in image.info):
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    if image.mode not in _OPAQUE:
        raise other_colours()
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _orientation(exif: object) -> int:
    """As EXIF has it; 1 where nothing can be read."""
    if not isinstance(exif, bytes):
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        found = tags.get(_ORIENTATION)
    except (*_BROKEN, RecursionError):
        return 1
    return found if isinstance(found, int) else 1
