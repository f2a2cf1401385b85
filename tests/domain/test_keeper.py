"""The keeper goes on whatever it meets, and says when it last did its work."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cli.checks import Unwell, _keeper
from domain.keeping import keeper
from domain.keeping.keeper import Keeper
from domain.kit.settings import ApiSettings
from domain.kit.tables import keeper_watch
from ledger.verify import Finding
from tests.api.conftest import make_settings
from tests.conftest import Database
from tests.ledger.test_witnesses import charge, frozen
from tests.ledger.worlds import World
from tests.superuser import past_triggers, poison

SECRET = "canary of a row"


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> ApiSettings:
    return make_settings(database, "redis://nowhere", tmp_path)


@pytest.fixture
def running(world: World, settings: ApiSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    """A keeper whose turns follow one another at once."""
    monkeypatch.setattr(keeper, "SECONDS", 0.001)
    made = Keeper(world.api, settings)
    made.start()
    yield made
    made.stop()


class Called:
    """Raises the first time, and says when it was called again."""

    def __init__(self) -> None:
        self.times, self.again = 0, threading.Event()

    def __call__(self, *_: object, **__: object) -> list[object]:
        self.times += 1
        if self.times == 1:
            raise KeyError(SECRET)
        self.again.set()
        return []


def test_one_unreadable_budget_is_a_finding_about_it_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sound, malformed, edited = world.budget(), world.budget(), world.budget()
    poison(
        world.database,
        "UPDATE ledger.budget SET weight_numerators = ARRAY[weight_numerators::int[]] WHERE id = :budget",
        malformed,
    )
    poison(world.database, "UPDATE ledger.entry SET actor = 'nobody' WHERE budget_id = :budget", edited)
    strange = world.budget()
    whole = keeper.verify_budget

    def read(connection: sa.Connection, budget_id: str, policy_key: str | None) -> list[Finding]:
        if budget_id == strange:
            raise ValueError(SECRET)
        return whole(connection, budget_id, policy_key)

    monkeypatch.setattr(keeper, "verify_budget", read)
    found = keeper.verify_all(world.api, None)
    assert {finding.budget_id for finding in found} == {malformed, edited, strange}
    assert "it was edited" in (frozen(world, edited) or "")
    assert "verification failed" in (frozen(world, malformed) or "")
    assert "its rows cannot be read as a ledger" in (frozen(world, strange) or "")
    assert SECRET not in (frozen(world, strange) or "")
    assert frozen(world, sound) is None


def test_a_database_that_is_away_is_no_finding(world: World, settings: ApiSettings) -> None:
    made = world.budget()
    away = sa.create_engine("postgresql+psycopg://x@127.0.0.1:1/x", poolclass=sa.NullPool)
    with pytest.raises(sa.exc.OperationalError):
        keeper.verify(away, made, None)
    assert frozen(world, made) is None


def test_what_cannot_be_frozen_stops_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    first, second = sorted([world.budget(), world.budget()])
    for one in (first, second):
        poison(world.database, "UPDATE ledger.entry SET actor = 'nobody' WHERE budget_id = :budget", one)
    with past_triggers(world.database) as connection:  # a row that breaks a constraint can be changed by nobody
        connection.exec_driver_sql(f"ALTER TABLE ledger.budget ADD CHECK (id <> '{first}') NOT VALID")
    keeper.verify_all(world.api, None)
    assert frozen(world, second)
    assert f"budget {first} cannot be frozen" in caplog.text


@pytest.mark.parametrize("duty", ["end_expired", "forget_old", "verify_all"])
def test_a_duty_that_raises_anything_stops_neither_the_others_nor_itself(
    world: World,
    settings: ApiSettings,
    duty: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    failing = Called()
    monkeypatch.setattr(keeper, duty, failing)
    monkeypatch.setattr(keeper, "AGAIN", 0.0)
    running: Keeper = request.getfixturevalue("running")
    assert failing.again.wait(60)
    assert running.word == "ok"
    assert "KeyError" in caplog.text
    assert SECRET not in caplog.text


def test_the_witness_is_told_whatever_else_fails(
    world: World, settings: ApiSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Keeper(world.api, settings)
    made.begin()
    monkeypatch.setattr(keeper, "end_expired", Called())
    budget = world.budget()
    charge(world, budget)
    made.turn()
    assert settings.witness is not None
    assert budget in settings.witness.read_text()


def test_the_keeper_says_how_it_does(world: World, settings: ApiSettings, running: Keeper) -> None:
    assert (running.word, running.witness_word) == ("ok", "ok")
    running._verification.finished = running._began - 2 * settings.verify_hours * 3600 - 1
    assert running.word == "warning"
    running._main.turned -= 61
    running._end.set()
    for one in running._rounds:
        assert one.thread is not None
        one.thread.join()
    assert running.word == "failed"


def test_the_witness_is_told_of_in_words(world: World, settings: ApiSettings) -> None:
    without = Keeper(world.api, settings.model_copy(update={"witness": None}))
    without.begin()
    assert without.witness_word == "warning"
    made = Keeper(world.api, settings)
    assert made.witness_word == "failed"
    made.begin()
    assert made.witness_word == "ok"
    (book,) = made._witnesses.books
    assert book.told_at is not None
    book.told_at -= 61
    assert made.witness_word == "warning"


def test_doctor_reads_what_the_keeper_noted(
    world: World, settings: ApiSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unwell, match="no API has ever run"):
        _keeper(world.api, settings)
    made = Keeper(world.api, settings)
    made.begin()
    assert _keeper(world.api, settings) == "at work"
    monkeypatch.setattr("os.pwrite", Called())
    world.budget()
    made.turn()
    with pytest.raises(Unwell, match="it fails at: witness"):
        _keeper(world.api, settings)
    made._verify()
    for duty, ago, what in (
        ("verification", "3 days", "last verified 72 hours ago"),
        ("turn", "5 minutes", "5 minutes"),
    ):
        with world.api.begin() as connection:
            late = keeper_watch.c.finished_at - sa.text(f"interval '{ago}'")
            connection.execute(
                sa.update(keeper_watch).values(detail={}, finished_at=late).where(keeper_watch.c.duty == duty)
            )
            connection.execute(sa.update(keeper_watch).values(detail={}))
        with pytest.raises(Unwell, match=what):
            _keeper(world.api, settings)
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), world.worker.begin() as connection:
        connection.execute(sa.update(keeper_watch).values(detail={}))
