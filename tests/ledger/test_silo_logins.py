"""A worker's login works on the jobs of its own silo; one that is bound to none, on those that lie in none."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from domain.kit.database import UnsafeLogin, require_silo_login
from ledger import work
from ledger.reserve import Priced
from ledger.tables import work as work_table
from tests.conftest import Database
from tests.ledger.worlds import World

PLACES = (None, "a", "b")
FENCED: Mapping[str, tuple[str, ...]] = {
    "renew": ("UPDATE ledger.work SET lease_until = now() + interval '1 minute' WHERE job_id = :job AND fence = 1",),
    "authorise": ("INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES (:resv, 0, 1, 1)",),
    "settle": (
        "INSERT INTO ledger.entry (budget_id, kind, reservation_id, outcome, fence)"
        " VALUES (:budget, 'settle', :resv, 'failed', 1)",
    ),
    "checkpoint": ("INSERT INTO checkpoint (job_id, fence, step, blob) VALUES (:job, 1, 2, :kept || '2')",),
    "forget a checkpoint": ("DELETE FROM checkpoint WHERE job_id = :job",),
    "event": (
        "INSERT INTO job_event (job_id, level, type, name, message)"
        " VALUES (:job, 'info', 'message', 'job.started', 'Started: a worker has the job.')",
    ),
    "row": ("UPDATE job SET hinted_at = now() WHERE id = :job",),
    "destroy a key": ("DELETE FROM data_key WHERE blob = :rows",),
    "plant a key": (r"INSERT INTO data_key (blob, wrapped, master) VALUES (:rows || '.new', '\x00', 'm')",),
    "release": (
        "INSERT INTO ledger.entry (budget_id, kind, reservation_id, outcome, fence)"
        " VALUES (:budget, 'settle', :resv, 'succeeded', 1)",
        "INSERT INTO file (id, tenant_id, purpose, filename, bytes, sha256, status, blob, binding)"
        " VALUES (:job || '-r', :tenant, 'fine-tune-results', 'a.zip', 1, repeat('0', 64), 'processed', :kept || 'r', sha256('r'))",
        "INSERT INTO release (id, job_id, file_id, kind, fence) VALUES ('r', :job, :job || '-r', 'adapter', 1)",
    ),
}
UNFENCED: Mapping[str, tuple[str, ...]] = {
    "claim": (
        "UPDATE ledger.work SET fence = 1, owner = 'w', lease_until = now() + interval '1 minute' WHERE job_id = :job",
    ),
    "end": (
        "INSERT INTO ledger.entry (budget_id, kind, reservation_id, outcome)"
        " VALUES (:budget, 'settle', :resv, 'cancelled')",
    ),
}


@dataclass
class Silos:
    """A running job, and one that nobody has claimed, in each silo and in none; and the logins of their workers."""

    world: World
    workers: Mapping[str | None, sa.Engine]
    running: Mapping[str | None, Mapping[str, str]]
    queued: Mapping[str | None, Mapping[str, str]]

    def tries(self, by: str | None, act: str, of: str | None) -> str | None:
        """What the database says to an act, of which nothing stays; None where it lets it pass. To what is refused
        anyway an act's earlier statements are not needed: the last one is tried alone."""
        job = (self.running if act in FENCED else self.queued)[of]
        statements = (FENCED | UNFENCED)[act]
        with self.workers[by].connect() as c:
            try:
                for statement in statements if by == of else statements[-1:]:
                    assert c.execute(
                        sa.text(statement), {k: v for k, v in job.items() if f":{k}" in statement}
                    ).rowcount
            except sa.exc.ProgrammingError as error:
                return str(error.orig)
            finally:
                c.rollback()
        return None


@pytest.fixture(scope="module")
def silos(module_database: Database) -> Silos:
    module_database.bind_silos()
    world = World(module_database)
    urls = {None: module_database.worker_url, **module_database.silo_urls}
    workers = {place: sa.create_engine(url, poolclass=sa.NullPool) for place, url in urls.items()}
    running, queued = {}, {}
    for place, engine in workers.items():
        home = "" if place is None else f"silos/{place}/"
        for made in (running, queued):
            budget = world.budget()
            file = world.file(budget, home)
            job, _ = world.submit([(file, budget, [Priced(0.01, 2.0, 40)])])
            with world.root.connect() as c:
                resv = c.execute(
                    sa.text("SELECT id FROM ledger.reservation WHERE job_id = :j"), {"j": job}
                ).scalar_one()
            rows = f"{home}files/{file}/rows.parquet"
            made[place] = {"job": job, "resv": resv, "budget": budget, "tenant": world.tenant, "rows": rows}
            made[place] |= {"kept": f"{home}jobs/{job}/checkpoints/"}
        with world.api.begin() as c:
            c.execute(sa.text(r"INSERT INTO data_key VALUES (:rows, '\x00', 'm')"), {"rows": running[place]["rows"]})
        with engine.begin() as c:
            lease = work.claim(c, running[place]["job"], "w", 600)
            assert lease is not None
            c.execute(
                sa.text("INSERT INTO checkpoint (job_id, fence, step, blob) VALUES (:job, 1, 1, :blob)"),
                {"job": lease.job_id, "blob": f"{running[place]['kept']}1"},
            )
    return Silos(world, workers, running, queued)


@pytest.mark.parametrize("act", [*FENCED, *UNFENCED])
def test_a_login_acts_on_the_jobs_of_its_own_silo_alone(silos: Silos, act: str) -> None:
    for by in PLACES:
        for of in PLACES:
            said = silos.tries(by, act, of)
            if by == of:
                assert said is None, f"{by} was refused its own: {said}"
            else:
                assert "is not for the login" in (said or ""), f"{by} on a job of {of}: {said}"


def test_a_job_is_of_the_silo_that_its_rows_lie_in(silos: Silos) -> None:
    with silos.world.root.connect() as c:
        found = {job: silo for job, silo in c.execute(sa.select(work_table.c.job_id, work_table.c.silo))}
    assert {place: found[job["job"]] for place, job in silos.running.items()} == {
        place: place for place in silos.running
    }


def test_no_worker_binds_itself(silos: Silos) -> None:
    for act in (
        "INSERT INTO ledger.silo_login VALUES (session_user, 'b')",
        "DELETE FROM ledger.silo_login",
        "UPDATE ledger.silo_login SET silo = 'b'",
        "UPDATE ledger.work SET silo = 'a'",
    ):
        with silos.workers["a"].connect() as c, pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            c.execute(sa.text(act))


@pytest.mark.parametrize("login", PLACES)
@pytest.mark.parametrize("silo", PLACES)
def test_a_worker_does_not_start_with_another_ones_login(silos: Silos, login: str | None, silo: str | None) -> None:
    with silos.workers[login].connect() as c:
        if login == silo:
            require_silo_login(c, silo)
        else:
            with pytest.raises(UnsafeLogin, match="TACIT_SILO is"):
                require_silo_login(c, silo)


def test_keys_in_the_exchange_are_of_who_takes_part_in_the_federated_job(silos: Silos) -> None:
    """That those may is seen where three workers train one adapter."""
    for by in PLACES:
        for of in PLACES:
            blob = f"exchange/{silos.running[of]['job']}/0/start.safetensors"
            with silos.workers[by].connect() as c, pytest.raises(sa.exc.DBAPIError, match="is not for the login"):
                c.execute(
                    sa.text(r"INSERT INTO data_key (blob, wrapped, master) VALUES (:b, '\x00', 'm')"), {"b": blob}
                )
