"""`python -m domain.ingest`: one check. The request comes as JSON on stdin, the report goes as JSON to stdout.

A failure prints the kind of exception and nothing else: its words might hold content.
"""

import ctypes
import resource
import signal
import sys

from domain.kit.process import protect

MEMORY = 4 * 2**30
"""Bytes of address space; most of it is only reserved."""
CPU_SECONDS = 600
PR_SET_PDEATHSIG = 1  # prctl(2)


def limit() -> None:
    """Bounds on this process, for good; it dies with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    protect()


def main() -> int:
    limit()
    try:
        from domain.ingest.check import CheckRequest, check

        sys.stdout.write(check(CheckRequest.model_validate_json(sys.stdin.read())).model_dump_json())
    except BaseException as error:  # noqa: BLE001  the traceback's words stay here
        sys.stderr.write(type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
