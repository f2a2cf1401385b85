"""Sketches of texts, by which edited, cut or joined ones are found: MinHash over pairs of neighbouring words; and of
pictures, over the tokens of what they look like.

Of each of MINIMA keyed minima four bits are kept (b-bit minwise hashing: Li and Koenig, WWW 2010), so that the sketch
of a text tells nobody its words, not even who has the key and the sketch. Two sketches agree in a share J + (1 - J) /
16 of their places, J the share of pairs that the texts have in common (Broder 1997).
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from domain.ingest.normal import words

MINIMA = 64
SIZE = MINIMA // 2
"""Bytes of a sketch."""
FEWEST_WORDS = 8
"""Shorter texts have no sketch: chance makes too many of them look alike."""
ALIKE, NEARLY = 0.4, 0.7
"""Shares of common pairs from which two texts look like versions of one, and from which they can be hardly anything
else. Half of a text cut off, or another joined to it, leaves about half; a word changed in one of fifteen leaves
NEARLY."""
BATCH = 4096
"""Texts whose minima are found together."""
MOST_KNOWN = 200_000
CANDIDATES = 2 * 10**8
_AGREE, _AGREE_NEARLY = (round(MINIMA * (share + (1 - share) / 16)) for share in (ALIKE, NEARLY))
_EQUAL = np.array([(byte >> 4 == 0) + (byte & 15 == 0) for byte in range(256)], dtype=np.uint8)
Hashes = npt.NDArray[np.uint64]
Sketches = npt.NDArray[np.uint8]
"""[n, SIZE]"""


class Sketcher:
    """Makes sketches under a tenant's key."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"tacit.sketch.v1", "sha256")
        numbers = hashlib.shake_256(self._key).digest(16 * MINIMA)
        self._factors, self._terms = np.frombuffer(numbers, dtype=np.uint64).reshape(2, MINIMA).copy()
        self._factors |= np.uint64(1)
        self._hashes = _Hashes(self._key)

    def words(self, text: str) -> list[int] | None:
        """Keyed hashes of the words of a text; None for a text that is too short for a sketch."""
        found = words(text)
        if len(found) < FEWEST_WORDS:
            return None
        if len(self._hashes) > MOST_KNOWN:
            self._hashes.clear()
        hashes = self._hashes
        return [hashes[word] for word in found]

    def sketches(self, texts: Sequence[list[int]]) -> Sketches:
        """A sketch for each text, given by `words`. There is at least one text."""
        lengths = np.array([len(text) for text in texts])
        every = np.concatenate([np.array(text, dtype=np.uint64) for text in texts])
        ends = np.cumsum(lengths)
        inside = np.ones(len(every), dtype=bool)
        inside[ends - 1] = False  # the last word of a text begins no pair
        place = np.flatnonzero(inside)
        pairs = _mixed(every[place] * np.uint64(0x9E3779B97F4A7C15) + every[place + 1])
        return self._of_parts(pairs, lengths - 1)

    def tokens(self, look: Sequence[str]) -> list[int]:
        """Keyed hashes of the tokens of a picture, for `sketches_of_sets`."""
        return [self._hashes[token] for token in look]

    def sketches_of_sets(self, sets: Sequence[list[int]]) -> Sketches:
        """A sketch for each set, none of which is empty. There is at least one."""
        every = np.concatenate([np.array(one, dtype=np.uint64) for one in sets])
        return self._of_parts(every, np.array([len(one) for one in sets]))

    def _of_parts(self, parts: Hashes, counts: npt.NDArray[np.int64]) -> Sketches:
        begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
        minima = np.empty((len(counts), MINIMA), dtype=np.uint64)
        for i in range(MINIMA):
            minima[:, i] = np.minimum.reduceat(parts * self._factors[i] + self._terms[i], begins)
        bits = (_mixed(minima) >> np.uint64(60)).astype(np.uint8)
        packed: Sketches = (bits[:, ::2] << np.uint8(4)) | bits[:, 1::2]
        return packed


class _Hashes(dict[str, int]):
    """Of words, as they come: most come often."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __missing__(self, word: str) -> int:
        made = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8, key=self._key).digest())
        self[word] = made
        return made


def alike(ours: Sketches, theirs: Sketches, pairs: int) -> npt.NDArray[np.uint8]:
    """How far each of ours resembles one of theirs, [len(ours)]: 0, 1 from ALIKE on, 2 from NEARLY on. pairs: of ours
    and theirs in all calls together; of very many those that agree less are found less often, so that the work stays
    bounded."""
    found = np.zeros(len(ours), dtype=np.uint8)
    if not len(ours) or not len(theirs):
        return found
    our_bits, their_bits = _bits(ours), _bits(theirs)
    width = next((w for w in (3, 4, 5) if MINIMA // w * pairs / 16.0**w <= CANDIDATES), 6)
    for first in range(0, MINIMA - width + 1, width):
        mine, other = _keys(our_bits, first, width), _keys(their_bits, first, width)
        order = np.argsort(other, kind="stable")
        other = other[order]
        open = np.flatnonzero(found < 2)
        begin, end = np.searchsorted(other, mine[open], "left"), np.searchsorted(other, mine[open], "right")
        for rows, places in _pairs(open, begin, end):
            agree = _EQUAL[ours[rows] ^ theirs[order[places]]].sum(axis=1)
            found[rows[(agree >= _AGREE) & (found[rows] == 0)]] = 1
            found[rows[agree >= _AGREE_NEARLY]] = 2
    return found


def _pairs(
    rows: npt.NDArray[np.int64], begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64], at_once: int = 2**19
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Each row with each of its places begin ... end - 1, about so many pairs at once."""
    counts = end - begin
    rows, begin, counts = rows[counts > 0], begin[counts > 0], counts[counts > 0]
    total = np.cumsum(counts)
    start = 0
    while start < len(rows):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + at_once, "right")))
        some = counts[start:stop]
        which = np.repeat(np.arange(start, stop), some)
        within = np.arange(len(which)) - np.repeat(np.cumsum(some) - some, some)
        yield rows[which], begin[which] + within
        start = stop


def _bits(sketches: Sketches) -> npt.NDArray[np.uint8]:
    return np.stack([sketches >> 4, sketches & 15], axis=2).reshape(len(sketches), MINIMA)


def _keys(bits: npt.NDArray[np.uint8], first: int, width: int) -> npt.NDArray[np.uint32]:
    keys = np.zeros(len(bits), dtype=np.uint32)
    for place in range(first, first + width):
        keys = (keys << np.uint32(4)) | bits[:, place]
    return keys


def _mixed(numbers: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
