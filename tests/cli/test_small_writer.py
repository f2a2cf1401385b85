"""A model of one's own, from public text to a job over users: stock readers load it, and its counts decide what
trains."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from cli.main import app
from domain.models.allow_list import describe
from dpcore.methods import get_trainer
from dpcore.models import build_model
from dpcore.word_counts import WORD_COUNTS
from tests.worker import tiny

LINES = [f"{text}, said {name}." for text in tiny.rows(300, seed=1)[0] for name in ("Anna", "Bertram", "Caecilia")]
SMALL = ("--vocabulary", "320", "--width", "16", "--layers", "1", "--heads", "2", "--positions", "16")


def make(*arguments: str | Path):
    return CliRunner().invoke(app, ["models", "make", *map(str, arguments)])


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "public.jsonl"
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES))
    return file


def test_what_is_made_is_a_stock_model_that_learnt_and_its_counts_decide_what_trains(
    text: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    done = make(folder, "--text", text, *SMALL, "--steps", "150")
    assert done.exit_code == 0, done.output
    assert "320 tokens" in done.output
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(LINES[0] + " \u20ac", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]) == LINES[0] + " \u20ac", "bytes that it never saw have tokens"
    with torch.no_grad():
        assert float(model(input_ids=ids[:, :16], labels=ids[:, :16]).loss) < 0.8 * np.log(320)
    counts = json.loads((folder / WORD_COUNTS).read_text())
    assert sum(counts) == sum(len(one) + 1 for one in tokenizer(LINES)["input_ids"])
    facts = describe("small", folder).facts
    assert (facts.vocab_size, facts.causal_lm, facts.tied_head) == (320, True, "lm_head")
    base = build_model("text", folder, (), seed=0)
    attached = get_trainer("federated-lm").attach(base, {"rows": 9, "blocks": "none"}, task="text", seed=0)
    chosen = attached.get_output_embeddings().get_buffer("chosen").tolist()
    assert chosen == sorted(np.argsort(-np.asarray(counts), kind="stable")[:9].tolist())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--vocabulary", "9000"), "words for a vocabulary of"),
        (("--width", "15"), "must be a multiple"),
    ],
)
def test_what_is_wrong_is_said(text: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = make(tmp_path / "small", "--text", text, *SMALL, *arguments, "--steps", "1")
    assert done.exit_code == 1
    assert words in done.output
    (tmp_path / "short.txt").write_text("\n".join(LINES[:9]))
    short = (tmp_path / "small", "--text", tmp_path / "short.txt", *SMALL, "--vocabulary", "300")
    assert "bring more" in make(*short, "--positions", "8192").output
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert "is not empty" in make(tmp_path / "taken", "--text", text, *SMALL, "--steps", "0").output
    (tmp_path / "bad.jsonl").write_text("secret\n")
    said = make(tmp_path / "new", "--text", tmp_path / "bad.jsonl", *SMALL).output
    assert "cannot be read" in said
    assert "secret" not in said
