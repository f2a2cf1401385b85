"""How each layout of an export is loaded with stock libraries, as the card says it; tests run these very lines."""

from pathlib import Path
from typing import Literal

from dpcore.export.about import About
from dpcore.terms.tasks import get_kind

AdapterLayout = Literal["peft", "trained", "whole", "beside"]
"""beside: an adapter of PEFT's beside a load.py, which makes the base model that it is for."""

_IMPORTS = {
    "peft": "import json\n\nimport torch\nfrom peft import PeftModel\n",
    "trained": "import sys\n\n",
    "whole": "import torch\n",
    "beside": "import sys\n\n",
}
_BASE = {
    "image": """labels = json.load(open(f"{adapter}/tacit.json", encoding="utf-8"))["labels"]
settings = {
    "id2label": dict(enumerate(labels)),
    "label2id": {label: i for i, label in enumerate(labels)},
    "ignore_mismatched_sizes": True,  # most come with a head of other labels
    "torch_dtype": torch.float32,
}
model = AutoModelForImageClassification.from_pretrained(base, revision=revision, **settings)
model = PeftModel.from_pretrained(model, adapter).eval()
""",
    "text": """labels = json.load(open(f"{adapter}/tacit.json", encoding="utf-8"))["labels"]
settings = {
    "id2label": dict(enumerate(labels)),
    "label2id": {label: i for i, label in enumerate(labels)},
    "pad_token_id": tokenizer.pad_token_id,
    "torch_dtype": torch.float32,
}
model = AutoModelForSequenceClassification.from_pretrained(base, revision=revision, **settings)
model = PeftModel.from_pretrained(model, adapter).eval()
""",
    "writes": """model = AutoModelForCausalLM.from_pretrained(base, revision=revision, torch_dtype=torch.float32)
model = PeftModel.from_pretrained(model, adapter).eval()
model.generation_config = GenerationConfig.from_pretrained(adapter)  # which tokens end an answer
""",
}
_PRUNED = {
    "trained": (
        "Entries of the layers' matrices that are zero take one bit in it, which makes for a smaller file. In memory "
        "the model is whole and no faster: dense kernels multiply by zero as by any number. No base model is needed."
    ),
    "whole": "It has fewer layers than its base: it is smaller, and faster by as much.",
    "beside": (
        "The adapter belongs to a pruned base model, which `load_base()` of `load.py` makes of the public one: "
        "`PeftModel.from_pretrained(load_base(), adapter)`. On the whole one it loads too, and answers wrongly. A base "
        "without some of its layers is smaller and faster; one with zeros in its matrices is neither in memory."
    ),
}
"""What of a pruned model is smaller and faster, by layout."""
_WRITES = """written = model.generate(asked["input_ids"], attention_mask=asked["attention_mask"], max_new_tokens=64)
print(tokenizer.decode(written[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def layout_of(folder: Path) -> AdapterLayout:
    """What kind of export a folder holds."""
    loads = (folder / "load.py").is_file()
    if (folder / "adapter_config.json").is_file():
        return "beside" if loads else "peft"
    return "trained" if loads else "whole"


def snippet(layout: AdapterLayout, about: About) -> str:
    """A program that loads an export and asks it something."""
    kind = get_kind(about.task)
    writes = kind.causal_lm
    auto, reader = _classes(about)
    names = [reader, *([auto] if layout in ("peft", "whole") else []), *([] if writes else ["pipeline"])]
    if writes and layout == "peft":
        names.append("GenerationConfig")
    lines = _IMPORTS[layout] + f"from transformers import {', '.join(sorted(names, key=str.casefold))}\n\n"
    lines += 'adapter = "."  # this folder\n'
    if layout != "whole":
        lines += f"base = {about.loads_by!r}\n" + (f"revision = {about.commit!r}\n" if layout == "peft" else "")
    read = "processor" if kind.of_pictures else "tokenizer"
    lines += f"{read} = {reader}.from_pretrained(adapter)\n"
    if layout == "peft":
        lines += _BASE["writes" if writes else "image" if kind.of_pictures else "text"]
    elif layout != "whole":
        lines += "sys.path.insert(0, adapter)\nfrom load import load\n\n"
        lines += "model = load()\n" if about.repository else "model = load(base)\n"
    else:
        lines += f"model = {auto}.from_pretrained(adapter, torch_dtype=torch.float32).eval()\n"
    if not writes:
        named = 'pipeline("image-classification", model=model, image_processor=processor)'
        of_texts = 'pipeline("text-classification", model=model, tokenizer=tokenizer)'
        lines += f"classify = {named if kind.of_pictures else of_texts}\n"
    return lines + kind.example.replace("{max_length}", str(about.max_length)) + (_WRITES if writes else "")


def _classes(about: About) -> tuple[str, str]:
    """What transformers calls the model and what reads its records."""
    kind = get_kind(about.task)
    if kind.of_pictures:
        return "AutoModelForImageClassification", "AutoImageProcessor"
    return "AutoModelForCausalLM" if kind.causal_lm else "AutoModelForSequenceClassification", "AutoTokenizer"


def notes(layout: AdapterLayout, about: About) -> str:
    """What else works, and what does not, in words."""
    kind = get_kind(about.task)
    said, writes = [], kind.causal_lm
    if layout == "peft" and not about.repository:
        said.append(
            f"`{about.base_model}` is no name of the hub's: `AutoPeftModel...` and pipelines that are given this "
            "folder's name alone do not find the base model. Load it as above."
        )
    elif layout == "peft" and not kind.of_pictures:
        auto = "CausalLM" if writes else "SequenceClassification"
        given = "torch_dtype=torch.float32" if writes else "**settings"
        said.append(f"`AutoPeftModelFor{auto}.from_pretrained(adapter, {given})` finds the base model by itself.")
    if layout == "peft" and about.labels:
        said.append(
            "Give pipelines the model, never the name of this folder: a PEFT folder has no place for labels, so that "
            "they answer `LABEL_0` or fail, and older releases (transformers 4.46) leave the head at random."
        )
    if layout == "peft":
        said.append("`model.merge_and_unload()` gives the base model with the adapter in it, with the same scores.")
    if layout == "trained":
        said.append("It is no adapter of PEFT's: PEFT and pipelines that are given the folder's name cannot load it.")
    if about.method == "prune" or (about.method, layout) == ("distill", "trained"):
        said.append(_PRUNED[layout])
    if about.method == "side" and writes:
        said.append("It keeps no keys and values of earlier tokens, so that each new token reads the whole text again.")
    return "\n\n".join(said)
