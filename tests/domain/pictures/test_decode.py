"""A picture's pixels, whatever colours, turn and container they come in; and what is refused before it is unfolded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from domain.ingest.pictures import png
from domain.ingest.pictures.bad import BadPicture
from domain.ingest.pictures.bounds import LEAST_SIDE, MOST_BYTES, MOST_SCANS
from domain.ingest.pictures.decode import decoded
from domain.ingest.pictures.identity import pixels_of
from tests.made_pictures import PNG, chunk, encoded, huge_jpeg, huge_png, huge_webp, picture

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'


def refused(data: bytes) -> str:
    with pytest.raises(BadPicture) as bad:
        decoded(data)
    return bad.value.code


def moving(format: str) -> bytes:
    return encoded(picture(0), format, save_all=True, append_images=[picture(1)], duration=100, loop=0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (SVG, "not_a_picture"),
        (b"\xef\xbb\xbf \n<svg/>", "not_a_picture"),
        (encoded(picture(0), "GIF"), "not_a_picture"),
        (encoded(picture(0), "TIFF"), "not_a_picture"),
        (encoded(picture(0), "BMP"), "not_a_picture"),
        (encoded(picture(0), "PPM"), "not_a_picture"),
        (b"%PDF-1.7", "not_a_picture"),
        (b"PK\x03\x04" + bytes(40), "not_a_picture"),
        (bytes(128) + b"DICM", "not_a_picture"),
        (b"", "not_a_picture"),
        (moving("WEBP"), "animated"),
        (moving("PNG"), "animated"),
        (encoded(picture(0).resize((1, 1))), "picture_too_small"),
        (encoded(picture(0, 400, LEAST_SIDE - 1), "JPEG"), "picture_too_small"),
        (encoded(picture(0), "JPEG")[:-200], "broken_picture"),
        (encoded(picture(0))[:-200], "broken_picture"),
        (encoded(picture(0), "WEBP")[:-200], "broken_picture"),
        (encoded(picture(0))[:40], "broken_picture"),
        (b"\xff\xd8\xff\xe0 nothing", "broken_picture"),
        (PNG + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""), "broken_picture"),
        (encoded(picture(0), "JPEG") + bytes(MOST_BYTES), "picture_too_large"),
    ],
)
def test_what_is_refused(data: bytes, code: str) -> None:
    assert refused(data) == code


def test_what_a_file_is_instead_is_named_and_what_is_taken() -> None:
    for data, word in ((SVG, "SVG"), (encoded(picture(0), "GIF"), "GIF"), (b"PK\x03\x04", "archive")):
        with pytest.raises(BadPicture, match=f"JPEG, PNG and WebP are taken.*{word}"):
            decoded(data)


@pytest.mark.parametrize("data", [huge_png(), huge_webp(), huge_jpeg()], ids=["png", "webp", "jpeg"])
def test_a_gigapixel_is_refused_by_its_header(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    assert len(data) <= 50_000
    assert refused(data) == "picture_too_large"


def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused() -> None:
    data = encoded(picture(0), "JPEG", progressive=True)
    decoded(data)
    assert refused(data + b"\xff\xda" * MOST_SCANS) == "broken_picture"


def grey16(values: np.ndarray) -> bytes:
    height, width = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_sixteen_bits_are_rounded_to_eight() -> None:
    values = np.arange(64, dtype=np.uint32).reshape(8, 8) * 1040
    pixels = np.asarray(decoded(grey16(values)))
    assert (pixels == np.round(values / 257)[..., None]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_colours_of_a_png(mode: str) -> None:
    image = picture(3).convert("RGB").convert(mode)
    assert np.asarray(decoded(encoded(image))).tolist() == np.asarray(image.convert("RGB")).tolist()


def test_what_is_clear_is_white() -> None:
    image = picture(3).convert("RGBA")
    image.putalpha(0)
    assert np.unique(np.asarray(decoded(encoded(image)))).tolist() == [255]
    assert np.unique(np.asarray(decoded(encoded(image, "WEBP", lossless=True)))).tolist() == [255]
    palette = picture(3).quantize(8)
    clear = np.asarray(palette) == 2
    pixels = np.asarray(decoded(encoded(palette, transparency=2)))
    assert clear.any()
    assert (pixels[clear] == 255).all()


def test_four_inks() -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(np.asarray(decoded(encoded(image, "JPEG")))[8, 8].astype(int) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_stands_upright(format: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    image = Image.new("RGB", (32, 16), "white")
    image.paste((255, 0, 0), (0, 0, 8, 8))
    upright = decoded(encoded(image, format, exif=exif.tobytes(), **({"lossless": True} if format == "WEBP" else {})))
    assert upright.size == ((32, 16) if turn < 5 else (16, 32))
    corners = {1: (0, 0), 2: (-1, 0), 3: (-1, -1), 4: (0, -1), 5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)}
    pixels = np.asarray(upright).astype(int)
    x, y = corners[turn]
    assert pixels[y, x, 1] < 40 < 200 < pixels[-1 - y, -1 - x, 1]


def test_a_broken_exif_is_none() -> None:
    broken = encoded(picture(0), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert pixels_of(decoded(broken)) == pixels_of(picture(0))


def test_the_same_pixels_are_the_same_picture_whatever_holds_them() -> None:
    image = picture(5)
    grey = image.convert("L")
    same = {pixels_of(decoded(data)) for data in (encoded(image), encoded(image, "WEBP", lossless=True, exact=True))}
    assert same == {pixels_of(image)}
    assert pixels_of(decoded(encoded(grey))) == pixels_of(decoded(encoded(grey.convert("RGB"))))
    assert pixels_of(decoded(encoded(image, "JPEG"))) not in same
    assert pixels_of(Image.new("RGB", (8, 32))) != pixels_of(Image.new("RGB", (32, 8)))


def test_chunks_that_are_no_pixels_never_reach_the_decoder() -> None:
    profile = zlib.compress(bytes(4 * 2**20))  # Pillow itself refuses one of more than a mebibyte
    data = encoded(picture(5))
    stuffed = data[:33] + chunk(b"iCCP", b"p\0\0" + profile) + chunk(b"zTXt", b"k\0\0" + profile) + data[33:]
    plain, exif = png.plain(stuffed)
    assert (plain, exif) == (data, None)
    assert pixels_of(decoded(stuffed)) == pixels_of(picture(5))


def test_further_pictures_in_a_jpeg_are_passed_over() -> None:
    target = io.BytesIO()
    picture(5).save(target, "MPO", save_all=True, append_images=[picture(6)])
    assert pixels_of(decoded(target.getvalue())) == pixels_of(decoded(encoded(picture(5), "JPEG")))
