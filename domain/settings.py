"""Settings of a process, from TACIT_* environment variables. Each process gets only what it needs."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def _hex_secret(value: SecretStr) -> SecretStr:
    try:
        raw = bytes.fromhex(value.get_secret_value())
    except ValueError:
        raise ValueError("must be hexadecimal; make one with: openssl rand -hex 32") from None
    if len(raw) < 32:
        raise ValueError("must have at least 32 bytes; make one with: openssl rand -hex 32")
    return value


HexSecret = Annotated[SecretStr, AfterValidator(_hex_secret)]


class ServiceSettings(BaseSettings):
    """What the API and the worker share."""

    model_config = SettingsConfigDict(env_prefix="TACIT_", extra="ignore", frozen=True)

    database_url: SecretStr
    """This process's own login: tacit_api or tacit_worker."""
    broker_url: SecretStr
    blobs: str
    """A folder, or an object store's URL (s3://bucket/prefix)."""
    models: dict[str, Path] = Field(default_factory=dict)
    """Base models beside the built-in ones: name to local folder."""


class ApiSettings(ServiceSettings):
    """What only the API may know: it checks keys and files."""

    key_pepper: HexSecret
    fingerprint_key: HexSecret
    signing_key: HexSecret
    """Ed25519 seed that receipts and the witness are signed with."""
    policy_key: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Ed25519 public key that raised limits, thaws and corrections must be signed with; None: not checked."""
    witness: Path | None = None
    """Append-only file outside the database that remembers how far each budget's ledger had come; None: no witness."""
    verify_hours: float = Field(default=24.0, gt=0)
    """Time between two verifications of every budget."""
    upload_limit: int = Field(default=2**30, gt=0)
    """Bytes of one upload."""


class WorkerSettings(ServiceSettings):
    """What the worker needs beyond the shared settings."""

    device: str = "auto"
    """torch device: auto, cpu, cuda, cuda:1, ..."""
    lease_seconds: int = Field(default=60, ge=3, le=600)
    reconcile_seconds: float = Field(default=5.0, gt=0)
    max_attempts: int = Field(default=20, gt=0)
    """Claims of one job before it is failed for good."""


def secret_bytes(value: SecretStr) -> bytes:
    """The bytes of a hexadecimal secret."""
    return bytes.fromhex(value.get_secret_value())
