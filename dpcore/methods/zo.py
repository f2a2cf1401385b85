"""Zeroth order: what trains is LoRA's or everything; that no gradient is taken is the estimator's doing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from dpcore.export import About, export_peft, export_whole, load_peft, load_whole
from dpcore.methods import full, lora
from dpcore.methods.plain import begin, between, learns
from dpcore.readers import Reader
from dpcore.terms.methods.zo import Options
from dpcore.terms.tasks import TaskKind

__all__ = ["attach", "begin", "between", "export", "learns", "load"]


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> nn.Module:
    """As `lora` or as `full` does."""
    wanted = Options.model_validate(options)
    adapts = wanted.weights == "lora"
    attached: nn.Module = (
        lora.attach(model, wanted.lora.model_dump(mode="json"), task=task, seed=seed)
        if adapts
        else full.attach(model, {}, task=task, seed=seed)
    )
    return attached


def export(model: Any, folder: str | Path, about: About, *, tokenizer: Reader | None = None) -> None:
    """PEFT's layout for an adapter, the whole model otherwise."""
    write = export_peft if isinstance(model, PeftModel) else export_whole
    write(model, folder, about, tokenizer=tokenizer)


def load(folder: Path, base_folder: Path, about: About) -> nn.Module:
    """What `export` wrote, for inference."""
    read = load_peft if (folder / "adapter_config.json").is_file() else load_whole
    model: nn.Module = read(folder, base_folder, about)
    return model
