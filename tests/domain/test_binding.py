"""What a binding covers, that another master key keeps it, and what becomes of files from before there were any."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from domain.files import binding
from domain.files.binding import BrokenBinding, bind, fields, open_file
from domain.kit.settings import KeySettings, ServiceSettings
from domain.kit.tables import file, tenant
from domain.storage.blobs import Store, open_store, put_bytes
from domain.storage.masters import read_masters
from domain.storage.sealing import Seal, Sealed, new_seal, sealed
from domain.storage.vault import rewrap
from ledger.canonical import packed
from migrations import upgrade
from tests.conftest import MASTER_KEY, Database, blob_store

SEAL = Seal(bytes(32), "files/a/rows.parquet", bytes(32), 1000)
FILE = {
    "id": "file-a",
    "tenant_id": "tenant_a",
    "purpose": "fine-tune",
    "task": "classification",
    "budget_id": "budget_a",
    "declared_size": 400,
    "max_length": 128,
    "labels": ["no", "yes"],
}
USER: dict[str, Any] = {"unit": "user", "max_records_per_user": 5}
OTHERWISE: dict[str, Any] = {
    "name": {"seal": replace(SEAL, name="files/b/rows.parquet")},
    "salt": {"seal": replace(SEAL, salt=bytes(31) + b"\1")},
    "size": {"seal": replace(SEAL, size=1001)},
    "id": {"file": FILE | {"id": "file-b"}},
    "tenant": {"file": FILE | {"tenant_id": "tenant_b"}},
    "purpose": {"file": FILE | {"purpose": "evals"}},
    "task": {"file": FILE | {"task": "pair"}},
    "budget": {"file": FILE | {"budget_id": "budget_b"}},
    "no budget": {"file": FILE | {"budget_id": None}},
    "unit": {"unit": "record"},
    "records of a user": {"max_records_per_user": 50},
    "declared size": {"file": FILE | {"declared_size": 4000}},
    "length cap": {"file": FILE | {"max_length": 512}},
    "order of the labels": {"file": FILE | {"labels": ["yes", "no"]}},
    "a label more": {"file": FILE | {"labels": ["no", "yes", ""]}},
    "labels joined": {"file": FILE | {"labels": ["noyes"]}},
    "no labels": {"file": FILE | {"labels": None}},
    "an empty list of labels": {"file": FILE | {"labels": []}},
}


def text(seal: Seal = SEAL, file: dict[str, Any] = FILE, **unit: Any) -> bytes:
    return packed(fields(seal, file, **USER | unit))


@pytest.mark.parametrize("what", OTHERWISE)
def test_each_field_is_covered(what: str) -> None:
    assert SEAL.mac(b"use", text(**OTHERWISE[what])) != SEAL.mac(b"use", text())


def test_no_two_of_them_are_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {text(), *(text(**change) for change in OTHERWISE.values())}
    assert len(texts) == 1 + len(OTHERWISE)
    monkeypatch.setattr(binding, "VERSION", "tacit.binding.v2")
    assert text() not in texts


def test_a_mac_is_of_one_data_key_and_one_use() -> None:
    macs = {seal.mac(use, b"text") for seal in (SEAL, replace(SEAL, key=b"1" * 32)) for use in (b"a", b"b")}
    assert len(macs) == 4


def test_a_header_pins_what_opens_under_it() -> None:
    """Written twice under one key and name: neither header opens the other's chunks."""
    one, two = (new_seal(bytes(32), "files/a", 5) for _ in range(2))
    assert one != two
    first, second = (b"".join(sealed(io.BytesIO(b"plain"), seal)) for seal in (one, two))
    assert Sealed(bytes(32), "files/a", len(first), lambda start, end: first[start:end]).seal == one
    mixed = first[:48] + second[48:]
    with pytest.raises(ValueError, match="not what was stored"):
        Sealed(bytes(32), "files/a", len(mixed), lambda start, end: mixed[start:end]).whole()


def put(engine: sa.Engine, store: Store, id: str, **more: Any) -> sa.Row[Any]:
    """A public file of one line, as the service stores it, or with columns that somebody chose."""
    rows = put_bytes(store, f"files/{id}/rows.parquet", id.encode())
    values = {"id": id, "tenant_id": "t", "purpose": "evals", "task": "text", "filename": "f", "sha256": "00"}
    with engine.begin() as connection:
        tie = {} if "binding" in more else {"binding": bind(connection, rows, values)}
        adding = file.insert().values(**values, status="processed", blob=rows.name, **tie | more)
        return connection.execute(adding.returning(file)).one()


def read(engine: sa.Engine, store: Store, row: sa.Row[Any]) -> bytes:
    with engine.connect() as connection:
        return open_file(connection, store, row).whole()


def test_another_master_key_keeps_the_bindings(database: Database, tmp_path: Path) -> None:
    admin = sa.create_engine(database.admin_url, poolclass=sa.NullPool)
    with admin.begin() as connection:
        connection.execute(tenant.insert().values(id="t", name="t"))
    row = put(admin, blob_store(tmp_path, admin), "a")
    new = "6b" * 32
    assert rewrap(admin, read_masters(KeySettings(master_key=f"{new}\n{MASTER_KEY}"))) == 1
    settings = {"database_url": "", "broker_url": "", "blobs": str(tmp_path), "master_key": new}
    assert read(admin, open_store(ServiceSettings(**settings), admin), row) == b"a"


def test_files_from_before_pass_and_no_login_makes_another_such(empty_database: Database, tmp_path: Path) -> None:
    engine = sa.create_engine(empty_database.admin_url, poolclass=sa.NullPool)
    upgrade(empty_database.admin_url, "0011")
    store = blob_store(tmp_path, engine)
    blob = put_bytes(store, "files/old/rows.parquet", b"old").name
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO tenant (id, name) VALUES ('t', 't');"
            "INSERT INTO file (id, tenant_id, purpose, filename, status, sha256, blob)"
            f" VALUES ('old', 't', 'evals', 'f', 'processed', '00', '{blob}')"
        )
    upgrade(empty_database.admin_url)
    with engine.connect() as connection:
        old = connection.execute(sa.select(file)).one()
    assert (old.binding, old.legacy) == (None, True)
    assert read(engine, store, old) == b"old"
    with pytest.raises(sa.exc.IntegrityError, match="a_usable_file_is_bound"):
        put(engine, store, "new", binding=None)
    with pytest.raises(sa.exc.DBAPIError, match="a file never changes"), engine.begin() as connection:
        connection.execute(sa.update(file).values(blob="files/new/rows.parquet"))
    assert not put(engine, store, "new").legacy


def test_a_file_that_was_taken_for_another_is_an_alarm(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    admin = sa.create_engine(database.superuser_url, poolclass=sa.NullPool)
    with admin.begin() as connection:
        connection.execute(tenant.insert().values(id="t", name="t"))
    store = blob_store(tmp_path, admin)
    row = put(admin, store, "a")
    with admin.begin() as connection:  # what no login of a service may do
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        connection.execute(sa.update(file).values(task="classification"))
        changed = connection.execute(sa.select(file)).one()
    with pytest.raises(BrokenBinding):
        read(admin, store, changed)
    assert "ALARM" in caplog.text
    assert row.id in caplog.text
