"""The second witness: in a folder or an object store, in an order that several services share."""

import errno
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from domain.keeping.witness_store import WitnessStore
from ledger.witness import BrokenWitness, Head, WitnessLine, opened, sealed
from ledger.witness_file import WitnessFile
from ledger.witnesses import Witnesses
from tests.conftest import Database
from tests.ledger.test_witnesses import KEY, charge, freezes, frozen, head, look, service, thaw
from tests.ledger.worlds import World
from tests.superuser import rewind


@dataclass(frozen=True)
class Where:
    """A folder or a bucket's URL, and its options."""

    name: str
    options: SecretStr | None

    def store(self) -> WitnessStore:
        return WitnessStore(self.name, self.options)


@pytest.fixture(scope="module")
def s3() -> Iterator[Where]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    options = {"endpoint": address, "region": "us-east-1", "access_key_id": "any", "secret_access_key": "any"}
    client = boto3.client(
        "s3", endpoint_url=address, aws_access_key_id="any", aws_secret_access_key="any", region_name="us-east-1"
    )
    client.create_bucket(Bucket="tacit")
    yield Where("s3://tacit/witness", SecretStr(json.dumps(options)))
    httpx.post(f"{address}/moto-api/reset")
    server.stop()


@pytest.fixture(params=["folder", "bucket"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Where]:
    if request.param == "folder":
        yield Where(str(tmp_path / "second"), None)
        return
    found: Where = request.getfixturevalue("s3")
    yield Where(f"{found.name}/{tmp_path.name}", found.options)


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def lines(where: Where) -> list[WitnessLine]:
    return [opened(KEY.public_key(), line, "") for batch in where.store().read() for line in batch]


def test_whoever_comes_second_reads_what_came_first(where: Where) -> None:
    one, two = where.store(), where.store()
    assert list(one.read()) == list(two.read()) == []
    assert one.append([b"a\n"])
    assert not two.append([b"b\n"])
    assert list(two.read()) == [[b"a"]]
    assert two.append([b"b\n", b"c\n"])
    assert list(one.read()) == [[b"b", b"c"]]
    assert list(one.read()) == []
    assert [line for batch in where.store().read() for line in batch] == [b"a", b"b", b"c"]
    assert one.intact()


def test_it_holds_what_the_file_holds_and_confirms_the_ledger_when_the_file_is_gone(
    world: World, where: Where, tmp_path: Path
) -> None:
    path = tmp_path / "heads.jsonl"
    made, late = world.budget(), world.budget()
    first = service(world, path, where.store())
    charge(world, made)
    look(first)
    assert lines(where) == [opened(KEY.public_key(), line, "") for line in path.read_bytes().splitlines()]
    charge(world, late)
    path.unlink()
    service(world, path, where.store())
    assert frozen(world, made) is None
    assert "the witness is gone" in (frozen(world, late) or ""), "its last head was told to nobody"


def test_it_notices_a_restore_by_itself_and_hears_what_was_accepted(world: World, where: Where, tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    made = world.budget()
    witnesses = service(world, path, where.store())
    charge(world, made)
    look(witnesses)
    seen = head(world, made)
    path.unlink()
    rewind(world.database, made, 1)
    witnesses = service(world, path, where.store())
    assert freezes(world, made) == [seen.name]
    thaw(world, made)
    witnesses.look(witnesses.books[0])  # the second is told nothing of it before the service ends
    service(world, path, where.store())
    assert frozen(world, made) is None
    assert any(isinstance(line, Head) and line.supersedes for line in lines(where))
    charge(world, made)
    look(witnesses := service(world, path, where.store()))
    rewind(world.database, made, head(world, made).seq - 1)
    look(witnesses)
    assert len(freezes(world, made)) == 2


def test_what_was_accepted_covers_a_witness_that_lags_behind(world: World, where: Where, tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    made = world.budget()
    witnesses = service(world, path, where.store())
    near, _ = witnesses.books
    charge(world, made)
    look(witnesses)
    charge(world, made)
    witnesses.look(near)  # from here on the store hears nothing
    rewind(world.database, made, 1)
    witnesses.look(near)
    thaw(world, made)
    witnesses.look(near)
    look(service(world, path, where.store()))
    assert frozen(world, made) is None
    assert len(freezes(world, made)) == 1
    path.unlink()
    service(world, path, where.store())
    assert frozen(world, made) is None


def test_a_store_that_is_away_keeps_nobody_waiting_and_is_told_later(
    world: World, s3: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "heads.jsonl"
    monkeypatch.setattr("domain.keeping.witness_store.PATIENCE", 0.5)
    assert s3.options is not None
    away = json.loads(s3.options.get_secret_value()) | {"endpoint": "http://127.0.0.1:1"}
    made = world.budget()
    witnesses = service(world, path, WitnessStore(s3.name, SecretStr(json.dumps(away))))
    near, far = witnesses.books
    assert (near.told_at is None, far.told_at) == (False, None)
    charge(world, made)
    witnesses.look(near)
    with pytest.raises(OSError, match=f"Errno {errno.EIO}"):
        witnesses.look(far)
    far.place = Where(f"{s3.name}/{tmp_path.name}", s3.options).store()
    witnesses.look(far)
    assert head(world, made) in lines(Where(f"{s3.name}/{tmp_path.name}", s3.options))


def test_objects_that_go_missing_are_told_anew(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = Where(str(tmp_path / "second"), None)
    made = world.budget()
    witnesses = service(world, tmp_path / "heads.jsonl", where.store())
    charge(world, made)
    look(witnesses)
    first, last = sorted((tmp_path / "second").iterdir())
    last.unlink()
    look(witnesses)
    assert "shortened, replaced or removed" in caplog.text
    assert head(world, made) in lines(where)
    first.unlink()
    list(where.store().read())
    assert "1 objects are missing" in caplog.text
    last.write_bytes(sealed(KEY, Head(made, 1, "ab"))[:-1])
    with pytest.raises(BrokenWitness, match="no end"):
        Witnesses(world.api, KEY, None, [WitnessFile(tmp_path / "heads.jsonl"), where.store()]).begin()
