"""`python -m tests.worker.nursery FD`: imports what a worker imports, once, and forks workers on request.

Over the socket FD, a JSON value a line: {"module", "environment", "log"} forks and is answered with a pid; a pid with
the exit status as Popen has it, null while it runs. Nothing is computed here, so that what is forked is as good as new.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
import tempfile

from tests.worker.pool import fork_pool_processes

# The last two are what jobs load when they need it: the architectures of the tests' models.
PRELOADED = (
    *("worker.tasks", "worker.attempt", "worker.results", "peft", "safetensors.torch", "opentelemetry.sdk.trace"),
    *("transformers.models.bert.modeling_bert", "transformers.models.gpt2.modeling_gpt2"),
)


def preload() -> None:
    from worker.__main__ import QUIET

    os.environ.update(QUIET)  # huggingface_hub reads it when it is imported
    for name in PRELOADED:
        importlib.import_module(name)


def serve(link: socket.socket) -> str | None:
    """Answer until the other side is gone; in what is forked, answer the module to run."""
    with link, link.makefile("rw") as lines:
        for line in lines:
            asked = json.loads(line)
            if isinstance(asked, int):
                pid, status = os.waitpid(asked, os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if pid else None
            elif (answer := os.fork()) == 0:
                become(asked["environment"], asked["log"])
                return str(asked["module"])
            lines.write(json.dumps(answer) + "\n")
            lines.flush()
    return None


def become(environment: dict[str, str], log: str) -> None:
    """What Popen would have set."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # of the new TMPDIR
    sys.argv[1:] = []
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with whoever asks
    preload()
    gc.freeze()  # a collection in what is forked would copy every page
    if (name := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        module = importlib.import_module(name)
        fork_pool_processes()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(module.main())
