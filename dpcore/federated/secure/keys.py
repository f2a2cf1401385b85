"""A silo's keys, and what two silos have in common that nobody else can know."""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


@dataclass(frozen=True)
class PublicKeys:
    """What others know of a silo: 32 bytes each, to agree on masks (X25519) and to sign (Ed25519)."""

    agree: bytes
    sign: bytes

    def signed(self, what: bytes, signature: bytes) -> bool:
        """Whether the silo signed this."""
        try:
            Ed25519PublicKey.from_public_bytes(self.sign).verify(signature, what)
        except InvalidSignature:
            return False
        return True


class SiloKeys:
    """What only the silo's own worker holds."""

    def __init__(self) -> None:
        self._agree, self._sign = X25519PrivateKey.generate(), Ed25519PrivateKey.generate()

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

    def seed_with(self, other: PublicKeys, context: bytes) -> bytes:
        """32 bytes that only these two silos can compute, the same for both; others for each context.

        Raises ValueError for a key of small order, whose secret everybody knows."""
        secret = self._agree.exchange(X25519PublicKey.from_public_bytes(other.agree))
        pair = b"".join(sorted((self.public.agree, other.agree)))
        return HKDF(SHA256(), length=32, salt=pair, info=b"tacit pairwise mask\0" + context).derive(secret)
