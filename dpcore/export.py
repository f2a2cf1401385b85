"""What leaves: adapters in PEFT's own layout, the trained tensors with a small loader, or a whole model.

Every folder has tacit.json, which says what the weights belong to, and loads without Tacit.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dpcore import loader
from dpcore.models import build_model, load_model
from dpcore.spec.tasks import TaskKind

ABOUT, TRAINED = "tacit.json", "trained.safetensors"


@dataclass(frozen=True)
class About:
    """What an export belongs to; all of it public. base_model: what a reader loads the base model by; the sha256 is of
    its weights. labels: empty for a language model."""

    base_model: str
    base_model_sha256: str
    method: str
    task: TaskKind
    labels: tuple[str, ...]
    max_length: int

    def __post_init__(self) -> None:
        """Raises ValueError for a path as the base model's name: it means nothing elsewhere."""
        if self.base_model.startswith((".", "/", "~")):  # what lies in the working folder says nothing about a name
            raise ValueError(f"the base model needs a public name, not the path {self.base_model!r}")


def export_peft(
    model: PeftModel, folder: str | Path, about: About, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Write adapter_config.json and adapter_model.safetensors, and the tokenizer's files where one is given."""
    folder = Path(folder)
    model.peft_config["default"].base_model_name_or_path = about.base_model
    # Without an answer on embeddings, PEFT asks the hub whether the vocabulary was changed. It never is.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form to be filled in by hand
    _complete(folder, about, tokenizer)


def export_trained(
    model: nn.Module,
    folder: str | Path,
    about: About,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    loader: ModuleType = loader,
) -> None:
    """Write trained.safetensors, the trained tensors by their names in the model, and load.py, which loads them.

    loader: the module that leaves as load.py; it imports nothing of Tacit.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trained = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    save_file(trained, folder / TRAINED, metadata={"format": "pt"})
    assert loader.__file__ is not None
    shutil.copyfile(loader.__file__, folder / "load.py")
    _complete(folder, about, tokenizer)


def export_whole(
    model: PreTrainedModel, folder: str | Path, about: About, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Write the complete model as transformers does."""
    folder = Path(folder)
    model.save_pretrained(str(folder))
    _complete(folder, about, tokenizer)


def load_peft(folder: Path, base_folder: Path, about: About) -> PeftModel:
    """What `export_peft` wrote, for inference."""
    base = build_model(about.task, base_folder, about.labels, seed=0)
    return PeftModel.from_pretrained(base, str(folder)).eval()


def load_trained(folder: Path, base_folder: Path, about: About) -> PreTrainedModel:
    """What `export_trained` wrote, for inference."""
    return loader.load(str(base_folder), folder)


def load_whole(folder: Path, base_folder: Path, about: About) -> PreTrainedModel:
    """What `export_whole` wrote, for inference; the base model is not needed."""
    return load_model(about.task, folder, about.labels)


def read_about(folder: str | Path) -> About:
    """What an exported folder belongs to. Raises OSError or ValueError for a folder that is none."""
    values = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
    return About(**values | {"labels": tuple(values["labels"])})


def _complete(folder: Path, about: About, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """tacit.json, the tokenizer, and one mode for all files."""
    (folder / ABOUT).write_text(json.dumps(asdict(about), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))
    for weights in folder.glob("*.safetensors"):
        # safetensors writes for the owner alone; its siblings follow the umask.
        shutil.copymode(folder / ABOUT, weights)
