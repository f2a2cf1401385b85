"""The places that a process keeps blobs in: its own, the exchange, and the silos that the API serves. Each has master
keys of its own, so that who has one place's key opens nothing of another's."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from domain.kit.settings import ApiSettings, ServiceSettings, SiloPlace, WorkerSettings
from domain.storage.homes import EXCHANGE, GENERAL, silo_home
from domain.storage.masters import Masters, NoMasterKey, local_masters, read_masters


@dataclass(frozen=True)
class BlobPlace:
    """A folder or an object store that is not yet open, for the blobs of one home."""

    home: str
    blobs: str
    options: SecretStr | None
    masters: Masters
    variable: str = "TACIT_BLOBS"
    """The setting that names it, for messages."""
    options_variable: str = "TACIT_BLOB_OPTIONS"


def places(settings: ServiceSettings) -> list[BlobPlace]:
    """The process's own place, then the others that it may open. Raises NoMasterKey, also for a key that two share."""
    silo = settings.silo if isinstance(settings, WorkerSettings) else None
    home = GENERAL if silo is None else silo_home(silo)
    found = [BlobPlace(home, settings.blobs, settings.blob_options, read_masters(settings))]
    if settings.exchange is not None:
        masters = local_masters(settings.exchange_key, "TACIT_EXCHANGE_KEY")
        variables = "TACIT_EXCHANGE", "TACIT_EXCHANGE_OPTIONS"
        found.append(BlobPlace(EXCHANGE, settings.exchange, settings.exchange_options, masters, *variables))
    if isinstance(settings, ApiSettings):
        found += [_of_silo(name, silo) for name, silo in settings.silos.items()]
    owners: dict[str, str] = {}
    for place in found:
        for id in place.masters.known:
            if id in owners:
                raise NoMasterKey(
                    f"{owners[id]} and {place.masters.where} hold the same master key {id}: make one of its own for "
                    "each with `openssl rand -hex 32`"
                )
            owners[id] = place.masters.where
    return found


def _of_silo(name: str, silo: SiloPlace) -> BlobPlace:
    where = f"TACIT_SILOS: {name}: master_key_file"
    return BlobPlace(
        silo_home(name),
        silo.blobs,
        silo.blob_options,
        local_masters(_read(silo.master_key_file, where), where),
        f"TACIT_SILOS: {name}: blobs",
        f"TACIT_SILOS: {name}: blob_options",
    )


def _read(path: Path, where: str) -> SecretStr:
    try:
        return SecretStr(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise NoMasterKey(f"{where}: {path} cannot be read: {reason}") from None
