"""Bias-only fine-tuning."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from dpcore.export import export_trained as export
from dpcore.export import load_trained as load
from dpcore.methods.heads import head_modules
from dpcore.methods.unused import freeze_unused
from dpcore.terms.methods.bitfit import Options
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["attach", "export", "load"]


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> PreTrainedModel:
    """Every bias that a loss can depend on trains, and a classifier's head; all else is frozen. Nothing is drawn from
    the seed.

    Raises ValueError when the base model has no such bias.
    """
    Options.model_validate(options)
    heads = () if task in CAUSAL_LM else tuple(f"{name}." for name in head_modules(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(heads) or name.endswith(".bias"))
    freeze_unused(model, task)
    if not any(p.requires_grad for name, p in model.named_parameters() if not name.startswith(heads)):
        raise ValueError("the model has no biases, so there is nothing to train")
    return model
