"""Puts the tensors of this folder into their base model. Needs torch, transformers and safetensors, nothing else.

from load import load
model = load("folder of the base model")  # left out: the public name that tacit.json gives
tokenizer = transformers.AutoTokenizer.from_pretrained("this folder")
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification


def load(base: str | None = None, folder: str | Path = Path(__file__).parent) -> Any:
    """The fine-tuned model, in evaluation mode, float32. Raises ValueError for a base that the tensors do not fit."""
    folder = Path(folder)
    about = json.loads((folder / "tacit.json").read_text(encoding="utf-8"))
    labels = dict(enumerate(about["labels"]))
    if labels:
        auto, head = (
            AutoModelForSequenceClassification,
            {"id2label": labels, "label2id": {n: i for i, n in labels.items()}},
        )
    else:
        auto, head = AutoModelForCausalLM, {}
    model = auto.from_pretrained(base or about["base_model"], dtype=torch.float32, **head)
    trained = load_file(folder / "trained.safetensors")
    unknown = model.load_state_dict(trained, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"this is not the base model of the folder: it has no {', '.join(unknown)}")
    return model.eval()
