"""Fingerprints are counted as they come and sealed in the chain: whoever removes some behind the triggers is found."""

import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from domain.kit import tables
from domain.kit.ids import new_id
from ledger.errors import translated
from ledger.verify import verify_budget
from migrations import upgrade
from tests.conftest import Database
from tests.ledger.test_migrations import LIVED_IN
from tests.ledger.worlds import World

INSERT = sa.text("INSERT INTO fingerprint VALUES (:tenant, :kind, :mac, :budget) ON CONFLICT DO NOTHING")


def bind(c: sa.Connection, world: World, budget: str, macs: list[bytes], kind: str = "record") -> None:
    rows = [{"tenant": world.tenant, "kind": kind, "mac": mac, "budget": budget} for mac in macs]
    c.execute(INSERT, rows)


def sealed(world: World, budget: str) -> list[str]:
    """The digests in the budget's chain."""
    with world.api.connect() as c:
        of_kind = "SELECT detail ->> 'digest' FROM ledger.entry WHERE budget_id = :b AND kind = 'records' ORDER BY seq"
        return list(c.execute(sa.text(of_kind), {"b": budget}).scalars())


def counted(world: World, budget: str) -> list[tuple[str, int, list[int]]]:
    with world.api.connect() as c:
        rows = c.execute(
            sa.text("SELECT kind, marks, sums FROM ledger.population WHERE budget_id = :b ORDER BY kind"), {"b": budget}
        )
        return [(r.kind, r.marks, [int(x) for x in r.sums]) for r in rows]


def findings(world: World, budget: str) -> list[str]:
    with world.api.connect() as c:
        return [f.what for f in verify_budget(c, budget)]


def test_one_entry_a_transaction_seals_what_is_there_and_tells_no_number(world: World) -> None:
    budget = world.budget()
    macs = [secrets.token_bytes(32) for _ in range(30)]
    with world.api.begin() as c:
        for part in (macs[:10], macs[5:], macs):  # what is there already does not count again
            bind(c, world, budget, part)
        bind(c, world, budget, macs[:3], "user")
    slices = [
        [int.from_bytes(hashlib.sha512(m).digest()[i : i + 8], "big", signed=True) for m in macs]
        for i in range(0, 64, 8)
    ]
    assert [kind for kind, *_ in counted(world, budget)] == ["record", "user"]
    assert counted(world, budget)[0][1:] == (30, [sum(s) for s in slices])
    assert counted(world, budget)[1][1] == 3
    (digest,) = sealed(world, budget)
    with world.api.connect() as c:
        line = c.execute(
            sa.text("SELECT * FROM ledger.entry WHERE budget_id = :b AND kind = 'records'"), {"b": budget}
        ).one()
    assert line.detail == {"digest": digest}
    assert not any([*line.spent_change, *line.reserved_change])
    assert findings(world, budget) == []

    other = world.budget()
    with world.api.begin() as c:
        c.execute(sa.text("INSERT INTO ledger.entry (budget_id, kind) VALUES (:b, 'records')"), {"b": other})
    again = [secrets.token_bytes(32) for _ in range(30)]
    for order in (again, again[::-1]):
        with world.api.begin() as c:
            bind(c, world, other, order)
    assert len(sealed(world, other)) == 2  # of nothing, and of what came; nothing new, no entry
    assert findings(world, other) == []


def test_a_file_is_sealed_whether_it_brings_anything_new_or_not(world: World) -> None:
    """Analysts see how long the chain is: it must not tell them what was there before."""
    budget = world.budget()
    macs = [secrets.token_bytes(32) for _ in range(4)]
    ready = {"status": "processed", "sha256": "s", "declared_size": 9, "max_length": 9, "binding": bytes(32)}
    ready |= {"tenant_id": world.tenant, "purpose": "fine-tune", "filename": "f", "budget_id": budget}
    for uploads, new in enumerate((macs[:3], macs[:3], macs, macs), 1):
        file = new_id("file", "-")
        with world.api.begin() as c:
            bind(c, world, budget, new)
            c.execute(tables.file.insert().values(id=file, blob=f"files/{file}/rows.parquet", **ready))
        assert len(sealed(world, budget)) == uploads
    assert findings(world, budget) == []


def post_alone(engine: sa.Engine, budget: str) -> None:
    """What a login can send by itself."""
    made_up = "INSERT INTO ledger.entry (budget_id, kind, detail) VALUES (:b, 'records', '{\"digest\": \"made up\"}')"
    with engine.begin() as c:
        c.execute(sa.text(made_up), {"b": budget})


def test_a_login_that_posts_such_an_entry_by_itself_says_the_truth(world: World) -> None:
    budget = world.budget()
    post_alone(world.api, budget)
    with pytest.raises(sa.exc.ProgrammingError, match="settles and decides nothing"):
        post_alone(world.worker, budget)
    assert findings(world, budget) == []
    with world.api.connect() as slow:
        bind(slow, world, budget, [secrets.token_bytes(32)])
        post_alone(world.api, budget)
        slow.commit()
    assert findings(world, budget) == []
    stale = world.api.execution_options(isolation_level="REPEATABLE READ")
    with stale.connect() as c, pytest.raises(sa.exc.DatabaseError, match="is written under READ COMMITTED"):
        c.exec_driver_sql("SELECT 1 FROM ledger.budget")
        world.marks(budget, "record")
        c.execute(sa.text("INSERT INTO ledger.entry (budget_id, kind) VALUES (:b, 'records')"), {"b": budget})


def test_what_is_sealed_last_is_what_was_committed_last(world: World) -> None:
    budget = world.budget()
    with world.api.connect() as c:  # sealed too early, and again
        bind(c, world, budget, [secrets.token_bytes(32)])
        c.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        c.exec_driver_sql("SET CONSTRAINTS ALL DEFERRED")
        bind(c, world, budget, [secrets.token_bytes(32)])
        c.commit()
    assert findings(world, budget) == []
    with world.api.connect() as first, ThreadPoolExecutor(1) as pool:
        bind(first, world, budget, [secrets.token_bytes(32)])
        first.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        late = pool.submit(post_alone, world.api, budget)
        with world.admin.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
            while not c.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one():
                assert not late.done()
        first.commit()
        late.result(30)
    assert findings(world, budget) == []


@pytest.mark.parametrize("login", ["api", "worker"])
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO ledger.population VALUES (:b, 'user', 1, array_fill(0::numeric, ARRAY[8]))",
        "UPDATE ledger.population SET marks = 1",
        "DELETE FROM ledger.population",
        "TRUNCATE ledger.population",
    ],
)
def test_no_service_writes_what_is_counted(world: World, login: str, statement: str) -> None:
    budget = world.budget()
    world.marks(budget, "record")
    engine = world.api if login == "api" else world.worker
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), engine.begin() as c, translated():
        c.execute(sa.text(statement), {"b": budget})


def test_fingerprints_from_before_they_were_counted(empty_database: Database) -> None:
    """The upgrade counts them and posts nothing; they are compared with that count until the budget's next file."""
    engine = sa.create_engine(empty_database.superuser_url, poolclass=sa.NullPool)
    upgrade(empty_database.admin_url, "0012")
    with engine.begin() as c:
        c.exec_driver_sql(LIVED_IN)
        c.exec_driver_sql(
            "INSERT INTO fingerprint SELECT 't', k, sha256(int4send(i)), 'b' FROM generate_series(1, 5) AS i, unnest('{record,user}'::text[]) AS k"
        )
        before = c.exec_driver_sql("SELECT head_hash FROM ledger.budget").scalar_one()
    upgrade(empty_database.admin_url)
    with engine.connect() as c:
        assert c.exec_driver_sql("SELECT head_hash FROM ledger.budget").scalar_one() == before
        assert c.exec_driver_sql("SELECT array_agg(marks) FROM ledger.population").scalar_one() == [5, 5]
        assert verify_budget(c, "b") == []
        c.exec_driver_sql("SET LOCAL session_replication_role = replica")
        c.exec_driver_sql("DELETE FROM fingerprint WHERE kind = 'user'")
        assert [f.what.split(":")[0] for f in verify_budget(c, "b")] == [
            "the fingerprints are not those that were counted as they came"
        ]
    with engine.begin() as c:
        c.exec_driver_sql("INSERT INTO fingerprint VALUES ('t', 'record', sha256('new'), 'b')")
    with engine.connect() as c:
        assert verify_budget(c, "b") == []
        assert c.exec_driver_sql("SELECT count(*) FROM ledger.entry WHERE kind = 'records'").scalar_one() == 1
