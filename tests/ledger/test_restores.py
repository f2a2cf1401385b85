"""Restore drills with Postgres' own tools: whatever puts an older ledger in the place of the present one is noticed, with the
service down or up, and what it shortened is frozen. A clean restart freezes nothing."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from cli.embedded import postgres
from domain.keeping.keeper import Keeper
from domain.kit.database import make_engine
from domain.kit.settings import ApiSettings
from ledger.guard import require_intact
from ledger.tables import budget, lost_budget
from ledger.verify import verify_budget
from tests.api.conftest import make_settings
from tests.conftest import Database
from tests.ledger.test_witnesses import charge, frozen
from tests.ledger.worlds import World
from tests.superuser import base_backup, copied, drop, dump, restore


@dataclass
class Drill:
    """A ledger with one budget that is used and one that is not, and the settings of a service on it."""

    world: World
    settings: ApiSettings
    used: str
    idle: str

    @contextmanager
    def service(self, world: World | None = None) -> Iterator[Keeper]:
        """A service that has started on the database, or on another copy of it; its keeper turns when it is told to."""
        url = (world or self.world).database.api_url
        engine = make_engine(url, pool_size=2)
        keeper = Keeper(engine, self.settings)
        keeper.begin()
        yield keeper
        engine.dispose()

    def says(self, what: str, *worlds: World) -> None:
        """Print what was seen, and require that of every copy the used budget alone is frozen."""
        seen = [(bool(frozen(w, self.used)), bool(frozen(w, self.idle))) for w in worlds or (self.world,)]
        print(f"{what}: {sum(used for used, _ in seen)} of {len(seen)} frozen")
        assert seen == [(True, False)] * len(seen)


@pytest.fixture
def drill(database: Database, tmp_path: Path) -> Drill:
    return prepared(database, tmp_path)


def prepared(database: Database, folder: Path) -> Drill:
    world = World(database)
    return Drill(world, make_settings(database, "redis://nowhere", folder), world.budget(), world.budget())


def outgrown(drill: Drill) -> None:
    """The used budget goes on until its chain is longer than the witness has ever seen it."""
    charge(drill.world, drill.used, 3)


def test_the_service_is_down(drill: Drill, tmp_path: Path) -> None:
    with drill.service():
        pass
    backup = dump(drill.world.database, tmp_path / "dump")
    with drill.service() as keeper:
        charge(drill.world, drill.used)
        late = drill.world.budget()
        keeper.tell_witness()
    restore(drill.world.database, backup)
    with drill.world.api.connect() as connection:
        require_intact(connection)  # a restored database has its guards
        assert verify_budget(connection, drill.used) == []  # and an older ledger is whole in itself
    with drill.service():
        drill.says("dump restored while the service is down")
    with drill.world.api.connect() as connection:
        assert connection.execute(sa.select(lost_budget.c.budget_id)).scalars().all() == [late]


def test_no_loss_is_noted_or_accepted_ahead(drill: Drill) -> None:
    """Whoever has the API's password notes one, and the operator accepts it: a later loss would pass for that one."""
    world = drill.world
    note = sa.text("INSERT INTO ledger.lost_budget (budget_id, seq, hash) VALUES (:id, 1, sha256('h'))")
    with pytest.raises(sa.exc.IntegrityError, match="is not lost"), world.api.begin() as c:
        c.execute(note, {"id": drill.used})
    with world.api.begin() as c:
        c.execute(note, {"id": "budget_later"})
    with world.admin.begin() as c:
        c.execute(sa.text("UPDATE ledger.lost_budget SET accepted_reason = 'r'"))
    copied = (
        "INSERT INTO ledger.budget (id, tenant_id, name, epsilon, delta, unit, reference, orders, weight_numerators,"
        " weight_denominator) SELECT 'budget_later', tenant_id, name, epsilon, delta, unit, reference, orders,"
        " weight_numerators, weight_denominator FROM ledger.budget WHERE id = :id"
    )
    with pytest.raises(sa.exc.DBAPIError, match="was noted as lost"), world.api.begin() as c:
        c.execute(sa.text(copied), {"id": drill.used})


@pytest.mark.parametrize("restarted", [True, False], ids=["and a restart", "without a restart"])
def test_the_service_is_up_and_the_ledger_grows_past_what_was_witnessed(
    drill: Drill, tmp_path: Path, restarted: bool
) -> None:
    with drill.service() as keeper:
        backup = dump(drill.world.database, tmp_path / "dump")
        charge(drill.world, drill.used)
        keeper.tell_witness()
        restore(drill.world.database, backup)
        outgrown(drill)
        if not restarted:
            keeper.tell_witness()
    if restarted:
        with drill.service():
            pass
    drill.says(f"dump restored under the service and outgrown, {'then a restart' if restarted else 'no restart'}")


def test_the_connections_move_to_an_older_replica(database: Database, short_folder: Path, tmp_path: Path) -> None:
    primary, replica = short_folder / "failover" / "server", short_folder / "failover" / "replica"
    base_backup(database, primary)
    servers = [_start(primary)]
    try:
        drill = prepared(_behind(database, servers[0]), tmp_path)
        with drill.service() as keeper:
            base_backup(drill.world.database, replica)
            charge(drill.world, drill.used)
            keeper.tell_witness()
            servers[0].process.stop(signal.SIGINT, 30, then=signal.SIGQUIT)
            primary.rename(primary.with_name("lost"))
            replica.rename(primary)
            servers.append(_start(primary))
            assert servers[0].socket_folder == servers[1].socket_folder, "the service's own connections go there"
            outgrown(drill)
            keeper.tell_witness()
            drill.says("failover to an older replica")
    finally:
        servers[-1].stop()
        shutil.rmtree(primary.parent)


def test_two_services_on_diverged_copies_share_one_witness(drill: Drill) -> None:
    with drill.service():
        pass
    copy = copied(drill.world.database, f"{drill.world.database.name}_copy")
    other = replace(drill.world, database=copy)
    with drill.service() as ours, drill.service(other) as theirs:
        charge(drill.world, drill.used)
        ours.tell_witness()
        charge(other, drill.used, 2)
        theirs.tell_witness()
        ours.tell_witness()
        drill.says("two services on diverged copies", drill.world, other)
    drop(copy)


def test_a_clean_restart(drill: Drill) -> None:
    with drill.service() as keeper:
        charge(drill.world, drill.used)
        keeper.tell_witness()
    charge(drill.world, drill.used)  # by a worker, while the service is down
    with drill.service() as keeper:
        keeper.tell_witness()
        with drill.world.api.connect() as connection:
            reasons = connection.execute(sa.select(budget.c.frozen_reason)).scalars().all()
        print(f"clean restart: {len([r for r in reasons if r])} of {len(reasons)} frozen")
        assert reasons == [None, None]


def _start(folder: Path) -> postgres.Postgres:
    return postgres.start(folder, password="", log=folder.parent / "log", options=["fsync=off", "full_page_writes=off"])


def _behind(database: Database, server: postgres.Postgres) -> Database:
    """The same database on another server."""
    urls = {f.name: sa.make_url(getattr(database, f.name)) for f in fields(database) if f.name.endswith("_url")}
    moved = {name: url.set(query=url.query | {"host": str(server.socket_folder)}) for name, url in urls.items()}
    return replace(database, **{name: url.render_as_string(hide_password=False) for name, url in moved.items()})
