"""Which budgets hold which records and users: keyed hashes that bind them to a budget for good, within one tenant."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import sqlalchemy as sa

from domain.ingest.fingerprint import SIZE, Kind

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
    """Put all of these under a budget. The database refuses what another holds, unless that was decided."""
    for values in _chunks(marks):
        connection.execute(_BIND, {"tenant": tenant_id, "budget": budget_id, **values})


def _chunks(marks: Marks) -> Iterator[dict[str, object]]:
    for kind, path in marks.items():
        with path.open("rb") as source:
            while piece := source.read(CHUNK * SIZE):
                yield {"kind": kind, "marks": piece}
