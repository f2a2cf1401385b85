"""Low-rank adaptation by PEFT."""

import re
from collections.abc import Mapping
from typing import Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from dpcore.export import export_peft as export
from dpcore.export import load_peft as load
from dpcore.methods.heads import head_modules
from dpcore.models import seeded
from dpcore.spec.methods.lora import Options
from dpcore.spec.tasks import CAUSAL_LM, TaskKind

__all__ = ["attach", "export", "load"]

_AUTO = {"query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "c_attn"}
"""Attention's query and value, as BERT, DistilBERT and Llama name them; GPT-2 has them in one layer with the key."""


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> PeftModel:
    """Put the thin matrices beside the adapted layers; they and a classifier's head train, all else is frozen.

    The seed drives the initialisation only. Raises ValueError when no layer has the names asked for.
    """
    chosen = Options.model_validate(options)
    causal = task in CAUSAL_LM
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    auto = chosen.target_modules == "auto"
    wanted = _auto(linear, upper_half=not causal) if auto else set(chosen.target_modules)
    unknown = {name for name in wanted if not any(f".{known}".endswith(f".{name}") for known in linear)}
    if unknown or not wanted:
        raise ValueError(f"no linear layer is called {', '.join(sorted(unknown or _AUTO))}")
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM if causal else TaskType.SEQ_CLS,
        r=chosen.r,
        lora_alpha=chosen.alpha,
        lora_dropout=chosen.dropout,
        target_modules=sorted(wanted),
        # GPT-2's layers keep their weights transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
        modules_to_save=None if causal else head_modules(model),
    )
    with seeded(seed):
        adapted = get_peft_model(model, config)
    adapted.eval()
    for name, module in adapted.named_modules():
        if name.endswith("lora_dropout.default"):
            module.train()
    return adapted


def _auto(linear: Mapping[str, nn.Module], *, upper_half: bool) -> set[str]:
    """Attention's inputs; for a classifier those of the upper half of the layers: nothing below them needs a backward
    pass, and fewer weights take less noise."""
    depth = {name: int(number[0]) for name in linear if _leaf(name) in _AUTO and (number := re.findall(r"\d+", name))}
    layers = sorted(set(depth.values()))
    kept = layers[len(layers) // 2 :] if upper_half else layers
    return {name for name, layer in depth.items() if layer in kept}


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]
