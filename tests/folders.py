"""Model folders with one fault each, made from a good one; and good ones in other shapes."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

from safetensors.torch import load_file
from transformers import BertModel

from tests.worker import tiny


def _configured(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def _cut(name: str, size: int = 100) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def _rewritten(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text)


def _only_bin(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _gone(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def sharded(folder: Path) -> None:
    """Weights in several files, as transformers saves large models."""
    model = BertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def _lacking_a_shard(folder: Path) -> None:
    sharded(folder)
    next(folder.glob("model-00002-*.safetensors")).unlink()


def _lacking_its_index(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").unlink()


def _strange_index(folder: Path) -> None:
    sharded(folder)
    _rewritten("model.safetensors.index.json", json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))(folder)


def _strange_type(folder: Path) -> None:
    """A header that is whole, of a type that no reader knows."""
    data = (folder / "model.safetensors").read_bytes()
    assert len(load_file(folder / "model.safetensors")) > 3
    (folder / "model.safetensors").write_bytes(data.replace(b'"F32"', b'"Q32"'))


SEEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut-weights": (_cut("model.safetensors", 30_000), "model.safetensors has 30000 bytes, and its header says"),
    "empty-weights": (_cut("model.safetensors", 0), "model.safetensors is cut off"),
    "four-bit": (_configured(quantization_config={"load_in_4bit": True}), "quantization_config"),
    "only-bin": (_only_bin, "pytorch_model.bin, and such files can run code"),
    "other-words": (_configured(vocab_size=99), "config.json says vocab_size 99"),
    "no-tokenizer": (_without_tokenizer, "it has no tokenizer"),
    "lacking-shard": (_lacking_a_shard, "is missing, which model.safetensors.index.json names"),
    "lacking-index": (_lacking_its_index, "model.safetensors.index.json is missing"),
    "strange-index": (_strange_index, "no weight_map that names files of the folder"),
    "own-code": (_configured(auto_map={"AutoModel": "x.Y"}, model_type="ours"), "code of its own"),
    "cut-config": (_cut("config.json"), "config.json is no valid JSON"),
    "list-config": (_rewritten("config.json", "[]"), "config.json is no JSON object"),
    "no-sizes": (_configured(hidden_size=None), "gives no hidden_size"),
    "odd-sizes": (_configured(hidden_size={"a": 1}), "hidden_size"),
    "gone": (_gone, "its folder is not there"),
}
"""What a look at the files finds: what was done to them, and what is said of it."""
LOADED: dict[str, Callable[[Path], None]] = {
    "other-shapes": _configured(intermediate_size=48),
    "strange-type": _strange_type,
    "cut-tokenizer": _cut("tokenizer.json"),
    "unknown-kind": _configured(model_type="nobodys"),
}
"""What shows when the model is loaded."""
FINE: dict[str, Callable[[Path], None]] = {
    "sharded": sharded,
    "many-classes": _configured(id2label={str(i): f"c{i}" for i in range(10_000)}, num_labels=10_000),
    "native-code": _configured(auto_map={"AutoModel": "x.Y"}),
}
"""What is unusual and right."""


def make(root: Path) -> dict[str, Path]:
    """One folder for each, and a good one called tiny beside them and one that ties its tables."""
    good = root / "tiny"
    good.mkdir(parents=True)
    tiny.save_model(good)
    made = {"tiny": good, "tied": root / "tied"}
    made["tied"].mkdir()
    tiny.save_writer(made["tied"])
    for name, change in ({n: change for n, (change, _) in SEEN.items()} | LOADED | FINE).items():
        made[name] = copytree(good, root / name)
        change(made[name])
    return made
