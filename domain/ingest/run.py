"""Running a check from the service: a child process that holds one file, one key and no other secret."""

import logging
import os
import re
import subprocess
import sys

from domain.ingest.check import CheckReport, CheckRequest
from domain.ingest.problems import Problem

SECONDS = 900
"""Wall time of one check."""
_KIND = re.compile(rb"[A-Z][A-Za-z]{2,39}")
logger = logging.getLogger(__name__)


def run_check(request: CheckRequest) -> CheckReport:
    """Check a file in a child process; a child that dies is a problem of the file."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TACIT_") or k == "TACIT_STACK"}
    environment |= {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "domain.ingest"],
            input=request.model_dump_json().encode(),
            capture_output=True,
            timeout=SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _failed("check_took_too_long", "checking the file took too long")
    if child.returncode != 0:
        # What a library says when it aborts may hold content; the check itself names a kind of exception alone.
        kind = _KIND.fullmatch(child.stderr)
        logger.warning(
            "the check of a file ended with %d: %s", child.returncode, kind[0].decode() if kind else "no kind of error"
        )
        return _failed("check_failed", "checking the file needed more memory or time than a check may have")
    return CheckReport.model_validate_json(child.stdout)


def _failed(code: str, message: str) -> CheckReport:
    return CheckReport(problems=[Problem(line=None, code=code, message=message)], problem_count=1, labels=None, units=0)
