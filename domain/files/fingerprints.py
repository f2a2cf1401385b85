"""Which budgets hold which records and users: keyed hashes that bind them to a budget for good, within one tenant."""

import hmac
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from domain.ingest.fingerprint import SIZE, FingerprintKind
from domain.ingest.marks import Marks
from domain.kit.tables import file, fingerprint_key, identity
from ledger.errors import translated

CHUNK = 2**16
"""Fingerprints in a statement."""

_HOLDERS = sa.text(
    "SELECT f.budget_id, count(*) FROM ledger.cut(:marks) AS m (mac)"
    " JOIN fingerprint f ON f.tenant_id = :tenant AND f.kind = :kind AND f.mac = m.mac GROUP BY 1"
)
_BIND = sa.text(
    "INSERT INTO fingerprint (tenant_id, kind, mac, budget_id)"
    " SELECT :tenant, :kind, m.mac, :budget FROM ledger.cut(:marks) AS m (mac) ON CONFLICT DO NOTHING"
)
_BIND_FREE = sa.text(
    "INSERT INTO fingerprint (tenant_id, kind, mac, budget_id)"
    " SELECT :tenant, :kind, m.mac, :budget FROM ledger.cut(:marks) AS m (mac) WHERE NOT EXISTS (SELECT FROM"
    " fingerprint f WHERE f.tenant_id = :tenant AND f.kind = :kind AND f.mac = m.mac AND f.budget_id <> :budget)"
    " ON CONFLICT DO NOTHING"
)
_ELSEWHERE = sa.text(
    "SELECT count(*) FROM ledger.cut(:marks) AS m (mac) WHERE EXISTS (SELECT FROM fingerprint f"
    " WHERE f.tenant_id = :tenant AND f.kind = :kind AND f.mac = m.mac AND f.budget_id <> :budget)"
)
_PUBLISH = sa.text(
    "INSERT INTO public_record (tenant_id, mac, file_id)"
    " SELECT :tenant, m.mac, :file FROM ledger.cut(:marks) AS m (mac) ON CONFLICT DO NOTHING"
)
_PUBLISHED = sa.text(
    "SELECT p.file_id, count(*) FROM ledger.cut(:marks) AS m (mac) JOIN public_record p ON p.tenant_id = :tenant"
    " AND p.mac = m.mac JOIN file f ON f.id = p.file_id AND f.deleted_at IS NULL GROUP BY 1"
)


class OtherFingerprintKey(RuntimeError):
    """The records of this database were told apart with another key."""


def mark_of(key: bytes) -> bytes:
    """What a database remembers of a key; it tells nothing of it."""
    return hmac.digest(key, b"tacit.fingerprint-key.v1", "sha256")


def require_same_key(connection: sa.Connection, key: bytes, *, keep: bool) -> None:
    """Raises OtherFingerprintKey unless this is the newest key that the records of this database are known by.

    keep: whether a database that knows none yet remembers this one, by its mark.
    """
    mark = mark_of(key)
    if keep:
        connection.execute(insert(fingerprint_key).values(mark=mark).on_conflict_do_nothing())
    known = keys(connection)
    if known and not hmac.compare_digest(known[0], mark):
        raise OtherFingerprintKey(
            "TACIT_FINGERPRINT_KEY is not the key that the records of this database are known by: with another one all "
            "of them would look new, and get a second budget. Start with the key from your backup of the secrets; if "
            "it is lost for good, `tacit ledger new-fingerprint-key` says what then holds and goes on with this one"
        )


def keys(connection: sa.Connection) -> list[bytes]:
    """The marks of all keys, the newest first."""
    newest_first = sa.select(fingerprint_key.c.mark).order_by(fingerprint_key.c.number.desc())
    return list(connection.execute(newest_first).scalars())


def go_on_with(connection: sa.Connection, key: bytes, reason: str) -> None:
    """Operator: the key of before is lost, this one takes its place. Raises ValueError for one that was in use."""
    mark = mark_of(key)
    if mark in keys(connection):
        raise ValueError("this key was in use before: start with it again")
    connection.execute(fingerprint_key.insert().values(mark=mark, reason=reason))


def lock(connection: sa.Connection, tenant_id: str) -> None:
    """Until the transaction ends, no other registers rows of this tenant: what `holders` says stays true."""
    # The rows are here and checked: better wait for a large upload to finish than have these sent again.
    connection.execute(sa.text("SET LOCAL lock_timeout = '120s'"))
    connection.execute(sa.select(sa.func.ledger.lock_population(tenant_id)))
    connection.execute(sa.text("SET LOCAL lock_timeout TO DEFAULT"))


def holders(connection: sa.Connection, tenant_id: str, marks: Marks) -> Counter[str]:
    """The tenant's budgets that hold any of these, and how many each."""
    found: Counter[str] = Counter()
    known = [marks.new, marks.old] if _has_old(connection, tenant_id) else [marks.new]
    for values in (chunk for some in known for chunk in _chunks(some)):
        for budget_id, count in connection.execute(_HOLDERS, {"tenant": tenant_id, **values}):
            found[budget_id] += count
    return found


def bind(connection: sa.Connection, tenant_id: str, budget_id: str, marks: Marks) -> None:
    """Put all of these under a budget. The database refuses what another holds, unless that was decided. Raises
    ledger.errors.LedgerIncomplete."""
    with translated():
        for values in _chunks(marks.new):
            connection.execute(_BIND, {"tenant": tenant_id, "budget": budget_id, **values})


def bind_free(connection: sa.Connection, tenant_id: str, budget_id: str, marks: Marks) -> int:
    """Put under a budget what no other holds; answers how many another does."""
    elsewhere = 0
    with translated():
        for values in _chunks(marks.new):
            values |= {"tenant": tenant_id, "budget": budget_id}
            elsewhere += connection.execute(_ELSEWHERE, values).scalar_one()
            connection.execute(_BIND_FREE, values)
    return elsewhere


def publish(connection: sa.Connection, tenant_id: str, file_id: str, marks: Marks) -> None:
    """Remember which records a public file has."""
    for values in _chunks({"record": marks.records}):
        connection.execute(_PUBLISH, {"tenant": tenant_id, "file": file_id, **values})


def published(connection: sa.Connection, tenant_id: str, marks: Marks) -> Counter[str]:
    """The tenant's public files that have any of these texts, and how many each."""
    found: Counter[str] = Counter()
    for values in _chunks({"record": marks.records}):
        for file_id, count in connection.execute(_PUBLISHED, {"tenant": tenant_id, **values}):
            found[file_id] += count
    return found


def _has_old(connection: sa.Connection, tenant_id: str) -> bool:
    """Whether any of the tenant's files came before records were known by their texts."""
    uploaded = sa.select(identity.c.file_id).where(identity.c.made == "upload")
    old = sa.select(file.c.id).where(
        file.c.tenant_id == tenant_id, file.c.budget_id.is_not(None), file.c.id.not_in(uploaded)
    )
    return bool(connection.execute(sa.select(old.exists())).scalar_one())


def _chunks(marks: Mapping[FingerprintKind, Path]) -> Iterator[dict[str, object]]:
    for kind, path in marks.items():
        with path.open("rb") as source:
            while piece := source.read(CHUNK * SIZE):
                yield {"kind": kind, "marks": piece}
