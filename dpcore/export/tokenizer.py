"""The tokenizer of an export: the base model's own files, which any release reads that reads the base."""

import json
import shutil
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from dpcore.export.versions import TOKENIZER_CLASSES
from dpcore.terms.folders import TOKENIZER


def copy_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, *, padding: int | None) -> None:
    """Copy the files of a tokenizer, and name its padding token.

    padding: the number of that token. Raises ValueError for a tokenizer that was not loaded from a folder.
    """
    source = Path(tokenizer.name_or_path)
    if not tokenizer.name_or_path or not source.is_dir():
        raise ValueError("the tokenizer was not loaded from a folder, so its files cannot be exported")
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for place in ("name_or_path", "special_tokens_map_file", "tokenizer_file"):  # of whoever saved the base
        config.pop(place, None)
    named = config.get("tokenizer_class", type(tokenizer).__name__)
    config["tokenizer_class"] = TOKENIZER_CLASSES.get(named, named)
    # What a class gives a model by default is not the same in every release.
    config["model_input_names"] = list(tokenizer.model_input_names)
    if isinstance(config.get("extra_special_tokens"), list):  # a dictionary, or nothing, before transformers 5
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if isinstance(tokenizer.chat_template, str):  # releases before transformers 4.52 read it here alone
        config["chat_template"] = tokenizer.chat_template
    if padding is not None:
        config["pad_token"] = tokenizer.convert_ids_to_tokens(padding)
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
