"""The benchmarks of the service run, on the smallest sizes, under their figures' names. No time is asserted."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import service, upload

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("postgres_server", "redis_server")]  # skipped without them
GROWTH = 50
"""MiB by which the API may grow while a file of any size is sent to it."""


def _figures(main: Callable[[Sequence[str]], None], folder: Path, *arguments: str) -> dict[str, float]:
    file = folder / "figures"
    main(["--quick", "--json", str(file), *arguments])
    return {line["figure"]: line["value"] for line in map(json.loads, file.read_text().splitlines())}


@pytest.mark.verify
def test_an_upload_and_its_download_pass_through_the_api(tmp_path: Path) -> None:
    found = _figures(upload.main, tmp_path, "--mib", "96", "--row", "8000", "--ways", "declared")
    parts = ("api_growth_mib", "check_peak_mib", "receive_mib_s", "check_mib_s", "store_mib_s", "processed_s")
    assert set(found) == {"download/api_growth_mib", *(f"declared/{part}" for part in parts)}
    assert found["declared/api_growth_mib"] < GROWTH
    assert found["download/api_growth_mib"] < GROWTH


@pytest.mark.verify
def test_a_crowd_is_answered_in_flat_memory_with_few_statements(tmp_path: Path) -> None:
    found = _figures(service.main, tmp_path, "--jobs", "40", "--requests", "11000", "--paced", "300")
    assert {f"{kind}/{figure}" for kind in ("create", "get", "list", "events") for figure in ("p50_ms", "p99_ms")} <= (
        set(found)
    )
    assert found["requests_per_second"] > 0
    assert found["new_job_after_cancels/seconds"] > 0
    assert found["api_memory_growth_mib"] < 16  # from the thousandth request to the ten thousandth
    most = {"get": 2, "list": 2, "events": 3, "estimate": 6, "create": 20, "cancel": 10}
    assert {kind: found[f"{kind}/statements"] for kind in most} == most
