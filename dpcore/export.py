"""Adapters in PEFT's own layout, which stock transformers and peft load."""

import os
import shutil
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export_adapter(
    model: PeftModel,
    folder: str | Path,
    *,
    base_model_name: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Write adapter_config.json and adapter_model.safetensors, and the tokenizer's files where one is given.

    base_model_name: what a reader loads the base model by. Raises ValueError for a path: it means nothing elsewhere.
    """
    if base_model_name.startswith((".", "/", "~")) or os.path.exists(base_model_name):
        raise ValueError(f"base_model_name must be a public name, not the path {base_model_name!r}")
    folder = Path(folder)
    model.peft_config["default"].base_model_name_or_path = base_model_name
    # Without an answer on embeddings, PEFT asks the hub whether the vocabulary was changed. It never is.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    # safetensors writes for the owner alone; the sibling follows the umask.
    shutil.copymode(folder / "adapter_config.json", folder / "adapter_model.safetensors")
    (folder / "README.md").unlink(missing_ok=True)  # a form to be filled in by hand
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))


def load_adapter(base: PreTrainedModel, folder: str | Path) -> PeftModel:
    """An exported adapter on its base model, for inference."""
    return PeftModel.from_pretrained(base, str(folder)).eval()
