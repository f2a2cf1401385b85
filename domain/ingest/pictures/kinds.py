"""What a picture's first bytes tell: which format it is, whatever its name says."""

from typing import Literal

from domain.ingest.pictures.bad import no_picture

PictureFormat = Literal["JPEG", "PNG", "WEBP"]
PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = {
    b"GIF8": "this is a GIF",
    b"BM": "this is a BMP",
    b"II*\0": "this is a TIFF",
    b"MM\0*": "this is a TIFF",
    b"II+\0": "this is a TIFF",
    b"MM\0+": "this is a TIFF",
    b"PK\x03\x04": "this is an archive",
    b"%PDF": "this is a PDF",
    b"\0\0\0\x0cjP  ": "this is a JPEG 2000",
    b"\xff\x0a": "this is a JPEG XL",
    b"\0\0\0\x0cJXL ": "this is a JPEG XL",
    b"\0\0\x01\0": "this is an icon",
}
_BRANDS = {b"avif": "this is an AVIF", b"heic": "this is a HEIC", b"heix": "this is a HEIC", b"mif1": "this is a HEIF"}
_SVG = (b"<svg", b"<?xml", b"<!doctype svg")


def format_of(data: bytes) -> PictureFormat:
    """Raises BadPicture for what is none, naming what it seems to be."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(PNG):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[128:132] == b"DICM":
        raise no_picture("this is a DICOM file")
    if data[4:8] == b"ftyp":
        raise no_picture(_BRANDS.get(data[8:12], "this is a film"))
    if data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_SVG):
        raise no_picture("this is an SVG")
    raise no_picture(
        next((words for begin, words in _OTHERS.items() if data.startswith(begin)), "this is none of them")
    )
