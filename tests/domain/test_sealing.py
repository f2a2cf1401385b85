"""An encrypted blob opens only as what was stored, under its own name, whole or in part."""

import io
from collections.abc import Callable

import pytest

from domain.storage import sealing
from domain.storage.sealing import CHUNK, HEADER, TAG, Sealed, Tampered, new_seal, sealed

KEY = bytes(range(32))
TEXT = bytes(i % 251 for i in range(2 * CHUNK + 5))


def stored(plain: bytes, name: str = "files/a", key: bytes = KEY) -> bytes:
    return b"".join(sealed(io.BytesIO(plain), new_seal(key, name, len(plain))))


def opened(blob: bytes, name: str = "files/a", key: bytes = KEY) -> Sealed:
    return Sealed(key, name, len(blob), lambda start, end: blob[start:end])


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(TEXT)])
def test_what_goes_in_comes_out(size: int) -> None:
    blob = stored(TEXT[:size])
    assert opened(blob).size == size
    assert opened(blob).whole() == TEXT[:size]
    assert size < 16 or TEXT[:16] not in blob


@pytest.mark.parametrize("start", [0, 5, CHUNK - 1, CHUNK, len(TEXT) - 1])
@pytest.mark.parametrize("length", [1, CHUNK, 2 * CHUNK])
def test_a_range_reads_its_own_chunks_alone(start: int, length: int) -> None:
    blob, read = stored(TEXT), []

    def fetch(first: int, end: int) -> bytes:
        read.append((first, end))
        return blob[first:end]

    end = min(start + length, len(TEXT))
    assert b"".join(Sealed(KEY, "files/a", len(blob), fetch).read(start, end)) == TEXT[start:end]
    assert len(read) == 1 + (end - 1) // CHUNK - start // CHUNK + 1


def chunk(blob: bytes, number: int) -> bytes:
    start = HEADER + number * (CHUNK + TAG)
    return blob[start : start + CHUNK + TAG]


ATTACKS: dict[str, Callable[[bytes], bytes]] = {
    "one bit": lambda b: b[:-1] + bytes([b[-1] ^ 1]),
    "salt": lambda b: b[:9] + bytes([b[9] ^ 1]) + b[10:],
    "length": lambda b: b[: HEADER - 1] + bytes([b[HEADER - 1] ^ 1]) + b[HEADER:],
    "cut in a chunk": lambda b: b[:-3],
    "cut between chunks": lambda b: b[: HEADER + 2 * (CHUNK + TAG)],
    "cut between chunks, with the length to match": lambda b: (
        b[: HEADER - 8] + (2 * CHUNK).to_bytes(8) + b[HEADER : HEADER + 2 * (CHUNK + TAG)]
    ),
    "longer": lambda b: b + chunk(b, 2),
    "exchanged": lambda b: b[:HEADER] + chunk(b, 1) + chunk(b, 0) + chunk(b, 2),
    "repeated": lambda b: b[:HEADER] + chunk(b, 0) + chunk(b, 0) + chunk(b, 2),
    "another version's chunk": lambda b: b[:HEADER] + chunk(stored(TEXT), 0) + b[HEADER + CHUNK + TAG :],
    "not encrypted": lambda b: TEXT,
    "empty": lambda b: b"",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_changed_does_not_open(attack: str) -> None:
    with pytest.raises(Tampered, match="files/a"):
        opened(ATTACKS[attack](stored(TEXT))).whole()


def test_a_blob_opens_under_its_own_name_and_key_alone() -> None:
    blob = stored(TEXT[:100])
    for wrong in ({"name": "files/b"}, {"key": bytes(32)}):
        with pytest.raises(Tampered):
            opened(blob, **wrong).whole()


def test_no_two_blobs_share_a_keystream() -> None:
    """The same bytes under the same key and name: a second version of a checkpoint."""
    first, second = stored(TEXT), stored(TEXT)
    assert all(chunk(first, i) != chunk(second, i) for i in range(3))
    assert sealing.SALT == 32
