"""What a tenant may hold, what a disk must keep free, and what is not kept for ever."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import create_app
from domain.access import quotas
from domain.keeping.retention import forget_old
from domain.kit.tables import idempotency, job, job_event
from domain.storage.blobs import open_store, put_bytes
from tests.api.attacks import INVITATIONS
from tests.api.conftest import JOBS, World, csv_rows, job_body
from tests.api.federated import invite


def limited(world: World, **settings: int) -> World:
    """The same service with other settings, not yet entered."""
    client = TestClient(create_app(world.settings.model_copy(update=settings)))
    return World(world.database, world.settings, client, world.keys)


def test_a_tenants_files_stop_at_its_quota_and_another_tenants_do_not(world: World, quick_checks: None) -> None:
    held = sum(f["bytes"] for f in world.get("/v1/files", "steward").json()["data"])
    most = held + 3 * len(csv_rows(" of 0123456789abcdef")) + 1
    small = limited(world, storage_quota=most)
    with small.client:
        answers = [small.upload() for _ in range(4)]
        assert [a.status_code for a in answers] == [201, 201, 201, 403]
        refused = answers[-1]
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "storage_quota_exceeded")
        assert str(most) in refused.json()["detail"]
        assert refused.headers["x-should-retry"] == "false"
        assert small.upload(tenant="two").status_code == 201
        kept = small.get("/v1/files", "steward").json()["data"]
        assert small.call("DELETE", f"/v1/files/{kept[0]['id']}", "steward").status_code == 200
        assert small.upload().status_code == 201


def test_a_tenants_open_jobs_stop_at_their_quota(world: World, quick_checks: None) -> None:
    file = world.private_file()["id"]
    first = world.submit(file, 1.0)
    with world.engine("admin").connect() as connection:
        mine = sa.select(sa.func.count()).where(job.c.tenant_id == "tenant_one", job.c.status == "queued")
        queued = connection.execute(mine).scalar_one()
    full = limited(world, job_quota=queued)
    with full.client:
        refused = full.post(JOBS, job_body(file, 1.0))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "job_quota_exceeded")
        assert str(queued) in refused.json()["detail"]
        assert refused.headers["x-should-retry"] == "false"
        assert full.post(f"{JOBS}/{first['id']}/cancel").status_code == 200
        assert full.post(JOBS, job_body(file, 1.0)).status_code == 201


def test_a_quota_holds_against_many_at_once(world: World, quick_checks: None) -> None:
    """Counting and taking the last place are one: of four that see it, one gets it."""
    file = world.private_file()["id"]
    with world.engine("admin").connect() as connection:
        mine = sa.select(sa.func.count()).where(job.c.tenant_id == "tenant_one", job.c.status == "queued")
        queued = connection.execute(mine).scalar_one()
    held = sum(f["bytes"] for f in world.get("/v1/files", "steward").json()["data"])
    most = held + len(csv_rows(" of 0123456789abcdef")) + 1
    narrow = limited(world, job_quota=queued + 1, storage_quota=most)
    with narrow.client, ThreadPoolExecutor(4) as crowd:
        submitted = crowd.map(lambda n: narrow.post(JOBS, job_body(file, 1.0, seed=n)).status_code, range(4))
        assert sorted(submitted) == [201, 429, 429, 429]
        assert sorted(crowd.map(lambda _: narrow.upload().status_code, range(4))) == [201, 403, 403, 403]


def test_nothing_is_begun_that_a_disk_has_no_room_for(world: World, quick_checks: None) -> None:
    room = limited(world)
    with pytest.MonkeyPatch.context() as patch, room.client:
        rows = csv_rows(" nobody has room for")
        free = world.settings.disk_reserve + 2 * len(rows)  # it is sent, checked and stored: three times its size
        patch.setattr("domain.kit.disk.free", lambda folder: free)
        refused = room.upload(rows)
        store = open_store(world.settings, world.engine("api"))
        with pytest.raises(OSError, match="No space"):
            put_bytes(store, "jobs/x/checkpoints/1-1.safetensors", bytes(2 * len(rows) + 1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "insufficient_storage")
    assert refused.headers["x-should-retry"] == "false"
    assert world.settings.blobs not in refused.text


def test_events_of_old_jobs_and_old_idempotency_keys_go_and_nothing_else(world: World, quick_checks: None) -> None:
    file = world.private_file()["id"]
    old, new = (world.submit(file, 1.0, suffix=name)["id"] for name in ("old", "new"))
    for id in (old, new):
        world.post(f"{JOBS}/{id}/cancel")
    world.post(JOBS, job_body(file, 1.0), headers={"Idempotency-Key": "k"})
    with world.engine("admin").begin() as connection:
        ago = sa.func.now() - sa.text("interval '31 days'")
        connection.execute(sa.update(job).where(job.c.id == old).values(finished_at=ago))
        connection.execute(sa.update(idempotency).values(created_at=ago))
    forget_old(world.engine("api"), event_days=30)
    with world.engine("admin").connect() as connection:
        left = connection.execute(sa.select(job_event.c.job_id).distinct()).scalars().all()
        assert connection.execute(sa.select(sa.func.count()).select_from(idempotency)).scalar_one() == 0
    assert old not in left
    assert new in left
    assert world.get(f"{JOBS}/{old}").json()["status"] == "cancelled"
    assert world.get(f"{JOBS}/{old}/events").json()["data"] == []


def test_open_invitations_of_a_tenant_stop_at_their_bound(
    world: World, quick_checks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever they are for, and whether there is such a tenant."""
    file = world.private_file()["id"]
    monkeypatch.setattr(quotas, "MOST_INVITATIONS", 2)
    sent = [invite(world, file, guest) for guest in ("tenant_two", "nobody", "tenant_two")]
    assert [answer.status_code for answer in sent] == [201, 201, 429]
    assert sent[-1].json()["error"]["code"] == "invitation_quota_exceeded"
    assert world.post(f"{INVITATIONS}/{sent[0].json()['id']}/withdraw", None).status_code == 200
    assert invite(world, file, "tenant_two").status_code == 201
