"""What operators see: readiness, metrics, logs. None of it tells what analysts may not know."""

import io
import json
import logging
import time
import urllib.request

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from api.app import create_app
from api.metrics import UNTIMED
from api.recent import Recent
from domain.kit import logs
from domain.kit.metrics import OncePerMinute
from tests.api.attacks import Browser, Call
from tests.api.conftest import JOBS, World, free_port

SECRET = "canary of a row"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a service would write to standard error."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.set_up()
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # the test's own client
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_a_request_names_the_route_and_nothing_that_was_sent(world: World, lines: io.StringIO) -> None:
    asked = world.post(f"{JOBS}/{SECRET[:6]}/cancel", {"note": SECRET}, params={"after": SECRET})
    sent = world.upload(f"text,label\nx,{SECRET}\n".encode(), name=f"{SECRET}.csv")
    assert sent.status_code == 400
    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    cancel, upload = (line for line in said if line["message"] == "request")
    assert cancel["route"] == f"{JOBS}/{{job_id}}/cancel"
    assert (cancel["method"], cancel["status"]) == ("POST", 404)
    assert cancel["request_id"] == asked.headers["x-request-id"]
    assert "milliseconds" in cancel
    assert "milliseconds" not in upload  # it follows from the number of rows
    assert SECRET[:6] not in lines.getvalue()
    assert world.keys["one"]["analyst"] not in lines.getvalue()


def test_an_upload_from_a_page_is_not_timed_either(world: World, lines: io.StringIO) -> None:
    form = Call("POST", "/dashboard/files", form={"purpose": "evals"}, upload=True)
    assert Browser(world, world.keys["one"]["steward"]).send(form).status_code == 303
    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    timed = {line["route"]: "milliseconds" in line for line in said if line["message"] == "request"}
    assert timed == {"/dashboard/login": True, "/dashboard/budgets": True, "/dashboard/files": False}


def test_answers_about_rows_are_not_timed() -> None:
    """Their time follows from how many there are, as an upload's does."""
    assert {("POST", "/v1/files/{file_id}/answer"), ("POST", "/dashboard/questions/{file_id}")} <= UNTIMED


def test_an_error_is_logged_by_type_and_place_without_its_words(lines: io.StringIO) -> None:
    with logs.about(job_id="ftjob-1"):
        try:
            raise ValueError(SECRET)
        except ValueError:
            logging.getLogger("library").exception("it broke")
    (line,) = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (line["message"], line["job_id"], line["level"]) == ("it broke", "ftjob-1", "error")
    assert "ValueError" in line["error"]
    assert "test_operations.py" in line["error"]
    assert SECRET not in lines.getvalue()


def test_a_worker_tells_times_to_the_minute() -> None:
    record = logging.LogRecord("x", logging.INFO, "x", 1, "step", None, None)
    record.created = 1_700_000_059.987
    assert json.loads(logs.JsonLines(to_the_minute=True).format(record))["time"] == "2023-11-14T22:14Z"


def test_what_moves_with_jobs_moves_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def read():
        looks.append(1)
        yield GaugeMetricFamily("looks", "x", value=len(looks))

    registry = CollectorRegistry()
    registry.register(OncePerMinute(read))
    now = 1_700_000_040.0
    for seconds, value in ((0, 1), (59, 1), (60, 2)):
        monkeypatch.setattr("time.time", lambda at=now + seconds: at)
        assert f"looks {value}.0" in generate_latest(registry).decode()


def test_metrics_are_on_a_port_of_their_own_and_name_no_tenant_or_job(world: World) -> None:
    job = world.submit(world.private_file()["id"])
    settings = world.settings.model_copy(update={"metrics_port": free_port()})
    with TestClient(create_app(settings)) as client:
        assert client.get("/metrics").status_code == 404
        client.get(f"{JOBS}/{job['id']}", headers={"Authorization": f"Bearer {world.keys['one']['analyst']}"})
        client.request("INVENTED", "/nowhere")
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics") as answer:
            said = answer.read().decode()
    assert 'tacit_http_requests_total{method="GET",route="/v1/fine_tuning/jobs/{job_id}",status="200"} 1.0' in said
    assert 'route="none"' in said
    assert 'tacit_ready{check="database"} 1.0' in said
    assert 'tacit_jobs{status="queued"}' in said
    assert 'tacit_keeper_age_minutes{duty="verification"} 0.0' in said
    for private in (job["id"], job["training_file"], job["organization_id"], "INVENTED", "nowhere"):
        assert private not in said


def test_readiness_means_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.client.get("/readyz").json()["checks"] == dict.fromkeys(
        ["database", "blobs", "disk", "broker", "witness", "keeper", "models"], "ok"
    )
    full = world.settings.model_copy(update={"disk_reserve": 2**62})
    with TestClient(create_app(full)) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["disk"]) == (503, "failed")
        assert client.get("/healthz").status_code == 200
    with world.engine("admin").begin() as connection:
        connection.exec_driver_sql("ALTER TABLE ledger.entry DISABLE TRIGGER USER")
    try:
        time.sleep(1.1)  # an answer is shared for a second
        answer = world.client.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["database"]) == (503, "failed")
    finally:
        with world.engine("admin").begin() as connection:
            connection.exec_driver_sql("ALTER TABLE ledger.entry ENABLE TRIGGER USER")
    time.sleep(1.1)
    assert world.client.get("/readyz").status_code == 200


def test_a_look_is_shared_for_a_moment() -> None:
    looks: list[int] = []
    for seconds, expected in ((1000, 1), (0, 3)):
        recent = Recent(lambda: looks.append(1), seconds)
        recent(), recent()
        assert len(looks) == expected


def test_the_last_resort_has_the_headers_of_every_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("api.keys.endpoints.fetch", broken)
    with TestClient(create_app(world.settings), raise_server_exceptions=False) as client:
        answer = client.get("/v1/keys", headers={"Authorization": f"Bearer {world.keys['one']['admin']}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert SECRET not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    for name in ("content-security-policy", "x-content-type-options", "cache-control", "referrer-policy"):
        assert name in answer.headers
    assert "strict-transport-security" not in answer.headers
    with TestClient(create_app(world.settings), base_url="https://t") as client:
        assert "strict-transport-security" in client.get("/healthz").headers
