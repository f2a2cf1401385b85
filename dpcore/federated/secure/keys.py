"""A silo's keys, and what two silos have in common that nobody else can know."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw
_SECRET = serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
_EACH = 32
"""Bytes of a key."""


@dataclass(frozen=True)
class PublicKeys:
    """What others know of a silo: 32 bytes each, to agree on masks (X25519) and to sign (Ed25519)."""

    agree: bytes
    sign: bytes

    @classmethod
    def loads(cls, text: str) -> "PublicKeys":
        """What `text` gave. Raises ValueError for anything else."""
        return cls(*_halves(bytes.fromhex(text)))

    @property
    def text(self) -> str:
        """Both, in hexadecimal."""
        return (self.agree + self.sign).hex()

    def signed(self, what: bytes, signature: bytes) -> bool:
        """Whether the silo signed this."""
        try:
            Ed25519PublicKey.from_public_bytes(self.sign).verify(signature, what)
        except InvalidSignature:
            return False
        return True


class SiloKeys:
    """What only the silo's own worker holds."""

    def __init__(self, agree: X25519PrivateKey | None = None, sign: Ed25519PrivateKey | None = None) -> None:
        """New ones, where none are given."""
        self._agree, self._sign = agree or X25519PrivateKey.generate(), sign or Ed25519PrivateKey.generate()

    @classmethod
    def loads(cls, secret: bytes) -> "SiloKeys":
        """What `dumps` gave. Raises ValueError for anything else."""
        agree, sign = _halves(secret)
        return cls(X25519PrivateKey.from_private_bytes(agree), Ed25519PrivateKey.from_private_bytes(sign))

    def dumps(self) -> bytes:
        """64 secret bytes, for whoever goes on in the silo's place."""
        return self._agree.private_bytes(*_SECRET) + self._sign.private_bytes(*_SECRET)

    @property
    def public(self) -> PublicKeys:
        """For the others."""
        return PublicKeys(
            self._agree.public_key().public_bytes(*_RAW),
            self._sign.public_key().public_bytes(*_RAW),
        )

    def signature(self, what: bytes) -> bytes:
        """64 bytes."""
        return self._sign.sign(what)

    def own_seed(self, context: bytes) -> bytes:
        """32 bytes that only this silo can compute, others for each context."""
        secret = self._agree.private_bytes(*_SECRET)
        return HKDF(SHA256(), length=32, salt=None, info=b"tacit own mask\0" + context).derive(secret)

    def seed_with(self, other: PublicKeys, context: bytes) -> bytes:
        """32 bytes that only these two silos can compute, the same for both; others for each context.

        Raises ValueError for a key of small order, whose secret everybody knows."""
        secret = self._agree.exchange(X25519PublicKey.from_public_bytes(other.agree))
        pair = b"".join(sorted((self.public.agree, other.agree)))
        return HKDF(SHA256(), length=32, salt=pair, info=b"tacit pairwise mask\0" + context).derive(secret)


def usable(said: Mapping[str, str]) -> dict[str, PublicKeys]:
    """The public keys, by silo, of those who can take part: what is no key, a key of small order and keys that two
    silos have said are left out, lest one silo keeps all others from adding up."""
    found: dict[str, PublicKeys] = {}
    for name, text in said.items():
        with suppress(ValueError):
            found[name] = PublicKeys.loads(text)
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(found[name].agree))
            continue
        found.pop(name, None)
    times = Counter(half for keys in found.values() for half in (keys.agree, keys.sign))
    return {name: keys for name, keys in found.items() if times[keys.agree] == times[keys.sign] == 1}


def _halves(both: bytes) -> tuple[bytes, bytes]:
    if len(both) != 2 * _EACH:
        raise ValueError(f"keys are {2 * _EACH} bytes; these are {len(both)}")
    return both[:_EACH], both[_EACH:]
