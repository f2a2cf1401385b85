"""What a pruned model leaves, and how it is loaded: a smaller model as transformers writes it, matrices as bits and
what is not zero, or an adapter with what makes its pruned base. packed.py is the loader of the latter two."""

import json
import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.export import About, export_peft, export_trained, export_whole, load_whole
from dpcore.export.configs import write_older_names
from dpcore.methods.layers import find_layers
from dpcore.methods.prune import packed
from dpcore.methods.prune.masks import prunable
from dpcore.methods.prune.plan import Plan, plan_of
from dpcore.readers import Reader

_NO_BASE = "the pruned base model that load.py of this folder makes"
"""In place of a base model's name in an adapter's configuration: on the whole one its answers would be wrong."""


def export(model: Any, folder: str | Path, about: About, *, tokenizer: Reader | None = None) -> None:
    """An adapter in PEFT's layout and what makes its base; the smaller model; or the packed weights."""
    folder, plan = Path(folder), plan_of(model)
    if isinstance(model, PeftModel):
        export_peft(model, folder, about, tokenizer=tokenizer)
        _leave_base(model, folder, plan)
    elif plan.options.kind == "structured":
        export_whole(model, folder, about, tokenizer=tokenizer)
    else:
        export_packed(model, folder, about, tokenizer=tokenizer)


def export_packed(model: PreTrainedModel, folder: Path, about: About, *, tokenizer: Reader | None = None) -> None:
    """A whole model, the zeros of its layers' matrices a bit each, and its loader."""
    tensors = packed.packed(_state(model), prunable(model))
    export_trained(model, folder, about, tokenizer=tokenizer, loader=packed, tensors=tensors)
    _write(folder, {"config": _config(model, folder)})


def load(folder: Path, base_folder: Path, about: About) -> nn.Module:
    """What `export` wrote, for inference."""
    if (folder / packed.PRUNED).is_file():
        model: nn.Module = packed.load(str(base_folder), folder)
        return model
    whole: nn.Module = load_whole(folder, base_folder, about)
    return whole


def _leave_base(model: PeftModel, folder: Path, plan: Plan) -> None:
    """Beside an adapter: what makes its base of the public one, and no name that would load the whole one instead."""
    base: PreTrainedModel = model.get_base_model()
    made: dict[str, Any] = {"config": _config(base, folder)}
    if plan.options.kind == "structured":
        made["layers"] = {"path": find_layers(base)[0], "kept": [*plan.left]}
    else:
        bits = {name + packed.MASK: packed.pack(~mask).cpu() for name, mask in plan.masks.items()}
        save_file(bits, folder / packed.MASKS, metadata={"format": "pt"})
        shutil.copymode(folder / "tacit.json", folder / packed.MASKS)
    _write(folder, made)
    assert packed.__file__ is not None
    shutil.copyfile(packed.__file__, folder / "load.py")
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": _NO_BASE, "revision": None}
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The model's tensors by name, each once: of tied ones the first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        found.setdefault(tensor.data_ptr(), (name, tensor.detach().cpu()))
    return dict(found.values())


def _config(model: PreTrainedModel, folder: Path) -> dict[str, Any]:
    """The model's config.json as an export of the whole has it, without the file: no weights stand beside it."""
    model.config.save_pretrained(str(folder))
    if model.name_or_path:
        write_older_names(folder, Path(model.name_or_path))
    path = folder / "config.json"
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return values


def _write(folder: Path, made: dict[str, Any]) -> None:
    path = folder / packed.PRUNED
    path.write_text(json.dumps(made, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
