"""What is kept of a picture: its pixels, scaled down, and nothing else that was in the file."""

import base64
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from domain.ingest.pictures.kept import MOST_RESOLUTION, encoded, kept, size_kept
from dpcore.terms.kind import PIXELS
from tests.domain.pictures.checking import run, shown
from tests.made_pictures import chunk, picture, table, zipped
from tests.made_pictures import encoded as as_file

CANARIES = [b"48.2082N", b"SN-4711-0815", b"Frau Muster"]
PLACE, SERIAL, PERSON = (word.decode() for word in CANARIES)


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x010E], tags[0x013B], tags[0xC62F] = PLACE, PERSON, SERIAL
    tags.get_ifd(0x8769)[0xA431] = SERIAL
    tags.get_ifd(0x8825)[0x001D] = PLACE
    tags.get_ifd(0x8825)[0x001B] = PLACE.encode()
    return tags.tobytes()


XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><p>{PLACE} {SERIAL} {PERSON}</p></x:xmpmeta>'.encode()
PROFILE = b"".join(CANARIES) + bytes(128)


def told() -> dict[str, bytes]:
    """Pictures with the words in each place that their formats have for such."""
    text = PngInfo()
    text.add_text("Author", PERSON)
    text.add_text("Comment", PLACE, zip=True)
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    png = as_file(picture(1), exif=exif(), pnginfo=text, icc_profile=PROFILE)
    private = chunk(b"prVt", b" ".join(CANARIES)) + chunk(b"tIME", struct.pack(">H5B", 2026, 1, 2, 3, 4, 5))
    jpeg = as_file(picture(2), "JPEG", exif=exif(), comment=" ".join([PLACE, SERIAL]), icc_profile=PROFILE, xmp=XMP)
    photoshop = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x20" + PERSON.ljust(32).encode()
    segment = b"\xff\xed" + struct.pack(">H", len(photoshop) + 2) + photoshop
    webp = as_file(picture(3), "WEBP", exif=exif(), xmp=XMP, icc_profile=PROFILE)
    return {
        "a/1.png": png[:33] + private + png[33:] + b" ".join(CANARIES),
        "a/2.jpg": jpeg[:2] + segment + jpeg[2:] + b" ".join(CANARIES),
        "b/3.webp": webp,
        "b/4.png": as_file(picture(4)),
    }


def test_nothing_but_pixels_is_kept(tmp_path: Path) -> None:
    sent = told()
    for data in list(sent.values())[:3]:
        assert all(word in data for word in CANARIES)
    report, rows = run(tmp_path, zipped({f"{SERIAL}/{name}": data for name, data in sent.items()}))
    assert report.problems == []
    assert rows is not None
    stored = (tmp_path / "rows").read_bytes()
    raw = b"".join(base64.b64decode(text) for text in rows.columns["image"])
    for found in (stored, raw, report.model_dump_json().encode()):
        assert not any(word in found for word in CANARIES)
    for text in rows.columns["image"]:
        assert [name for name, _ in chunks(base64.b64decode(text))] == [b"IHDR", b"IDAT", b"IEND"]
        assert shown(text).info == {}


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += size + 12
    return found


def test_pixels_are_those_of_the_picture(tmp_path: Path) -> None:
    _, rows = run(tmp_path, zipped({"a/1.png": as_file(picture(1)), "b/2.png": as_file(picture(2).convert("L"))}))
    assert rows is not None
    assert rows.labels == [0, 1]
    one, other = (np.asarray(shown(text)) for text in rows.columns["image"])
    assert (one == np.asarray(picture(1))).all()
    assert (other == np.asarray(picture(2).convert("L").convert("RGB"))).all()


@pytest.mark.parametrize(
    ("sides", "resolution", "expected"),
    [
        ((300, 200), 224, (300, 200)),
        ((448, 336), 224, (299, 224)),
        ((1000, 100), 224, (448, 45)),
        ((100, 1000), 16, (3, 32)),
        ((20000, 8), 16, (32, 1)),
        ((224, 448), 224, (224, 448)),
        ((225, 450), 224, (224, 448)),
        ((5000, 5000), MOST_RESOLUTION, (MOST_RESOLUTION, MOST_RESOLUTION)),
    ],
)
def test_a_picture_is_scaled_down_and_never_up(
    sides: tuple[int, int], resolution: int, expected: tuple[int, int]
) -> None:
    assert size_kept(*sides, resolution) == expected
    assert shown(kept(Image.new("RGB", sides), resolution)).size == expected


def test_scaling_gives_the_same_bytes_each_time() -> None:
    image = picture(7, 600, 500)
    assert kept(image, 64) == kept(image.copy(), 64)
    assert Image.open(io.BytesIO(encoded(kept(image, 64)))).size == (77, 64)


def test_rows_hold_a_picture_as_text_and_by_what_it_is_known(tmp_path: Path) -> None:
    report, rows = run(tmp_path, table([as_file(picture(i)) for i in range(4)], [0, 1, 0, 1]), "parquet", resolution=16)
    assert report.problems == []
    assert rows is not None
    assert list(rows.columns) == ["image"]  # what it is known by is for the service alone
    names = pq.ParquetFile(tmp_path / "rows").schema_arrow.names
    assert names == ["image", PIXELS, "label", "lot"]
    assert report.report is not None
    told = report.report.pictures
    assert told is not None
    assert (told.smallest, told.median, told.largest, told.scaled_down, told.resolution) == (48, 48, 48, 4, 16)
    assert "Pillow" in told.decoder
    assert (report.report.length, report.report.max_length) == (None, None)


def test_nothing_is_written_beside_rows_and_marks(tmp_path: Path) -> None:
    run(tmp_path, zipped({"a/../x/1.png": as_file(picture(1)), "b/2.png": as_file(picture(2))}))
    assert {path.name for path in tmp_path.iterdir()} <= {
        "source", "rows", "records", "users", "old_records", "old_users", "sketches",
    }  # fmt: skip
    assert zipfile.is_zipfile(tmp_path / "source")
