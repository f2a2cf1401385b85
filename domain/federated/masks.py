"""What the database has of masks: the public keys of silos, whose messages are in a round's sum, and what each of those
signed and opened. All of it may be seen by everybody; each is written once, under its own job's fence."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from domain.kit.tables import federated_round, silo, silo_round
from ledger.errors import translated
from ledger.work import Lease


def keys(connection: sa.Connection, parent_id: str) -> dict[str, str]:
    """The public keys of all silos that have said theirs, in hexadecimal, by name."""
    said = sa.select(silo.c.name, silo.c.mask_keys).where(silo.c.parent_id == parent_id, silo.c.mask_keys.is_not(None))
    return {row.name: row.mask_keys for row in connection.execute(said)}


@dataclass(frozen=True)
class OwnKeys:
    """What a silo said. fence: under which, and so where its worker keeps the secret ones."""

    public: str
    fence: int


def own_keys(connection: sa.Connection, job_id: str) -> OwnKeys | None:
    """Of a silo's job; None before it has said any."""
    row = connection.execute(sa.select(silo.c.mask_keys, silo.c.mask_fence).where(silo.c.job_id == job_id)).one()
    return None if row.mask_keys is None else OwnKeys(row.mask_keys, row.mask_fence)


def say_keys(connection: sa.Connection, lease: Lease, public: str) -> None:
    """A silo's public keys, for good; the caller commits. Raises StaleFence."""
    said = sa.update(silo).where(silo.c.job_id == lease.job_id, silo.c.mask_keys.is_(None))
    with translated():
        connection.execute(said.values(mask_keys=public, mask_fence=lease.fence))


def agree(connection: sa.Connection, lease: Lease, number: int, digests: Mapping[str, str]) -> None:
    """Whose messages are in the sum of a round, with the digest of each: nothing more comes from now on. The caller
    commits. Raises StaleFence."""
    table = federated_round.c
    agreed = sa.update(federated_round).where(table.job_id == lease.job_id, table.number == number)
    with translated():
        connection.execute(agreed.values(fence=lease.fence, agreed=dict(digests)))


@dataclass(frozen=True)
class MaskedPart:
    """A silo's part in a masked round: where its message is, and what it has signed and opened so far."""

    blob: str
    sha256: str
    signature: str | None
    opening: Mapping[str, object] | None


def parts(connection: sa.Connection, parent_id: str, number: int) -> dict[str, MaskedPart]:
    """By the names of the silos whose messages came."""
    rows = connection.execute(
        sa.select(silo.c.name, silo_round.c.blob, silo_round.c.sha256, silo_round.c.signature, silo_round.c.opening)
        .join(silo, silo.c.job_id == silo_round.c.job_id)
        .where(silo.c.parent_id == parent_id, silo_round.c.number == number, silo_round.c.blob.is_not(None))
        .order_by(silo.c.name)
    )
    return {row.name: MaskedPart(row.blob, row.sha256, row.signature, row.opening) for row in rows}


def sign(connection: sa.Connection, lease: Lease, number: int, signature: str) -> None:
    """A silo's signature under the list of those who are in; the caller commits. Raises StaleFence, and RoundClosed
    when it comes too late."""
    _said(connection, lease, number, signature=signature)


def open_masks(connection: sa.Connection, lease: Lease, number: int, opening: Mapping[str, object]) -> None:
    """What a silo opens; the caller commits. Raises StaleFence, and RoundClosed when it comes too late."""
    _said(connection, lease, number, opening=dict(opening))


def _said(connection: sa.Connection, lease: Lease, number: int, **values: object) -> None:
    table = silo_round.c
    mine = table.job_id == lease.job_id, table.number == number, table.blob.is_not(None)
    with translated():
        connection.execute(sa.update(silo_round).where(*mine).values(sent_fence=lease.fence, **values))
