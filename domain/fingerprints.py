"""Which budgets hold which records and users: keyed hashes that bind them to a budget for good, within one tenant."""

import hmac
from collections.abc import Iterator, Mapping
from pathlib import Path

import sqlalchemy as sa

from domain.ingest.fingerprint import SIZE, Kind
from ledger.errors import translated

Marks = Mapping[Kind, Path]
"""Files of fingerprints, as the check of an upload leaves them: one after the other, without separator."""
CHUNK = 2**16
"""Fingerprints in a statement."""

_HOLDERS = sa.text(
    "SELECT DISTINCT f.budget_id FROM ledger.cut(:marks) AS m (mac)"
    " JOIN fingerprint f ON f.tenant_id = :tenant AND f.kind = :kind AND f.mac = m.mac"
)
_BIND = sa.text(
    "INSERT INTO fingerprint (tenant_id, kind, mac, budget_id)"
    " SELECT :tenant, :kind, m.mac, :budget FROM ledger.cut(:marks) AS m (mac) ON CONFLICT DO NOTHING"
)

_KEEP = sa.text("INSERT INTO fingerprint_key (mark) VALUES (:mark) ON CONFLICT DO NOTHING")


class OtherFingerprintKey(RuntimeError):
    """The records of this database were told apart with another key."""


def require_same_key(connection: sa.Connection, key: bytes, *, keep: bool) -> None:
    """Raises OtherFingerprintKey unless this is the key that the first service on this database started with.

    keep: whether a database that knows none yet remembers this one, by a mark that tells nothing of it.
    """
    mark = hmac.digest(key, b"tacit.fingerprint-key.v1", "sha256")
    if keep:
        connection.execute(_KEEP, {"mark": mark})
    known = connection.execute(sa.text("SELECT mark FROM fingerprint_key")).scalar_one_or_none()
    if known is not None and not hmac.compare_digest(known, mark):
        raise OtherFingerprintKey(
            "TACIT_FINGERPRINT_KEY is not the key that the records of this database are known by: with another one all "
            "of them would look new, and get a second budget. Start with the key from your backup of the secrets"
        )


def lock(connection: sa.Connection, tenant_id: str) -> None:
    """Until the transaction ends, no other registers private rows of this tenant: what `holders` says stays true."""
    # The rows are here and checked: better wait for a large upload to finish than have these sent again.
    connection.execute(sa.text("SET LOCAL lock_timeout = '120s'"))
    connection.execute(sa.select(sa.func.ledger.lock_population(tenant_id)))
    connection.execute(sa.text("SET LOCAL lock_timeout TO DEFAULT"))


def holders(connection: sa.Connection, tenant_id: str, marks: Marks) -> set[str]:
    """The tenant's budgets that hold any of these."""
    found: set[str] = set()
    for values in _chunks(marks):
        found.update(connection.execute(_HOLDERS, {"tenant": tenant_id, **values}).scalars())
    return found


def bind(connection: sa.Connection, tenant_id: str, budget_id: str, marks: Marks) -> None:
    """Put all of these under a budget. The database refuses what another holds, unless that was decided. Raises
    ledger.errors.LedgerIncomplete."""
    with translated():
        for values in _chunks(marks):
            connection.execute(_BIND, {"tenant": tenant_id, "budget": budget_id, **values})


def _chunks(marks: Marks) -> Iterator[dict[str, object]]:
    for kind, path in marks.items():
        with path.open("rb") as source:
            while piece := source.read(CHUNK * SIZE):
                yield {"kind": kind, "marks": piece}
