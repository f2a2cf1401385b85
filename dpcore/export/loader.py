"""Puts the tensors of this folder into their base model. Needs torch, transformers and safetensors, nothing else.

from load import load
model = load("folder of the base model")  # left out: the hub's repository that tacit.json names
tokenizer = transformers.AutoTokenizer.from_pretrained("this folder")  # of pictures: AutoImageProcessor
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

FLOAT32 = {"dtype" if transformers.__version__ >= "5" else "torch_dtype": torch.float32}
"""transformers before 4.56 knows the old name alone."""


def load(base: str | None = None, folder: str | Path = Path(__file__).parent) -> Any:
    """The fine-tuned model, in evaluation mode, float32. Raises ValueError for a base that the tensors do not fit."""
    folder = Path(folder)
    about = json.loads((folder / "tacit.json").read_text(encoding="utf-8"))
    labels = dict(enumerate(about["labels"]))
    auto = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    head: dict[str, Any] = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}} if labels else {}
    if (folder / "preprocessor_config.json").exists():  # of pictures; most come with a head of other labels
        auto, head = AutoModelForImageClassification, head | {"ignore_mismatched_sizes": True}
    revision = None if base else about["commit"]
    base = base or about["repository"] or about["base_model"]
    model = auto.from_pretrained(base, revision=revision, **FLOAT32, **head)
    if labels and (folder / "tokenizer_config.json").exists() and model.config.pad_token_id is None:
        # A decoder reads the last token that is not padding, and needs to know what padding is.
        model.config.pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    trained = load_file(folder / "trained.safetensors")
    unknown = model.load_state_dict(trained, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"this is not the base model of the folder: it has no {', '.join(unknown)}")
    return model.eval()
