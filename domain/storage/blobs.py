"""Where file contents live: folders or object stores, behind a few functions. All of it is encrypted.

A blob's name says which place it lies in (homes.py). A process that has no such place has no key for it either.
"""

import contextlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from domain.storage.homes import EXCHANGE, GENERAL, home_of
from domain.storage.masters import NoMasterKey
from domain.storage.places import BlobPlace, places
from domain.storage.sealing import CHUNK, KEY, MAGIC, Seal, Sealed, new_seal, sealed
from domain.storage.vault import Vault, open_vault

AT_ONCE = 8 * 2**20
"""Bytes up to which a blob is sent in one piece, and of each piece of a larger one."""


class BadStore(ValueError):
    """The blob store that the settings name cannot be used: the message says why."""


class NotMounted(NoMasterKey, FileNotFoundError):
    """A blob lies in a place that is none of this process's."""


@dataclass(frozen=True)
class Store:
    """An open store; `folder` is None for an object store."""

    objects: Any
    folder: Path | None
    vault: Vault
    reserve: int = 0
    """Bytes that stay free on the folder's disk."""
    home: str = GENERAL
    """What the names of its blobs begin with."""
    mounts: Mapping[str, "Store"] = field(default_factory=dict)
    """The other places of this process, by their homes."""

    def at(self, blob: str) -> "Store":
        """The place of a blob. Raises NotMounted."""
        home = home_of(blob)
        for place in self.places:
            if place.home == home:
                return place
        opened = ", ".join(place.home or "what is of no silo" for place in self.places)
        raise NotMounted(f"{blob} lies in no place of this process, which opens {opened} and nothing else")

    @property
    def places(self) -> list["Store"]:
        """This place and the others."""
        return [self, *self.mounts.values()]


def open_store(settings: ServiceSettings, engine: sa.Engine) -> Store:
    """The store of TACIT_BLOBS, and beside it the other places of this process: folders, made if missing and for this
    user only, or object stores' URLs.

    Raises BadStore, or masters.NoMasterKey.
    """
    own, *others = [_open(place, settings, engine) for place in places(settings)]
    mounts = {other.home: other for other in others}
    if own.home == GENERAL and EXCHANGE not in mounts:  # all workers open the same: they meet here
        mounts[EXCHANGE] = replace(own, home=EXCHANGE)
    return replace(own, mounts=mounts)


def _open(place: BlobPlace, settings: ServiceSettings, engine: sa.Engine) -> Store:
    vault = open_vault(place.masters, engine, place.home)
    if is_object_store(place.blobs):
        objects = object_store(place.blobs, place.options, place.variable, options_variable=place.options_variable)
        return Store(objects, None, vault, home=place.home)
    folder = Path(place.blobs.removeprefix("file://")).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Store(LocalStore(folder, automatic_cleanup=True), folder, vault, settings.disk_reserve, place.home)


def require_usable(store: Store) -> None:
    """At start, before anything depends on it: raises BadStore when a key cannot be wrapped and opened again, or a blob
    written, read and deleted, in one of its places."""
    for place in store.places:
        try:
            master = place.vault.masters.first
            master.unwrap(master.wrap(bytes(KEY), "probe"), "probe")
        except OSError as error:
            raise BadStore(f"the keys of blobs cannot be wrapped: {error}") from None
        try:
            probe(place)
        except (BaseError, OSError) as error:
            which = "TACIT_BLOBS" if place is store else place.home
            raise BadStore(f"the blob store of {which} cannot be used: {reason(error)}") from None


def probe(store: Store) -> None:
    """Write, read and delete a few bytes that mean nothing in its own place. Raises the store's error."""
    name = new_id("probe")
    obstore.put(store.objects, name, b"ok")
    obstore.get(store.objects, name).bytes()
    _delete_stored(store, name)


def require_room(store: Store, size: int) -> None:
    """Raises OSError (ENOSPC) when a blob of this size in its own place would leave less of a disk of ours than its
    reserve."""
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
    """A blob to read from; its header is read now. Raises FileNotFoundError, NotMounted, sealing.Tampered,
    masters.WrongKey, and what a store or a key service that is away raises."""
    place = store.at(key)

    def fetch(start: int, end: int) -> bytes:
        return bytes(obstore.get_range(place.objects, key, start=start, end=end))

    return Sealed(place.vault.key(key), key, obstore.head(place.objects, key)["size"], fetch)


def as_file(blob: Sealed) -> IO[bytes]:
    """A blob as a file that can seek."""
    return io.BufferedReader(_Reader(blob), CHUNK)


def encrypt_plain(store: Store, key: str) -> bool:
    """Encrypt a blob that is not; False where there is none, or one whose key was destroyed."""
    try:
        plain = bytes(obstore.get(store.at(key).objects, key).bytes())
    except (FileNotFoundError, NotFoundError):
        return False
    if plain.startswith(MAGIC):
        return False
    put_bytes(store, key, plain)
    return True


def delete(store: Store, key: str) -> None:
    """Delete a blob and its key; one that is gone already is fine."""
    place = store.at(key)
    place.vault.destroy(key)
    _delete_stored(place, key)


def delete_all(store: Store, prefix: str) -> None:
    """Delete every blob under a prefix such as `files/<id>/`, and their keys."""
    place = store.at(prefix)
    place.vault.destroy_all(prefix)
    for batch in obstore.list(place.objects, prefix):
        for item in batch:
            _delete_stored(place, item["path"])


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


def object_store(
    url: str,
    options: SecretStr | None,
    variable: str,
    seconds: float = 30.0,
    *,
    options_variable: str = "TACIT_BLOB_OPTIONS",
) -> Any:
    """The store behind an object store's URL; `seconds` bound each request, and its retries together. Raises BadStore
    naming the variable, or that of its options."""
    try:
        given = json.loads("{}" if options is None else options.get_secret_value())
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise BadStore(options_variable + ' must be a JSON object of texts, such as {"endpoint": "https://..."}')
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
        raise BadStore(f"{variable} or {options_variable}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What obstore says happened, with the server's code for it and without the rest of the server's answer."""
    words = str(error).partition("\n\nDebug source")[0] or type(error).__name__
    code = re.search(r"<Code>(\w+)</Code>", words)
    return words.partition("<?xml")[0].partition("\n")[0] + (code[1] if code else "")


def _put(store: Store, key: str, source: IO[bytes], size: int) -> Seal:
    place = store.at(key)
    require_room(place, size)
    seal = new_seal(place.vault.new_key(key), key, size)
    pieces = sealed(source, seal)
    if size <= AT_ONCE:
        obstore.put(place.objects, key, b"".join(pieces), use_multipart=False)
    else:
        obstore.put(place.objects, key, pieces, chunk_size=AT_ONCE, max_concurrency=4)
    if place.folder is not None:
        path = place.folder / key
        path.chmod(0o600)
        disk.sync(path)
        disk.sync(path.parent)
    return seal


def _delete_stored(place: Store, name: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotFoundError):
        obstore.delete(place.objects, name)
