"""What a process has no place and no master key for it cannot open, whatever else it gets hold of."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from domain.kit.settings import ApiSettings, BadSettings, WorkerSettings, from_environment
from domain.kit.tables import data_key
from domain.storage import blobs
from domain.storage.blobs import NotMounted, Store, open_store
from domain.storage.masters import LocalKey, NoMasterKey, WrongKey
from domain.storage.vault import rewrap
from tests.conftest import Database
from tests.domain.test_vault import masters
from tests.silos import KEYS, Installation

ROWS = {"a": "silos/a/files/1/rows", "b": "silos/b/files/2/rows", "general": "files/3/rows", "exchange": "exchange/4"}


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Installation:
    database.bind_silos()
    return Installation(database, "redis://none", tmp_path, {"a": ["one"], "b": ["two"]})


@pytest.fixture
def opened(house: Installation) -> Iterator[Callable[..., Store]]:
    """A worker's store, under its own login, once the API has written a blob into each place."""
    engines = [sa.create_engine(house.database.api_url, poolclass=sa.NullPool)]
    api = open_store(house.api(), engines[0])
    blobs.require_usable(api)
    for name in ROWS.values():
        blobs.put_bytes(api, name, b"rows of " + name.encode())
    assert all(blobs.get_bytes(api, name) == b"rows of " + name.encode() for name in ROWS.values())

    def of(silo: str | None, **other: str) -> Store:
        settings = house.worker(silo, **other)
        engines.append(sa.create_engine(settings.database_url.get_secret_value(), poolclass=sa.NullPool))
        return open_store(settings, engines[-1])

    yield of
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize(
    ("silo", "own"), [("a", {"a", "exchange"}), ("b", {"b", "exchange"}), (None, {"general", "exchange"})]
)
def test_a_worker_opens_its_own_place_and_the_exchange(
    opened: Callable[..., Store], silo: str | None, own: set[str]
) -> None:
    store = opened(silo)
    for place, name in ROWS.items():
        if place in own:
            assert blobs.get_bytes(store, name) == b"rows of " + name.encode()
            continue
        for use in (blobs.get_bytes, blobs.delete, lambda store, name: blobs.put_bytes(store, name, b"planted")):
            with pytest.raises(NotMounted, match=name):
                use(store, name)


@pytest.mark.parametrize(("thief", "of"), [("a", "b"), (None, "b"), ("a", "general")])
def test_a_folder_without_its_master_key_is_noise(
    house: Installation, opened: Callable[..., Store], thief: str | None, of: str
) -> None:
    """The folder's path, the database's row and the worker's own key, even with the row turned to that key."""
    name, key = ROWS[of], KEYS[thief or "general"]
    assert b"rows of" not in (house.place(of) / name).read_bytes()
    own = opened(thief)
    stolen = replace(own, objects=opened(thief, blobs=str(house.place(of))).objects, home=name[: name.index("files")])
    with pytest.raises(NoMasterKey, match="does not hold"):
        blobs.get_bytes(stolen, name)
    admin = sa.create_engine(house.database.superuser_url)
    with admin.begin() as c:
        turned = {"master": LocalKey(bytes.fromhex(key)).id}
        c.execute(sa.update(data_key).where(data_key.c.blob == name).values(turned))
    with pytest.raises(WrongKey):
        blobs.get_bytes(stolen, name)
    admin.dispose()


def test_each_place_answers_for_its_own_names_alone(house: Installation, opened: Callable[..., Store]) -> None:
    opened("a")  # though most keys are under master keys that it does not have
    with pytest.raises(NoMasterKey, match="TACIT_MASTER_KEY does not hold"):
        opened("a", master_key="77" * 32)
    with pytest.raises(NoMasterKey, match="TACIT_EXCHANGE_KEY does not hold"):
        opened("a", exchange_key="77" * 32)
    with pytest.raises(NoMasterKey, match="TACIT_MASTER_KEY and TACIT_EXCHANGE_KEY hold the same"):
        opened("a", exchange_key=KEYS["a"])


def test_a_change_of_a_master_key_leaves_other_places_alone(house: Installation, opened: Callable[..., Store]) -> None:
    opened("a")
    admin = sa.create_engine(house.database.admin_url, poolclass=sa.NullPool)
    assert rewrap(admin, masters(f"{'99' * 32}\n{KEYS['a']}")) == 1
    assert blobs.get_bytes(opened("a", master_key="99" * 32), ROWS["a"]) == b"rows of " + ROWS["a"].encode()
    assert blobs.get_bytes(opened("b"), ROWS["b"]) == b"rows of " + ROWS["b"].encode()


def test_what_a_silos_worker_writes_the_api_finds(house: Installation, opened: Callable[..., Store]) -> None:
    store = opened("a")
    assert store.home == "silos/a/"
    blobs.put_bytes(store, f"{store.home}jobs/j/results/1/adapter.zip", b"adapter")
    api = open_store(house.api(), sa.create_engine(house.database.api_url, poolclass=sa.NullPool))
    assert blobs.get_bytes(api, "silos/a/jobs/j/results/1/adapter.zip") == b"adapter"


SILO = {"tenants": ["one"], "blobs": "/nowhere", "master_key_file": "/nowhere"}
EXCHANGE = {"TACIT_EXCHANGE": "/nowhere", "TACIT_EXCHANGE_KEY": "ee" * 32}


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        (WorkerSettings, {"TACIT_SILO": "a"}, "^TACIT_SILO needs TACIT_EXCHANGE and TACIT_EXCHANGE_KEY"),
        (WorkerSettings, {"TACIT_SILO": "A b"}, "^TACIT_SILO: "),
        (WorkerSettings, {"TACIT_EXCHANGE": "/nowhere"}, "TACIT_EXCHANGE_KEY belong together"),
        (WorkerSettings, EXCHANGE | {"TACIT_SILO": "a", "TACIT_KMS_COMMAND": "k"}, "no TACIT_KMS_COMMAND"),
        (ApiSettings, {"TACIT_SILOS": json.dumps({"a": SILO})}, "^TACIT_SILOS needs TACIT_EXCHANGE"),
        (
            ApiSettings,
            EXCHANGE | {"TACIT_SILOS": json.dumps({"a": SILO, "b": SILO})},
            "TACIT_SILOS: one is named more than once",
        ),
        (ApiSettings, EXCHANGE | {"TACIT_SILOS": '{"a": {}}'}, "TACIT_SILOS: a: tenants: Field required"),
    ],
)
def test_settings_that_make_no_silo(
    monkeypatch: pytest.MonkeyPatch,
    kind: type[ApiSettings | WorkerSettings],
    changed: dict[str, str],
    words: str,
) -> None:
    whole = {"DATABASE_URL": "d", "BROKER_URL": "b", "BLOBS": "/nowhere", "MASTER_KEY": "11" * 32}
    whole |= dict.fromkeys(("KEY_PEPPER", "FINGERPRINT_KEY", "SIGNING_KEY"), "22" * 32)
    for name, value in {f"TACIT_{name}": value for name, value in whole.items()}.items():
        monkeypatch.setenv(name, value)
    from_environment(kind)
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=words):
        from_environment(kind)
