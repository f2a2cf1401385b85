"""The examples of help texts, against a service: each is taken as it stands there."""

import re
import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.commands import jobs
from cli.main import app as command
from tests.api.conftest import PRIVATE, World
from tests.api.federated import METHOD, accepted

pytestmark = pytest.mark.usefixtures("quick_checks")
EXAMPLES = [
    line for of in (jobs.estimate, jobs.create) for line in re.findall(r"^ *(tacit .*)$", of.__doc__ or "", re.M)
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_a_help_text_runs(world: World, address: str, example: str) -> None:
    made: dict[str, Any] = world.private_file(**PRIVATE | {"declared_size": "70000"})
    if "inv-..." in example:
        theirs = world.upload(form=PRIVATE | {"declared_size": "70000"}, tenant="two").json()["id"]
        invited = accepted(world, made["id"], theirs, method={"type": METHOD})
        example = example.replace("inv-...", invited)
    words = shlex.split(example.replace("file-...", made["id"]).replace(" --watch", ""))[1:]  # nobody works on it here
    ran = CliRunner().invoke(command, [*words, "--url", address, "--key", world.keys["one"]["analyst"]])
    assert ran.exit_code == 0, ran.output
    assert "Phases, in order" in ran.stdout
