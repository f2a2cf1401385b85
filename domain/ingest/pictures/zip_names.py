"""The names of an archive's entries: which are pictures of which class, and which are passed over or refused.

They are looked at and never opened as paths: nothing is written under a name that an archive chose.
"""

import stat
import unicodedata
import zipfile
from dataclasses import dataclass

from domain.ingest.pictures.bad import BadPicture

_PASSED = frozenset([".ds_store", "thumbs.db", "desktop.ini"])
_FOLDERS_PASSED = frozenset(["__macosx", "@eadir"])
_STORED = frozenset([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flags of an entry's content, and of the list itself (APPNOTE 4.4.4)."""


@dataclass(frozen=True)
class ZipEntry:
    """An entry that is not passed over."""

    number: int
    """In the order of the archive's list, from 1."""
    info: zipfile.ZipInfo
    parts: tuple[str, ...]
    """Folders and name."""
    folder: bool


def entry_of(number: int, info: zipfile.ZipInfo) -> ZipEntry | None:
    """None for what programs leave beside pictures. Raises BadPicture for what no archive of pictures has."""
    name = unicodedata.normalize("NFC", info.filename.replace("\\", "/"))
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    folded = [part.casefold() for part in parts]
    if not parts or folded[-1] in _PASSED or folded[-1].startswith("._") or not _FOLDERS_PASSED.isdisjoint(folded):
        return None
    if name.startswith("/") or ".." in parts or parts[0][1:2] == ":":
        raise BadPicture("climbing_path", "the entry's path leads out of the archive: write it with paths inside")
    if info.flag_bits & _ENCRYPTED:
        raise BadPicture("encrypted", "the entry is encrypted: write the archive without a password")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadPicture("not_a_file", "the entry is a link or a device: put the picture itself into the archive")
    if info.compress_type not in _STORED:
        raise BadPicture("compression", "the entry is compressed in another way than deflate: write a usual zip")
    return ZipEntry(number, info, parts, folder=name.endswith("/") or kind == stat.S_IFDIR)


def below_top(entries: list[ZipEntry]) -> int:
    """Folders above those of the classes that all pictures have in common."""
    top = 0
    while True:
        inside = [entry.parts[top:] for entry in entries if not entry.folder and len(entry.parts) > top + 1]
        if len({parts[0] for parts in inside}) != 1 or all(len(parts) < 3 for parts in inside):
            return top
        top += 1
