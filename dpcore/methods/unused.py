"""Parameters that no loss can depend on, such as a pooler that the head does not read: they cannot train."""

import torch
from torch import nn
from transformers import PreTrainedConfig

from dpcore.models import seeded
from dpcore.terms.tasks import CAUSAL_LM, TaskKind
from dpcore.tokenizers import padding_of, table_rows

_LENGTH = 8
_CHARACTERS = 64  # where there is no table: letters and the like


def freeze_unused(model: nn.Module, task: TaskKind) -> tuple[str, ...]:
    """Freeze the trainable parameters from which no path leads to the logits of a made-up record; returns their names.

    Told by the graph alone: a gradient that is zero is one. Of a model that does not run on one short record nothing is
    known and nothing frozen: the rehearsal runs it in the shapes of training.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        return ()
    config: PreTrainedConfig = model.config
    inputs: dict[str, torch.Tensor] = {"pixel_values": _picture(config)}
    if getattr(model, "main_input_name", "input_ids") != "pixel_values":
        inputs = {"input_ids": made_up(config), "attention_mask": torch.ones(1, _LENGTH, dtype=torch.int64)}
    # RWKV writes into what it remembers, and training needs no memory.
    cache = {"use_cache": False} if task in CAUSAL_LM else {}
    # Dropout draws; the generators outside stay as they are.
    with seeded(0), torch.enable_grad():
        try:
            logits = model(**inputs, **cache).logits
            parts = torch.autograd.grad(logits.sum(), list(trainable.values()), allow_unused=True)
        except Exception:  # noqa: BLE001  (a model's own code raises as it likes)
            return ()
    unused = tuple(name for name, part in zip(trainable, parts, strict=True) if part is None)
    for name in unused:
        trainable[name].requires_grad_(False)
    return unused


def _picture(config: PreTrainedConfig) -> torch.Tensor:
    """One [1, channels, side, side] that grows brighter, of the size that the model was made for."""
    side, channels = (int(getattr(config, name, usual)) for name, usual in (("image_size", 224), ("num_channels", 3)))
    return torch.linspace(0, 1, channels * side * side).view(1, channels, side, side)


def made_up(config: PreTrainedConfig) -> torch.Tensor:
    """One record [1, 8] of tokens that mean nothing, the end token last and only there: BART and T5 read it there."""
    ends = getattr(config, "eos_token_id", None)
    special = {padding_of(config), *(ends if isinstance(ends, list) else [ends])}
    rows = table_rows(config) or _CHARACTERS
    tokens = [token for token in range(rows) if token not in special][-_LENGTH:] or [0]
    record = [tokens[i % len(tokens)] for i in range(_LENGTH)]
    end = next((token for token in (ends if isinstance(ends, list) else [ends]) if token is not None), None)
    if end is not None and 0 <= end < rows:
        record[-1] = end
    return torch.tensor([record])
