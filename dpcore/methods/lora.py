"""Low-rank adaptation by PEFT."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from dpcore.models import seeded
from dpcore.spec.methods.lora import Options

_AUTO = {"query", "value", "q_lin", "v_lin", "q_proj", "v_proj"}
"""Attention's query and value, as BERT, DistilBERT and newer models name them."""


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, seed: int) -> PeftModel:
    """Put the thin matrices beside the adapted layers; they and the head train, all else is frozen.

    The seed drives the initialisation only. Raises ValueError when no layer has the names asked for.
    """
    chosen = Options.model_validate(options)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    wanted = _upper_half(linear) if chosen.target_modules == "auto" else set(chosen.target_modules)
    unknown = {name for name in wanted if not any(f".{known}".endswith(f".{name}") for known in linear)}
    if unknown or not wanted:
        raise ValueError(f"no linear layer is called {', '.join(sorted(unknown or _AUTO))}")
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=chosen.r,
        lora_alpha=chosen.alpha,
        lora_dropout=chosen.dropout,
        target_modules=sorted(wanted),
        # The whole head is new, so all of it trains and is exported: DistilBERT's has two layers.
        modules_to_save=[
            name
            for name, child in model.named_children()
            if name != model.base_model_prefix and any(True for _ in child.parameters())
        ],
    )
    with seeded(seed):
        adapted = get_peft_model(model, config)
    adapted.eval()
    for name, module in adapted.named_modules():
        if name.endswith("lora_dropout.default"):
            module.train()
    return adapted


def _upper_half(linear: Sequence[str]) -> set[str]:
    """Query and value of the upper half of the layers: nothing below them needs a backward pass, and fewer weights
    take less noise."""
    depth = {name: int(number[0]) for name in linear if _leaf(name) in _AUTO and (number := re.findall(r"\d+", name))}
    layers = sorted(set(depth.values()))
    return {name for name, layer in depth.items() if layer in layers[len(layers) // 2 :]}


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]
