"""The password of the API's database login is stolen: nobody's rows come out, and nobody else's budget pays."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from domain.kit.ids import new_id
from domain.kit.tables import api_key, data_key, file
from domain.storage.blobs import open_store, put_bytes
from ledger.tables import budget
from tests.api.conftest import JOBS, World, csv_rows, job_body
from tests.api.test_jobs import ADAPTER, finish
from tests.superuser import past_triggers

pytestmark = pytest.mark.usefixtures("quick_checks")
RANDOM = secrets.token_bytes(32)


@pytest.fixture(scope="module")
def mine(world: World) -> dict[str, Any]:
    return world.private_file()


@pytest.fixture(scope="module")
def theirs(world: World) -> dict[str, Any]:
    return world.private_file()


@pytest.fixture(scope="module")
def queued(world: World, mine: dict[str, Any]) -> str:
    return str(world.submit(mine["id"], 1.0)["id"])


def row_of(world: World, file_id: str) -> sa.Row[Any]:
    with world.engine("api").connect() as c:
        return c.execute(sa.select(file).where(file.c.id == file_id)).one()


CHANGES = {
    "file": {
        "id": "'file-x'",
        "tenant_id": "'tenant_two'",
        "purpose": "'evals'",
        "task": "'pair'",
        "filename": "'x'",
        "bytes": "1",
        "sha256": "'00'",
        "status": "'uploaded'",
        "problems": "'[1]'",
        "budget_id": "(SELECT budget_id FROM file WHERE id <> '{id}' AND budget_id IS NOT NULL LIMIT 1)",
        "declared_size": "100000",
        "labels": "'{{1,0}}'",
        "max_length": "8192",
        "columns": "'[]'",
        "blob": "(SELECT blob FROM file WHERE id <> '{id}' LIMIT 1) || ''",
        "created_at": "now()",
        "binding": "sha256('')",
        "legacy": "true",
    },
    "job": {
        "id": "'ftjob-x'",
        "tenant_id": "'tenant_two'",
        "created_by": "(SELECT id FROM api_key k WHERE k.id <> created_by LIMIT 1)",
        "model": "'x'",
        "validation_file": "'{id}'",
        "method": "'{{}}'",
        "plan": "'{{}}'",
        "privacy": "'{{}}'",
        "seed": "-1",
        "suffix": "'x'",
        "metadata": "'[1]'",
        "created_at": "now()",
    },
    "job_file": {"job_id": "'x'", "file_id": "'x'", "budget_id": "'x'"},
    "data_key": {"blob": "'x'", "created_at": "now()"},
}


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in CHANGES.items() for c in columns])
def test_what_ties_things_together_never_changes(
    world: World, mine: dict[str, Any], theirs: dict[str, Any], queued: str, table: str, column: str
) -> None:
    """No login has the right; a trigger refuses whoever has."""
    which = {"file": f"id = '{mine['id']}'", "job": f"id = '{queued}'"}.get(table, "true")
    change = f"UPDATE {table} SET {column} = {CHANGES[table][column].format(id=mine['id'])} WHERE {which}"
    for login, state in (("api", "42501"), ("worker", "42501"), ("admin", "23001")):
        with pytest.raises(sa.exc.DBAPIError) as refused, world.engine(login).begin() as c:
            c.execute(sa.text(change))
        assert refused.value.orig.sqlstate == state, login  # type: ignore[union-attr]


def test_every_column_of_a_file_is_among_them() -> None:
    assert {c.name for c in file.c} == {*CHANGES["file"], "deleted_at"}


def test_a_deleted_file_stays_deleted(world: World) -> None:
    gone = world.private_file()
    assert world.call("DELETE", f"/v1/files/{gone['id']}", "steward").status_code == 200
    for when in ("NULL", "now() - interval '1 day'"):
        with pytest.raises(sa.exc.DBAPIError, match="stays deleted"), world.engine("api").begin() as c:
            c.execute(sa.text(f"UPDATE file SET deleted_at = {when} WHERE id = :id"), {"id": gone["id"]})


def rogue(world: World, like: sa.Row[Any], purpose: str, **chosen: Any) -> str:
    """A row of `file` that the stolen login inserts."""
    values = {"id": new_id("file", "-"), "tenant_id": "tenant_one", "purpose": purpose, "filename": "f"}
    values |= {"task": "classification", "labels": ["0", "1"], "max_length": 128, "sha256": "00", "status": "processed"}
    if purpose == "fine-tune":
        values |= {"budget_id": like.budget_id, "declared_size": 400}
    with world.engine("api").begin() as c:
        c.execute(file.insert().values(**values | chosen))
    return str(values["id"])


PURPOSES = ("fine-tune", "evals", "fine-tune-results")
BINDINGS: dict[str, Callable[[sa.Row[Any]], Any]] = {
    "none": lambda _: None,
    "copied": lambda row: row.binding,
    "random": lambda _: RANDOM,
}


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("binding", BINDINGS)
def test_no_row_names_the_blob_of_another_file(
    world: World, mine: dict[str, Any], theirs: dict[str, Any], purpose: str, binding: str
) -> None:
    victim = row_of(world, theirs["id"])
    with pytest.raises(sa.exc.IntegrityError):
        rogue(world, row_of(world, mine["id"]), purpose, blob=victim.blob, binding=BINDINGS[binding](victim))
    with pytest.raises(sa.exc.ProgrammingError):
        rogue(world, row_of(world, mine["id"]), purpose, blob=victim.blob, legacy=True)


def require_refused(world: World, file_id: str, purpose: str, other: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither read nor used, for anybody; an alarm in the log, the attempt in the audit log, nothing reserved."""
    for scope in ("steward", "analyst"):
        if (scope, purpose) == ("analyst", "fine-tune"):
            continue
        caplog.clear()
        answer = world.get(f"/v1/files/{file_id}/content", scope)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "file_binding_broken")
        assert "row number" not in answer.text
        assert "ALARM" in caplog.text
        assert file_id in caplog.text
    seen = world.get("/v1/audit", "auditor").json()["data"][0]
    assert (seen["action"], seen["target"], seen["status"]) == ("GET /v1/files/{file_id}/content", file_id, 409)
    if purpose != "fine-tune-results":
        entries = world.get(f"/v1/budgets/{row_of(world, other).budget_id}/entries", "auditor").json()["data"]
        training = {"fine-tune": file_id, "evals": other}[purpose]
        more = {"validation_file": file_id} if purpose == "evals" else {}
        answer = world.post(JOBS, job_body(training, 0.5, **more))
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "file_binding_broken")
        assert world.get(f"/v1/budgets/{row_of(world, other).budget_id}/entries", "auditor").json()["data"] == entries


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("binding", ["copied", "random"])
def test_rows_whose_upload_is_under_way_are_nobody_elses(
    world: World, mine: dict[str, Any], purpose: str, binding: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They lie in the store before a row names them: the database cannot tell, the binding does."""
    like = row_of(world, mine["id"])
    store = open_store(world.settings, world.engine("api"))
    blob = put_bytes(store, f"files/{new_id('file', '-')}/rows.parquet", b"row number").name
    made = rogue(world, like, purpose, blob=blob, binding=BINDINGS[binding](like))
    require_refused(world, made, purpose, mine["id"], caplog)


def test_a_row_that_was_never_checked_is_not_a_way_in(world: World, mine: dict[str, Any]) -> None:
    """It needs no binding, and is good for nothing."""
    store = open_store(world.settings, world.engine("api"))
    blob = put_bytes(store, f"files/{new_id('file', '-')}/rows.parquet", b"row number").name
    made = rogue(world, row_of(world, mine["id"]), "evals", blob=blob, status="uploaded")
    assert world.get(f"/v1/files/{made}/content").json()["error"]["code"] == "file_not_processed"
    assert world.post(JOBS, job_body(mine["id"], 0.5, validation_file=made)).status_code == 400
    with pytest.raises(sa.exc.DBAPIError), world.engine("api").begin() as c:
        c.execute(sa.text("UPDATE file SET status = 'processed' WHERE id = :id"), {"id": made})


def test_a_key_serves_no_other_file(world: World, mine: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The wrapped key of one file put in the place of another's, and of none's."""
    victim, own = (row_of(world, world.private_file()["id"]) for _ in range(2))
    with world.engine("api").begin() as c:
        key = c.execute(sa.select(data_key).where(data_key.c.blob == victim.blob)).one()
        c.execute(sa.delete(data_key).where(data_key.c.blob == own.blob))
        for name in (own.blob, "files/none/rows.parquet"):
            c.execute(data_key.insert().values(blob=name, wrapped=key.wrapped, master=key.master))
    require_refused(world, own.id, "fine-tune", mine["id"], caplog)
    made = rogue(world, own, "evals", blob="files/none/rows.parquet", binding=victim.binding)
    require_refused(world, made, "evals", mine["id"], caplog)
    assert world.get(f"/v1/files/{victim.id}/content", "steward").status_code == 200


def test_a_file_is_tied_to_the_unit_of_its_budget(world: World) -> None:
    """What its rows were checked and cut for; to change it takes more than a service's login."""
    made = world.private_file()
    path = f"/v1/files/{made['id']}/content"
    for unit, most, expected in (("user", 5, 409), ("record", None, 200)):
        with past_triggers(world.database) as c:
            change = {"unit": unit, "max_records_per_user": most}
            c.execute(sa.update(budget).where(budget.c.id == made["budget"]).values(change))
        assert world.get(path, "steward").status_code == expected


def test_nothing_passes_for_an_adapter(
    world: World, mine: dict[str, Any], theirs: dict[str, Any], at_work: sa.Connection
) -> None:
    job = finish(world, mine, at_work)
    path = f"{JOBS}/{job}/adapter"
    assert world.get(path).content == ADAPTER
    with world.engine("api").begin() as c:
        rows = sa.select(data_key.c.wrapped, data_key.c.master).where(
            data_key.c.blob == row_of(world, theirs["id"]).blob
        )
        wrapped, master = c.execute(rows).one()
        c.execute(sa.delete(data_key).where(data_key.c.blob == f"results/{job}"))
        c.execute(data_key.insert().values(blob=f"results/{job}", wrapped=wrapped, master=master))
    for method in ("GET", "HEAD"):
        answer = world.call(method, path, "analyst")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")


def test_files_that_are_what_they_are_pass(world: World) -> None:
    """Both ways of opening a budget, a public set, and what a worker releases (test_jobs.py)."""
    private = world.upload(csv_rows(" of mine"), granted=True).json()
    public = world.upload(csv_rows(" for all"), {"purpose": "evals"}).json()
    for made in (private, public):
        assert b"row number" in world.get(f"/v1/files/{made['id']}/content", "steward").content
    assert world.submit(private["id"], 1.0, validation_file=public["id"])["status"] == "queued"


def made_key(world: World, scopes: list[str], tenant: str = "one") -> tuple[str, str]:
    """Id and secret of a new key."""
    made = world.post("/v1/keys", {"name": "k", "scopes": scopes}, "admin", tenant=tenant).json()
    return made["id"], made["key"]


def status(world: World, path: str, secret: str) -> int:
    return world.client.get(path, headers={"Authorization": f"Bearer {secret}"}).status_code


@pytest.mark.parametrize("seal", ["none", "copied", "the steward's"])
@pytest.mark.parametrize("how", ["a new row", "the steward's row", "the steward's other secret"])
def test_an_analysts_secret_does_not_become_a_stewards(
    world: World, how: str, seal: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the API's password and a key of one's own, of whatever tenant."""
    path = f"/v1/files/{world.upload(tenant='two').json()['id']}/content"
    own, secret = made_key(world, ["analyst"])
    steward, theirs = made_key(world, ["steward"], "two")
    assert status(world, path, theirs) == 200
    with world.engine("api").begin() as c:
        mine, other = (c.execute(sa.select(api_key).where(api_key.c.id == id)).one() for id in (own, steward))
        c.execute(sa.update(api_key).where(api_key.c.id == own).values(mac=own.encode()))
        seals = {"none": None, "copied": mine.seal, "the steward's": other.seal}
        if how == "a new row":
            row = {"id": new_id("key"), "tenant_id": "tenant_two", "name": "k", "prefix": "p", "scopes": ["steward"]}
            c.execute(api_key.insert().values(**row, mac=mine.mac, seal=seals[seal]))
        else:
            until = sa.func.now() + sa.text("interval '1 hour'")
            change = {"mac": mine.mac} if how == "the steward's row" else {"previous_mac": mine.mac}
            change |= {"previous_until": until} if "previous_mac" in change else {}
            c.execute(sa.update(api_key).where(api_key.c.id == steward).values(**change, seal=seals[seal]))
    assert status(world, path, secret) == 401
    assert "ALARM" in caplog.text
    if how != "a new row":  # nor by the rotation of a key that has stopped working
        answer = world.post(f"/v1/keys/{steward}/rotate", {}, "admin", tenant="two")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "key_seal_broken")
        assert status(world, path, secret) == 401


def test_a_secret_that_was_rotated_away_does_not_come_back(world: World) -> None:
    """The row as it was before, seal and all."""
    id, secret = made_key(world, ["steward"])
    with world.engine("api").begin() as c:
        before = c.execute(sa.select(api_key).where(api_key.c.id == id)).one()
    new = world.post(f"/v1/keys/{id}/rotate", {"overlap_hours": 0}, "admin").json()["key"]
    assert (status(world, "/v1/files", secret), status(world, "/v1/files", new)) == (401, 200)
    old = {name: getattr(before, name) for name in ("mac", "prefix", "previous_mac", "previous_until", "seal")}
    with world.engine("api").begin() as c:
        c.execute(sa.update(api_key).where(api_key.c.id == id).values(old))
    assert status(world, "/v1/files", secret) == 401


def test_what_a_key_may_do_never_changes(world: World) -> None:
    id, secret = made_key(world, ["analyst"])
    world.call("DELETE", f"/v1/keys/{id}")
    assert status(world, "/v1/files", secret) == 401
    changes = {"tenant_id": "'tenant_two'", "scopes": "'{steward}'", "project": "'x'", "revoked_at": "NULL"}
    for column, value in changes.items():
        for login in ("api", "worker", "admin"):
            with pytest.raises(sa.exc.DBAPIError), world.engine(login).begin() as c:
                c.execute(sa.text(f"UPDATE api_key SET {column} = {value} WHERE id = :id"), {"id": id})
    with pytest.raises(sa.exc.ProgrammingError), world.engine("api").begin() as c:
        c.execute(sa.text("UPDATE api_key SET secret_number = 0, legacy = true WHERE id = :id"), {"id": id})
    with pytest.raises(sa.exc.ProgrammingError), world.engine("api").begin() as c:
        row = {"id": new_id("key"), "tenant_id": "tenant_one", "name": "k", "prefix": "p", "scopes": ["steward"]}
        c.execute(api_key.insert().values(**row, mac=b"m", legacy=True))


def test_a_key_from_before_works_until_it_is_rotated(world: World) -> None:
    id, secret = made_key(world, ["steward"])
    with world.engine("superuser").begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.update(api_key).where(api_key.c.id == id).values(legacy=True, seal=None))
    assert status(world, "/v1/files", secret) == 200
    new = world.post(f"/v1/keys/{id}/rotate", {}, "admin").json()["key"]
    assert (status(world, "/v1/files", secret), status(world, "/v1/files", new)) == (200, 200)
    with world.engine("api").connect() as c:
        assert not c.execute(sa.select(api_key.c.legacy).where(api_key.c.id == id)).scalar_one()
