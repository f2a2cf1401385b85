"""Public facts about a base model, read from its configuration file without loading a weight."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ModelFacts(BaseModel):
    """Sizes that defaults and memory formulas depend on. All are properties of a public model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    max_positions: int = Field(ge=1)

    @property
    def parameters(self) -> int:
        """Weights of an encoder of this shape, biases and norms left out."""
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        return self.layers * layer + (self.vocab_size + self.max_positions) * self.hidden_size


# Configurations name the same thing differently: BERT and RoBERTa first, then DistilBERT, then GPT-2.
_NAMES = {
    "hidden_size": ("hidden_size", "dim", "n_embd"),
    "intermediate_size": ("intermediate_size", "hidden_dim", "n_inner"),
    "layers": ("num_hidden_layers", "n_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings", "n_positions"),
}


def read_facts(folder: str | Path) -> ModelFacts:
    """Facts of the model in a folder. Raises ValueError naming the first value that its config.json lacks."""
    config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    values: dict[str, Any] = {"model_type": config.get("model_type", "unknown")}
    for name, spellings in _NAMES.items():
        found = next((config[s] for s in spellings if config.get(s) is not None), None)
        if found is None and name == "intermediate_size" and "hidden_size" in values:
            found = 4 * values["hidden_size"]  # GPT-2's rule for a missing n_inner
        if found is None:
            raise ValueError(f"config.json of the model gives no {name}")
        values[name] = found
    return ModelFacts(**values)
