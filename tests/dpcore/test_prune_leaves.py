"""What a pruned model leaves: whole and smaller for stock readers, packed with a loader, or an adapter and its base."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dpcore.export import About, PrivacyClaim, write_card
from dpcore.methods import get_trainer, load_export, prune
from dpcore.methods.prune import packed
from dpcore.methods.prune.masks import prunable
from dpcore.models import build_model, load_tokenizer
from dpcore.tasks import make_task
from tests.outside import run_outside

from .conftest import LABELS, MAX_LENGTH, WORDS
from .test_train import Host, make_program

TEXTS = [" ".join(WORDS[i : i + n]) for i, n in enumerate([1, 5, 9])]
CLAIM = PrivacyClaim(3.0, 1e-5, "record", "add_or_remove_one", "a mechanism", "A promise.", 400)
BOTH = pytest.mark.parametrize("base", ["bert", "gpt2-lm", "llama-lm"])


class Left:
    """A model that was pruned and trained as a job does it, and its export."""

    def __init__(self, base: Path, folder: Path, task: str, options: dict) -> None:
        self.base, self.folder, self.tokenizer = base, folder, load_tokenizer(base)
        labels = LABELS if task == "classification" else ()
        model = build_model(task, base, labels, seed=1)
        self.model = get_trainer("prune").attach(model, options, task=task, seed=1)
        made = make_task(task, self.tokenizer, labels=labels, max_length=MAX_LENGTH)
        records = made.encode({"text": [f"{WORDS[i]} {WORDS[i + 1]}" for i in range(40)]}, [i % 3 for i in range(40)])
        acts = {"begin": partial(prune.begin, task=task), "between": prune.between}
        Host().run(self.model, made, records, make_program(steps=4, method="prune", learning_rate=0.05), **acts)
        self.about = About("example/tiny", "0" * 64, "prune", task, labels, MAX_LENGTH)
        prune.export(self.model, folder, self.about, tokenizer=self.tokenizer)
        write_card(folder, base, CLAIM)
        self.card = (folder / "README.md").read_text()

    @torch.no_grad()
    def far(self, other: torch.nn.Module) -> float:
        """How far another model's logits are from the trained one's."""
        ids = [torch.tensor([self.tokenizer(text)["input_ids"][:MAX_LENGTH]]) for text in TEXTS]
        return max(
            float((self.model.eval()(input_ids=i).logits - other.eval()(input_ids=i).logits).abs().max()) for i in ids
        )


@pytest.fixture
def leave(base_folder, writer_folder, tmp_path):
    def leave(base: str, options: dict) -> Left:
        task = "classification" if base == "bert" else "text"
        return Left(base_folder if base == "bert" else writer_folder(base), tmp_path / "left", task, options)

    return leave


def stock(left: Left, folder: Path) -> torch.nn.Module:
    """By transformers alone."""
    auto = AutoModelForSequenceClassification if left.about.labels else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32)


@BOTH
def test_packed_weights_load_by_their_loader_with_the_same_logits(leave, base, tmp_path):
    """In a process without Tacit, and without the base model; the zeros are those of the model that was trained."""
    left = leave(base, {"sparsity": 0.6})
    assert {f.name for f in left.folder.iterdir()} >= {"load.py", "pruned.json", "trained.safetensors"}
    assert not (left.folder / "config.json").exists()
    code = (
        "import json, sys, torch\nsys.path.insert(0, '.')\nfrom load import load\nmodel = load()\n"
        "ids = json.loads(sys.argv[1])\nout = [model(input_ids=torch.tensor([i])).logits[0].tolist() for i in ids]\n"
        "print(json.dumps([out, sorted(m for m in sys.modules if m.split('.')[0] == 'dpcore'), type(model).__name__]))"
    )
    ids = [left.tokenizer(text)["input_ids"][:MAX_LENGTH] for text in TEXTS]
    (tmp_path / "reader.py").write_text(code)
    said = run_outside(tmp_path / "reader.py", json.dumps(ids), folder=left.folder)
    logits, ours, kind = json.loads(said.splitlines()[-1])
    assert (ours, kind) == ([], type(left.model).__name__)
    for one, own in zip(ids, logits, strict=True):
        torch.testing.assert_close(left.model.eval()(input_ids=torch.tensor([one])).logits[0], torch.tensor(own))
    loaded, _ = load_export(left.folder, left.base)
    assert left.far(loaded) < 1e-6
    found = [p for p in prunable(loaded).values()]
    assert sum(int((p == 0).sum()) for p in found) >= 0.6 * sum(p.numel() for p in found)
    assert all(torch.equal(p, prunable(left.model)[n]) for n, p in prunable(loaded).items())
    assert "no faster" in left.card
    assert "smaller file" in left.card


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_packed_matrices_take_their_bits_and_what_is_left_of_them(leave, sparsity):
    """(1 - s + 1/32) of what they took, of float32."""
    left = leave("bert", {"sparsity": sparsity})
    stored = load_file(left.folder / packed.WEIGHTS)
    matrices = prunable(left.model)
    whole = sum(4 * p.numel() for p in matrices.values())
    taken = sum(
        t.nbytes for n, t in stored.items() if n.removesuffix(packed.MASK).removesuffix(packed.VALUES) in matrices
    )
    assert (1 - sparsity + 1 / 32) * whole - 64 < taken <= (1 - sparsity + 1 / 32) * whole + len(matrices)
    others = {n: t for n, t in left.model.state_dict().items() if n not in matrices}
    assert all(torch.equal(stored[n], t) for n, t in others.items())


def test_bits_are_unpacked_as_they_were_packed():
    for count in (1, 7, 8, 9, 1000):
        bits = torch.rand(count, generator=torch.Generator().manual_seed(count)) < 0.5
        assert torch.equal(packed.unpack(packed.pack(bits), count), bits)
        assert len(packed.pack(bits)) == -(-count // 8)


@pytest.mark.sampled(3)
@BOTH
@pytest.mark.parametrize("when", ["schedule", "start"])
def test_a_model_with_fewer_layers_loads_in_stock_transformers(leave, base, when):
    left = leave(base, {"kind": "structured", "keep_layers": 1, "when": when})
    loaded = stock(left, left.folder)
    assert left.far(loaded) < 1e-5
    assert loaded.config.num_hidden_layers == 1
    assert sum(p.numel() for p in loaded.parameters()) < 0.8 * sum(
        p.numel() for p in build_model(left.about.task, left.base, left.about.labels, seed=1).parameters()
    )
    assert left.far(load_export(left.folder, left.base)[0]) < 1e-5
    assert "faster" in left.card


@pytest.mark.sampled(3)
@BOTH
@pytest.mark.parametrize("options", [{}, {"kind": "structured", "keep_layers": [1]}], ids=["entries", "layers"])
def test_an_adapter_loads_in_stock_peft_on_the_base_that_its_folder_makes(leave, base, options):
    left = leave(base, {**options, "weights": "lora", "r": 2, "target_modules": "all-linear"})
    made = packed.load_base(str(left.base), left.folder)
    zero = sum(int((p == 0).sum()) for p in prunable(made).values()) / sum(p.numel() for p in prunable(made).values())
    assert (zero >= 0.5) == (not options)
    assert made.config.num_hidden_layers == (1 if options else 2)
    assert left.far(PeftModel.from_pretrained(made, left.folder)) < 1e-5
    assert left.far(packed.load(str(left.base), left.folder)) < 1e-5
    assert left.far(load_export(left.folder, left.base)[0]) < 1e-5
    # On the whole base the answers would be others, so nothing names it as the adapter's.
    config = json.loads((left.folder / "adapter_config.json").read_text())
    assert "load.py" in config["base_model_name_or_path"]
    if left.about.labels:
        with pytest.raises((OSError, ValueError), match=r"load\.py"):
            AutoPeftModelForSequenceClassification.from_pretrained(left.folder)
    assert "from load import load" in left.card


def test_a_base_that_is_another_is_refused(leave, make_base, tmp_path, tokenizer):
    left = leave("bert", {"weights": "lora"})
    other = make_base(layers=3)
    other.base_model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="not the base model of the folder"):
        packed.load_base(str(tmp_path / "other"), left.folder)
