"""The benchmarks of training run, on the smallest sizes, under their figures' names. No time is asserted."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytest.importorskip("opacus")

from benchmarks import epoch_time, memory, step_time

pytestmark = pytest.mark.slow


def _figures(main: Callable[[Sequence[str]], None], folder: Path, *arguments: str) -> dict[str, float]:
    file = folder / "figures"
    main(["--quick", "--threads", "1", "--json", str(file), *arguments])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line["figure"]: line["value"] for line in lines}


@pytest.mark.verify
def test_step_time_names_each_contender_that_ran(tmp_path):
    found = _figures(
        step_time.main, tmp_path, "--models", "bert", "--methods", "lora", "--contenders", "ours", "opacus-hooks"
    )
    each = ("time_ratio", "time_ratio_noise_amortised", "memory_ratio")
    assert set(found) == {f"bert-64/lora/{name}/{figure}" for name in ("ours", "opacus-hooks") for figure in each}
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.verify
def test_epoch_time_compares_with_opacus_and_both_other_loops(tmp_path):
    found = _figures(epoch_time.main, tmp_path, "--texts", "sst2", "--methods", "lora", "--rounds", "1")
    figures = ("speedup_over_opacus", "time_over_nonprivate", "time_over_bucketed")
    assert set(found) == {f"sst2/lora/{figure}" for figure in figures}
    assert all(value > 0 for value in found.values())


@pytest.mark.verify
def test_memory_of_lora_and_side(tmp_path):
    found = _figures(memory.main, tmp_path, "--models", "bert", "--methods", "lora", "side")
    assert set(found) == {f"bert/d6/t128/{figure}" for figure in ("lora/bytes", "side/bytes", "side_below_lora")}
    assert found["bert/d6/t128/side/bytes"] > 0
