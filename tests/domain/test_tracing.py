"""Spans are sent only where somebody asked for them, and nobody waits for who receives them."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from domain.kit import tracing

ROOT = Path(__file__).parents[2]


def python(program: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | settings
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_without_an_endpoint_no_tracer_is_imported() -> None:
    """The standard variables alone, which may be meant for other programs, ask for nothing."""
    done = python(
        "import sys\n"
        "sys.modules['opentelemetry.sdk'] = sys.modules['opentelemetry.exporter'] = None\n"  # as without the extra
        "import api.app, worker.tasks, worker.tracing\n"
        "from domain.kit.tracing import exporting\n"
        "with exporting(None, 'tacit-api') as tracer:\n"
        "    assert tracer is None\n"
        "print([m for m in ('api.tracing', 'opentelemetry.sdk.trace') if m in sys.modules])",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        FASTAPI_OTEL_AUTO_CONFIGURE="true",
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("process", ["api", "worker"])
def test_an_endpoint_without_the_packages_is_refused_at_start(process: str) -> None:
    done = python(
        f"import sys\nsys.modules['opentelemetry.exporter'] = None\nsys.argv = ['{process}']\n"
        f"from {process}.__main__ import main\nsys.exit(main())",
        TACIT_OTLP_ENDPOINT="http://collector:4318",
    )
    assert done.returncode in (1, 2)
    assert "does not start: " in done.stderr
    assert "TACIT_OTLP_ENDPOINT: " in done.stderr
    assert "pip install '.[otel]'" in done.stderr


def test_a_collector_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LAST_WORDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with tracing.exporting(f"http://127.0.0.1:{silent.getsockname()[1]}", "tacit-worker") as tracer:
            assert tracer is not None
            tracer.start_span("attempt").end()
        (waiting,) = (thread for thread in threading.enumerate() if thread.name == "last spans")
        assert waiting.daemon  # the process ends without it
    waiting.join()
