"""The three layouts of an export: how each is written and opened again."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from dpcore.export import loader
from dpcore.export.about import ABOUT, About, write_about
from dpcore.export.configs import GENERATION, tidy_adapter_config, write_generation_config, write_older_names
from dpcore.export.tokenizer import copy_tokenizer
from dpcore.models import build_model, load_model
from dpcore.pictures import PictureReader
from dpcore.readers import Reader
from dpcore.terms.folders import PREPROCESSOR
from dpcore.terms.tasks import get_kind

TRAINED = "trained.safetensors"


def export_peft(model: PeftModel, folder: str | Path, about: About, *, tokenizer: Reader | None = None) -> None:
    """Write adapter_config.json and adapter_model.safetensors, and what reads records where it is given."""
    folder = Path(folder)
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = about.loads_by, about.commit
    # Without an answer on embeddings, PEFT asks the hub whether the vocabulary was changed. It never is.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form to be filled in by hand
    tidy_adapter_config(folder)
    _complete(model, folder, about, tokenizer)


def export_trained(
    model: nn.Module,
    folder: str | Path,
    about: About,
    *,
    tokenizer: Reader | None = None,
    loader: ModuleType = loader,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write trained.safetensors, the trained tensors by their names in the model, and load.py, which loads them.

    loader: the module that leaves as load.py; it imports nothing of Tacit. tensors: what it reads instead.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trained = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    save_file(dict(trained if tensors is None else tensors), folder / TRAINED, metadata={"format": "pt"})
    assert loader.__file__ is not None
    shutil.copyfile(loader.__file__, folder / "load.py")
    _complete(model, folder, about, tokenizer)


def export_whole(model: PreTrainedModel, folder: str | Path, about: About, *, tokenizer: Reader | None = None) -> None:
    """Write the complete model as transformers does."""
    folder = Path(folder)
    model.save_pretrained(str(folder))
    if model.name_or_path:
        write_older_names(folder, Path(model.name_or_path))
    _complete(model, folder, about, tokenizer)


def load_peft(folder: Path, base_folder: Path, about: About) -> PeftModel:
    """What `export_peft` wrote, for inference."""
    base = build_model(about.task, base_folder, about.labels, seed=0)
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    if (folder / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def load_trained(folder: Path, base_folder: Path, about: About) -> PreTrainedModel:
    """What `export_trained` wrote, for inference."""
    return loader.load(str(base_folder), folder)


def load_whole(folder: Path, base_folder: Path, about: About) -> PreTrainedModel:
    """What `export_whole` wrote, for inference; the base model is not needed."""
    return load_model(about.task, folder, about.labels)


def _complete(model: Any, folder: Path, about: About, tokenizer: Reader | None) -> None:
    """tacit.json, what reads records and where to stop, and one mode for all files."""
    write_about(folder, about)
    if isinstance(tokenizer, PictureReader):
        shutil.copyfile(Path(tokenizer.name_or_path) / PREPROCESSOR, folder / PREPROCESSOR)
    elif tokenizer is not None:
        kind, padding = get_kind(about.task), tokenizer.pad_token_id
        if padding is None:  # a classifier's own, as in training; a language model's needs one to be asked in batches
            padding = tokenizer.eos_token_id if kind.causal_lm else model.config.pad_token_id
        copy_tokenizer(tokenizer, folder, padding=padding)
        if kind.causal_lm:
            base = Path(tokenizer.name_or_path)
            write_generation_config(folder, base, tokenizer, padding=padding, chat=kind.chat_template)
    for weights in folder.glob("*.safetensors"):
        # safetensors writes for the owner alone; its siblings follow the umask.
        shutil.copymode(folder / ABOUT, weights)
