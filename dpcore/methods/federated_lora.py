"""LoRA over several silos: what is attached, and what leaves. The rounds are `dpcore.federated`'s; a program of this
method that is run by itself is one silo without the others."""

from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from dpcore.export import export_peft as export
from dpcore.export import load_peft as load
from dpcore.federated import silo
from dpcore.methods.plain import begin, between, learns
from dpcore.terms.methods.federated_lora import Options
from dpcore.terms.tasks import TaskKind

__all__ = ["attach", "begin", "between", "export", "learns", "load"]


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> PeftModel:
    """As LoRA; what no round trains is frozen. Raises ValueError."""
    return silo.attach(model, Options.model_validate(options), task=task, seed=seed)
