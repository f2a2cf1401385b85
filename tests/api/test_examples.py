"""The examples of help texts, against a service: each is taken as it stands there."""

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.commands import budgets, grants, jobs
from cli.main import app as command
from tests.api.conftest import PRIVATE, World
from tests.api.federated import METHOD, accepted

pytestmark = pytest.mark.usefixtures("quick_checks")


def examples(*of: Callable[..., None]) -> list[str]:
    return [line for one in of for line in re.findall(r"^ *(tacit .*)$", one.__doc__ or "", re.M)]


OF_JOBS = examples(jobs.estimate, jobs.create)
OF_STEWARDS = examples(grants.add, budgets.rules, budgets.rename)


def test_there_are_examples() -> None:
    assert len(OF_JOBS) >= 5
    assert len(OF_STEWARDS) >= 7


@pytest.mark.parametrize("example", OF_JOBS)
def test_an_example_of_a_job_runs(world: World, address: str, example: str) -> None:
    made: dict[str, Any] = world.private_file(**PRIVATE | {"declared_size": "70000"})
    if "inv-..." in example:
        theirs = world.upload(form=PRIVATE | {"declared_size": "70000"}, tenant="two").json()["id"]
        invited = accepted(world, made["id"], theirs, method={"type": METHOD})
        example = example.replace("inv-...", invited)
    words = shlex.split(example.replace("file-...", made["id"]).replace(" --watch", ""))[1:]  # nobody works on it here
    ran = CliRunner().invoke(command, [*words, "--url", address, "--key", world.keys["one"]["analyst"]])
    assert ran.exit_code == 0, ran.output
    assert "Phases, in order" in ran.stdout


@pytest.mark.parametrize("example", OF_STEWARDS)
def test_an_example_of_a_steward_runs(world: World, address: str, example: str) -> None:
    key = world.post("/v1/keys", {"name": "Ann", "scopes": ["analyst"], "project": "cardiology"}, "admin").json()["id"]
    budget = world.post("/v1/budgets", {"name": "b", "epsilon": 8, "delta": 1e-5}, "steward").json()["id"]
    words = shlex.split(example.replace("budget_...", budget).replace("key_...", key))[1:]
    ran = CliRunner().invoke(command, [*words, "--url", address, "--key", world.keys["one"]["steward"]])
    assert ran.exit_code == 0, ran.output
