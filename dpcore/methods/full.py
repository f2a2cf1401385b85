"""Full fine-tuning."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from dpcore.export import export_whole as export
from dpcore.export import load_whole as load
from dpcore.methods.plain import begin, between, learns
from dpcore.methods.unused import freeze_unused
from dpcore.terms.methods.full import Options
from dpcore.terms.tasks import TaskKind

__all__ = ["attach", "begin", "between", "export", "learns", "load"]


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> PreTrainedModel:
    """Every weight that a loss can depend on trains. Nothing is drawn from the seed."""
    Options.model_validate(options)
    freeze_unused(model.requires_grad_(True), task)
    return model
