"""Low-rank adaptation by PEFT."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from dpcore.export import export_peft as export
from dpcore.export import load_peft as load
from dpcore.methods.heads import head_modules
from dpcore.methods.plain import begin, between, learns
from dpcore.methods.unused import freeze_unused
from dpcore.models import seeded
from dpcore.terms.methods.lora import ALL, AUTO, Options, names
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["attach", "begin", "between", "export", "learns", "load"]

_QUERY_AND_VALUE = {"query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "c_attn"}
"""Attention's query and value, as BERT, DistilBERT and Llama name them; GPT-2 has them in one layer with the key."""


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> PeftModel:
    """Put the thin matrices beside the adapted layers; they and a classifier's head train, all else is frozen.

    The seed drives the initialisation only. Raises ValueError when no layer has the names asked for, for a head that is
    one with the embedding, and where no loss depends on what would train.
    """
    chosen = Options.model_validate(options)
    causal = task in CAUSAL_LM
    heads = [] if causal else head_modules(model)
    linear = _adaptable(model, heads)
    if chosen.target_modules == AUTO:
        wanted: Collection[str] = _auto(model, linear, upper_half=not causal)
    elif chosen.target_modules == ALL:
        wanted = _without_output(model, linear)
    else:
        wanted = _named(model, linear, names(chosen))
    if not wanted:
        raise ValueError(f"{type(model).__name__} has no linear layer that lora can adapt; full trains it")
    layers = {name: module for name, module in linear.items() if _is_called(name, wanted)}
    _require_untied(model, layers)
    config = LoraConfig(
        task_type=_task_type(model, causal=causal),
        r=chosen.r,
        lora_alpha=chosen.alpha,
        lora_dropout=chosen.dropout,
        target_modules=sorted(wanted),
        # GPT-2's layers keep their weights transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in layers.values()),
        modules_to_save=None if causal else heads,
    )
    with seeded(seed):
        adapted = get_peft_model(model, config)
    adapted.eval()
    freeze_unused(adapted, task)
    if not any(p.requires_grad for name, p in adapted.named_parameters() if ".lora_" in name):
        raise ValueError("no loss depends on the layers of target_modules, so there is nothing to train")
    for name, module in adapted.named_modules():
        if name.endswith("lora_dropout.default"):
            module.train()
    return adapted


def _task_type(model: PreTrainedModel, *, causal: bool) -> TaskType | None:
    """What PEFT calls the task; it has no name for pictures."""
    if model.main_input_name == "pixel_values":
        return None
    return TaskType.CAUSAL_LM if causal else TaskType.SEQ_CLS


def _adaptable(model: PreTrainedModel, heads: Collection[str]) -> dict[str, nn.Module]:
    """Linear layers outside the head that PEFT can adapt, by name, in the model's order."""
    inside = tuple(f"{head}." for head in heads)
    # torch's own attention reads the weights of its layers, and never calls them.
    inside += tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention))
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not f"{name}.".startswith(inside) and _peft_takes(model, name)
    }


def _peft_takes(model: PreTrainedModel, name: str) -> bool:
    """PEFT refuses the layers whose weights Mamba's kernels read."""
    try:
        _check_lora_target_modules_mamba(LoraConfig(), model, name.rpartition(".")[2])
    except ValueError:
        return False
    return True


def _auto(model: PreTrainedModel, linear: Mapping[str, nn.Module], *, upper_half: bool) -> set[str]:
    """Attention's query and value; where a model names none so, what PEFT knows of its type; else every layer.

    For a classifier those of the upper half of the layers: nothing below them needs a backward pass, and fewer weights
    take less noise.
    """
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type, ())
    found = (
        {name for name in linear if _leaf(name) in _QUERY_AND_VALUE}
        or {name for name in linear if (re.fullmatch(known, name) if isinstance(known, str) else _leaf(name) in known)}
        or _without_output(model, linear)
    )
    depth = {name: int(number[1]) for name in found if (number := re.search(r"\.(\d+)\.", name))}
    if not depth:
        return found
    layers = sorted(set(depth.values()))
    kept = layers[len(layers) // 2 :] if upper_half else layers
    return {name for name, layer in depth.items() if layer in kept}


def _without_output(model: PreTrainedModel, linear: Mapping[str, nn.Module]) -> set[str]:
    """All but a language model's head."""
    output = model.get_output_embeddings()
    return {name for name, module in linear.items() if module is not output}


def _named(model: PreTrainedModel, linear: Mapping[str, nn.Module], wanted: Collection[str]) -> Collection[str]:
    """The names as they were asked for, or the layers themselves where a name would also hit the head's."""
    unknown = [name for name in wanted if not any(_is_called(layer, [name]) for layer in linear)]
    if unknown:
        there = ", ".join(sorted({_leaf(layer) for layer in linear}))
        raise ValueError(f"no linear layer is called {', '.join(sorted(unknown))}; there are: {there}")
    hit = {name for name, _ in model.named_modules() if _is_called(name, wanted)}
    return wanted if hit <= linear.keys() else hit & linear.keys()


def _require_untied(model: PreTrainedModel, layers: Mapping[str, nn.Module]) -> None:
    """Raises ValueError for a layer whose weights are another's too: merged, the update would change both."""
    shared = Counter(id(module.weight) for module in model.modules() if hasattr(module, "weight"))
    for name, module in layers.items():
        if shared[id(module.weight)] > 1:
            raise ValueError(
                f"{name} and another layer, as the embedding, are one matrix (tie_word_embeddings), so that an adapter "
                "of it cannot be merged; leave it out of target_modules"
            )


def _is_called(layer: str, names: Collection[str]) -> bool:
    return any(f".{layer}".endswith(f".{name}") for name in names)


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]
