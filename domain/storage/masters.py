"""Master keys: what wraps the keys of blobs. In a file, or behind a program that speaks to a key management service."""

import base64
import hashlib
import os
import secrets
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from domain.kit.settings import KeySettings

NONCE = 12
KMS_SECONDS = 30
KMS = "kms"


class NoMasterKey(ValueError):
    """The settings name no master key, or none that opens what there is: the message says which."""


class WrongKey(NoMasterKey):
    """A wrapped key that its master key does not open for this blob: the row was changed."""


class KeyUnavailable(OSError):
    """The key management service did not answer; another try may help."""


class Master(Protocol):
    """Wraps a data key for one blob, whose name it must be given again to open it."""

    @property
    def id(self) -> str: ...

    def wrap(self, key: bytes, name: str) -> bytes: ...

    def unwrap(self, wrapped: bytes, name: str) -> bytes: ...


@dataclass(frozen=True)
class LocalKey:
    """32 bytes from a file: AES-256-GCM with a random nonce and the blob's name as associated data."""

    key: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Tells master keys apart and tells nothing about them."""
        return hashlib.sha256(b"tacit.master.v1\0" + self.key).hexdigest()[:16]

    def wrap(self, key: bytes, name: str) -> bytes:
        nonce = secrets.token_bytes(NONCE)
        return nonce + AESGCM(self.key).encrypt(nonce, key, name.encode())

    def unwrap(self, wrapped: bytes, name: str) -> bytes:
        try:
            return AESGCM(self.key).decrypt(wrapped[:NONCE], wrapped[NONCE:], name.encode())
        except InvalidTag:
            raise WrongKey(f"master key {self.id} does not open the key of {name}: the row was changed") from None


@dataclass(frozen=True)
class KmsCommand:
    """A program, run as `program wrap` and `program unwrap`: base64 on stdin and on stdout, the blob's name in
    TACIT_KMS_CONTEXT. What it writes to stderr goes to the log of this process."""

    command: str
    id: str = KMS

    def wrap(self, key: bytes, name: str) -> bytes:
        return self._run("wrap", key, name)

    def unwrap(self, wrapped: bytes, name: str) -> bytes:
        return self._run("unwrap", wrapped, name)

    def _run(self, action: str, data: bytes, name: str) -> bytes:
        own = {k: v for k, v in os.environ.items() if not k.startswith("TACIT_")}
        try:
            done = subprocess.run(
                [*shlex.split(self.command), action],
                input=base64.b64encode(data) + b"\n",
                stdout=subprocess.PIPE,
                env=own | {"TACIT_KMS_CONTEXT": name},
                timeout=KMS_SECONDS,
                check=True,
            )
            answer = base64.b64decode(done.stdout.strip(), validate=True)
        except subprocess.CalledProcessError as error:
            raise KeyUnavailable(f"TACIT_KMS_COMMAND ended with {error.returncode} when asked to {action}") from None
        except subprocess.TimeoutExpired:
            raise KeyUnavailable(f"TACIT_KMS_COMMAND took more than {KMS_SECONDS} s to {action}") from None
        except OSError as error:
            raise KeyUnavailable(f"TACIT_KMS_COMMAND cannot be run: {error.strerror}") from None
        except ValueError:
            answer = b""
        if not answer:
            raise KeyUnavailable(f"TACIT_KMS_COMMAND did not answer with base64 when asked to {action}")
        return answer


@dataclass(frozen=True)
class Masters:
    """The first wraps; each opens what it has wrapped."""

    first: Master
    known: Mapping[str, Master]
    where: str = "TACIT_MASTER_KEY"
    """The setting that holds them."""

    def opener(self, id: str) -> Master:
        """Raises NoMasterKey."""
        try:
            return self.known[id]
        except KeyError:
            where = "TACIT_KMS_COMMAND is not set" if id == KMS else f"{self.where} does not hold {id}"
            raise NoMasterKey(f"there are blobs whose master key is missing: {where}") from None


def read_masters(settings: KeySettings) -> Masters:
    """From TACIT_KMS_COMMAND, if set, and the lines of TACIT_MASTER_KEY, in this order. Raises NoMasterKey."""
    keys = [] if settings.master_key is None else _local_keys(settings.master_key, "TACIT_MASTER_KEY")
    program: list[Master] = [] if settings.kms_command is None else [KmsCommand(settings.kms_command)]
    masters = [*program, *keys]
    if not masters:
        raise NoMasterKey("set TACIT_MASTER_KEY_FILE to a file made with `openssl rand -hex 32`, or TACIT_KMS_COMMAND")
    return Masters(masters[0], {master.id: master for master in masters})


def local_masters(keys: SecretStr | None, where: str) -> Masters:
    """From lines of hexadecimal digits that the setting `where` holds. Raises NoMasterKey."""
    masters = [] if keys is None else _local_keys(keys, where)
    if not masters:
        raise NoMasterKey(f"{where} holds no master key; make one with: openssl rand -hex 32")
    return Masters(masters[0], {master.id: master for master in masters}, where)


def _local_keys(lines: SecretStr, where: str) -> list[Master]:
    masters: list[Master] = []
    for line in lines.get_secret_value().split():
        try:
            key = bytes.fromhex(line)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise NoMasterKey(f"{where} must be 64 hexadecimal digits; make them with: openssl rand -hex 32")
        masters.append(LocalKey(key))
    return masters
