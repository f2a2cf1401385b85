"""Public facts about a base model, read from its folder without loading a weight."""

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dpcore.spec.tasks import TaskKind


class ModelFacts(BaseModel):
    """Sizes and abilities that defaults, memory formulas and checks rest on. All are properties of a public model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    max_positions: int = Field(ge=1)
    causal_lm: bool = Field(default=False, description="whether the folder holds a causal language model with its head")
    chat_template: bool = Field(default=False, description="whether the tokenizer brings one")
    biases: int | None = Field(default=None, description="values in biases; None where the weights are not at hand")
    linear: tuple[str, ...] | None = Field(default=None, description="linear layers by name; None where not known")

    @property
    def tasks(self) -> tuple[TaskKind, ...]:
        """The kinds of task that the model can be trained for: any model gets a classifier's head."""
        writes: tuple[TaskKind, ...] = ("completion", "chat", "text") if self.chat_template else ("completion", "text")
        return ("classification", "pair", *(writes if self.causal_lm else ()))

    @property
    def parameters(self) -> int:
        """Weights of a transformer of this shape, biases and norms left out."""
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        return self.layers * layer + (self.vocab_size + self.max_positions) * self.hidden_size


# Configurations name the same thing differently: BERT, RoBERTa and Llama first, then DistilBERT, then GPT-2.
_NAMES = {
    "hidden_size": ("hidden_size", "dim", "n_embd"),
    "intermediate_size": ("intermediate_size", "hidden_dim", "n_inner"),
    "layers": ("num_hidden_layers", "n_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings", "n_positions"),
}
_COUNT_FROM_PADDING = ("camembert", "roberta", "xlm-roberta")
"""Models whose first position comes after that of the padding token: RoBERTa's 514 positions hold 512 tokens."""
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_NAMED_AS_IN_FILE = {
    *("albert", "bert", "camembert", "distilbert", "roberta", "xlm-roberta"),
    *("gpt2", "llama", "qwen2", "qwen3"),
}
"""Models whose layers are called as their weights are in the file. transformers renames others' as it loads them."""
_TABLES = ("embedding", "embeddings", "embed_tokens", "wte", "wpe")
"""Matrices of these names are no linear layers."""
_HEADER_BYTES = 100_000_000
"""safetensors' own limit on a header."""


def read_facts(folder: str | Path) -> ModelFacts:
    """Facts of the model in a folder. Raises ValueError naming the first value that its config.json lacks."""
    folder = Path(folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values: dict[str, Any] = {"model_type": config.get("model_type", "unknown")}
    for name, spellings in _NAMES.items():
        found = next((config[s] for s in spellings if config.get(s) is not None), None)
        if found is None and name == "intermediate_size" and "hidden_size" in values:
            found = 4 * values["hidden_size"]  # GPT-2's rule for a missing n_inner
        if found is None:
            raise ValueError(f"config.json of the model gives no {name}")
        values[name] = found
    if values["model_type"] in _COUNT_FROM_PADDING:
        values["max_positions"] -= config.get("pad_token_id", 1) + 1
    causal_lm = any(str(name).endswith(_CAUSAL) for name in config.get("architectures") or ())
    shapes = _read_shapes(folder / "model.safetensors")
    return ModelFacts(
        **values,
        causal_lm=causal_lm,
        chat_template=_has_chat_template(folder),
        biases=None if shapes is None else sum(prod(s) for name, s in shapes.items() if name.endswith(".bias")),
        linear=_linear(shapes, causal_lm=causal_lm) if shapes and values["model_type"] in _NAMED_AS_IN_FILE else None,
    )


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))


def _linear(shapes: Mapping[str, Sequence[int]], *, causal_lm: bool) -> tuple[str, ...]:
    """Layers whose weight is a matrix and no table. A head that is one with the embedding is not in the file."""
    layers = (name.removesuffix(".weight") for name, s in shapes.items() if name.endswith(".weight") and len(s) == 2)
    found = {layer for layer in layers if not layer.endswith(_TABLES)}
    return tuple(sorted(found | {"lm_head"} if causal_lm else found))


def _read_shapes(weights: Path) -> dict[str, list[int]] | None:
    """Shapes of tensors by name, from the header of a safetensors file: its length, then names and shapes."""
    if not weights.is_file():
        return None
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_BYTES:
            raise ValueError("model.safetensors has no valid header")
        header: dict[str, Any] = json.loads(file.read(length))
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
