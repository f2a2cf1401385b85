"""Faults in federated jobs: nothing is charged twice or beyond what was authorised, no round is lost, no job hangs, and a
message that is sent again is the same to the bit."""

from collections.abc import Iterator

import pytest

from domain.kit.settings import WorkerSettings
from tests.worker.federated_faults import KINDS, WRONG, Matrix, Totals
from tests.worker.federation import Federation, rehearse_once
from tests.worker.service import Service
from worker.federated import waiting

SEED = 20


@pytest.fixture
def federation(service: Service, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Federation]:
    monkeypatch.setattr(waiting, "LINGER", -1.0)
    rehearse_once(monkeypatch)
    made = Federation(service, settings, share=0.02)
    yield made
    made.engine.dispose()


def survive(federation: Federation, least: int, count: int, most: int, capsys: pytest.CaptureFixture[str]) -> None:
    totals = Totals()
    matrix = Matrix(federation, SEED, least, totals)
    with matrix.installed():
        while not matrix.complete() and totals.jobs < most:
            matrix.run(count)
    with capsys.disabled():
        print(f"\nseed {SEED}, at least {least} of each kind\n{totals}", flush=True)
    assert {what: found for what, found in totals.wrong.items() if found} == {}
    assert [kind for kind in KINDS if totals.injected[kind] < least] == []
    assert totals.resent >= least
    assert set(totals.wrong) <= set(WRONG)


@pytest.mark.slow
def test_a_sample_of_faults(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    survive(federation, 1, 6, 2, capsys)


@pytest.mark.verify
@pytest.mark.timeout(3600)
def test_no_fault_charges_twice_loses_a_round_or_leaves_a_job_behind(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    survive(federation, 20, 12, 20, capsys)
