"""`tacit try` on what every method leaves."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from domain.models.allow_list import describe
from dpcore.export import About
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from dpcore.terms.methods import method_names
from tests.worker import tiny

TEXTS = ["apple and pear", "iron, of old zinc", "the lead"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny.save_model(folder)
    return folder


def trained(base: Path, folder: Path, method: str) -> list[list[float]]:
    """Export a model that differs from its base; returns the probabilities of TEXTS."""
    tokenizer = load_tokenizer(base)
    model = build_model("classification", base, tiny.LABELS, seed=0)
    model = get_trainer(method).attach(model, {}, task="classification", seed=0)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 3
    about = About("tiny", describe("tiny", base).revision, method, "classification", tiny.LABELS, 16)
    get_trainer(method).export(model, folder, about, tokenizer=tokenizer)
    task = make_task("classification", tokenizer, labels=tiny.LABELS, max_length=16)
    return task.logits(model, {"text": TEXTS}).softmax(1).tolist()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["sentence"], *([text] for text in TEXTS)])
    return path


def tacit_try(*arguments: str | Path):
    return CliRunner().invoke(app, ["try", *map(str, arguments)])


@pytest.mark.parametrize("method", sorted({*method_names()} - {"federated-lm"}))
def test_the_answers_are_the_trained_models_own(method: str, base: Path, rows: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    expected = trained(base, folder, method)
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", folder)
    out = tmp_path / "answers.jsonl"
    done = tacit_try(archive, rows, "--base", base, "--text", "sentence", "-o", out)
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    for answer, shares in zip(answers, expected, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(shares, abs=1e-5)
        assert answer["label"] == tiny.LABELS[shares.index(max(shares))]
        assert "right" not in answer  # of rows without labels


def test_labelled_rows_are_scored(base: Path, tmp_path: Path) -> None:
    """What was expected stays beside the answer, by row and whatever the format; rows without a label stay out."""
    folder = tmp_path / "adapter"
    shares = trained(base, folder, "lora")
    said = [tiny.LABELS[one.index(max(one))] for one in shares]
    wrong = next(label for label in tiny.LABELS if label != said[1])
    expected = [said[0], wrong, None]
    file = tmp_path / "rows.jsonl"
    known = [{} if label is None else {"label": label} for label in expected]
    lines = [{"text": text} | one for text, one in zip(TEXTS, known, strict=True)]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    for name in ("answers.jsonl", "answers.csv"):
        out = tmp_path / name
        done = tacit_try(folder, file, "--base", base, "-o", out)
        assert done.exit_code == 0, done.output
        assert "Accuracy 0.500 ± 0.354 (standard error): 1 of 2 labelled rows. Rows without a label: 1." in done.stderr
        if out.suffix == ".jsonl":
            answers = [json.loads(line) for line in out.read_text().splitlines()]
            assert [(one["label"], one["expected"], one["right"]) for one in answers] == list(
                zip(said, expected, [True, False, None], strict=True)
            )
        else:
            rows = list(csv.DictReader(out.open(newline="")))
            assert [(one["expected"], one["right"]) for one in rows] == [
                (said[0], "True"),
                (wrong, "False"),
                ("", ""),
            ]
    answered = tacit_try(folder, file, "--base", base)
    assert [json.loads(line)["right"] for line in answered.stdout.splitlines()] == [True, False, None]
    assert "has no label in a column 'gold'" in tacit_try(folder, file, "--base", base, "--label", "gold").output


def test_what_is_wrong_is_named(base: Path, rows: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    trained(base, folder, "lora")
    said = tacit_try(folder, rows, "--base", base).output
    assert "'text'" in said
    assert "--text" in said
    other = tmp_path / "other"
    shutil.copytree(base, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert (
        "is not the base model of this adapter" in tacit_try(folder, rows, "--text", "sentence", "--base", other).output
    )
    assert "There is no base model 'tiny' here" in tacit_try(folder, rows, "--text", "sentence").output
    assert "no usable tacit.json" in tacit_try(base, rows).output


def test_the_base_model_is_known_by_its_weights(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is called here, or where the adapter was made."""
    trained(base, tmp_path / "adapter", "lora")
    monkeypatch.setenv("TACIT_MODELS", json.dumps({"ours": str(base)}))
    done = tacit_try(tmp_path / "adapter", rows, "--text", "sentence")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("method", ["lora", "side", "federated-lm"])
def test_a_language_model_goes_on_from_its_prompt(method: str, tmp_path: Path) -> None:
    causal_base = tmp_path / "base"
    causal_base.mkdir()
    tiny.save_writer(causal_base)
    tokenizer = load_tokenizer(causal_base)
    model = get_trainer(method).attach(
        build_model("completion", causal_base, (), seed=0), {}, task="completion", seed=0
    )
    about = About("tiny", describe("tiny", causal_base).revision, method, "completion", (), 16)
    get_trainer(method).export(model, tmp_path / "adapter", about, tokenizer=tokenizer)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "apple and"}) + "\n" + json.dumps({"prompt": "iron"}) + "\n")
    done = tacit_try(tmp_path / "adapter", prompts, "--base", causal_base, "--max-new-tokens", "3")
    assert done.exit_code == 0, done.output
    answers = [json.loads(line)["completion"] for line in done.stdout.splitlines()]
    assert [len(answer.split()) for answer in answers] == [3, 3]
