"""The built-in model that writes: small, of stock parts, as its card says, and good for every method that is offered."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from domain.kit.settings import ModelSettings
from domain.models import small_writer
from domain.models.allow_list import DEFAULT_WRITER, base_models, built_in
from dpcore.export.card import license_of
from dpcore.terms.methods import method_names
from dpcore.terms.tasks import KINDS
from tests.worker import tiny
from worker import profile

ROOM = Path(small_writer.__file__).parent
FOLDER = ROOM / "model"
MODEL = base_models(ModelSettings()).usable[DEFAULT_WRITER]


def test_it_is_small_float32_and_what_its_card_says() -> None:
    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size < 2_000_000
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32"}  # noqa: SIM118  (no mapping)
    card = (FOLDER / "README.md").read_text()
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    assert f"{sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(FOLDER).parameters()):,} weights" in card
    assert license_of(FOLDER)[0] == "apache-2.0"
    assert (MODEL.source, MODEL.facts.max_positions >= 128) == ("package", True)


def test_every_text_has_tokens_and_is_its_own_again() -> None:
    tokenizer, text = AutoTokenizer.from_pretrained(FOLDER), "Ada: 38.5 °C, «überrascht» 😷 \x00\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_is_the_model_for_what_asks_for_one_that_writes() -> None:
    for name, kind in KINDS.items():
        assert (built_in(name) == DEFAULT_WRITER) == kind.causal_lm
    fitting = {name for name, kind in KINDS.items() if not kind.chat_template and not kind.of_pictures}
    assert set(MODEL.facts.tasks) == fitting


@pytest.mark.sampled(3)
@pytest.mark.parametrize("task", profile.measurable(MODEL))
@pytest.mark.parametrize("method", method_names())
def test_a_method_that_is_offered_trains_it(method: str, task: str) -> None:
    """The rehearsal and two steps of the loop itself, with the method's default options."""
    if method not in MODEL.methods(task):
        assert (method, task) == ("federated-lm", "classification")
        return
    size = profile.TINY
    assert profile.measure(FOLDER, method, task, "cpu", size.longest, size.records, size.steps).tokens_per_second > 0


@pytest.mark.verify
def test_the_script_makes_such_a_model_of_a_corpus(tmp_path: Path) -> None:
    """With less of everything."""
    novels = re.findall(r"\b[A-Z][a-z]+_[A-Z][a-z]+_18\d\d\b", (ROOM / "make.sh").read_text())
    assert len(set(novels)) == 10
    for seed, novel in enumerate(novels):
        (tmp_path / f"{novel}.txt").write_text("\n".join(tiny.rows(99, seed)[0]))
    less = ("--vocabulary", "300", "--width", "8", "--layers", "1", "--heads", "1", "--positions", "8", "--steps", "1")
    done = subprocess.run(
        ["sh", str(ROOM / "make.sh"), str(tmp_path), str(tmp_path / "made"), *less],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOM.parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "made").iterdir()} == {p.name for p in FOLDER.iterdir()} - {"README.md"}
