"""No crash anywhere overspends a budget, loses a charge or leaves a reservation open."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.ledger.crash_matrix import HEADER, SCENARIOS, Row, Service, run_matrix


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Service]:
    made = Service(database, tmp_path)
    yield made
    made.close()


def show(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("", HEADER, *rows, *(wrong for row in rows for wrong in row.wrong[:5]), sep="\n")


def require_sound(rows: list[Row]) -> None:
    for row in rows:
        assert row.wrong == []
        assert row.crashes > 0


def test_a_sample_of_crashes_leaves_the_ledger_sound(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run_matrix(service, every=97)
    show(rows, capsys)
    require_sound(rows)


@pytest.mark.verify
@pytest.mark.timeout(3600)  # some 800 lives of a job: 17 minutes were seen on a busy machine of two cores
def test_a_crash_anywhere_leaves_the_ledger_sound(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run_matrix(service)
    show(rows, capsys)
    require_sound(rows)
    assert {row.scenario for row in rows} == set(SCENARIOS)


@pytest.mark.verify
def test_charging_after_the_noise_is_found(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    """The sample itself can fail: a training that runs its steps before it asks for them loses charges."""
    service.noise_first = True
    (row,) = run_matrix(service, ["success"], every=29)
    show([row], capsys)
    assert row.lost_charges > 0
