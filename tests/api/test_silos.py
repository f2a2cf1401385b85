"""Files of a tenant that has a silo: where they go, and what becomes of them; and the queue that its jobs wait in."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.files.files import forget_dead_uploads
from domain.jobs.hints import waiting
from domain.kit.refusals import Conflict
from domain.kit.settings import ApiSettings, SiloPlace
from domain.kit.tables import data_key, file
from domain.storage.blobs import open_store
from ledger.tables import work
from tests.api.conftest import PRIVATE, World, make_keys, make_settings
from tests.conftest import Database
from tests.silos import KEYS

PUBLIC = {"purpose": "evals", "labels": "0,1"}
SILO = f"s-{secrets.token_hex(4)}"
"""Its queue is this test's alone."""


@pytest.fixture(scope="module")
def house(
    module_database: Database, redis_server: str, tmp_path_factory: pytest.TempPathFactory, quick_checks: None
) -> Iterator[World]:
    """Tenant one has a silo, tenant two has none."""
    folder = tmp_path_factory.mktemp("silos")
    (folder / "key").write_text(KEYS["a"])
    place = SiloPlace(tenants=["tenant_one"], blobs=str(folder / "silo"), master_key_file=folder / "key")
    more = {"silos": {SILO: place}, "exchange": str(folder / "exchange"), "exchange_key": KEYS["exchange"]}
    settings = ApiSettings(**make_settings(module_database, redis_server, folder).model_dump() | more)
    with TestClient(create_app(settings)) as client:
        yield World(module_database, settings, client, make_keys(module_database, settings))


def stored(house: World, id: str) -> str:
    with house.engine("admin").connect() as c:
        return str(c.execute(sa.select(file.c.blob).where(file.c.id == id)).scalar_one())


def left(house: World, id: str) -> list[str]:
    """What is kept of a file: keys, and blobs in any place."""
    folder = Path(house.settings.blobs).parent
    with house.engine("admin").connect() as c:
        keys = c.execute(sa.select(data_key.c.blob).where(data_key.c.blob.contains(id))).scalars().all()
    return [*keys, *(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and id in str(path))]


@pytest.mark.parametrize(
    ("tenant", "form", "home", "folder"),
    [
        ("one", PRIVATE, f"silos/{SILO}/", "silo"),
        ("one", PUBLIC, "exchange/", "exchange"),
        ("two", PRIVATE, "", "blobs"),
        ("two", PUBLIC, "", "blobs"),
    ],
    ids=["private", "public", "of no silo, private", "of no silo, public"],
)
def test_a_file_lies_where_its_tenant_has_its_place_and_nowhere_else(
    house: World, tenant: str, form: dict[str, Any], home: str, folder: str
) -> None:
    made = house.upload(form=form, tenant=tenant).json()
    blob = f"{home}files/{made['id']}/rows.parquet"
    assert stored(house, made["id"]) == blob
    assert left(house, made["id"]) == [blob, f"{folder}/{blob}"]
    content = house.call("GET", f"/v1/files/{made['id']}/content", "steward", tenant)
    assert content.text.count("\n") == 400
    assert house.call("DELETE", f"/v1/files/{made['id']}", "steward", tenant).status_code == 200
    assert left(house, made["id"]) == []


def test_a_file_that_waits_lies_in_its_silo_with_its_marks(house: World) -> None:
    public = b"text,label\n" + b"".join(b"a text that was read aloud as number %d,0\n" % i for i in range(400))
    house.upload(public)
    asked = house.upload(public, form=PUBLIC).json()
    assert asked["question"] is not None
    rows, marks = (f"exchange/files/{asked['id']}/{name}" for name in ("rows.parquet", "marks"))
    assert sorted(left(house, asked["id"])) == sorted([rows, marks, f"exchange/{rows}", f"exchange/{marks}"])
    answered = house.post(f"/v1/files/{asked['id']}/answer", {"answer": "publish", "reason": "r"}, "steward")
    assert answered.status_code == 200, answered.text
    assert stored(house, asked["id"]) == rows
    assert left(house, asked["id"]) == [rows, f"exchange/{rows}"]
    again = house.upload(public, form=PUBLIC).json()
    assert house.call("DELETE", f"/v1/files/{again['id']}", "steward").status_code == 200
    assert left(house, again["id"]) == []


def test_what_is_received_for_a_silo_passes_through_its_place(house: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def stops(request: Any) -> None:
        seen.extend([str(request.source), str(request.target)])
        raise Conflict("seen", code="seen")

    monkeypatch.setattr("api.files.endpoints.run_check", stops)
    assert house.upload().status_code == 409
    folder = Path(house.settings.blobs).parent
    assert {Path(path).parent for path in seen} == {folder / "silo" / "uploads"}


def test_what_a_dead_upload_left_in_a_silo_is_removed(house: World) -> None:
    store = open_store(house.settings, house.engine("api"))
    place = store.at(f"silos/{SILO}/")
    assert place.folder is not None
    (place.folder / "uploads" / "file-dead.part").write_text("rows")
    kept = place.folder / f"silos/{SILO}/files/file-dead/rows.parquet"
    kept.parent.mkdir(parents=True)
    kept.write_text("rows")
    forget_dead_uploads(house.engine("api"), store)
    assert left(house, "file-dead") == []


def test_a_job_on_a_silos_file_waits_in_its_silos_queue(house: World) -> None:
    broker = house.settings.broker_url.get_secret_value()
    job = house.submit(house.private_file()["id"])
    assert waiting(broker, SILO) == 1
    other = house.upload(tenant="two").json()
    house.post("/v1/fine_tuning/jobs", {"model": "minilm-l6", "training_file": other["id"]}, tenant="two")
    assert waiting(broker, SILO) == 1
    with house.engine("admin").connect() as c:
        found = c.execute(sa.select(work.c.job_id, work.c.silo)).all()
    assert sorted((row.silo or "", row.job_id == job["id"]) for row in found) == [("", False), (SILO, True)]


def test_places_of_one_service_do_not_share_a_key(house: World, tmp_path: Path) -> None:
    settings = house.settings.model_copy(update={"exchange_key": house.settings.master_key})
    with pytest.raises(ValueError, match="hold the same master key"):
        open_store(settings, house.engine("api"))


def test_a_file_whose_silo_was_taken_out_of_the_settings_is_neither_lost_nor_an_error_of_ours(house: World) -> None:
    made = house.upload(form=PRIVATE, tenant="one").json()
    path = f"/v1/files/{made['id']}"
    with TestClient(create_app(house.settings.model_copy(update={"silos": {}}))) as client:
        without = World(house.database, house.settings, client, house.keys)
        assert without.get(path, "steward", tenant="one").json()["id"] == made["id"]
        for refused in (
            without.get(f"{path}/content", "steward", tenant="one"),
            without.call("DELETE", path, "steward", "one"),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "place_not_served")
            assert (refused.headers["x-should-retry"], "silos/" in refused.text) == ("false", False)
        assert without.call("GET", "/v1/files", "steward", "one").status_code == 200
    assert house.get(f"{path}/content", "steward", tenant="one").text.count("\n") == 400
