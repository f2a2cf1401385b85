"""The files that a check leaves: by which the records and users of a file are recognised."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from domain.ingest.fingerprint import FingerprintKind


@dataclass(frozen=True)
class Marks:
    """Fingerprints one after the other, without separator; sketches, each with the number of its record."""

    records: Path
    users: Path
    old_records: Path
    """As records were known altogether before each text marked them."""
    old_users: Path
    """Of ids that were once known by their spelling."""
    sketches: Path

    def __iter__(self) -> Iterator[Path]:
        return (getattr(self, field.name) for field in fields(self))

    @property
    def new(self) -> dict[FingerprintKind, Path]:
        return {"record": self.records, "user": self.users}

    @property
    def old(self) -> dict[FingerprintKind, Path]:
        return {"record": self.old_records, "user": self.old_users}


def beside(path: Path) -> Marks:
    """Where the marks of an upload lie that is received into this path."""
    return Marks(*(path.with_suffix(f".{field.name}") for field in fields(Marks)))
