"""A job's events as a stream: whole, in order, taken up again exactly after what was seen, and over when the job is."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.jobs import stream
from domain.jobs.events import append_event
from domain.kit.tables import api_key
from tests.api.conftest import JOBS, World, wait_for

pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOK", 0.05)
    monkeypatch.setattr(stream, "HEARTBEAT", 0.2)


@pytest.fixture
def made(world: World) -> dict[str, Any]:
    return world.submit(world.private_file()["id"], 1.0)


class Listener:
    """A client of the stream."""

    def __init__(self, world: World, address: str, job_id: str, scope: str = "analyst") -> None:
        self.url = f"{address}{JOBS}/{job_id}/events"
        self.key = {"Authorization": f"Bearer {world.keys['one'][scope]}"}

    @contextmanager
    def stream(self, **headers: str) -> Iterator[httpx.Response]:
        asked = self.key | {"Accept": "text/event-stream"} | headers
        with httpx.Client(timeout=30) as client, client.stream("GET", self.url, headers=asked) as answer:
            yield answer

    def page(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(self.url, headers=self.key, params={"order": "asc"}).json()["data"]
        return found


def told(lines: Iterator[str], count: int | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(id, data) of so many events; without a count of all until the stream ends."""
    found, data, id = [], "", ""
    for line in lines:
        data = line.removeprefix("data: ") if line.startswith("data: ") else data
        id = line.removeprefix("id: ") if line.startswith("id: ") else id
        if line == "" and data:
            found.append((id, json.loads(data)))
            data = ""
            if len(found) == count:
                return found
    return found


def test_a_stream_tells_what_the_pages_tell_until_the_job_has_ended(
    world: World, address: str, made: dict[str, Any]
) -> None:
    listener = Listener(world, address, made["id"])
    with listener.stream() as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert [e["name"] for _, e in told(lines, 1)] == ["job.queued"]
        assert any(line == ": ping" for line in lines)  # says that it lives
        world.post(f"{JOBS}/{made['id']}/pause")
        world.post(f"{JOBS}/{made['id']}/cancel")
        assert [e["name"] for _, e in told(lines)] == ["job.paused", "job.cancelled"]  # and is over
    with httpx.Client() as client:  # the query says the same as the header
        everything = client.get(listener.url, headers=listener.key, params={"stream": "true"})
    assert [e for _, e in told(iter(everything.text.splitlines()))] == listener.page()
    assert all(e["created_at"] % 60 == 0 for e in listener.page())
    assert all(id == e["id"] for id, e in told(iter(everything.text.splitlines())))


def test_a_stream_goes_on_right_after_the_last_event_that_was_seen(
    world: World, address: str, made: dict[str, Any]
) -> None:
    for what in ("pause", "resume", "cancel"):
        world.post(f"{JOBS}/{made['id']}/{what}")
    listener = Listener(world, address, made["id"])
    events = listener.page()
    for seen in range(1, len(events)):
        with listener.stream(**{"Last-Event-ID": events[seen - 1]["id"]}) as answer:
            assert [e for _, e in told(answer.iter_lines())] == events[seen:]
    with listener.stream(**{"Last-Event-ID": events[-1]["id"]}) as answer:
        assert answer.status_code == 204  # an EventSource comes back no more
    with listener.stream(**{"Last-Event-ID": "ftevent-somebody-elses-1"}) as answer:
        assert answer.status_code == 400


def test_no_event_is_passed_over_when_transactions_overlap(world: World, made: dict[str, Any]) -> None:
    """The second to write waits for the first to commit: numbers become visible in their order."""
    engine = world.engine("worker")
    with engine.begin() as first:
        append_event(first, made["id"], "steps.authorised", "first")
        second = threading.Thread(target=_append, args=(engine, made["id"], "second"))
        second.start()
        time.sleep(0.3)
        assert len(world.get(f"{JOBS}/{made['id']}/events").json()["data"]) == 1
    second.join(20)
    events = world.get(f"{JOBS}/{made['id']}/events", params={"order": "asc"}).json()["data"]
    assert [e["message"] for e in events[1:]] == ["first", "second"]


def _append(engine: sa.Engine, job_id: str, message: str) -> None:
    with engine.begin() as connection:
        append_event(connection, job_id, "steps.authorised", message)


def test_idle_streams_hold_no_connection_and_a_key_has_only_so_many(
    world: World, address: str, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_STREAMS", 3)
    monkeypatch.setattr(stream, "LOOK", 30.0)
    listener, other = (Listener(world, address, made["id"], scope) for scope in ("analyst", "steward"))
    with listener.stream() as one, listener.stream() as two, listener.stream() as three:
        open_lines = [answer.iter_lines() for answer in (one, two, three)]  # a lost iterator closes its answer
        for lines in open_lines:
            told(lines, 1)
        with listener.stream() as fourth:
            assert (fourth.status_code, fourth.headers.get("retry-after")) == (429, "15")
        with other.stream() as answer:
            assert answer.status_code == 200
        wait_for(lambda: _busy(world) == 0, seconds=20)  # an answer that was just begun may still be reading
    wait_for(lambda: _status(listener) == 200)  # places that are left are free again


def _busy(world: World) -> int:
    busy = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'tacit_api_login' "
        "AND state <> 'idle'"
    )
    with world.engine("superuser").connect() as connection:
        return connection.execute(busy).scalar_one()


def _status(listener: Listener) -> int:
    with listener.stream() as answer:
        return answer.status_code


def test_a_stream_ends_when_its_key_is_revoked(world: World, address: str, made: dict[str, Any]) -> None:
    key = world.call("POST", "/v1/keys", json={"name": "k", "scopes": ["steward"]}).json()
    world.keys["one"]["brief"] = key["key"]
    with Listener(world, address, made["id"], "brief").stream() as answer:
        lines = answer.iter_lines()
        told(lines, 1)
        with world.engine("admin").begin() as connection:
            connection.execute(sa.update(api_key).where(api_key.c.id == key["id"]).values(revoked_at=sa.func.now()))
        assert told(lines) == []
