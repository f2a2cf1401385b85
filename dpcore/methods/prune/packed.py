"""Makes the pruned model of this folder, as stock transformers knows it. Needs torch, transformers and safetensors, and
peft where the folder has an adapter. Matrices are whole in memory: zeros save room in the file, and no time.

from load import load
model = load()  # load("folder of the base model") where the folder has an adapter and tacit.json names no repository
tokenizer = transformers.AutoTokenizer.from_pretrained("this folder")
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

FLOAT32 = {"dtype" if transformers.__version__ >= "5" else "torch_dtype": torch.float32}
"""transformers before 4.56 knows the old name alone."""
MASK, VALUES = ".mask", ".values"
"""After a matrix's name: one bit for each entry, from the lowest bit of each byte on, 1 where it is not zero; and the
entries that are not, in order."""
PRUNED, MASKS, WEIGHTS = "pruned.json", "masks.safetensors", "trained.safetensors"


def load(base: str | None = None, folder: str | Path = Path(__file__).parent) -> Any:
    """The fine-tuned model, in evaluation mode, float32. base: of an adapter; the other weights are all here.

    Raises ValueError for a base that the folder does not fit.
    """
    folder = Path(folder)
    if (folder / "adapter_config.json").exists():
        from peft import PeftModel

        model: Any = PeftModel.from_pretrained(load_base(base, folder), str(folder))
    else:
        model = _of_config(folder, json.loads((folder / PRUNED).read_text(encoding="utf-8"))["config"])
        _fill(model, unpacked(load_file(folder / WEIGHTS), dict(model.named_parameters())))
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()


def load_base(base: str | None = None, folder: str | Path = Path(__file__).parent) -> Any:
    """The pruned base model of an adapter: `PeftModel.from_pretrained(load_base(), folder)` is the fine-tuned one. A
    classifier's head is the adapter's. Raises ValueError for a base that the folder does not fit."""
    folder = Path(folder)
    about = json.loads((folder / "tacit.json").read_text(encoding="utf-8"))
    pruned = json.loads((folder / PRUNED).read_text(encoding="utf-8"))
    auto = AutoModelForSequenceClassification if about["labels"] else AutoModelForCausalLM
    revision = None if base else about["commit"]
    head = {"num_labels": len(about["labels"])} if about["labels"] else {}
    whole = auto.from_pretrained(
        base or about["repository"] or about["base_model"], revision=revision, **FLOAT32, **head
    )
    model = _of_config(folder, pruned["config"])
    if whole.can_generate():
        model.generation_config = whole.generation_config
    _fill(model, _renumbered(whole.state_dict(), **pruned["layers"]) if "layers" in pruned else whole.state_dict())
    if (folder / MASKS).exists():
        with torch.no_grad():
            for name, packed in load_file(folder / MASKS).items():
                weight = model.get_parameter(name.removesuffix(MASK))
                weight.masked_fill_(~unpack(packed, weight.numel()).view_as(weight), 0)
    return model.eval()


def pack(bits: Tensor) -> Tensor:
    """Bits of any shape as bytes, the last one filled up with zeros: uint8 [n / 8, rounded up]."""
    flat = bits.flatten().to(torch.uint8)
    eights = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (eights << torch.arange(8, dtype=torch.uint8, device=flat.device)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, count: int) -> Tensor:
    """The first `count` bits: bool [count]."""
    return ((packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()[:count].bool()


def packed(tensors: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors for a file: of those that are among `matrices`, by name, a mask and the entries that are not zero."""
    made = {}
    for name, tensor in tensors.items():
        if name in matrices:
            made[name + MASK], made[name + VALUES] = pack(tensor != 0), tensor[tensor != 0]
        else:
            made[name] = tensor.contiguous()
    return made


def unpacked(tensors: Mapping[str, Tensor], shaped: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was packed; shaped: tensors of the right shapes, by name."""
    made = {name: tensor for name, tensor in tensors.items() if not name.endswith((MASK, VALUES))}
    for key in tensors:
        if key.endswith(MASK):
            name = key.removesuffix(MASK)
            whole = torch.zeros(shaped[name].shape, dtype=tensors[name + VALUES].dtype)
            whole.view(-1)[unpack(tensors[key], whole.numel())] = tensors[name + VALUES]
            made[name] = whole
    return made


def _of_config(folder: Path, values: dict[str, Any]) -> Any:
    about = json.loads((folder / "tacit.json").read_text(encoding="utf-8"))
    auto = AutoModelForSequenceClassification if about["labels"] else AutoModelForCausalLM
    return auto.from_config(CONFIG_MAPPING[values["model_type"]].from_dict(values), **FLOAT32)


def _fill(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless every tensor of the model is there, or is one with another that is."""
    try:
        missing, unknown = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError("this is not the base model of the folder: its tensors have other shapes") from error
    own = model.state_dict()
    filled = {own[name].data_ptr() for name in own.keys() - set(missing)}
    lacking = [*unknown, *(name for name in missing if own[name].data_ptr() not in filled)]
    if lacking:
        raise ValueError(f"this is not the base model of the folder: {', '.join(lacking[:5])} differ")


def _renumbered(weights: Mapping[str, Tensor], path: str, kept: list[int]) -> dict[str, Tensor]:
    """The weights without the layers that were dropped; those that stay are numbered from 0."""
    new = {str(layer): str(number) for number, layer in enumerate(kept)}
    made = {}
    for name, tensor in weights.items():
        number, _, rest = name.removeprefix(f"{path}.").partition(".")
        if not name.startswith(f"{path}."):
            made[name] = tensor
        elif number in new:
            made[f"{path}.{new[number]}.{rest}"] = tensor
    return made
