"""Every file that `make bench` runs is a benchmark, and its quick form needs nothing but the project."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SHARED = ("__init__.py", "common.py")
FILES = sorted(file for file in FOLDER.glob("*.py") if file.name not in SHARED)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_runs_as_a_file(file):
    """A benchmark of its own finds the rooms before it imports from one; what is shared is in a folder of its own."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    guards = [node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
    rooms = {path.name for path in FOLDER.parent.iterdir() if (path / "__init__.py").is_file()}
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in rooms]
    assert "sys.path[0]" in ast.unparse(guards[0])
    assert "main()" in ast.unparse(guards[-1])
    assert all(guards[0].lineno < node.lineno for node in imports)


@pytest.mark.verify
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_quick_form_ends_well(file):
    subprocess.run([sys.executable, file, "--quick"], check=True, timeout=600)
