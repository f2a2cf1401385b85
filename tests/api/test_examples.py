"""The examples of all help texts: each is taken as it stands there, and run against a service where one is enough."""

import re
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app as command
from tests.api.conftest import PRIVATE, World
from tests.api.federated import METHOD, accepted, invite
from tests.made_pictures import encoded, picture, table, zipped

pytestmark = pytest.mark.usefixtures("quick_checks")
SIZED = PRIVATE | {"declared_size": "70000"}
ELSEWHERE = {
    "up": "a stack of its own: tests/cli/test_up.py",
    "down": "a stack of its own: tests/cli/test_up.py",
    "logs": "a stack of its own: tests/cli/test_up.py",
    "demo": "a stack of its own, and training: make demo",
    "try": "an adapter: tests/cli/test_try.py",
    "files answer": "a question: tests/api/test_questions.py",
    "adapters download": "an adapter: tests/cli/test_client.py",
    "jobs results": "results: tests/cli/test_client.py",
    "verify-release": "evidence: tests/api/test_evidence.py",
    "models check": "a worker's models: tests/cli/test_models.py",
    "models make": "training: tests/cli/test_small_writer.py",
    "models profile": "a worker's models: tests/cli/test_models.py",
    "models pull": "the hub: tests/cli/test_models.py",
    "privacy-audit": "training: tests/cli/test_privacy_audit.py",
    "tenants create": "a stack's secrets: tests/cli/test_up.py",
    "ledger accept-loss": "a restore: tests/api/test_damage.py",
    "ledger new-fingerprint-key": "a lost key: tests/api/test_recognise.py",
    "ledger check-receipt": "a public key: tests/ledger/test_receipts.py",
}
"""Commands whose examples are only read here, and what needs more than a service; where they are run."""


def commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All that there are, groups included."""
    for name, one in group.commands.items():
        yield (*names, name), one
        if hasattr(one, "commands"):
            yield from commands(one, (*names, name))


COMMANDS = dict(commands(typer.main.get_command(command)))
SHOWN = re.compile(r"^ *((?:[A-Z_]+='[^']*' )?tacit .*)$", re.M)
EXAMPLES = sorted({line for one in COMMANDS.values() for line in SHOWN.findall((one.help or "").replace("\\\n", " "))})


def words_of(example: str) -> list[str]:
    """What follows `tacit`, without a setting before it and a remark behind."""
    words = shlex.split(example, comments=True)
    return words[words.index("tacit") + 1 :]


def called(example: str) -> str:
    """The command of an example: the longest name that there is."""
    words = words_of(example)
    return max((" ".join(name) for name in COMMANDS if words[: len(name)] == list(name)), key=len)


def test_every_help_text_with_an_example_is_read() -> None:
    assert len(EXAMPLES) >= 40
    assert {called(example) for example in EXAMPLES} >= ELSEWHERE.keys()


@pytest.mark.parametrize("example", [example for example in EXAMPLES if called(example) in ELSEWHERE])
def test_an_example_has_the_options_of_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    monkeypatch.chdir(tmp_path)
    names, words = tuple(called(example).split()), words_of(example)
    one = COMMANDS[names]
    for word in words[len(names) :]:  # what an example names is there
        if re.fullmatch(r"(\./)?[a-z0-9_-]+(/[a-z0-9_-]+)*(\.[a-z]+)?", word):
            (tmp_path / word).parent.mkdir(exist_ok=True)
            (tmp_path / word).touch()
        elif re.fullmatch(r"[a-z0-9_-]+/", word):
            (tmp_path / word).mkdir(exist_ok=True)
    with one.make_context(" ".join(names), words[len(names) :]):
        pass


def write_files(folder: Path, tag: str) -> None:
    """What examples upload."""
    talk = '[{"role": "user", "content": "%s"}, {"role": "assistant", "content": "yes"}]'
    lines = range(20)
    (folder / "notes.jsonl").write_text(
        "".join(f'{{"text": "note {i} {tag}", "label": "{("no", "yes")[i % 2]}"}}\n' for i in lines)
    )
    (folder / "notes.tsv").write_text(
        "sentence\tclass\n" + "".join(f"sentence {i} {tag}\t{'ab'[i % 2]}\n" for i in lines)
    )
    (folder / "e2e.csv").write_text("mr,ref\n" + "".join(f"name {i} {tag},written {i} {tag}\n" for i in lines))
    (folder / "dialogues.jsonl").write_text("".join(f'{{"messages": {talk % f"hello {i} {tag}"}}}\n' for i in lines))
    seed = secrets.randbelow(2**40)
    scans = {f"{('clear', 'cloudy')[i % 2]}/{i}.png": encoded(picture(seed + i)) for i in lines}
    (folder / "scans.zip").write_bytes(zipped(scans))
    (folder / "scans.parquet").write_bytes(table([encoded(picture(seed + 50 + i)) for i in lines], [0, 1] * 10))
    (folder / "prompts.txt").write_text("It was\n\nOnce upon\n")
    (folder / "dev.tsv").write_text("text\tlabel\n" + "".join(f"public {i} {tag}\t{'ab'[i % 2]}\n" for i in lines))


def letters(world: World) -> dict[str, Any]:
    """A file that a language model learns to write."""
    form = {name: value for name, value in SIZED.items() if name != "labels"} | {"task": "text"}
    tag = secrets.token_hex(8)
    lines = "".join(f'{{"text": "dear {tag}, letter {i}"}}\n' for i in range(20))
    made: dict[str, Any] = world.upload(lines.encode(), form, name="letters.jsonl").json()
    return made


@pytest.mark.sampled(15)
@pytest.mark.parametrize("example", [example for example in EXAMPLES if called(example) not in ELSEWHERE])
def test_an_example_of_a_help_text_runs(
    world: World, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, tmp_path.name)
    sized = SIZED | ({"privacy_budget[held_out]": "0.2"} if "--measure" in example else {})
    name, made = called(example), letters(world) if "--synthetic" in example else world.private_file(**sized)
    known: dict[str, Any] = {"file": made["id"], "budget": made["budget"]}
    scope = "analyst" if name.startswith("jobs ") else "admin"
    if "inv-..." in example:
        if name.startswith("invitations"):  # what tenant two asks of this one
            theirs = world.upload(form=SIZED, tenant="two").json()["id"]
            known["inv"] = invite(world, theirs, guest="tenant_one", tenant="two").json()["id"]
        else:
            theirs = world.upload(form=SIZED, tenant="two").json()["id"]
            rounds = {"rounds": 50} if "rounds=50" in example else {}
            known["inv"] = accepted(world, made["id"], theirs, method={"type": METHOD, METHOD: rounds})
    if "key_..." in example:
        new = world.post("/v1/keys", {"name": "notebook", "scopes": ["analyst"]}, "admin").json()
        known["key"] = new["id"]
    if "ftjob-..." in example:
        if "approve" in name:
            rules = {"approval_above": 0.1, "reason": "all are discussed"}
            assert world.post(f"/v1/budgets/{made['budget']}/rules", rules, "steward").status_code == 200
            scope = "steward"
        known["ftjob"] = world.submit(made["id"], 1.0)["id"]
    example = example.replace("tenant_b", "tenant_two")
    for what, id in known.items():
        example = example.replace(f"{what}-...", id).replace(f"{what}_...", id)
    for project in re.findall(r"--project (\S+)", example):
        world.post("/v1/keys", {"name": "theirs", "scopes": ["analyst"], "project": project}, "admin")
    words = [word for word in words_of(example) if word != "--watch"]  # nobody works on it here
    ran = CliRunner().invoke(command, [*words, "--url", address, "--key", world.keys["one"][scope]])
    assert ran.exit_code == 0, ran.output
    if name in ("jobs estimate", "jobs create"):
        assert "Phases, in order" in ran.stdout
