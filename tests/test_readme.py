"""README.md is what a new user does: its walks run as they stand, and nothing advises to install a stranger's package."""

import csv
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.M | re.S)
ADDRESS = "http://127.0.0.1:8000"
PATIENCE = 300.0  # seconds for the stack to come up
TEXT = (".md", ".py", ".toml", ".yml", ".sh", ".html", ".js", ".txt", "Dockerfile", "Makefile")
OURS = re.compile(
    r"pip3? install[^\n]*?[\s'\"]tacit\b|(?:uv add|uvx|pipx (?:install|run)|poetry add)[^\n]*?[\s'\"]tacit\b"
)


def section(title: str) -> str:
    """From one heading of the second order to the next."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and code of each block, in order."""
    found = BLOCK.findall(text)
    assert found
    return found


def environment() -> dict[str, str]:
    """A new user's: this checkout and its programs, and no setting of Tacit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TACIT_")}
    path = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def test_no_page_and_no_message_advises_to_install_a_package_that_is_not_ours() -> None:
    """`tacit` on PyPI is somebody else's: extras are installed from a checkout."""
    assert OURS.search("pip install 'tacit[otel]'")
    assert OURS.search("pip install -U tacit")
    assert not OURS.search("pip install '.[otel]'")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    files = [name for name in listed if name.endswith(TEXT)] or [
        str(path.relative_to(ROOT)) for room in (".", "docs") for path in (ROOT / room).glob("*.md")
    ]
    advised = [name for name in files if name != "tests/test_readme.py" and OURS.search((ROOT / name).read_text())]
    assert advised == []


def test_every_block_can_be_read_by_what_it_is_for() -> None:
    for language, code in blocks(README):
        if language == "python":
            compile(code, "README.md", "exec")
        else:
            done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_analysts_and_stewards_walk_without_the_admin_key() -> None:
    """What the operator alone may do stands before the others' keys are taken, and after they are put away."""
    walk = section("Three walks")
    between = walk.partition("export TACIT_API_KEY=$STEWARD")[2].partition("unset TACIT_API_KEY")[0]
    assert between
    for word in ("admin-key", "tacit keys", "tacit doctor", "tacit down"):
        assert word not in between, word
    assert "admin-key" not in "".join(code for _, code in blocks(README))


def test_a_list_of_texts_is_twenty_lines_and_says_what_is_missing() -> None:
    part = section("Python, without the service")
    ((_, code),) = blocks(part)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    assert re.search(r"\*\*Nobody counts here\.\*\*.*without the ledger", part, re.S)


@pytest.mark.slow
def test_the_example_without_the_service_runs(tmp_path: Path) -> None:
    """With fewer steps."""
    ((_, code),) = blocks(section("Python, without the service"))
    less = code.replace("steps=40", "steps=2").replace("batch_size=256", "batch_size=64")
    assert less != code
    done = subprocess.run(
        [sys.executable, "-c", less], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "differentially private for each text" in done.stdout
    assert "The left hand of" in done.stdout
    assert (tmp_path / "my-adapter" / "adapter_model.safetensors").is_file()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[str]:
    """The address of `tacit up` in this folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "up.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", "--port", str(port)],
            cwd=tmp_path,
            env=environment(),
            stdout=log,
            stderr=log,
        )
    address, deadline = tmp_path / "tacit-data" / "run" / "address", time.monotonic() + PATIENCE
    while not address.exists():
        assert process.poll() is None, (tmp_path / "up.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield address.read_text()
    process.terminate()
    process.wait()


@pytest.mark.verify
@pytest.mark.timeout(3600)
def test_the_three_walks_run_as_they_stand(stack: str, tmp_path: Path) -> None:
    """One shell, every block in its order, from an empty service to a downloaded adapter, and down again."""
    (_, start), *walk = blocks(section("Three walks"))
    assert "tacit up" in start
    made = tmp_path / ".venv" / "bin"  # what the operator's shell sources; the programs are on PATH
    made.mkdir(parents=True)
    (made / "activate").touch()
    script = "".join(
        code if language == "sh" else f"python - <<'OF_README'\n{code}OF_README\n" for language, code in walk
    )
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail"],
        input=script.replace(ADDRESS, stack),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    with (tmp_path / "answers.csv").open() as answers, (tmp_path / "eval.csv").open() as rows:
        pairs = list(zip(csv.DictReader(answers), csv.DictReader(rows), strict=True))
    assert sum(answer["label"] == row["label"] for answer, row in pairs) > 0.65 * len(pairs)
    assert {"adapter_config.json", "README.md"} <= {path.name for path in (tmp_path / "writer").iterdir()}
    for archive in ("adapter.zip", "from-sdk.zip"):
        assert "tacit.json" in zipfile.ZipFile(tmp_path / archive).namelist()
    assert {"receipt.json", "secrets.tar.gz", "data.tar.gz"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "tacit-data" / "run" / "address").exists(), "it went down in order"
