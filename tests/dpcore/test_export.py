"""What leaves loads in stock transformers and peft, or by the loader beside it, with the same logits."""

import json
import os
import stat
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dpcore.export import About
from dpcore.methods import get_trainer, load_export
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from dpcore.terms.folders import TOKENIZER
from tests.outside import run_outside

from .conftest import LABELS, MAX_LENGTH, WORDS
from .test_train import Host, make_phase, make_program

TEXTS = [" ".join(WORDS[i : i + n]) for i, n in enumerate([1, 2, 5, 9, 13, 30])]
NAME, SHA256 = "example/tiny-model", "0" * 64
SAMPLE = {
    *((method, "gpt2-lm") for method in ("lora", "full", "side")),
    *((method, "bert") for method in ("lora", "lora-fa", "bitfit", "full", "side", "reversible")),
}
CASES = [
    pytest.param(method, base, marks=[] if (method, base) in SAMPLE else pytest.mark.verify)
    for method in ("lora", "lora-fa", "bitfit", "full", "side", "reversible", "distill")
    for base in ("bert", "gpt2-lm", "llama-lm")
    if (method, base) != ("bitfit", "llama-lm")  # it has no biases
]

STOCK = Path(__file__).parents[1] / "stock.py"


class Trained:
    """A model that was built, adapted and trained the way a job does it."""

    def __init__(self, method: str, folder: Path, task: str) -> None:
        self.folder, self.tokenizer = folder, load_tokenizer(folder)
        labels = LABELS if task == "classification" else ()
        self.about = About(NAME, SHA256, method, task, labels, MAX_LENGTH)
        self.task = make_task(task, self.tokenizer, labels=labels, max_length=MAX_LENGTH)
        self.model = get_trainer(method).attach(self.untouched(), {}, task=task, seed=1)
        texts = [f"{WORDS[i % 60]} {WORDS[(i + 1) % 60]}" for i in range(50)]
        records = self.task.encode({"text": texts}, [i % 3 for i in range(50)])
        trainer, names = get_trainer(method), {"distill": ("teacher", "student")}.get(method, ("train",))
        phases = tuple(make_phase(name=name, learning_rate=0.1) for name in names)
        program = make_program(method=method, options={}, phases=phases)
        acts = {"begin": partial(trainer.begin, task=task), "learns": trainer.learns, "between": trainer.between}
        Host().run(self.model, self.task, records, program, **acts)

    def untouched(self) -> torch.nn.Module:
        return build_model(self.about.task, self.folder, self.about.labels, seed=1)

    def export(self, folder: Path) -> Path:
        get_trainer(self.about.method).export(self.model, folder, self.about, tokenizer=self.tokenizer)
        return folder

    @torch.no_grad()
    def logits(self, model: torch.nn.Module) -> list[np.ndarray]:
        """Of each text alone, as the task encodes it."""
        out = []
        for text in TEXTS:
            records = self.task.encode({"text": [text]}, [0])
            # The end of a text is the task's own; a reader's prompt has none.
            tokens = records.tokens if self.about.labels else self.tokenizer(text)["input_ids"][:MAX_LENGTH]
            ids = torch.tensor(np.asarray(tokens, dtype=np.int64))[None]
            out.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy())
        return out


@pytest.fixture
def train_it(base_folder, writer_folder):
    def make(method: str = "lora", base: str = "bert") -> Trained:
        if base == "bert":
            return Trained(method, base_folder, "classification")
        return Trained(method, writer_folder(base), "text")

    return make


def far(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    return max(float(np.abs(np.asarray(a) - b).max()) for a, b in zip(one, other, strict=True))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("method", "base"), CASES)
def test_every_export_loads_outside_with_equal_logits(train_it, tmp_path, method, base):
    """What a reader does, in a process without any module of Tacit's; and our own way back."""
    trained = train_it(method, base)
    expected, folder = trained.logits(trained.model), trained.export(tmp_path / "export")
    labels = str(len(trained.about.labels))
    arguments = (trained.folder, folder, json.dumps(TEXTS), str(MAX_LENGTH), labels)
    seen = json.loads(run_outside(STOCK, *arguments, folder=tmp_path))
    assert seen["ours"] == []
    assert far(seen["logits"], expected) <= 1e-5
    loaded, about = load_export(folder, trained.folder)
    assert about == trained.about
    assert far(trained.logits(loaded), expected) <= 1e-5
    assert far(trained.logits(trained.untouched()), expected) > 1e-2


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", ["lora", "lora-fa", "bitfit", "side", "reversible"])
def test_an_export_holds_the_trained_tensors(train_it, tmp_path, method):
    """And nothing of the base model; LoRA-FA's frozen matrices are needed too, because a seed is no weight."""
    trained = train_it(method)
    folder = trained.export(tmp_path / "export")
    (weights,) = folder.glob("*.safetensors")
    frozen = sum(p.numel() for n, p in trained.model.named_parameters() if "lora_A" in n and not p.requires_grad)
    moved = sum(p.numel() for p in trained.model.parameters() if p.requires_grad)
    assert sum(t.numel() for t in load_file(weights).values()) == moved + frozen
    assert (frozen > 0) == (method == "lora-fa")


def test_frozen_matrices_are_those_of_the_seed(train_it):
    """A resumed attempt has only the trained tensors; the others must come out the same, and must not have moved."""
    trained = train_it("lora-fa")
    again = get_trainer("lora-fa").attach(trained.untouched(), {}, task="classification", seed=1)
    frozen = {n: p for n, p in again.named_parameters() if "lora_A" in n}
    assert frozen
    assert all(torch.equal(p, trained.model.get_parameter(n)) for n, p in frozen.items())


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", ["lora", "bitfit", "full", "side", "reversible", "distill"])
def test_nothing_names_a_path(train_it, tmp_path, method):
    trained = train_it(method)
    own = trained.folder / "tokenizer_config.json"  # transformers once wrote where it was saved
    own.write_text(json.dumps(json.loads(own.read_text()) | {"name_or_path": str(trained.folder)}))
    folder = trained.export(tmp_path / "export")
    for file in folder.iterdir():
        assert str(trained.folder).encode() not in file.read_bytes(), file.name
    about = json.loads((folder / "tacit.json").read_text())
    assert (about["base_model"], about["method"], about["task"]) == (NAME, method, "classification")
    if method == "lora":
        config = json.loads((folder / "adapter_config.json").read_text())
        values = (config["base_model_name_or_path"], config["peft_type"], config["task_type"])
        assert values == (NAME, "LORA", "SEQ_CLS")
        assert config["target_modules"] == sorted(set(config["target_modules"]))  # sets have an order of the day
    with pytest.raises(ValueError, match="public name"):
        About(str(trained.folder), SHA256, method, "classification", LABELS, MAX_LENGTH)


def test_an_export_has_every_file_that_a_tokenizer_may_need(train_it, tmp_path):
    trained = train_it("lora")
    for name in {*TOKENIZER} - {file.name for file in trained.folder.iterdir()}:
        (trained.folder / name).write_text("{}")
    names = {file.name for file in trained.export(tmp_path / "export").iterdir()}
    assert names >= {*TOKENIZER}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", ["lora", "bitfit", "full", "side", "reversible"])
def test_file_modes_follow_the_umask(train_it, tmp_path, method):
    trained = train_it(method)
    before = os.umask(0o027)
    try:
        trained.export(tmp_path / "export")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "export").iterdir()}
    assert modes == {0o640}


@pytest.mark.parametrize("method", ["bitfit", "side", "reversible"])
def test_the_loader_refuses_another_base(train_it, make_base, tmp_path, method):
    trained = train_it(method)
    folder = trained.export(tmp_path / "export")
    other = tmp_path / "other"
    make_base("bert", layers=1).base_model.save_pretrained(other)
    with pytest.raises(ValueError, match="not the base model"):
        load_export(folder, other)


def test_head_of_two_layers_is_exported_whole(make_base, tmp_path):
    """DistilBERT's new head has two layers; the default of PEFT saves one of them."""
    about = About(NAME, SHA256, "lora", "classification", LABELS, MAX_LENGTH)
    model = get_trainer("lora").attach(make_base("distilbert"), {"r": 2}, task="classification", seed=0)
    get_trainer("lora").export(model, tmp_path / "export", about)
    assert any("pre_classifier" in key for key in load_file(tmp_path / "export" / "adapter_model.safetensors"))


def test_base_that_lacks_weights_is_refused(base_folder, make_base):
    """An adapter cannot carry the random values that would stand in for them."""
    base = make_base(layers=2).base_model
    state = {k: v for k, v in base.state_dict().items() if "layer.1.output.dense" not in k}
    base.save_pretrained(base_folder, state_dict=state)
    with pytest.raises(ValueError, match=r"lacks weights: bert\.encoder\.layer\.1\.output"):
        build_model("classification", base_folder, LABELS, seed=0)


def test_seed_drives_initialisation_and_leaves_the_global_generator_alone(base_folder):
    torch.manual_seed(4)
    before = torch.get_rng_state()

    def build(seed):
        base = build_model("classification", base_folder, LABELS, seed=seed)
        model = get_trainer("lora").attach(base, {"r": 2}, task="classification", seed=seed)
        return {n: p for n, p in model.named_parameters() if p.requires_grad}

    first, again, other = build(1), build(1), build(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_labels_are_in_the_models_configuration(base_folder):
    built = build_model("classification", base_folder, LABELS, seed=0)
    assert built.config.id2label == dict(enumerate(LABELS))
