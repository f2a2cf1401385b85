"""Bias-only fine-tuning, and everything before it where that is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.export import About, export_trained, export_whole, load_trained, load_whole
from dpcore.export.folders import TRAINED
from dpcore.methods import full
from dpcore.methods.heads import head_modules
from dpcore.methods.plain import between, learns
from dpcore.methods.unused import freeze_unused
from dpcore.readers import Reader
from dpcore.terms.methods.bitfit import Options
from dpcore.terms.program import Phase
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["attach", "begin", "between", "export", "learns", "load"]

_WHOLE = "_tacit_trained_everything"
"""Set on a model of which every weight trains before the biases do."""


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> PreTrainedModel:
    """Every bias that a loss can depend on trains, and a classifier's head; all else is frozen. Nothing is drawn from
    the seed.

    Raises ValueError when the base model has no such bias.
    """
    if Options.model_validate(options).full_steps:
        setattr(model, _WHOLE, True)
    _train_biases(model, task)
    return model


def begin(model: nn.Module, phase: Phase, kept: Mapping[str, Tensor], *, task: TaskKind) -> None:
    """Everything trains in the phase that trains as `full` does, the biases in the other."""
    if phase.trains == "full":
        full.attach(model, {}, task=task, seed=0)
    else:
        _train_biases(model, task)


def _train_biases(model: Any, task: TaskKind) -> None:
    heads = () if task in CAUSAL_LM else tuple(f"{name}." for name in head_modules(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(heads) or name.endswith(".bias"))
    freeze_unused(model, task)
    if not any(p.requires_grad for name, p in model.named_parameters() if not name.startswith(heads)):
        raise ValueError("the model has no biases, so there is nothing to train")


def export(model: Any, folder: str | Path, about: About, *, tokenizer: Reader | None = None) -> None:
    """The biases and the head; the whole model where all of it trained."""
    write = export_whole if getattr(model, _WHOLE, False) else export_trained
    write(model, folder, about, tokenizer=tokenizer)


def load(folder: Path, base_folder: Path, about: About) -> PreTrainedModel:
    """What `export` wrote, for inference."""
    return (load_trained if (folder / TRAINED).is_file() else load_whole)(folder, base_folder, about)
