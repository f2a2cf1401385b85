"""What a job's owner is told about how far it is: public numbers, whole minutes, nothing before it is known."""

import time

import pytest
import sqlalchemy as sa

from domain.kit.tables import job
from domain.models.allow_list import base_models
from domain.models.profiles import Measured, record
from ledger import work
from tests.api.attacks import DASHBOARD, Browser, Call
from tests.api.conftest import JOBS, World, job_body

pytestmark = pytest.mark.usefixtures("quick_checks")


def test_an_estimated_finish_follows_from_the_plan_and_the_profile(world: World) -> None:
    made = world.submit(world.private_file()["id"], 1.0)
    path = f"{JOBS}/{made['id']}"
    engine = world.engine("worker")
    with engine.begin() as connection:
        lease = work.claim(connection, made["id"], "w", 60)
        assert lease is not None
        connection.execute(sa.update(job).where(job.c.id == made["id"]).values(status="running"))
    assert world.get(path).json()["estimated_finish"] is None  # nobody has measured
    speed = 40 * 20 * 512 / 7200  # two hours for the whole plan: 40 steps of 20 records of 512 tokens
    measured = Measured("lora", "classification", "a processor", 128, speed, 1, None)
    with engine.begin() as connection:
        record(connection, base_models(world.settings).usable["minilm-l6"], measured)
    first = world.get(path).json()["estimated_finish"]
    assert first % 60 == 0
    plan_seconds = 7200 * _max_length(world, made["id"]) / 512
    assert 0 <= first - (time.time() + plan_seconds) < 120
    with engine.begin() as connection:
        work.authorise(connection, lease, 0, 20)
    half = world.get(path).json()
    assert half["progress"]["fraction"] == 0.5
    left = plan_seconds * (40 - 20 + 2) / 40  # the chunk that was authorised last is still being worked on
    assert 0 <= half["estimated_finish"] - (time.time() + left) < 120
    listed = next(j for j in world.get(JOBS).json()["data"] if j["id"] == made["id"])
    assert abs(listed["estimated_finish"] - half["estimated_finish"]) <= 60
    paused = world.post(f"{path}/pause").json()
    assert paused["estimated_finish"] is None


def test_an_estimate_says_whether_a_worker_has_the_memory(world: World) -> None:
    """The largest of the devices that measured the model; of one that did not say nothing is known."""
    body = job_body(world.private_file()["id"], 1.0)

    def told() -> tuple[object, object, int]:
        estimate = world.post(f"{JOBS}/estimate", body).json()
        return estimate["fits_worker"], estimate["worker_memory_bytes"], estimate["memory_bytes"]

    def measure(device: str, has: int | None) -> None:
        found = Measured("lora", "classification", device, 128, 100.0, 1, has)
        with world.engine("worker").begin() as connection:
            record(connection, base_models(world.settings).usable["minilm-l6"], found)

    needs = told()[2]
    assert told() == (None, None, needs)
    measure("of an earlier version", None)
    assert told() == (None, None, needs)
    measure("small", needs - 1)
    assert told() == (False, needs - 1, needs)
    query = {"training_file": body["training_file"], "epsilon": "1", "method": "lora"}
    page = Browser(world, world.keys["one"]["analyst"]).send(Call("GET", f"{DASHBOARD}/estimate", query))
    assert "No worker has as much memory" in page.text
    measure("large", needs)
    assert told() == (True, needs, needs)


def _max_length(world: World, job_id: str) -> int:
    with world.engine("admin").connect() as connection:
        plan = connection.execute(sa.select(job.c.plan).where(job.c.id == job_id)).scalar_one()
    length: int = plan["max_length"]
    return length
