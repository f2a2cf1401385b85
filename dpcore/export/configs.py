"""Configurations of an export: the base model's own, as far as it has one, with what the job decided."""

import json
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import PreTrainedTokenizerBase

from dpcore.export.versions import LORA_FIELDS
from dpcore.tasks.chat_template import Chat

GENERATION = "generation_config.json"


def tidy_adapter_config(folder: Path) -> None:
    """Leave out what the oldest release does not know where it says nothing, and put what is a set in an order."""
    path = folder / "adapter_config.json"
    config, default = _read(path), LoraConfig().to_dict()
    kept = {key: value for key, value in config.items() if key in LORA_FIELDS or value != default.get(key)}
    for key in ("target_modules", "modules_to_save"):
        if isinstance(kept.get(key), list):
            kept[key] = sorted(set(kept[key]))
    _write(path, kept)


def write_older_names(folder: Path, base: Path) -> None:
    """Add to config.json what the base model's own has besides: releases before transformers 5 read other names."""
    saved = _read(folder / "config.json")
    own = _read(base / "config.json") if (base / "config.json").is_file() else {}
    older = {key: value for key, value in own.items() if key not in ("_name_or_path", "num_labels")}
    _write(folder / "config.json", older | saved | {"torch_dtype": "float32"})


def write_generation_config(
    folder: Path, base: Path, tokenizer: PreTrainedTokenizerBase, *, padding: int | None, chat: bool
) -> None:
    """The base model's generation_config.json, with every token that ends what the model was taught to write."""
    own = _read(base / GENERATION) if (base / GENERATION).is_file() else {}
    before = own.get("eos_token_id")
    ends = before if isinstance(before, list) else [before]
    ends = [*ends, tokenizer.eos_token_id, *(Chat(tokenizer).ends() if chat else [])]
    own["eos_token_id"] = sorted({end for end in ends if end is not None})
    if own.get("pad_token_id") is None and padding is not None:
        own["pad_token_id"] = padding
    _write(folder / GENERATION, own)


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
