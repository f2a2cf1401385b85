"""Every past revision, with data in it, becomes the present one: balances kept, history whole, guards in place. What the
revisions add up to is written down."""

import os

import pytest
import sqlalchemy as sa

from ledger import work
from ledger.budgets import balance
from ledger.guard import require_intact
from ledger.verify import verify_budget
from migrations import revisions, upgrade
from tests.conftest import Database
from tests.regenerate import MAJOR, MANIFEST, SCHEMA, manifest, schema

# As the first revision took it: a settled job, and an open one.
LIVED_IN = """
INSERT INTO tenant (id, name) VALUES ('t', 'hospital');
INSERT INTO api_key (id, tenant_id, name, prefix, mac, scopes) VALUES ('k', 't', 'k', 'tacit_', 'm', '{steward}');
INSERT INTO ledger.budget (id, tenant_id, name, epsilon, delta, unit, reference, weight_numerators, weight_denominator)
  VALUES ('b', 't', 'notes', 8, 0.00001, 'record', '{"sample_rate": 0.01, "steps": 500, "noise_multiplier": null}',
          '{3,3,77,3,3,3,3,3,3,3,3,3}', 110);
INSERT INTO file (id, tenant_id, purpose, filename, budget_id) VALUES ('f', 't', 'fine-tune', 'rows.csv', 'b');
INSERT INTO file (id, tenant_id, purpose, filename, created_at)
  VALUES ('res', 't', 'fine-tune-results', 'adapter.zip', '2026-01-02 03:04:05.678+00');
INSERT INTO job (id, tenant_id, created_by, model, method, plan, privacy, seed)
  SELECT j, 't', 'k', 'm', '{}', '{}', '{}', 0 FROM unnest('{j1,j2}'::text[]) AS j;
INSERT INTO job_file SELECT j, 'f', 'b' FROM unnest('{j1,j2}'::text[]) AS j;
INSERT INTO ledger.work (job_id) SELECT j FROM unnest('{j1,j2}'::text[]) AS j;
INSERT INTO ledger.reservation (id, job_id, file_id, budget_id) SELECT 'r' || j, j, 'f', 'b' FROM unnest('{j1,j2}'::text[]) AS j;
INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max)
  SELECT 'r' || j, 0, 0.01, 1.1, 100 FROM unnest('{j1,j2}'::text[]) AS j;
INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES ('b', 'reserve', 'rj1');
INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES ('b', 'reserve', 'rj2');
UPDATE ledger.work SET fence = 1, owner = 'w', lease_until = clock_timestamp() + interval '1 minute' WHERE job_id = 'j1';
INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES ('rj1', 0, 1, 30);
INSERT INTO ledger.entry (budget_id, kind, reservation_id, outcome, fence) VALUES ('b', 'settle', 'rj1', 'cancelled', 1);
"""


@pytest.mark.sampled(10)
@pytest.mark.parametrize("revision", revisions())
def test_a_database_with_data_is_brought_to_the_present(empty_database: Database, revision: str) -> None:
    engine = sa.create_engine(empty_database.admin_url, poolclass=sa.NullPool)
    upgrade(empty_database.admin_url, revision)
    with engine.begin() as c:
        c.exec_driver_sql(LIVED_IN)
        before = c.execute(sa.text("SELECT cap, spent, reserved, head_hash FROM ledger.budget")).one()
    upgrade(empty_database.admin_url)
    with engine.connect() as c:
        require_intact(c)
        assert verify_budget(c, "b") == []
        after = c.execute(sa.text("SELECT cap, spent, reserved, head_hash FROM ledger.budget")).one()
        assert after == before
        told = c.execute(sa.text("SELECT extract(second FROM created_at) FROM file WHERE id = 'res'")).scalar_one()
        assert told == 0, "when a job ended is told to the minute"
        held = balance(c, "b")
        price = c.execute(
            sa.select(sa.func.ledger.poisson_gaussian_curve(1.1, 0.01, list(held.filter.orders)))
        ).scalar_one()
        assert held.spent == tuple(30 * k for k in price)
        assert held.reserved == tuple(100 * k for k in price)
    worker = sa.create_engine(empty_database.worker_url, poolclass=sa.NullPool)
    with worker.connect() as c:  # a worker takes up what is open: it is in no silo
        assert work.claim(c, "j2", "w", 60) is not None
    with engine.begin() as c:  # and life goes on
        c.exec_driver_sql(
            "INSERT INTO ledger.entry (budget_id, kind, reservation_id, outcome) VALUES ('b', 'settle', 'rj2', 'failed')"
        )
        assert verify_budget(c, "b") == []


def test_a_job_from_before_keeps_its_teacher_if_its_own_budget_paid_for_it(empty_database: Database) -> None:
    """The column that workers go by is filled for jobs that may learn from what they name, and for no other."""
    upgrade(empty_database.admin_url, "0019")
    engine = sa.create_engine(empty_database.superuser_url, poolclass=sa.NullPool)
    names_j1 = '{"method": "distill", "options": {"teacher": "job", "teacher_job": "j1"}}'
    with engine.begin() as c:
        c.exec_driver_sql(f"SET LOCAL ROLE tacit_owner; {LIVED_IN}")
        c.exec_driver_sql(
            f"""RESET ROLE; SET LOCAL session_replication_role = replica;
            INSERT INTO release (id, job_id, file_id, kind, fence) VALUES ('l', 'j1', 'result', 'adapter', 1);
            UPDATE job SET plan = '{names_j1}' WHERE id = 'j2';
            INSERT INTO job (id, tenant_id, created_by, model, method, plan, privacy, seed)
              VALUES ('j3', 't', 'k', 'm', '{{}}', '{names_j1}', '{{}}', 0);
            INSERT INTO ledger.reservation (id, job_id, file_id, budget_id, starts_by) VALUES ('rj3', 'j3', 'g', 'c', now())"""
        )
    upgrade(empty_database.admin_url)
    with engine.connect() as c:
        kept = c.execute(sa.text("SELECT id, teacher_job FROM job ORDER BY id")).all()
    assert [tuple(row) for row in kept] == [("j1", None), ("j2", "j1"), ("j3", None)]


def test_what_is_written_down_is_what_the_migrations_leave(database: Database) -> None:
    """Else a review reads another schema than services run on. `make schema` writes both files."""
    engine = sa.create_engine(database.admin_url, poolclass=sa.NullPool)
    with engine.connect() as c:
        found = c.dialect.server_version_info
    if found is None or found[0] != MAJOR:
        assert os.environ.get("TACIT_REQUIRE_ALL") != "1"
        pytest.skip(f"schema.sql is as Postgres {MAJOR} prints it")
    assert schema(database.admin_url) == SCHEMA.read_text()
    assert manifest(database.admin_url) == MANIFEST.read_text()


def test_the_written_schema_makes_the_same_database(empty_database: Database) -> None:
    """Tables, rights, bodies of functions and what they answer: nothing is missing from what is read."""
    engine = sa.create_engine(empty_database.admin_url, poolclass=sa.NullPool)
    with engine.begin() as c:
        c.exec_driver_sql(SCHEMA.read_text().replace("%", "%%"))
    with engine.connect() as c:
        require_intact(c)
