"""Jobs survive anything: each fault at random moments of live jobs, and the ledger checked after each job."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.faults.injections import FAULTS
from tests.faults.matrix import HEADER, Row, run_fault
from tests.faults.stack import Servers

INJECTIONS = int(os.environ.get("TACIT_FAULTS", "20"))
SEED = int(os.environ.get("TACIT_FAULTS_SEED", "1"))


def show(row: Row, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("", HEADER, row, *(f"    {what}" for what in [*row.what, *row.wrong]), sep="\n", flush=True)


def require_sound(row: Row) -> None:
    assert (row.lost, row.double_charges, row.orphaned_leases, row.wrong) == (0, 0, 0, [])


@pytest.mark.verify
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FAULTS)
def test_no_fault_loses_a_job_or_charges_it_twice(
    servers: Servers, own_databases: Databases, tiny_model: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = run_fault(servers, own_databases, tiny_model, name, FAULTS[name], injections=INJECTIONS, seed=SEED)
    show(row, capsys)
    require_sound(row)
    assert row.injected >= INJECTIONS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["broker emptied", "worker killed"])
@pytest.mark.verify  # a killed worker is in test_kills.py
def test_a_sample_of_faults(
    servers: Servers, own_databases: Databases, tiny_model: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = replace(FAULTS[name], per_job=1, at_once=1, steps=100)
    row = run_fault(servers, own_databases, tiny_model, name, fault, injections=1, seed=SEED)
    show(row, capsys)
    require_sound(row)
    assert row.injected == 1
