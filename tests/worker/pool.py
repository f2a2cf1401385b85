"""The processes of a worker's pool, forked from one that has imported everything in place of a fresh interpreter.

From the worker itself they cannot be: it has threads, and those of libraries do not survive a fork. So it forks a spare
of itself before it begins, and the spare forks them; when what lies between has ended, they are the worker's children.
"""

import ctypes
import fcntl
import json
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

NAME = "pool-process"
"""In /proc/PID/comm."""
PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36  # prctl(2)
HIGH = 512  # a descriptor above all that are in use
MOST = 64  # descriptors that a process is given
LIMITS = (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE)

_libc = ctypes.CDLL(None)


def fork_pool_processes() -> None:
    """In a worker that has not begun: from now on its spare starts what billiard would spawn."""
    from billiard import popen_spawn_posix

    worker = os.getpid()
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        link.close()
        _be_spare(theirs, worker)
    theirs.close()

    def launch(path: str, command: Sequence[Any], descriptors: Sequence[int]) -> int:
        """As billiard.compat.spawnv_passfds."""
        asked = {"command": list(command), "descriptors": list(descriptors), "environment": dict(os.environ)}
        socket.send_fds(link, [json.dumps(asked).encode()], descriptors)
        return int(link.recv(32))

    popen_spawn_posix.spawnv_passfds = launch


def _be_spare(link: socket.socket, worker: int) -> NoReturn:
    while True:
        message, received, _, _ = socket.recv_fds(link, 1 << 20, MOST)
        if not message:  # the worker is gone
            os._exit(0)
        if (between := os.fork()) == 0:
            if os.fork() == 0:
                _be_pool_process(link, worker, json.loads(message), received)
            os._exit(0)
        os.waitpid(between, 0)
        for descriptor in received:
            os.close(descriptor)


def _be_pool_process(link: socket.socket, worker: int, asked: dict[str, Any], received: list[int]) -> NoReturn:
    """What a fresh interpreter inherits from the worker, and what it would run."""
    while os.getppid() != worker:
        if os.getppid() == 1:
            os._exit(1)  # the worker was killed meanwhile
        time.sleep(0.001)
    _libc.prctl(PR_SET_NAME, NAME.encode())
    link.send(str(os.getpid()).encode())
    link.close()
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH) for descriptor in received]
    for descriptor in received:
        os.close(descriptor)
    for descriptor, number in zip(above, asked["descriptors"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    (umask,) = re.findall(r"Umask:\s+(\d+)", Path(f"/proc/{worker}/status").read_text())
    os.umask(int(umask, 8))
    for limit in LIMITS:
        resource.setrlimit(limit, resource.prlimit(worker, limit))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _, *_, program, mark = asked["command"]
    sys.argv[:] = ["-c", mark]
    exec(program, {"__name__": "__main__"})
    sys.exit()
