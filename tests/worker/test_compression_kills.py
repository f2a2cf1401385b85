"""Workers killed in jobs that distil or prune: none lost, none charged twice, and each mask fits its weights."""

from pathlib import Path

import pytest

from tests.worker import tiny
from tests.worker.compression_kills import KILLS, LAYERS, Compressions
from tests.worker.kill_matrix import survive
from tests.worker.service import Service

SAMPLE = ["own teacher: between the phases, the teacher kept"]


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """Of a few layers, so that some can go."""
    tiny.save_model(tmp_path / "model", layers=LAYERS)
    return tmp_path / "model"


@pytest.mark.slow
def test_a_sample_of_kills(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    survive(Compressions(service), [kill for kill in KILLS if str(kill) in SAMPLE], capsys)


@pytest.mark.verify
@pytest.mark.timeout(3600)
def test_no_kill_loses_a_job_charges_it_twice_or_parts_a_mask_from_its_weights(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sum(len(kill.points) for kill in KILLS) >= 20
    survive(Compressions(service), KILLS, capsys)
