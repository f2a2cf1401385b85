"""Pictures, archives and tables of pictures that tests make up."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

PNG = b"\x89PNG\r\n\x1a\n"


def picture(seed: int, width: int = 64, height: int = 48, smooth: float = 1.0) -> Image.Image:
    """A field in colours: each seed another. Amplitudes fall with frequency, as in photographs, or faster."""
    chance = np.random.default_rng(seed)
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    far = np.sqrt(down**2 + right**2)
    far[0, 0] = 1.0
    waves = chance.normal(size=far.shape) + 1j * chance.normal(size=far.shape)
    field = np.fft.irfft2(waves * far**-smooth, s=(height, width))
    own = 0.3 * chance.normal(size=3)[None, None]
    values = 128 + 50 * ((field - field.mean()) / field.std())[..., None] * (1 + own)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def drawing(seed: int, width: int = 240, height: int = 200) -> Image.Image:
    """Shapes on white: each seed others."""
    chance = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(int(chance.integers(3, 8))):
        x, y, size = (int(chance.integers(0, side)) for side in (width, height, width // 2))
        box = (x - size // 2 - 8, y - size // 2 - 8, x + size // 2 + 8, y + size // 2 + 8)
        colour = tuple(int(value) for value in chance.integers(0, 256, 3))
        [pen.ellipse, pen.rectangle][int(chance.integers(2))](box, fill=colour)
    return image


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, format, **options)
    return target.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def huge_png(side: int = 32768, size: int = 50_000) -> bytes:
    """A PNG of a bit a pixel: a gigapixel and more in so many bytes. It is whole as far as it goes."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(size * 1000), 9)[: size - 100]
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def huge_webp() -> bytes:
    canvas = (16383).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + canvas + b"VP8L" + bytes(20)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def huge_jpeg() -> bytes:
    data = encoded(picture(1), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", 65500, 65500) + data[place + 4 :]


def zipped(entries: Mapping[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]], method: int = 0) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in entries.items() if isinstance(entries, Mapping) else entries:
            archive.writestr(name, content)
    return target.getvalue()


def archive(
    seeds: range = range(6),
    change: Callable[[Image.Image], Image.Image] = lambda image: image,
    make: Callable[[int], Image.Image] = picture,
    top: str = "",
    **options: Any,
) -> bytes:
    """Pictures of two classes by turns."""
    format = {"format": "PNG"} | options
    return zipped({f"{top}{'ab'[i % 2]}/{i}.png": encoded(change(make(i)), **format) for i in seeds})


def table(images: list[Any], labels: list[Any], names: list[str] | None = None, **columns: list[Any]) -> bytes:
    """Parquet as Hugging Face writes sets of pictures; of `names` its description tells the classes."""
    rows = {"image": pa.array(images), "label": pa.array(labels), **{n: pa.array(v) for n, v in columns.items()}}
    made = pa.table(rows)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    target = io.BytesIO()
    pq.write_table(made, target)
    return target.getvalue()


def of_face(images: list[Image.Image], format: str = "PNG", **options: Any) -> list[dict[str, Any]]:
    """Each as a struct of bytes and path."""
    return [{"bytes": encoded(image, format, **options), "path": f"{i}.png"} for i, image in enumerate(images)]
