"""Where file contents live: a folder or an object store, behind a few functions. All of it is encrypted."""

import contextlib
import io
import json
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import obstore
import sqlalchemy as sa
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, from_url
from pydantic import SecretStr

from domain.kit import disk
from domain.kit.ids import new_id
from domain.kit.settings import ServiceSettings
from domain.storage.masters import read_masters
from domain.storage.sealing import CHUNK, KEY, MAGIC, Seal, Sealed, new_seal, sealed
from domain.storage.vault import Vault, open_vault

AT_ONCE = 8 * 2**20
"""Bytes up to which a blob is sent in one piece, and of each piece of a larger one."""


class BadStore(ValueError):
    """The blob store that the settings name cannot be used: the message says why."""


@dataclass(frozen=True)
class Store:
    """An open store; `folder` is None for an object store."""

    objects: Any
    folder: Path | None
    vault: Vault
    reserve: int = 0
    """Bytes that stay free on the folder's disk."""


def open_store(settings: ServiceSettings, engine: sa.Engine) -> Store:
    """The store of TACIT_BLOBS: a folder, made if missing and for this user only, or an object store's URL.

    Raises BadStore, or masters.NoMasterKey.
    """
    vault = open_vault(read_masters(settings), engine)
    if is_object_store(settings.blobs):
        return Store(object_store(settings.blobs, settings.blob_options, "TACIT_BLOBS"), None, vault)
    folder = Path(settings.blobs.removeprefix("file://")).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Store(LocalStore(folder, automatic_cleanup=True), folder, vault, settings.disk_reserve)


def require_usable(store: Store) -> None:
    """At start, before anything depends on it: raises BadStore when a key cannot be wrapped and opened again, or a blob
    written, read and deleted."""
    try:
        master = store.vault.masters.first
        master.unwrap(master.wrap(bytes(KEY), "probe"), "probe")
    except OSError as error:
        raise BadStore(f"the keys of blobs cannot be wrapped: {error}") from None
    try:
        probe(store)
    except (BaseError, OSError) as error:
        raise BadStore(f"the blob store of TACIT_BLOBS cannot be used: {reason(error)}") from None


def probe(store: Store) -> None:
    """Write, read and delete a few bytes that mean nothing. Raises the store's error."""
    name = new_id("probe")
    obstore.put(store.objects, name, b"ok")
    obstore.get(store.objects, name).bytes()
    _delete_stored(store, name)


def require_room(store: Store, size: int) -> None:
    """Raises OSError (ENOSPC) when a blob of this size would leave less of a disk of ours than its reserve."""
    if store.folder is not None:
        disk.require_room(store.folder, size, store.reserve)


def put_file(store: Store, key: str, path: Path) -> Seal:
    """Store a local file under a key, whole or not at all. Raises OSError (ENOSPC) before a disk of ours is full."""
    with path.open("rb") as source:
        return _put(store, key, source, path.stat().st_size)


def put_bytes(store: Store, key: str, data: bytes) -> Seal:
    """Store bytes under a key, whole or not at all. Raises OSError (ENOSPC) before a disk of ours is full."""
    return _put(store, key, io.BytesIO(data), len(data))


def get_bytes(store: Store, key: str) -> bytes:
    """All bytes of a blob. Raises as open_blob."""
    return open_blob(store, key).whole()


def open_blob(store: Store, key: str) -> Sealed:
    """A blob to read from; its header is read now. Raises FileNotFoundError, sealing.Tampered, masters.WrongKey, and
    what a store or a key service that is away raises."""

    def fetch(start: int, end: int) -> bytes:
        return bytes(obstore.get_range(store.objects, key, start=start, end=end))

    return Sealed(store.vault.key(key), key, obstore.head(store.objects, key)["size"], fetch)


def as_file(blob: Sealed) -> IO[bytes]:
    """A blob as a file that can seek."""
    return io.BufferedReader(_Reader(blob), CHUNK)


def encrypt_plain(store: Store, key: str) -> bool:
    """Encrypt a blob that is not; False where there is none, or one whose key was destroyed."""
    try:
        plain = bytes(obstore.get(store.objects, key).bytes())
    except (FileNotFoundError, NotFoundError):
        return False
    if plain.startswith(MAGIC):
        return False
    put_bytes(store, key, plain)
    return True


def delete(store: Store, key: str) -> None:
    """Delete a blob and its key; one that is gone already is fine."""
    store.vault.destroy(key)
    _delete_stored(store, key)


def delete_all(store: Store, prefix: str) -> None:
    """Delete every blob under a prefix such as `files/<id>/`, and their keys."""
    store.vault.destroy_all(prefix)
    for batch in obstore.list(store.objects, prefix):
        for item in batch:
            _delete_stored(store, item["path"])


class _Reader(io.RawIOBase):
    """A sealed blob as a file; made for a buffer around it."""

    def __init__(self, blob: Sealed) -> None:
        self._blob, self._place = blob, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._blob.size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        piece = next(self._blob.read(self._place, self._place + len(buffer)), b"")
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)


def is_object_store(where: str) -> bool:
    """Whether a setting names an object store's URL; otherwise it names a folder, as file:// or as a path."""
    return "://" in where and not where.startswith("file://")


def object_store(url: str, options: SecretStr | None, variable: str, seconds: float = 30.0) -> Any:
    """The store behind an object store's URL, with the options of TACIT_BLOB_OPTIONS; `seconds` bound each request, and
    its retries together. Raises BadStore naming the variable."""
    try:
        given = json.loads("{}" if options is None else options.get_secret_value())
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise BadStore('TACIT_BLOB_OPTIONS must be a JSON object of texts, such as {"endpoint": "https://..."}')
    allow_http = given.get("endpoint", "").startswith("http://")  # the operator's word
    patience = timedelta(seconds=seconds)
    try:
        return from_url(
            url,
            client_options={"allow_http": allow_http, "timeout": patience},
            retry_config={"max_retries": 5, "retry_timeout": patience},
            **given,
        )
    except (BaseError, ValueError, TypeError) as error:
        raise BadStore(f"{variable} or TACIT_BLOB_OPTIONS: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What obstore says happened, with the server's code for it and without the rest of the server's answer."""
    words = str(error).partition("\n\nDebug source")[0] or type(error).__name__
    code = re.search(r"<Code>(\w+)</Code>", words)
    return words.partition("<?xml")[0].partition("\n")[0] + (code[1] if code else "")


def _put(store: Store, key: str, source: IO[bytes], size: int) -> Seal:
    require_room(store, size)
    seal = new_seal(store.vault.new_key(key), key, size)
    pieces = sealed(source, seal)
    if size <= AT_ONCE:
        obstore.put(store.objects, key, b"".join(pieces), use_multipart=False)
    else:
        obstore.put(store.objects, key, pieces, chunk_size=AT_ONCE, max_concurrency=4)
    if store.folder is not None:
        path = store.folder / key
        path.chmod(0o600)
        disk.sync(path)
        disk.sync(path.parent)
    return seal


def _delete_stored(store: Store, name: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotFoundError):
        obstore.delete(store.objects, name)
