"""Rows of earlier revisions that cannot be believed: the upgrade names them, freezes their budgets, and goes on."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from ledger.budgets import balance
from ledger.guard import require_intact
from ledger.verify import verify_budget
from migrations import found, head, sqlfiles, upgrade
from tests.conftest import Database
from tests.ledger.test_migrations import LIVED_IN

BEFORE = "0011"
PAST = "SET LOCAL session_replication_role = replica; "
SECOND = """
INSERT INTO ledger.budget (id, tenant_id, name, epsilon, delta, unit, reference, weight_numerators, weight_denominator)
  VALUES ('bad', 't', 'notes', 1, 0.00001, 'record', '{"sample_rate": 0.01, "steps": 500, "noise_multiplier": null}',
          '{3,3,77,3,3,3,3,3,3,3,3,3}', 110);
INSERT INTO file (id, tenant_id, purpose, filename, budget_id, blob) VALUES ('g', 't', 'fine-tune', 'rows.csv', 'bad', 'files/g/rows.parquet');
INSERT INTO job (id, tenant_id, created_by, model, method, plan, privacy, seed) VALUES ('j3', 't', 'k', 'm', '{}', '{}', '{}', 0);
INSERT INTO job_file VALUES ('j3', 'g', 'bad');
INSERT INTO ledger.work (job_id) VALUES ('j3');
INSERT INTO ledger.reservation (id, job_id, file_id, budget_id, starts_by) VALUES ('rj3', 'j3', 'g', 'bad', now());
INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max) VALUES ('rj3', 0, 0.01, 4, 10);
INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES ('bad', 'reserve', 'rj3');
INSERT INTO ledger.entry (budget_id, kind, detail) VALUES ('bad', 'grant', '{"grant": "p", "project": "lab", "by": "k", "epsilon": "0.9"}');
"""
ROW = "WHERE id = 'bad'"
POISON = {
    # as found: nothing but what the API's login could write
    "weights counted from 0": f"""ALTER TABLE ledger.budget DISABLE TRIGGER budget_opened; INSERT INTO ledger.budget
        (id, tenant_id, name, epsilon, delta, unit, reference, weight_numerators, weight_denominator) VALUES ('worse', 't', 'n', 1,
        0.00001, 'record', '{{}}', '[0:11]={{2147483647,1,1,1,1,1,1,1,1,1,1,1}}', 1);
        ALTER TABLE ledger.budget ENABLE TRIGGER budget_opened; DELETE FROM ledger.budget {ROW} AND false""",
    "the rows of another file": "UPDATE file SET blob = 'files/g/rows.parquet' WHERE id = 'f'",
    # past the triggers
    "weights of two dimensions": f"{PAST} UPDATE ledger.budget SET weight_numerators = ARRAY[weight_numerators] {ROW}",
    "a cap that is too large": f"{PAST} UPDATE ledger.budget SET cap[3] = cap[3] + 1 {ROW}",
    "caps of two dimensions": f"{PAST} UPDATE ledger.budget SET cap = ARRAY[cap] {ROW}",
    "a spent that is missing": f"{PAST} UPDATE ledger.budget SET spent[3] = NULL {ROW}",
    "a reserved that is no number": f"{PAST} UPDATE ledger.budget SET reserved[3] = 'NaN' {ROW}",
    "a delta below every number": f"{PAST} UPDATE ledger.budget SET delta = 1e-400 {ROW}",
    "a threshold that is no number": f"{PAST} UPDATE ledger.budget SET approval_above = 'NaN' {ROW}",
    "a reference that cannot be read": f"{PAST} UPDATE ledger.budget SET reference = '[]' {ROW}",
    "an entry of another shape": f"{PAST} UPDATE ledger.entry SET spent_change = ARRAY[spent_change] WHERE budget_id = 'bad' AND seq = 2",
    "an entry counted from 0": f"{PAST} UPDATE ledger.entry SET reserved_change = '[0:11]={{1,1,1,1,1,1,1,1,1,1,1,1}}' WHERE budget_id = 'bad' AND seq = 2",
    "a phase without a price": f"{PAST} UPDATE ledger.phase SET step_cost = '{{}}' WHERE reservation_id = 'rj3'",
    "a grant of another shape": f"{PAST} UPDATE ledger.budget_grant SET cap = ARRAY[cap]",
    "labels of two dimensions": f"{PAST} UPDATE file SET labels = '{{{{a,b}}}}' WHERE id = 'g'",
}
EVERYWHERE = f"""{PAST}
UPDATE ledger.work SET seconds = 'NaN', lease_until = 'infinity' WHERE job_id = 'j3';
UPDATE job SET started_at = 'infinity', finished_at = '-infinity', hinted_at = '200000-01-01' WHERE id = 'j3';
UPDATE api_key SET expires_at = 'infinity', revoked_at = 'infinity', scopes = '{{{{steward}}}}' WHERE id = 'k';
UPDATE ledger.reservation SET starts_by = 'infinity' WHERE id = 'rj3';
"""


@pytest.fixture
def lived_in(empty_database: Database) -> Iterator[sa.Engine]:
    """A database of the revision before, with two budgets, seen by the superuser."""
    upgrade(empty_database.admin_url, BEFORE)
    engine = sa.create_engine(empty_database.superuser_url, poolclass=sa.NullPool)
    with engine.begin() as c:
        c.exec_driver_sql(LIVED_IN)
        c.exec_driver_sql(SECOND)
    yield engine
    engine.dispose()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("what", POISON)
def test_a_poisoned_row_is_named_and_its_budget_frozen(
    empty_database: Database, lived_in: sa.Engine, what: str
) -> None:
    with lived_in.begin() as c:
        for statement in filter(str.strip, POISON[what].split(";")):
            c.exec_driver_sql(statement)
    concerned = {"weights counted from 0": {"worse"}, "the rows of another file": {"b", "bad"}}.get(what, {"bad"})
    upgrade(empty_database.admin_url)
    said = found(empty_database.admin_url)
    assert len(said) == len(concerned)
    assert all(any(f"budget {id} is frozen: " in line for line in said) for id in concerned)
    with lived_in.connect() as c:
        require_intact(c)
        rows = dict(c.exec_driver_sql("SELECT id, frozen_reason FROM ledger.budget").all())
        assert {id for id, reason in rows.items() if reason is not None} == concerned
        assert all("found by the upgrade: " in rows[id] for id in concerned)
        for id in rows:
            balance(c, id)  # everybody can read it
            verify_budget(c, id)
        chain = "SELECT count(*) FROM ledger.entry WHERE kind = 'freeze'"
        assert c.exec_driver_sql(chain).scalar_one() == len(concerned)
        assert c.exec_driver_sql("SELECT bool_and(evidence <> '{}') FROM ledger.finding").scalar_one()
        if "b" not in concerned:
            assert verify_budget(c, "b") == []
        blobs = dict(c.exec_driver_sql("SELECT id, blob FROM file").all())
        assert blobs["g"] == "files/g/rows.parquet"
        assert blobs["f"] in (None, "files/f/rows.parquet")
    with lived_in.begin() as c:  # nothing more is had of it
        for id in concerned:
            with pytest.raises(sa.exc.DBAPIError), c.begin_nested():
                c.exec_driver_sql(
                    f"INSERT INTO ledger.reservation (id, job_id, file_id, budget_id, starts_by) VALUES ('x', 'j3', 'g', '{id}', now())"
                )
                c.exec_driver_sql(
                    "INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max) VALUES ('x', 0, 0.01, 4, 1)"
                )
                c.exec_driver_sql(
                    f"INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES ('{id}', 'reserve', 'x')"
                )


def test_numbers_and_times_that_no_reader_can_hold_are_mended(empty_database: Database, lived_in: sa.Engine) -> None:
    with lived_in.begin() as c:
        for statement in filter(str.strip, EVERYWHERE.split(";")):
            c.exec_driver_sql(statement)
    upgrade(empty_database.admin_url)
    with lived_in.connect() as c:
        require_intact(c)
        assert verify_budget(c, "b") == []
        for table in ("job", "api_key", "ledger.work", "ledger.reservation"):
            c.exec_driver_sql(f"SELECT * FROM {table}").all()
        key = c.exec_driver_sql("SELECT scopes, revoked_at FROM api_key").one()
        assert key.scopes == ["steward"]
        assert key.revoked_at is not None


def test_an_upgrade_that_is_cut_off_is_run_again(
    empty_database: Database, lived_in: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each file of each revision, the connection gone: what was begun is not there, and the next run is whole."""
    files = sorted(Path(sqlfiles.__file__).parent.glob("sql/00*/*.sql"))
    new = [f for f in files if f.parent.name > BEFORE]
    whole = Path.read_text
    for last in new:
        seen = count()

        def read(
            path: Path, *arguments: object, last: Path = last, seen: "count[int]" = seen, **options: object
        ) -> str:
            text = whole(path, *arguments, **options)  # type: ignore[arg-type]
            if path == last and next(seen) == 0:
                text += "; RESET ROLE; SELECT pg_terminate_backend(pg_backend_pid())"
            return text

        with monkeypatch.context() as patched:
            patched.setattr(Path, "read_text", read)
            with pytest.raises(sa.exc.OperationalError):
                upgrade(empty_database.admin_url)
    upgrade(empty_database.admin_url)
    with lived_in.connect() as c:
        require_intact(c)
        assert verify_budget(c, "b") == []
        assert c.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == head()
