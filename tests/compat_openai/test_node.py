"""The npm package `openai` against the same server, where Node has it: `npm install -g openai`."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.api.conftest import World
from tests.compat_openai.test_jobs import PATIENCE, Work
from tests.worker import tiny

WALK = Path(__file__).with_name("walk.cjs")


@pytest.fixture
def environment() -> dict[str, str]:
    """In which Node finds its global packages, or those of NODE_PATH."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node")
    found = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=True).stdout.strip()
    environment = os.environ | {"NODE_PATH": os.environ.get("NODE_PATH") or found}
    if subprocess.run([node, "-e", "require('openai')"], env=environment, capture_output=True).returncode:
        pytest.skip("Node has no package openai")
    return environment


def test_a_walk_in_node(world: World, address: str, work: Work, environment: dict[str, str], tmp_path: Path) -> None:
    texts, labels = tiny.rows(400, seed=2)
    rows = [f"{text} in node,{tiny.LABELS[label]}" for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
    keys = {"TACIT_STEWARD": world.keys["one"]["steward"], "TACIT_ANALYST": world.keys["one"]["analyst"]}
    walk = subprocess.Popen(
        ["node", str(WALK), "rows.csv"],
        cwd=tmp_path,
        env=environment | keys | {"TACIT_URL": f"{address}/v1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert walk.stdout is not None
        if job := walk.stdout.readline().strip():
            work(job)
        _, said = walk.communicate(timeout=PATIENCE)
    finally:
        walk.kill()
    assert walk.returncode == 0, said
    with zipfile.ZipFile(tmp_path / "adapter.zip") as archive:
        assert "adapter_model.safetensors" in archive.namelist()
