"""Every column of the ledger, changed behind the triggers: verification notices, or docs/verification.md says why it need
not; and nothing that a row may hold ends it."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.kit.ids import new_id
from ledger import grants, policy, work
from ledger.reserve import Priced, settle
from ledger.tables import curve
from ledger.verify import verify_budget
from tests.conftest import Database
from tests.ledger.test_grants import another, give, job_of
from tests.ledger.test_verify import KEY, PUBLIC
from tests.ledger.worlds import World

LIST = Path(__file__).parents[2] / "docs" / "verification.md"
# Whoever tampers as a superuser takes constraints away too.
UNGUARD = """
DO $$ DECLARE it record; BEGIN
  FOR it IN SELECT c.conrelid::regclass AS of, c.conname AS name FROM pg_constraint c
            WHERE c.connamespace::regnamespace::text IN ('ledger', 'public') AND c.conrelid <> 0 AND c.contype IN ('c', 'f', 'p', 'u') LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', it.of, it.name);
  END LOOP;
  FOR it IN SELECT i.indexrelid::regclass AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
            WHERE c.relnamespace::regnamespace::text IN ('ledger', 'public') AND i.indisunique LOOP
    EXECUTE format('DROP INDEX %s', it.name);
  END LOOP;
  FOR it IN SELECT c.contypid::regtype AS of, c.conname AS name FROM pg_constraint c
            WHERE c.connamespace::regnamespace::text IN ('ledger', 'public') AND c.contypid <> 0 AND c.contype = 'c' LOOP
    EXECUTE format('ALTER DOMAIN %s DROP CONSTRAINT %I', it.of, it.name);
  END LOOP;
  FOR it IN SELECT a.attrelid::regclass AS of, a.attname AS name, a.attidentity, a.attnotnull
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE c.relnamespace::regnamespace::text IN ('ledger', 'public') AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped LOOP
    IF it.attidentity <> '' THEN EXECUTE format('ALTER TABLE %s ALTER %I DROP IDENTITY', it.of, it.name); END IF;
    IF it.attnotnull THEN EXECUTE format('ALTER TABLE %s ALTER %I DROP NOT NULL', it.of, it.name); END IF;
  END LOOP;
END $$
"""


def whole_life(world: World) -> str:
    """A budget with a row of every kind: jobs in every state, other mechanisms, decisions, grants, records and users."""
    budget = world.budget()
    file = world.file(budget)
    ann, bob = another(world, "analyst", "lab"), another(world, "steward", None)
    orders = list(world.balance(budget).filter.orders)
    step = [10**10 * a for a in orders]
    with world.root.begin() as c:
        for id, whole in (("shuffled", True), ("plain", False)):
            values = {"id": id, "orders": orders, "step_cost": step, "indivisible": whole}
            c.execute(curve.insert().values(description="d", proof="p", **values))
    world.marks(budget, "record", "user", "record")
    with world.api.begin() as c:
        grants.set_rules(c, budget, approval_above=Decimal("2"), queue_days=3, by=world.key, reason="a quiet year")
        policy.record_overlap(c, budget, file, budget, "greetings that everybody writes")
    give(world, budget, "4", "1", project="lab")
    give(
        *(world, budget, None, "1", "0.5", datetime.now(UTC) + timedelta(days=400), ["minilm-l6"], 500),
        methods=["lora"],
        project="ward",
    )
    cal = another(world, "analyst", "ward")
    own = give(world, budget, key=ann.key)
    with world.api.begin() as c:
        grants.revoke(c, budget, own, world.key)

    small = Priced(0.01, 1.5, 100)
    cal.submit([(file, budget, [Priced(0.01, 4.0, 20)])])
    asked, _ = ann.submit([(file, budget, [job_of(world, budget, 1.5)])])
    with world.api.begin() as c:
        grants.approve(c, asked, bob.key)
    ann.submit([(file, budget, [job_of(world, budget, 1.4)])])
    run(world, world.submit([(file, budget, [small, Priced(1.0, 30.0, 1, indivisible=True)])])[0], "succeeded", 40)
    early = other_mechanisms(world, file, budget)
    with world.root.begin() as c:
        policy.reprice(c, KEY, budget, "accountant version 2")
    run(world, early, "failed", 2)
    run(world, world.submit([(file, budget, [small])])[0], None, 5)
    run(world, ann.submit([(file, budget, [small])])[0], "cancelled", 7)
    world.submit([(file, budget, [small, Priced(1.0, 30.0, 1, indivisible=True)])])
    given_up, _ = world.submit([(file, budget, [small])])
    with world.api.begin() as c:
        settle(c, given_up, "cancelled")
        policy.freeze(c, budget, "a complaint")
    with world.root.begin() as c:
        policy.thaw(c, KEY, budget, "looked into it")
        policy.raise_limit(c, KEY, budget, Decimal("9"), "board decision 12")
        policy.correct(c, KEY, budget, [10**9] * len(orders), "an export outside the service")
    with world.api.begin() as c:
        policy.lower_limit(c, budget, Decimal("0.5"), "no more jobs")
    return budget


def run(world: World, job: str, outcome: str | None, steps: int) -> None:
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
        assert work.authorise(c, lease, 0, steps) == steps
        if outcome:
            settle(c, job, outcome, lease.fence)  # type: ignore[arg-type]
            work.drop(c, lease)


def other_mechanisms(world: World, file: str, budget: str) -> str:
    """A job with phases of registered curves."""
    job, resv = new_id("ftjob", "-"), new_id("resv")
    with world.api.begin() as c:
        world.job_rows(c, job, [(file, budget)])
        for statement in (
            "INSERT INTO ledger.work (job_id) VALUES (:j)",
            "INSERT INTO ledger.reservation (id, job_id, file_id, budget_id) VALUES (:r, :j, :f, :b)",
            "INSERT INTO ledger.phase (reservation_id, ordinal, curve_id, steps_max) VALUES (:r, 0, 'plain', 3), (:r, 1, 'shuffled', 3)",
            "INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES (:b, 'reserve', :r)",
        ):
            c.execute(sa.text(statement), {"j": job, "r": resv, "f": file, "b": budget})
    return job


@pytest.fixture(scope="module")
def lived(module_database: Database) -> tuple[World, str]:
    world = World(module_database)
    budget = whole_life(world)
    with world.api.connect() as c:
        assert verify_budget(c, budget, PUBLIC) == []
        assert {kind for (kind,) in c.exec_driver_sql("SELECT DISTINCT kind FROM ledger.entry")} == set(KINDS)
    with world.root.begin() as c:
        c.exec_driver_sql(UNGUARD.replace("%", "%%"))
    return world, budget


KINDS = (
    *("open", "reserve", "settle", "freeze", "thaw", "limit", "correction"),
    *("reprice", "overlap", "grant", "revoke", "rules", "approve", "records"),
)
CHANGES: dict[str, tuple[str, ...]] = {
    "text": ("coalesce({c}, '') || 'x'",),
    "boolean": ("NOT {c}",),
    "bytea": ("sha256({c})",),
    "jsonb": ("""coalesce({c}, '{{}}') || '{{"reason": "another"}}'""",),
    "double precision": ("{c} * 0.9",),
    "timestamp with time zone": ("{c} + interval '1000 days'", "coalesce({c}, now() + interval '1 day')", "NULL"),
    "number": ("coalesce({c}, 0) + 1", "{c} - 1"),
    "array": ("{c}[:2] || ({c}[3] + 1) || {c}[4:]",),
}


@lru_cache
def column_types(url: str) -> dict[str, str]:
    """By table and column; of a domain what it is made of."""
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as c:
        found = c.exec_driver_sql(
            "SELECT c.relname || '.' || a.attname, format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL)"
            " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid"
            " WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1"
        )
        return {name: kind for name, kind in found}


def family(kind: str) -> str:
    return (
        "array" if kind.endswith("[]") else "number" if kind in ("numeric", "bigint", "integer", "smallint") else kind
    )


def table_of(name: str) -> str:
    return name.partition(".")[0]


def rows(c: sa.Connection, table: str) -> list[str]:
    return [ctid for (ctid,) in c.exec_driver_sql(f"SELECT ctid::text FROM ledger.{table} ORDER BY ctid")]


def change(c: sa.Connection, name: str, new: str, ctid: str) -> str | None:
    """Write past the triggers; answers where the row is then, None if that was its value already."""
    table, column = name.split(".")
    kind = column_types(c.engine.url.render_as_string(hide_password=False))[name]
    new = f"({new.format(c=f'({column}::{kind})')})"
    c.exec_driver_sql("SET LOCAL session_replication_role = replica")
    where = f"ctid = '{ctid}' AND {column} IS DISTINCT FROM {new}"
    written = f"UPDATE ledger.{table} SET {column} = {new} WHERE {where} RETURNING ctid::text"
    return c.exec_driver_sql(written).scalar_one_or_none()


def noticed(world: World, budget: str, name: str, kind: str) -> bool:
    """Whether some change of some row is found."""
    with world.root.connect() as c:
        for ctid in rows(c, table_of(name)):
            for new in CHANGES[family(kind)]:
                with c.begin_nested() as tampering:
                    found = change(c, name, new, ctid) and verify_budget(c, budget, PUBLIC)
                    tampering.rollback()
                if found:
                    return True
    return False


def listed() -> dict[str, bool]:
    """The columns of the list, and whether a change of them is said to be noticed."""
    lines = re.findall(r"^\| `(\w+\.\w+)` \| (.*?) ?\| (.*?) ?\|$", LIST.read_text(), re.MULTILINE)
    assert all(bool(by) != bool(why) for _, by, why in lines)
    return {name: bool(by) for name, by, _ in lines}


def test_every_column_is_noticed_or_said_why_not(lived: tuple[World, str]) -> None:
    world, budget = lived
    kinds = column_types(world.database.superuser_url)
    assert kinds.keys() == listed().keys()
    assert {name: noticed(world, budget, name, kind) for name, kind in kinds.items()} == listed()


POISON: dict[str, tuple[str, ...]] = {
    "text": ("NULL", "''", "repeat('x', 100000)", "'{{1,2}}'"),
    "boolean": ("NULL",),
    "bytea": ("NULL", "''::bytea", "'\\x00'::bytea"),
    "jsonb": (
        *("NULL", "'null'::jsonb", "'[]'::jsonb", "'5'::jsonb", "'\"x\"'::jsonb", "'{{}}'::jsonb"),
        '\'{{"epsilon": "x", "reason": null, "grant": [1], "queue_days": true}}\'::jsonb',
        '\'{{"epsilon": "NaN", "signature": 5, "signer": {{}}, "whole": [[0], null]}}\'::jsonb',
        "jsonb_build_object('sample_rate', 10::numeric ^ 2000 + 0.5, 'steps', 10::numeric ^ 2000 + 0.5)",
        "(repeat('[', 3000) || repeat(']', 3000))::jsonb",
        "to_jsonb(10::numeric ^ 9000)",
    ),
    "double precision": ("NULL", "'NaN'::float8", "'Infinity'::float8", "0::float8", "-1::float8", "5e-324::float8"),
    "timestamp with time zone": (
        "NULL",
        *(f"'{time}'::timestamptz" for time in ("infinity", "-infinity", "294276-12-31", "4713-01-01 BC")),
    ),
    "smallint": ("NULL", "0::smallint", "-1::smallint", "32767::smallint"),
    "integer": ("NULL", "0", "-1", "2147483647"),
    "bigint": ("NULL", "0::bigint", "-1::bigint", "9223372036854775807"),
    "numeric": (
        *("NULL", "0::numeric", "-1::numeric", "1e-16000", "1e130000"),
        *("'NaN'::numeric", "'Infinity'::numeric", "'-Infinity'::numeric"),
    ),
    "array": (
        *("NULL", "{c}[2:1]", "{c}[2:]", "{c} || {c}", "ARRAY[{c}, {c}]", "{c}[:1] || NULL || {c}[3:]"),
        "array_fill({c}[2], ARRAY[coalesce(cardinality({c}), 2)], ARRAY[0])",
        "array_fill({c}[1] * 0, ARRAY[coalesce(cardinality({c}), 2)])",
        "array_fill({c}[2], ARRAY[3, 2, 2])",
    ),
}


HARMLESS_IN_ONE_DIRECTION = {
    *("authorisation.fence", "work.fence", "work.lease_until", "phase.indivisible", "curve.indivisible"),
    *("reservation.expires_at", "reservation.starts_by", "budget_grant.revoked_at"),
}


THE_SAME = {("budget_grant.models", "'null'::jsonb"), ("budget_grant.methods", "'null'::jsonb")}
"""JSON's null says as much as SQL's: all of them."""


@pytest.fixture(scope="module")
def places(lived: tuple[World, str]) -> list[tuple[str, str, str]]:
    """Column, its type's name in POISON, and a row."""
    world, _ = lived
    with world.root.connect() as c:
        return [
            (name, "array" if kind.endswith("[]") else kind, ctid)
            for name, kind in column_types(world.database.superuser_url).items()
            for ctid in rows(c, table_of(name))
        ]


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_row_ends_verification(
    lived: tuple[World, str], places: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    spoil(lived, places, data)


@pytest.mark.verify
@given(st.data())
@settings(max_examples=400, deadline=None, derandomize=True)
def test_no_row_of_many_ends_verification(
    lived: tuple[World, str], places: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    spoil(lived, places, data)


def spoil(lived: tuple[World, str], places: list[tuple[str, str, str]], data: st.DataObject) -> None:
    """A few values of a few rows, each to something that nobody writes: verification ends, and finds what it must."""
    world, budget = lived
    wanted = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4, unique=True))
    moved: dict[tuple[str, str], str] = {}
    must_be_found = False
    with world.root.connect() as c:
        for name, kind, ctid in wanted:
            row = table_of(name), ctid
            new = data.draw(st.sampled_from(POISON[kind]))
            now = change(c, name, new, moved.get(row, ctid))
            if now is not None:
                moved[row] = now
                must_be_found |= (
                    listed()[name] and name not in HARMLESS_IN_ONE_DIRECTION and (name, new) not in THE_SAME
                )
        found = verify_budget(c, budget, PUBLIC)
        assert found or not must_be_found
