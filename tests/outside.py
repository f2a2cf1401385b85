"""Programs of readers: what they do with an export, in a process with stock libraries and without any module of Tacit's.

Each is forked from `python -I tests/outside.py`, which has imported those libraries once and computes nothing.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

STOCK = tuple(f"transformers.models.{name}.modeling_{name}" for name in ("bert", "gpt2", "llama"))
PRELOADED = ("torch", "peft", "transformers.pipelines", *STOCK)


def run_outside(program: Path, *arguments: str | Path, folder: Path, cache: Path | None = None) -> str:
    """What it prints, run in this folder without a network; `cache`: of the hub's client.

    Fails with what it says when it ends badly.
    """
    with tempfile.TemporaryDirectory() as place:
        said, errors = Path(place, "said"), Path(place, "errors")
        asked = [str(program), *map(str, arguments)], str(folder), str(cache or Path(place, "cache")), str(said)
        assert _process().ask([*asked, str(errors)]) == 0, errors.read_text()
        return said.read_text()


class _Process:
    """The one that forks them; it ends with this one."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__],
            env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._process.communicate)

    def ask(self, question: list[object]) -> int:
        """The exit status of a program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


_process = functools.cache(_Process)


def serve() -> list[str] | None:
    """Answer until nobody asks any more; in what is forked, answer the program and its arguments."""
    for line in sys.stdin:
        command, *places = json.loads(line)
        if (pid := os.fork()) == 0:
            become(*places)
            return command
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def become(folder: str, cache: str, said: str, errors: str) -> None:
    """What a fresh interpreter would have found."""
    os.chdir(folder)
    os.environ["HF_HUB_CACHE"] = cache
    sys.modules["huggingface_hub.constants"].HF_HUB_CACHE = cache
    for number, path in ((1, said), (2, errors)):
        output = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, number)
        os.close(output)


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # a collection in what is forked would copy every page
    if (found := serve()) is not None:
        sys.argv[:] = found
        runpy.run_path(found[0], run_name="__main__")
