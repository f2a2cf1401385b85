"""Where file contents live: a folder or an object store, behind a few functions."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import obstore
from obstore.exceptions import NotFoundError
from obstore.store import LocalStore, from_url

PIECE = 2**20
"""Bytes that a stream yields at a time, about."""


@dataclass(frozen=True)
class Store:
    """An open store; `folder` is None for an object store."""

    objects: Any
    folder: Path | None


def open_store(blobs: str) -> Store:
    """A folder, made if missing and for this user only, or an object store's URL such as s3://bucket/prefix."""
    if "://" in blobs and not blobs.startswith("file://"):
        return Store(from_url(blobs), None)
    folder = Path(blobs.removeprefix("file://")).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Store(LocalStore(folder, automatic_cleanup=True), folder)


def put_file(store: Store, key: str, path: Path) -> None:
    """Store a local file under a key, whole or not at all. In a folder on the same disk nothing is copied."""
    if store.folder is not None:
        with contextlib.suppress(OSError):  # another disk: copied below
            target = store.folder / key
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.link(path, target)
            target.chmod(0o600)
            _sync(target)
            _sync(target.parent)
            return
    obstore.put(store.objects, key, path)
    _protect(store, key)


def put_bytes(store: Store, key: str, data: bytes) -> None:
    """Store bytes under a key, whole or not at all."""
    obstore.put(store.objects, key, data)
    _protect(store, key)


def get_bytes(store: Store, key: str) -> bytes:
    """All bytes of a blob. Raises FileNotFoundError."""
    return bytes(obstore.get(store.objects, key).bytes())


def stream(store: Store, key: str, start: int, end: int) -> Iterator[bytes]:
    """Bytes start to end (exclusive) of a blob, in pieces. Raises FileNotFoundError."""
    while start < end:
        stop = min(end, start + PIECE)
        yield bytes(obstore.get_range(store.objects, key, start=start, end=stop))
        start = stop


def open_blob(store: Store, key: str) -> IO[bytes]:
    """A blob as a file that can seek; from an object store it is held in memory. Raises FileNotFoundError."""
    if store.folder is not None:
        return (store.folder / key).open("rb")
    return io.BytesIO(get_bytes(store, key))


def size(store: Store, key: str) -> int:
    """Bytes of a blob. Raises FileNotFoundError."""
    length: int = obstore.head(store.objects, key)["size"]
    return length


def delete(store: Store, key: str) -> None:
    """Delete a blob; one that is gone already is fine."""
    with contextlib.suppress(FileNotFoundError, NotFoundError):
        obstore.delete(store.objects, key)


def delete_all(store: Store, prefix: str) -> None:
    """Delete every blob under a prefix such as `files/<id>/`."""
    for batch in obstore.list(store.objects, prefix):
        for item in batch:
            delete(store, item["path"])


def _protect(store: Store, key: str) -> None:
    if store.folder is not None:
        (store.folder / key).chmod(0o600)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
