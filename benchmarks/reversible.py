"""Where does a reversible network hold: by depth, coupling and the numbers that its states are made of?

{bert,gpt2,llama}/d{6,12,24}/c{0.1,0.3,0.5,0.7,1}/{float32,float64}/{start,moved}
                        least cosine of a tensor's gradient with exact autograd's where states are floating point, as
                        the parent method's are, with the weights as attached and moved by their own size; the gate
                        asks for 0.999; 0 where states grow until no gradient is left
.../c{1/256}/integers/{start,moved}
                        the same of what the service does: integers, and the bits that a shift loses kept
start/{ours,bend,plain}/c{...}
                        cosine of the untrained network's last states with the base model's, over all tokens of
                        made-up notes and the built-in model: F centred (layer - c h), centred on the bend of the
                        states' path ((1 + c) layer - 2 c h), and as the parent method has it (layer)

Layers are random, 32 wide, all coupled, float32; adapters of width 8.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import product
from math import inf, isfinite
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from benchmarks.common import Figure, Findings, parser, versions
from benchmarks.training.texts import TOKENIZER
from cli.demo_data import notes as made_up
from dpcore.engine.rehearsal import NothingToCompare
from dpcore.methods.reversible import gate, network
from dpcore.models import build_model, load_tokenizer, seeded

NAME = "reversible"
WIDTH, ADAPTER = 32, 8
COUPLINGS = (0.1, 0.3, 0.5, 0.7, 1.0)
SHAPES = ("bert", "gpt2", "llama")


def make(shape: str, depth: int) -> PreTrainedModel:
    """A random model with every layer coupled."""
    common = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    usual = {"hidden_size": WIDTH, "num_hidden_layers": depth, "num_attention_heads": 2, "intermediate_size": 4 * WIDTH}
    model: PreTrainedModel
    with seeded(0):
        if shape == "bert":
            model = BertForSequenceClassification(BertConfig(**common, **usual))
        elif shape == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(**common, n_embd=WIDTH, n_layer=depth, n_head=2))
        else:
            model = LlamaForCausalLM(LlamaConfig(**common, **usual))
        network.couple(model, width=ADAPTER, first=0)
    return model


@contextmanager
def floating(dtype: torch.dtype, coupling: float) -> Iterator[None]:
    """Inside, states are floating point, and undone by a division."""

    def advance(layer: network.Coupled, states: network.States, added: Tensor) -> tuple[Tensor, Tensor | None]:
        before, now = states.grid
        after = added.to(dtype) + (0 if before is None else coupling * before)
        states.grid = (now, after)
        return after.to(added.dtype), None

    def undo(states: network.States, added: Tensor, lost: Tensor) -> None:
        now, after = states.grid
        states.grid = ((after - added.to(dtype)) / coupling, now)

    changes: dict[str, Any] = {
        "COUPLING": coupling,
        "on_grid": lambda state: state.to(dtype),
        "off_grid": lambda state, kind: state.to(kind),
        "advance": advance,
        "undo": undo,
    }
    with patch.multiple(network, **changes):
        yield


def held(shape: str, depth: int) -> list[Figure]:
    """Of one model."""
    model, figures = make(shape, depth), []
    task = "classification" if shape == "bert" else "text"

    def measure(numbers: str, coupling: float) -> None:
        for where, by in (("start", 0.0), ("moved", 1.0)):
            name = f"{shape}/d{depth}/c{coupling:g}/{numbers}/{where}"
            try:
                found = gate.compare(model, task, by)
            except NothingToCompare:  # states have grown until a head is flat
                found = gate.Held(cosine=0.0, ratio=0.0, largest=inf)
            detail: dict[str, object] = {"holds": found.exact, "ratio": found.ratio}
            figures.append(Figure(NAME, name, found.cosine if isfinite(found.cosine) else 0.0, "cosine", None, detail))

    measure("integers", network.COUPLING)
    for coupling, (numbers, dtype) in product(COUPLINGS, (("float32", torch.float32), ("float64", torch.float64))):
        with floating(dtype, coupling):
            measure(numbers, coupling)
    return figures


def work(centring: str) -> Any:
    """F without an adapter."""

    def made(self: network.Coupled, now: Tensor, call: network.Call, states: network.States) -> Tensor:
        hidden: Tensor = self.layer(now, *call.args, **call.kwargs)
        c = network.COUPLING
        if self.first or centring == "plain":
            return hidden
        return hidden - c * now if centring == "ours" else (1 + c) * hidden - 2 * c * now

    return made


@torch.no_grad()
def start() -> list[Figure]:
    """Of the built-in model."""
    folder, figures = Path(str(files(TOKENIZER) / "model")), []
    asked = load_tokenizer(folder)([text for text, _ in made_up(64)], padding=True, return_tensors="pt")
    asked = {name: asked[name] for name in ("input_ids", "attention_mask")}
    base = build_model("classification", folder, ("a", "b"), seed=0).base_model
    real = asked["attention_mask"].bool()
    before = base(**asked).last_hidden_state[real]
    network.couple(base, width=1, first=0)
    for coupling, centring in product((network.COUPLING, *COUPLINGS), ("ours", "bend", "plain")):
        with floating(torch.float64, coupling), patch.object(network.Coupled, "work", work(centring)):
            after = base(**asked).last_hidden_state[real]
        cosine = float(F.cosine_similarity(before, after, dim=-1).mean())
        figures.append(Figure(NAME, f"start/{centring}/c{coupling:g}", cosine, "cosine"))
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the figures."""
    made = parser(__doc__)
    made.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES, help="which to run")
    made.add_argument("--depths", nargs="+", type=int, default=[6, 12, 24], help="layers (default 6 12 24)")
    options = made.parse_args(arguments)
    findings = Findings(options.json, versions("torch", "transformers"))
    for shape, depth in product(options.shapes, options.depths[:1] if options.quick else options.depths):
        findings.add(held(shape, depth))
    findings.add(start())
    findings.report()


if __name__ == "__main__":
    main()
