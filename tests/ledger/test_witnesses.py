"""The witness: every head is kept and compared; what the database lacks is frozen, and the operator's thaw accepts it."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import chains, losses, policy
from ledger.canonical import packed
from ledger.errors import LedgerIncomplete, translated
from ledger.reserve import Priced, settle
from ledger.tables import budget, entry, lost_budget
from ledger.witness import BrokenWitness, ForeignWitness, Head, Origin, Place, WitnessLine, opened, sealed
from ledger.witness_file import WitnessFile
from ledger.witnesses import Witnesses
from tests.conftest import Database
from tests.ledger.worlds import World
from tests.superuser import copied, drop, forget, past_triggers, rewind

KEY = Ed25519PrivateKey.generate()
POLICY = Ed25519PrivateKey.generate()
POLICY_KEY = POLICY.public_key().public_bytes_raw().hex()


@pytest.fixture
def world(database: Database) -> World:
    """Alone in its database: a witness is of a whole ledger."""
    return World(database)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heads.jsonl"


def charge(world: World, budget_id: str, times: int = 1) -> None:
    """Two entries more, each time."""
    file = world.file(budget_id)
    for _ in range(times):
        job, _ = world.submit([(file, budget_id, [Priced(0.01, 2.0, 10)])])
        with world.api.begin() as connection:
            settle(connection, job, "cancelled")


def service(world: World, *places: Path | Place) -> Witnesses:
    """As a service that starts, with a policy key."""
    made: list[Place] = [WitnessFile(place) if isinstance(place, Path) else place for place in places]
    witnesses = Witnesses(world.api, KEY, POLICY_KEY, made)
    witnesses.begin()
    return witnesses


def look(witnesses: Witnesses) -> None:
    for book in witnesses.books:
        witnesses.look(book)


def lines(path: Path) -> list[WitnessLine]:
    return [opened(KEY.public_key(), line, str(path)) for line in path.read_bytes().splitlines()]


def frozen(world: World, budget_id: str) -> str | None:
    with world.api.connect() as connection:
        return connection.execute(sa.select(budget.c.frozen_reason).where(budget.c.id == budget_id)).scalar_one()


def freezes(world: World, budget_id: str) -> list[str | None]:
    """What each freeze was for."""
    chosen = sa.select(entry.c.detail).where(entry.c.budget_id == budget_id, entry.c.kind == "freeze")
    with world.api.connect() as connection:
        return [detail.get("witness") for detail in connection.execute(chosen.order_by(entry.c.seq)).scalars()]


def head(world: World, budget_id: str) -> Head:
    with world.api.connect() as connection:
        row = connection.execute(sa.select(budget).where(budget.c.id == budget_id)).one()
    return Head(budget_id, row.head_seq, row.head_hash.hex())


def thaw(world: World, budget_id: str, key: Ed25519PrivateKey = POLICY) -> None:
    with world.admin.begin() as connection:
        policy.thaw(connection, key, budget_id, "corrected from receipts")


def test_lines_are_signed_and_those_of_the_first_release_stay_valid() -> None:
    signature = KEY.sign(packed(["tacit.witness.v1", "b", "3", "ab"])).hex()
    old = json.dumps({"budget": "b", "seq": 3, "hash": "ab", "signature": signature}).encode()
    assert opened(KEY.public_key(), old, "x") == Head("b", 3, "ab")
    for line in (Head("b", 3, "ab"), Head("b", 3, "ab", supersedes=True), Origin("id")):
        kept = sealed(KEY, line)
        read = opened(KEY.public_key(), kept, "x")
        assert read == line
        assert getattr(read, "supersedes", None) == getattr(line, "supersedes", None)
        changed = (
            kept.replace(b"ab", b"ac"),
            kept.replace(b"3", b"4"),
            kept.replace(b'"id"', b'"ie"'),
            kept[:-9],
            b"[]",
        )
        for broken in changed:
            if broken != kept:
                with pytest.raises(BrokenWitness):
                    opened(KEY.public_key(), broken, "x")
    plain = sealed(KEY, Head("b", 3, "ab"))
    with pytest.raises(BrokenWitness):  # nobody makes a head into one that supersedes
        opened(KEY.public_key(), plain.replace(b'"hash"', b'"supersedes": true, "hash"'), "x")


def test_a_new_ledger_begins_a_witness_that_names_its_database(world: World, path: Path) -> None:
    service(world, path)
    (origin,) = lines(path)
    assert isinstance(origin, Origin)
    made = world.budget()
    look(again := service(world, path))
    charge(world, made)
    look(again)
    assert lines(path) == [origin, Head(made, 1, lines(path)[1].hash), head(world, made)]


def test_a_witness_of_the_first_release_is_taken_over(world: World, path: Path) -> None:
    made = world.budget()
    charge(world, made)
    path.write_bytes(sealed(KEY, head(world, made)))
    service(world, path)
    assert frozen(world, made) is None
    assert [type(line) for line in lines(path)] == [Head, Origin]


def test_who_starts_keeps_nobody_from_appending(world: World, path: Path) -> None:
    running, made = service(world, path), world.budget()
    starting = WitnessFile(path)
    with starting.shared():
        batches = starting.read()
        assert len(next(batches)) == 1
        look(running)
        assert list(batches) == []
    with starting.locked():
        assert starting.intact()
        (batch,) = starting.read()
    assert opened(KEY.public_key(), batch[0], "") == head(world, made)


def test_every_line_is_compared_at_start_not_only_the_furthest(world: World, path: Path) -> None:
    witnesses, made = service(world, path), world.budget()
    charge(world, made)
    look(witnesses)
    missing = head(world, made)
    rewind(world.database, made, 1)
    charge(world, made, 2)
    with path.open("ab") as file:  # as a service that did not compare first
        file.write(sealed(KEY, head(world, made)))
    service(world, path)
    assert "an old backup was restored and has gone on" in (frozen(world, made) or "")
    assert freezes(world, made) == [missing.name]


def test_lines_are_compared_in_batches(world: World, path: Path) -> None:
    made = world.budget()
    look(service(world, path))
    good = sealed(KEY, head(world, made))
    with path.open("ab") as file:
        file.write(good * 2500 + sealed(KEY, Head(made, 1, "ab" * 32)) + good * 10)
    service(world, path)
    assert frozen(world, made)
    assert max(len(batch) for batch in _batches(path)) < 2000


def _batches(path: Path) -> list[list[bytes]]:
    place = WitnessFile(path)
    with place.shared():
        return list(place.read())


def test_a_restore_under_a_running_service_is_noticed_at_the_next_look(world: World, path: Path) -> None:
    witnesses, made, other = service(world, path), world.budget(), world.budget()
    charge(world, made)
    look(witnesses)
    lost = head(world, made)
    rewind(world.database, made, 1)
    look(witnesses)
    assert "stands at entry 1 but the witness saw entry 3: an old backup was restored" in (frozen(world, made) or "")
    assert freezes(world, made) == [lost.name]
    assert frozen(world, other) is None
    assert lines(path)[-1] == head(world, made)  # the freeze is witnessed too
    look(witnesses)
    service(world, path)
    assert freezes(world, made) == [lost.name]


def test_what_is_only_remembered_counts_too(world: World, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore while the witness cannot be written: what the service saw in the database was never told."""
    witnesses, made = service(world, path), world.budget()
    look(witnesses)
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", _full)
        charge(world, made)
        with pytest.raises(OSError, match="No space"):
            look(witnesses)
        rewind(world.database, made, 1)
        with pytest.raises(OSError, match="No space"):
            look(witnesses)
    assert "an old backup was restored" in (frozen(world, made) or "")


def test_a_witness_that_is_damaged_under_the_service_blinds_it_not(world: World, path: Path) -> None:
    witnesses, made = service(world, path), world.budget()
    charge(world, made)
    look(witnesses)
    with path.open("ab") as file:
        file.write(b"damage\n")
    rewind(world.database, made, 1)
    with pytest.raises(BrokenWitness):
        look(witnesses)
    assert "an old backup was restored" in (frozen(world, made) or "")


def test_what_cannot_be_frozen_is_not_agreed_to(world: World, path: Path) -> None:
    witnesses, made = service(world, path), world.budget()
    charge(world, made)
    look(witnesses)
    rewind(world.database, made, 1)
    charge(world, made)
    with past_triggers(world.database) as connection:
        connection.exec_driver_sql(f"ALTER TABLE ledger.budget ADD CONSTRAINT odd CHECK (id <> '{made}') NOT VALID")
    other = world.budget()
    look(witnesses)
    assert head(world, made) not in lines(path)
    assert head(world, other) in lines(path)
    with past_triggers(world.database) as connection:
        connection.exec_driver_sql("ALTER TABLE ledger.budget DROP CONSTRAINT odd")
    look(witnesses)
    assert frozen(world, made)
    assert head(world, made) in lines(path)


def test_a_thaw_accepts_the_chain_for_good_if_it_is_signed(world: World, path: Path) -> None:
    witnesses, made = service(world, path), world.budget()
    charge(world, made)
    look(witnesses)
    rewind(world.database, made, 1)
    look(witnesses)
    thaw(world, made, Ed25519PrivateKey.generate())
    look(witnesses)
    assert frozen(world, made), "the policy key did not sign"
    thaw(world, made)
    accepted = head(world, made)
    look(witnesses)
    assert frozen(world, made) is None
    (said,) = [line for line in lines(path) if isinstance(line, Head) and line.supersedes]
    assert said == accepted
    charge(world, made)
    for _ in range(2):
        look(witnesses)
        service(world, path)
    assert frozen(world, made) is None
    assert len(freezes(world, made)) == 2


@pytest.mark.parametrize("further_back", [False, True])
def test_an_accepted_restore_excuses_no_later_one(world: World, path: Path, further_back: bool) -> None:
    witnesses, made = service(world, path), world.budget()
    charge(world, made)
    look(witnesses)
    rewind(world.database, made, 1)
    look(witnesses)
    thaw(world, made)
    accepted = head(world, made).seq
    charge(world, made)
    look(witnesses)
    rewind(world.database, made, 1 if further_back else accepted)
    service(world, path)
    assert "the witness saw entry 5" in (frozen(world, made) or "")
    look(witnesses)
    thaw(world, made)
    look(witnesses)
    service(world, path)
    assert frozen(world, made) is None


def test_a_thaw_for_another_reason_accepts_nothing(world: World, path: Path) -> None:
    witnesses, made = service(world, path), world.budget()
    charge(world, made)
    look(witnesses)
    rewind(world.database, made, 1)
    with world.api.begin() as connection:
        policy.freeze(connection, made, "a complaint")
    look(witnesses)
    assert freezes(world, made) == [None]
    thaw(world, made)
    look(witnesses)
    assert "the witness saw" in (frozen(world, made) or "")


def test_two_services_on_diverged_copies_both_freeze(world: World, path: Path) -> None:
    made = world.budget()
    ours = service(world, path)
    copy = copied(world.database, f"{world.database.name}_copy")
    there = replace(world, database=copy, tenant=world.tenant, key=world.key)
    theirs = service(there, path)
    charge(world, made)
    look(ours)
    charge(there, made)
    look(theirs)
    look(ours)
    assert "is not the one that the witness saw" in (frozen(there, made) or "")
    assert frozen(world, made)
    thaw(world, made)
    look(ours)
    look(theirs)
    look(ours)
    service(world, path)
    assert frozen(world, made) is None
    assert frozen(there, made)
    drop(copy)


def test_several_processes_of_one_service_say_nothing_twice(world: World, path: Path) -> None:
    one, made = service(world, path), world.budget()
    two = service(world, path)
    for _ in range(3):
        charge(world, made)
        look(one)
        look(two)
    assert len(lines(path)) == len(set(lines(path))) == 5
    rewind(world.database, made, 3)
    look(two)
    look(one)
    assert len(freezes(world, made)) == 1
    thaw(world, made)
    look(one)  # who did not freeze it accepts it as well
    look(two)
    assert frozen(world, made) is None


def test_who_did_not_freeze_it_knows_what_the_thaw_was_for(world: World, path: Path) -> None:
    one, made = service(world, path), world.budget()
    two = service(world, path)
    charge(world, made)
    look(one)
    look(two)
    rewind(world.database, made, 1)
    with world.api.begin() as connection:
        policy.freeze(connection, made, "a complaint")
    look(one)
    look(two)
    thaw(world, made)
    look(two)
    thaw(world, made)
    look(one)
    look(two)
    assert frozen(world, made) is None
    assert len(freezes(world, made)) == 2


def test_a_witness_that_is_gone_at_start_freezes_what_it_cannot_confirm(world: World, path: Path) -> None:
    used, untouched = world.budget(), world.budget()
    charge(world, used)
    service(world, path)
    assert "the witness is gone" in (frozen(world, used) or "")
    assert "put its newest copy back" in (frozen(world, used) or "")
    assert frozen(world, untouched) is None
    thaw(world, used)
    look(witnesses := service(world, path))
    charge(world, used)
    look(witnesses)
    service(world, path)
    assert frozen(world, used) is None
    rewind(world.database, used, 5)  # the thaw that accepted what was not confirmed accepts no restore
    service(world, path)
    assert "an old backup was restored" in (frozen(world, used) or "")


@pytest.mark.parametrize("how", ["removed", "emptied", "shortened", "replaced"])
def test_a_witness_that_is_lost_while_the_service_runs_is_told_all_anew(
    world: World, path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    witnesses, made, other = service(world, path), world.budget(), world.budget()
    charge(world, made)
    look(witnesses)
    {
        "removed": path.unlink,
        "emptied": lambda: os.truncate(path, 0),
        "shortened": lambda: os.truncate(path, path.stat().st_size - 5),
        "replaced": lambda: (path.rename(path.with_suffix(".old")), path.touch()),
    }[how]()
    look(witnesses)
    assert "shortened, replaced or removed" in caplog.text
    assert {type(line) for line in lines(path)} == {Origin, Head}
    assert {head(world, made), head(world, other)} <= set(lines(path))
    rewind(world.database, made, 1)
    service(world, path)
    assert "an old backup was restored" in (frozen(world, made) or "")


def test_a_line_that_a_crash_cut_off_is_taken_away(world: World, path: Path) -> None:
    made = world.budget()
    look(service(world, path))
    whole = path.read_bytes()
    path.write_bytes(whole + sealed(KEY, Head(made, 9, "ab" * 200))[:-1])  # all but its line break
    charge(world, made)
    look(service(world, path))
    assert lines(path) == [*(opened(KEY.public_key(), line, "") for line in whole.splitlines()), head(world, made)]
    assert frozen(world, made) is None


def test_lines_lost_from_the_end_are_told_again(world: World, path: Path) -> None:
    made = world.budget()
    witnesses = service(world, path)
    charge(world, made)
    look(witnesses)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    look(service(world, path))
    assert frozen(world, made) is None
    assert lines(path)[-1] == head(world, made)


def test_a_witness_of_another_database_or_key_is_refused(world: World, path: Path) -> None:
    service(world, path)
    other_key = Witnesses(world.api, Ed25519PrivateKey.generate(), None, [WitnessFile(path)])
    with pytest.raises(BrokenWitness, match="not signed by this service"):
        other_key.begin()
    path.write_bytes(sealed(KEY, Origin("0" * 64)) + path.read_bytes())
    made = world.budget()
    with pytest.raises(ForeignWitness, match="another database"):
        service(world, path)
    assert frozen(world, made) is None
    path.write_bytes(b"x" * 2**17)
    with pytest.raises(BrokenWitness):
        service(world, path)


def test_an_older_dump_that_is_migrated_again_is_still_the_same_ledger(world: World) -> None:
    sql = (Path(__file__).parents[2] / "migrations" / "sql" / "0012" / "10_witness.sql").read_text()
    drawn = sql[sql.index("INSERT INTO ledger.database_id") :].partition(";")[0]

    def again() -> str:
        with past_triggers(world.database) as connection:
            connection.exec_driver_sql("DELETE FROM ledger.database_id")
            connection.exec_driver_sql(drawn)
            return chains.identity(connection)

    assert again() != again(), "a new ledger draws its own"
    world.budget()
    first = again()
    world.budget()
    assert again() == first


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _half(real: Callable[[int, bytes, int], int]) -> Callable[[int, bytes, int], int]:
    """A disk with room for seven bytes."""
    left = [7]

    def write(file: int, data: bytes, place: int) -> int:
        size, left[0] = min(left[0], len(data)), 0
        return real(file, data[:size], place) if size else _full()

    return write


def test_a_full_disk_loses_nothing(world: World, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witnesses, made = service(world, path), world.budget()
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", _half(os.pwrite))
        with pytest.raises(OSError, match="No space"):
            look(witnesses)
    assert path.read_bytes() == before
    assert witnesses.books[0].told_at is not None
    look(witnesses)
    assert lines(path)[-1] == head(world, made)


def test_a_witness_that_may_only_be_read_is_still_compared(
    world: World, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.budget()
    witnesses = service(world, path)
    charge(world, made)
    look(witnesses)
    rewind(world.database, made, 1)
    real = os.open

    def read_only(name: os.PathLike[str], flags: int, mode: int = 0o777) -> int:
        if name == path and flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(name, flags, mode)

    monkeypatch.setattr("os.open", read_only)
    service(world, path)  # starts, says so, and freezes
    assert "an old backup was restored" in (frozen(world, made) or "")


def test_a_budget_that_a_restore_lost_keeps_everybody_out_until_the_operator_accepts_it(
    world: World, path: Path
) -> None:
    witnesses, made, kept = service(world, path), world.budget(), world.budget()
    look(witnesses)
    seen = head(world, made)
    forget(world.database, made)
    look(witnesses)
    look(witnesses)
    with world.api.connect() as connection:
        (row,) = connection.execute(sa.select(lost_budget)).all()
    assert (row.budget_id, row.seq, row.hash.hex(), row.accepted_at) == (made, 1, seen.hash, None)
    assert frozen(world, kept) is None
    with pytest.raises(LedgerIncomplete), translated():
        world.budget()
    marks = sa.text("INSERT INTO fingerprint VALUES (:t, 'record', :m, :b)")
    values = {"t": world.tenant, "m": b"m" * 32, "b": kept}
    with pytest.raises(LedgerIncomplete), translated(), world.api.begin() as connection:
        connection.execute(marks, values)
    for statement in ("UPDATE ledger.lost_budget SET accepted_reason = 'x'", "DELETE FROM ledger.lost_budget"):
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), world.api.begin() as connection:
            connection.exec_driver_sql(statement)
    with world.admin.begin() as connection:
        losses.accept(connection, made, "it held a test")
    with pytest.raises(sa.exc.IntegrityError, match="accepted once"), world.admin.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger.lost_budget SET accepted_reason = 'another'")
    look(witnesses)
    service(world, path)
    world.budget()
    with world.api.begin() as connection:
        connection.execute(marks, values)
        (row,) = connection.execute(sa.select(lost_budget)).all()
    assert (row.accepted_reason, row.accepted_by) == ("it held a test", world.admin.url.username)
