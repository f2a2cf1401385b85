"""Whatever reads an export gets the trained model's own answers, or is refused with words. With -s: the table.

The same with the oldest releases that a card claims, installed beside the torch of this environment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcore.export import About, PrivacyClaim, write_card
from dpcore.export.versions import OLDEST
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from tests.outside import run_outside

from .conftest import LABELS, MAX_LENGTH, WORDS

CONSUMERS = Path(__file__).parents[1] / "consumers.py"
REPOSITORY, COMMIT = "owner/tiny", "0123456789abcdef0123456789abcdef01234567"
TEXTS = [" ".join(WORDS[i : i + n]) for i, n in enumerate([9, 3, 13])]
VARIANTS = {"prune-layers": ("prune", {"kind": "structured"}), "prune-lora": ("prune", {"weights": "lora"})}
"""Methods with options under which they leave another layout."""
SEEDS = {"prune-lora/llama-lm": 4}
"""Of what is added to the weights, where with the usual one a random model would write special tokens alone."""
METHODS = ("lora", "lora-fa", "bitfit", "full", "side", "reversible", "distill", "prune", *VARIANTS)
FAMILIES = ("bert", "gpt2", "llama", "gpt2-lm", "llama-lm")
SAMPLE = (
    *("lora/bert", "lora/gpt2", "full/gpt2-lm", "side/llama-lm", "prune/bert", "reversible/gpt2-lm"),
    *("distill/llama-lm", "prune-lora/gpt2-lm"),
)
NEEDS_PEFT = ("stock_peft", "auto_peft", "merged")
COLUMNS = ("card", *NEEDS_PEFT, "batch", "pipeline_of_model", "pipeline_of_folder", "generate")
BESIDE = {"tokenizers": "0.20.3", "huggingface-hub": "0.26.5", "safetensors": "0.4.5", "accelerate": "1.0.1"}
"""What the oldest releases need in their time's own."""


def make_cases(names: list[str], base_of: Callable[[str], Path], folder: Path) -> list[dict]:
    """Exports of models that differ from their bases, with what is expected of them."""
    return [made for name in names if (made := make_case(name, base_of(name.split("/")[1]), folder / name)) is not None]


def make_case(name: str, base: Path, folder: Path) -> dict | None:
    """None where the method cannot be attached: what that says has a test of its own."""
    called, family = name.split("/")
    method, options = VARIANTS.get(called, (called, {}))
    task = "text" if family.endswith("-lm") else "classification"
    labels = () if task == "text" else LABELS
    model, tokenizer = build_model(task, base, labels, seed=0), load_tokenizer(base)
    try:
        model = get_trainer(method).attach(model, options, task=task, seed=0).eval()
    except ValueError:
        return None
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(SEEDS.get(name, 3))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) / 3
    about = About("tiny", "0" * 64, method, task, labels, MAX_LENGTH, REPOSITORY, COMMIT)
    get_trainer(method).export(model, folder, about, tokenizer=tokenizer)
    write_card(folder, base, PrivacyClaim(3.0, 1e-5, "record", "add_or_remove_one", "a mechanism", "A promise.", 400))
    case = {"name": name, "base": str(base), "export": str(folder), "texts": TEXTS, "max_length": MAX_LENGTH}
    with torch.no_grad():
        if labels:
            logits = make_task(task, tokenizer, labels=labels, max_length=MAX_LENGTH).logits(model, {"text": TEXTS})
            return case | {"labels": labels, "logits": logits.tolist()}
        ids = [torch.tensor([tokenizer(text)["input_ids"]]) for text in TEXTS]
        model = getattr(model, "student", model)
        tokens = [model.generate(i, attention_mask=torch.ones_like(i), max_new_tokens=8) for i in ids[:2]]
        logits = [model(input_ids=i, attention_mask=torch.ones_like(i)).logits[0].tolist() for i in ids]
    return case | {"labels": [], "logits": logits, "tokens": [one[0].tolist() for one in tokens]}


def read(cases: list[dict], folder: Path, cache: Path, releases: Path | None = None) -> dict:
    """What the program of the readers says, in a process without any module of Tacit's; `releases`: in place of
    today's."""
    (folder / "cases.json").write_text(json.dumps(cases))
    if releases is None:
        said = run_outside(CONSUMERS, folder / "cases.json", folder=folder, cache=cache)
    else:
        environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "PYTHONPATH": str(releases)}
        command = [sys.executable, CONSUMERS, folder / "cases.json"]
        done = subprocess.run(
            command, env=os.environ | environment, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout
    seen = json.loads(said.splitlines()[-1])
    assert seen["ours"] == []
    return seen


def judge(case: dict, consumer: str, seen: dict, release: str) -> str:
    """`works`, or `refused` where the layout is none for this consumer; anything else fails but what the card warns of."""
    layout = "peft" if Path(case["export"], "adapter_config.json").exists() else "other"
    whole = Path(case["export"], "config.json").exists()
    meant = layout == "peft" or not (consumer in NEEDS_PEFT or (consumer == "pipeline_of_folder" and not whole))
    if layout == "peft" and Path(case["export"], "pruned.json").exists():  # its base is nothing that has a name
        meant = consumer not in ("auto_peft", "pipeline_of_folder")
    where = f"{case['name']}: {consumer}: {seen}"
    if not meant:
        assert len(seen.get("error", "")) > 40, where
        return "refused"
    assert "error" not in seen, where
    if layout == "peft" and consumer == "pipeline_of_folder" and release == OLDEST["transformers"]:
        assert "leave the head at random" in Path(case["export"], "README.md").read_text()
        return "see card"
    if "logits" in seen:
        for ours, theirs in zip(case["logits"], seen["logits"], strict=False):
            # peft 0.13 cuts away the scores of tokens that the tokenizer has not.
            known = np.asarray(ours)[..., : np.shape(theirs)[-1]]
            np.testing.assert_allclose(theirs, known, rtol=0, atol=2e-5, err_msg=where)
    elif "labels" in seen:
        for ours, theirs in zip(case["logits"], seen["labels"], strict=True):
            shares = torch.tensor(ours).softmax(0).tolist()
            assert theirs == pytest.approx(dict(zip(case["labels"], shares, strict=True)), abs=1e-5), where
    elif "tokens" in seen:
        assert seen["tokens"] == case["tokens"], where
    else:
        assert seen["said"].strip(), where
        assert not case["labels"] or any(label in seen["said"] for label in case["labels"]), where
    return "works"


def table(cases: list[dict], seen: dict) -> list[str]:
    """One line for each export, one column for each consumer, every cell judged."""
    lines = []
    for case in cases:
        got = seen["seen"][case["name"]]
        cells = [judge(case, name, got[name], seen["transformers"]) if name in got else "-" for name in COLUMNS]
        lines.append(f"| {case['name']} | {' | '.join(cells)} |")
    return lines


@pytest.fixture(scope="session")
def oldest(tmp_path_factory) -> Path:
    """The oldest releases in a folder of their own; everything else is this environment's."""
    folder = tmp_path_factory.mktemp("oldest")
    pins = [f"{name}=={release}" for name, release in (OLDEST | BESIDE).items()]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *pins]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        why = f"the oldest releases cannot be installed: {done.stderr.strip()[-300:]}"
        if os.environ.get("TACIT_REQUIRE_ALL") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return folder


@pytest.fixture
def base_of(make_base, tokenizer, writer_tokenizer, tmp_path) -> Callable[[str], Path]:
    """A base model of each family as the hub client keeps it: in a cache, by its commit."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            place = tmp_path / "cache" / family / "models--owner--tiny"
            folder = place / "snapshots" / COMMIT
            model = make_base(family, layers=2)
            model.config.pad_token_id = 0 if family == "bert" else None
            (model if family.endswith("-lm") else model.base_model).save_pretrained(folder)
            if family != "bert":
                writer_tokenizer.model_input_names = ["input_ids", "attention_mask"]
            (tokenizer if family == "bert" else writer_tokenizer).save_pretrained(folder)
            made[family] = folder
        return made[family]

    return make


@pytest.mark.parametrize(
    ("names", "releases"),
    [
        pytest.param(SAMPLE, "today's", id="sample"),
        pytest.param(None, "today's", id="all", marks=pytest.mark.verify),
        pytest.param(None, "oldest", id="all-oldest", marks=pytest.mark.verify),
    ],
)
def test_each_consumer_gets_the_trained_model_or_is_refused_with_words(
    names, releases, base_of, tmp_path, request
) -> None:
    others = request.getfixturevalue("oldest") if releases == "oldest" else None
    names = names or [f"{method}/{family}" for family in FAMILIES for method in METHODS]
    lines = [
        f"| export | {' | '.join(name.replace('_', ' ') for name in COLUMNS)} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for family in FAMILIES:
        cases = make_cases([name for name in names if name.split("/")[1] == family], base_of, tmp_path)
        if cases:
            lines += table(cases, read(cases, tmp_path, tmp_path / "cache" / family, others))
    print("", *lines, sep="\n")
