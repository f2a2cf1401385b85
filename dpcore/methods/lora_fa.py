"""LoRA whose first matrices stay as they were drawn."""

from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from dpcore.export import export_peft as export
from dpcore.export import load_peft as load
from dpcore.methods import lora
from dpcore.methods.plain import begin, between, learns
from dpcore.terms.tasks import TaskKind

__all__ = ["attach", "begin", "between", "export", "learns", "load"]


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> PeftModel:
    """As LoRA, with every first matrix frozen: a resumed attempt draws the same again from the seed."""
    adapted = lora.attach(model, options, task=task, seed=seed)
    for name, parameter in adapted.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)
    return adapted
