"""A heartbeat knows when the lease is no longer ours, whatever hangs; and an unsafe login starts nothing."""

import os
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from ledger.work import Lease, claim, request_stop
from tests.worker.service import ROOT, Service, until
from worker.lease import Heartbeat


def claimed(service: Service, seconds: float) -> tuple[sa.Engine, Lease]:
    engine = sa.create_engine(service.database.worker_url, poolclass=sa.NullPool)
    with engine.begin() as c:
        lease = claim(c, service.submit(hint=False), "test", seconds)
    assert lease is not None
    return engine, lease


def test_a_heartbeat_keeps_the_lease_and_hears_a_stop(service: Service) -> None:
    engine, lease = claimed(service, 2)
    with Heartbeat(engine, lease, 2, time.monotonic()) as heartbeat:
        time.sleep(2.5)
        assert heartbeat.held
        with service.api.begin() as c:
            request_stop(c, lease.job_id)
        until(lambda: heartbeat.stop_requested, 5, lambda: "the stop was not heard")


def test_a_lease_is_lost_when_somebody_else_has_it(service: Service) -> None:
    engine, lease = claimed(service, 60)
    with Heartbeat(engine, lease, 2, time.monotonic() + 60) as heartbeat:
        with engine.begin() as c:
            c.execute(sa.text("UPDATE ledger.work SET lease_until = clock_timestamp()"))
        with engine.begin() as c:
            assert claim(c, lease.job_id, "somebody else", 60)
        until(lambda: not heartbeat.held, 5, lambda: "the loss was not noticed")


def test_a_lease_is_lost_in_time_when_the_database_is_away() -> None:
    nowhere = sa.create_engine("postgresql+psycopg://a:b@/c?host=/nowhere", poolclass=sa.NullPool)
    with Heartbeat(nowhere, Lease("job", 1), 1.5, time.monotonic()) as heartbeat:
        assert heartbeat.held
        time.sleep(1.5)
        assert not heartbeat.held


def test_a_login_that_could_overrule_the_ledger_starts_no_worker(service: Service) -> None:
    environment = {
        **os.environ,
        "TACIT_DATABASE_URL": service.database.admin_url,
        "TACIT_BROKER_URL": service.broker,
        "TACIT_BLOBS": str(service.folder),
    }
    ended = subprocess.run([sys.executable, "-m", "worker"], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert ended.returncode == 1
    assert b"tacit_worker" in ended.stderr


def test_waiting_for_others_is_none_of_a_jobs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("worker.lease.time.monotonic", lambda: now[0])
    beating = Heartbeat(sa.create_engine("sqlite://"), Lease("job", 1), 60.0, 0.0, limit=10.0)

    def left(at: float) -> float:
        now[0] = at
        return -beating.overtime

    assert left(4) == 6
    with beating.waiting():
        assert left(90) == 6
    assert left(93) == 3
    with beating.waiting():
        assert left(200) == 3
    assert left(204) == -1
