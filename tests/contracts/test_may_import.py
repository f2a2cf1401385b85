"""What a room may import is held: one import too many breaks its contract, by name, file and line."""

import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import grimp
import pytest
from importlinter.api import read_configuration

from tests.contracts.may_import import MayImport

ROOT = Path(__file__).parents[2]
CONFIGURATION = read_configuration(str(ROOT / "pyproject.toml"))
OPTIONS = CONFIGURATION["session_options"]
CONTRACTS = {c["source"]: c for c in CONFIGURATION["contracts_options"] if c["type"] == "may_import"}
PLANTED = [
    ("dpcore.terms.facts", "dpcore.models"),
    ("dpcore.terms.facts", "numpy"),
    ("dpcore.mechanism.noise", "domain.kit.settings"),
    ("dpcore.train", "sqlalchemy"),
    ("ledger.verify", "dpcore.mechanism.sampling"),
    ("ledger.verify", "fastapi"),
    ("domain.jobs.events", "dpcore.mechanism.sampling"),
    ("domain.jobs.events", "dpcore"),
    ("domain.kit.ids", "starlette"),
    ("api.jobs.endpoints", "worker.lease"),
    ("api.jobs.endpoints", "dpcore.tasks"),
    ("api.jobs.endpoints", "celery"),
    ("worker.lease", "api.errors"),
    ("worker.lease", "fastapi"),
    ("migrations.roles", "ledger.guard"),
]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*OPTIONS["root_packages"], include_external_packages=True, cache_dir=None)


def _contract(module: str) -> MayImport:
    source = max((s for s in CONTRACTS if module == s or module.startswith(f"{s}.")), key=len)
    options = {key: value for key, value in CONTRACTS[source].items() if key not in ("name", "type")}
    return MayImport(CONTRACTS[source]["name"], OPTIONS, options)


@pytest.mark.parametrize(("importer", "imported"), PLANTED)
def test_what_the_list_does_not_name_is_refused(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    assert importer in graph.modules  # a module that was moved is planted nowhere
    planted = deepcopy(graph)
    planted.add_import(importer=importer, imported=imported, line_number=7, line_contents="")
    before, after = (_contract(importer).check(one, verbose=False).metadata["refused"] for one in (graph, planted))
    assert sorted(set(after) - set(before)) == [(f"{importer.replace('.', '/')}.py:7", imported)]


def test_every_room_but_the_command_has_a_list() -> None:
    assert {source.split(".")[0] for source in CONTRACTS} == set(OPTIONS["root_packages"]) - {"cli"}


def test_lint_imports_names_file_and_line(tmp_path: Path) -> None:
    """As CI runs it, in a copy of the tree where the domain draws its own sample."""
    for package in (*OPTIONS["root_packages"], "tests/contracts"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests/__init__.py").touch()
    spoilt = tmp_path / "domain/jobs/events.py"
    text = spoilt.read_text() + "\nfrom dpcore.mechanism.sampling import poisson\n"
    spoilt.write_text(text)
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env={"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 1
    assert (
        f"domain/jobs/events.py:{len(text.splitlines())}: domain may not import dpcore.mechanism.sampling"
        in found.stdout
    )
