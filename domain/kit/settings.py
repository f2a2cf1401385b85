"""Settings of a process, from TACIT_* environment variables. Each process gets only what it needs.

Every TACIT_NAME can be in a file instead, named by TACIT_NAME_FILE: so that a secret is in no environment.
"""

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

PREFIX = "TACIT_"
T = TypeVar("T", bound=BaseSettings)


class BadSettings(ValueError):
    """The environment does not hold what a process needs; the message names the variable and repeats no value."""


def _hex_secret(value: SecretStr) -> SecretStr:
    try:
        raw = bytes.fromhex(value.get_secret_value())
    except ValueError:
        raise ValueError("must be hexadecimal; make one with: openssl rand -hex 32") from None
    if len(raw) < 32:
        raise ValueError("must have at least 32 bytes; make one with: openssl rand -hex 32")
    return value


HexSecret = Annotated[SecretStr, AfterValidator(_hex_secret)]


def _needs_exporter(value: str) -> str:
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ValueError("spans need packages that are not installed; in a checkout of Tacit: pip install '.[otel]'")
    return value


def _are_hosts(value: str) -> str:
    for entry in filter(None, (part.strip() for part in value.split(","))):
        if not re.fullmatch(r"(\[[0-9a-f:]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:[0-9]{1,5})?", entry):
            raise ValueError(
                "must be hosts with commas: small letters, and a port unless it is 443 (hooks.example:8443)"
            )
    return value


WebhookHosts = Annotated[str, AfterValidator(_are_hosts)]


def _are_keys(value: str) -> str:
    if not all(re.fullmatch(r"[0-9a-f]{64}", part.strip()) for part in value.split(",") if part.strip()):
        raise ValueError(
            "must be public keys of 64 hexadecimal digits, with commas: as GET /v1/ledger/keys showed them"
        )
    return value


SigningKeys = Annotated[str, AfterValidator(_are_keys)]
Collector = Annotated[str, StringConstraints(pattern="^https?://[^/]"), AfterValidator(_needs_exporter)]


@dataclass(frozen=True)
class HubModel:
    """A repository of the Hugging Face hub at one commit: a name alone could mean other weights tomorrow."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return f"hub:{self.repository}@{self.revision}"


def _as_text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value


def _model_source(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("hub:"):
        return value
    repository, _, revision = value.removeprefix("hub:").partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError("a hub model is written hub:owner/name@revision")
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise ValueError(
            f"hub:{repository} needs a pinned revision, hub:{repository}@ and the commit's 40 hexadecimal digits: a "
            "branch or a tag can move"
        )
    return HubModel(repository, revision)


SiloName = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9-]{0,39}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,80}$")]
ModelSource = Annotated[Path | HubModel, BeforeValidator(_model_source)]


class _Files(PydanticBaseSettingsSource):
    """Values from the files that TACIT_<NAME>_FILE names; the last line break belongs to the file."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{PREFIX}{field_name.upper()}"
        path = os.environ.get(f"{variable}_FILE")
        if path is None:
            return None, field_name, False
        if variable in os.environ:
            raise SettingsError(f"{variable} and {variable}_FILE are both set: keep one")
        try:
            text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise SettingsError(f"{variable}_FILE: {path} cannot be read: {reason}") from None
        return text, field_name, self.field_is_complex(field)

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, is_complex = self.get_field_value(field, name)
            if value is not None:
                found[key] = self.decode_complex_value(name, field, value) if is_complex else value
        return found


class FileSettings(BaseSettings):
    """Settings from TACIT_* variables, or from the files that TACIT_*_FILE names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _Files(settings_cls)


def from_environment(settings: type[T]) -> T:
    """The settings of this process. Raises BadSettings naming what is missing or wrong."""
    try:
        return settings()
    except ValidationError as error:  # its own words would repeat the secrets
        raise BadSettings("; ".join(_wrong(e["loc"], e["msg"]) for e in error.errors())) from None
    except SettingsError as error:
        raise BadSettings(str(error)) from None


def _wrong(place: tuple[int | str, ...], message: str) -> str:
    if not place:  # of several settings together, which its words name
        return message.removeprefix("Value error, ")
    name, *inside = place
    return ": ".join([f"{PREFIX}{str(name).upper()}", *map(str, inside[:2]), message])


class KeySettings(FileSettings):
    """What the keys of blobs are wrapped by: at least one of these."""

    master_key: SecretStr | None = None
    """64 hexadecimal digits; of several, with white space between them, the first wraps and the others only open."""
    kms_command: str | None = None
    """A program that wraps and unwraps keys through a key management service; it then wraps in place of master_key."""


class ModelSettings(FileSettings):
    """The allow-list of base models."""

    models: dict[ModelName, ModelSource] = Field(default_factory=dict)
    """Base models beside the built-in ones: name to local folder, or to `hub:owner/name@revision`."""
    hub_online: bool = False
    """Whether a hub model that is not in the local cache may be downloaded at start."""


class ProcessSettings(FileSettings):
    """What every process that runs on is told about its machine."""

    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where Prometheus metrics are served, for the operator alone; None: nowhere."""
    metrics_host: str = "127.0.0.1"
    otlp_endpoint: Collector | None = None
    """Base URL of an OpenTelemetry collector that spans are sent to, OTLP over HTTP; None: nowhere."""
    disk_reserve: int = Field(default=2**28, ge=0)
    """Bytes that uploads and checkpoints leave free on a disk of this machine."""


class ServiceSettings(KeySettings, ModelSettings, ProcessSettings):
    """What the API and the worker share."""

    database_url: SecretStr
    """This process's own login: a member of tacit_api or of tacit_worker."""
    broker_url: SecretStr
    blobs: str
    """A folder, or an object store's URL (s3://bucket/prefix)."""
    blob_options: SecretStr | None = None
    """An object store's options as a JSON object: endpoint, region, access_key_id, secret_access_key, ..."""
    exchange: str | None = None
    """Where silos' workers and the others meet: a folder, or an object store's URL; None: there are no silos."""
    exchange_options: SecretStr | None = None
    """Its options, as blob_options."""
    exchange_key: SecretStr | None = None
    """Its own master key, as master_key."""

    @model_validator(mode="after")
    def _exchange_has_a_key(self) -> Self:
        if (self.exchange is None) != (self.exchange_key is None):
            raise ValueError("TACIT_EXCHANGE and TACIT_EXCHANGE_KEY belong together: set both, or neither")
        return self


class SiloPlace(BaseModel):
    """Where the API keeps what belongs to a silo, as the silo's own worker knows it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenants: list[str]
    """Ids of the tenants whose private files lie there."""
    blobs: str
    """The worker's TACIT_BLOBS."""
    blob_options: Annotated[SecretStr | None, BeforeValidator(_as_text)] = None
    """The worker's TACIT_BLOB_OPTIONS, as an object."""
    master_key_file: Path
    """A file with the worker's TACIT_MASTER_KEY."""


class ApiSettings(ServiceSettings):
    """What only the API may know: it checks keys and files."""

    key_pepper: HexSecret
    fingerprint_key: HexSecret
    signing_key: HexSecret
    """Ed25519 seed that receipts and the witness are signed with."""
    earlier_signing_keys: SigningKeys = ""
    """Public keys, with commas, of the seeds that came before signing_key: still published, and believed in the
    witness."""
    policy_key: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Ed25519 public key that raised limits, thaws and corrections must be signed with; None: not checked."""
    witness: Path | None = None
    """Append-only file outside the database that remembers how far each budget's ledger had come; None: no witness."""
    second_witness: str | None = None
    """A folder, or an object store's URL (options: blob_options), for a second copy of the witness; None: none."""
    verify_hours: float = Field(default=24.0, gt=0)
    """Time between two verifications of every budget."""
    upload_limit: int = Field(default=2**30, gt=0)
    """Bytes of one upload."""
    rate_limit: int = Field(default=3000, ge=0)
    """Requests of one key in a minute; 0: as many as it likes."""
    storage_quota: int | None = Field(default=None, gt=0)
    """Bytes that the files of one tenant may have together; None: as many as it likes."""
    job_quota: int | None = Field(default=None, gt=0)
    """Jobs of one tenant that may be queued or running; None: as many as it likes."""
    event_days: int = Field(default=365, gt=0)
    """Days after a job's end that its events are kept."""
    operator_tenant: str | None = None
    """The tenant whose administrators run the service: their status shows the whole installation. None: nobody's."""
    webhook_hosts: WebhookHosts = ""
    """Hosts that webhooks may be sent to, with commas, each with its port unless that is 443; empty: no webhooks."""
    trusted_proxies: str = ""
    """Addresses or networks, with commas, whose X-Forwarded-For and -Proto are believed; empty: nobody's."""
    silos: dict[SiloName, SiloPlace] = Field(default_factory=dict)
    """The silos by name; tenants of none have their files in blobs."""

    @property
    def earlier_keys(self) -> tuple[str, ...]:
        """The signing key's forerunners, in hexadecimal."""
        return tuple(filter(None, (part.strip() for part in self.earlier_signing_keys.split(","))))

    @model_validator(mode="after")
    def _silos_are_apart(self) -> Self:
        if self.silos and self.exchange is None:
            raise ValueError("TACIT_SILOS needs TACIT_EXCHANGE and TACIT_EXCHANGE_KEY, where silos and others meet")
        tenants = Counter(tenant for silo in self.silos.values() for tenant in silo.tenants)
        if twice := [tenant for tenant, times in tenants.items() if times > 1]:
            raise ValueError(f"TACIT_SILOS: {twice[0]} is named more than once; a tenant has one silo at most")
        return self


class WorkerSettings(ServiceSettings):
    """What the worker needs beyond the shared settings."""

    silo: SiloName | None = None
    """The silo whose jobs this worker runs, and no others; blobs and master_key are then the silo's own."""
    device: str = "auto"
    """torch device: auto, cpu, cuda, cuda:1, ..."""
    profile_after: float = Field(default=60.0, ge=0)
    """Seconds of idleness before the worker measures models that have no profile; 0: it never does."""
    lease_seconds: int = Field(default=60, ge=3, le=600)
    reconcile_seconds: float = Field(default=5.0, gt=0)
    max_attempts: int = Field(default=20, gt=0)
    """Claims of one job before it is failed for good."""
    job_seconds: float | None = Field(default=None, gt=0)
    """Seconds that workers may have one job in hand, all attempts together; None: as long as its reservation lives."""

    @model_validator(mode="after")
    def _silo_is_whole(self) -> Self:
        if self.silo is not None and self.exchange is None:
            raise ValueError(
                "TACIT_SILO needs TACIT_EXCHANGE and TACIT_EXCHANGE_KEY: public files of its tenants lie there, and "
                "what its jobs send to others"
            )
        if self.silo is not None and (self.master_key is None or self.kms_command is not None):
            raise ValueError(
                "TACIT_SILO needs the silo's TACIT_MASTER_KEY, and no TACIT_KMS_COMMAND: the API must open its results"
            )
        return self


class OperatorSettings(FileSettings):
    """What brings a database to this version. No service gets any of it but its own login."""

    admin_database_url: SecretStr
    """The operator's login: no superuser, a member of tacit_owner."""
    api_database_url: SecretStr
    """The API's TACIT_DATABASE_URL: its login is to be a member of tacit_api."""
    worker_database_url: SecretStr
    """The workers' TACIT_DATABASE_URL: its login is to be a member of tacit_worker."""
    silo_database_urls: dict[SiloName, SecretStr] = Field(default_factory=dict)
    """TACIT_DATABASE_URL of each silo's worker, by the silo's name: its login is to work for that silo alone."""
    key_pepper: HexSecret


class RewrapSettings(KeySettings):
    """What `python -m domain.storage.vault` needs."""

    admin_database_url: SecretStr


def secret_bytes(value: SecretStr) -> bytes:
    """The bytes of a hexadecimal secret."""
    return bytes.fromhex(value.get_secret_value())
