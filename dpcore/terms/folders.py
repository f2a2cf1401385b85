"""Whether a folder holds a model that can be loaded, as far as its files tell: no weight is read and no code is run."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
VOCABULARIES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "spm.model", "spm_char.model"),
    *("sentencepiece.bpe.model", "sentencepiece.model", "source.spm", "dict.txt", "vocab-src.json"),
    *("prophetnet.tokenizer", "byte_maps.json", "tekken.json", "tiktoken.model"),
)
"""Files from which the tokenizers of transformers 5 know their words."""
TOKENIZER = (
    *VOCABULARIES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "chat_template.json"),
    *("merges.txt", "bpe.codes", "target.spm", "target_vocab.json", "vocab-tgt.json", "entity_vocab.json"),
    *("emoji.json", "normalizer.json", "word_pronunciation.json", "word_shape.json"),
)
"""All of a tokenizer's files: what some need besides, its settings and its chat template too."""
PREPROCESSOR = "preprocessor_config.json"
"""How a model that sees pictures wants them made."""
_CHARACTERS = ("CanineTokenizer", "ByT5Tokenizer", "PerceiverTokenizer", "canine", "perceiver")
"""Tokenizers, and kinds of model with them, that know characters or bytes and need no file for that."""
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json")
_CLASSIFIER = "ForSequenceClassification"
_RUNS_CODE = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt")
_WORDS = ("word_embeddings.weight", "embed_tokens.weight", "wte.weight", "lm_head.weight")
"""Tables with a row for each word of the vocabulary."""
_HEADER_BYTES = 100_000_000
"""safetensors' own limit on a header."""


def require_usable(folder: Path) -> None:
    """Raises FileNotFoundError or ValueError, which names the file and never the folder, where the model in it cannot
    be loaded: a file is missing or cut off, weights are packed or of another size than config.json says, or it needs
    code of its own."""
    if not folder.is_dir():
        raise FileNotFoundError("its folder is not there")
    config = read_object(folder / "config.json")
    for packed in ("quantization_config", "compression_config"):
        if config.get(packed) is not None:
            raise ValueError(f"config.json has a {packed}: packed weights cannot be trained; take the float ones")
    _require_known_code(config)
    several = "text_config" in config or "decoder_vocab_size" in config  # which table has which size is its own affair
    words = None if several else config.get("vocab_size")
    for path in weights(folder):
        for name, tensor in read_header(path).items():
            shape = tensor["shape"]
            if name.endswith(_WORDS) and isinstance(words, int) and shape[:1] != [words]:
                raise ValueError(f"{path.name}: {name} has the shape {shape}, and config.json says vocab_size {words}")
    if sees_pictures(config, folder):
        read_object(folder / PREPROCESSOR)
    else:
        _require_tokenizer(folder, config)


def sees_pictures(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether a model sees pictures in place of reading texts. BEiT's vocabulary is of patches."""
    if any((folder / name).is_file() for name in VOCABULARIES) or "text_config" in config:
        return False
    if "vocab_size" in config and "patch_size" not in config:
        return False
    return any(name in config for name in ("image_size", "num_channels")) or (folder / PREPROCESSOR).is_file()


def weights(folder: Path) -> list[Path]:
    """The files of a model's weights: model.safetensors, or all that its index names.

    Raises FileNotFoundError where one of them is missing, ValueError for an index that cannot be read."""
    found = weights_found(folder)
    if [path.name for path in found] == [_WHOLE]:
        return found
    if not (folder / INDEX).is_file():
        if found:
            raise FileNotFoundError(f"{INDEX} is missing beside its parts")
        others = sorted(path.name for path in folder.iterdir() if path.name.endswith(_RUNS_CODE))
        only = f"; it has {', '.join(others[:3])}, and such files can run code when they are read" if others else ""
        raise FileNotFoundError(f"it has no weights as model.safetensors{only}")
    places = read_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(_is_name(place) for place in places.values()):
        raise ValueError(f"{INDEX} has no weight_map that names files of the folder")
    names = sorted(set(places.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{missing[0]} is missing, which {INDEX} names")
    return [folder / name for name in names]


def weights_found(folder: Path) -> list[Path]:
    """model.safetensors, or the parts that are there, whatever an index says; none where there are none."""
    whole = folder / _WHOLE
    return [whole] if whole.is_file() else sorted(folder.glob("model-*-of-*.safetensors"))


def read_header(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Dtype, shape and place of each tensor of a safetensors file by name. Raises ValueError for a file that is cut off
    or no such file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_HEADER_BYTES, size - 8):
            raise ValueError(f"{path.name} is cut off, or no safetensors file")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            tensors = {name: dict(tensor) for name, tensor in header.items() if name != "__metadata__"}
            end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
            sound = all(isinstance(tensor["shape"], list) for tensor in tensors.values())
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            sound, end, tensors = False, 0, {}
    if not sound or not tensors:
        raise ValueError(f"{path.name} has no valid header")
    if 8 + length + end != size:
        raise ValueError(f"{path.name} has {size} bytes, and its header says {8 + length + end}: it is cut off")
    return tensors


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the model. Raises FileNotFoundError or ValueError, naming the file alone."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"it has no {path.name}") from None
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path.name} is no valid JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return found


def same_tokens(one: Path, other: Path) -> bool:
    """Whether the tokenizers of two folders make the same tokens of every text, by their files: those that they are
    made of are the same, but for how a batch is cut and padded."""
    if one == other:
        return True
    fast = [(folder / "tokenizer.json").is_file() for folder in (one, other)]
    if all(fast):
        made = [read_object(folder / "tokenizer.json") for folder in (one, other)]
        return {**made[0], "truncation": None, "padding": None} == {**made[1], "truncation": None, "padding": None}
    names = [name for name in TOKENIZER if name not in _SETTINGS]
    found = [
        {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()} for folder in (one, other)
    ]
    return not any(fast) and found[0] == found[1] != {}


def head_labels(folder: Path) -> tuple[str, ...]:
    """Labels of the classifier that a folder holds with its head, in order, as config.json names them; none where it
    holds none. Raises FileNotFoundError or ValueError as `read_object` does."""
    config = read_object(folder / "config.json")
    kinds, labels = config.get("architectures"), config.get("id2label")
    if not isinstance(kinds, list) or not any(str(kind).endswith(_CLASSIFIER) for kind in kinds):
        return ()
    if not isinstance(labels, dict) or not all(number.isdecimal() for number in labels):
        return ()
    return tuple(str(labels[number]) for number in sorted(labels, key=int))


def _require_known_code(config: Mapping[str, Any]) -> None:
    """A model that transformers knows by itself may bring code all the same: it is not run."""
    kind, library = config.get("model_type"), find_spec("transformers")
    if "auto_map" not in config or library is None or library.origin is None:
        return
    if not isinstance(kind, str) or not (Path(library.origin).parent / "models" / kind.replace("-", "_")).is_dir():
        raise ValueError("config.json has an auto_map: the model needs code of its own, which is never run")


def _require_tokenizer(folder: Path, config: Mapping[str, Any]) -> None:
    if any((folder / name).is_file() for name in VOCABULARIES) or config.get("model_type") in _CHARACTERS:
        return
    named = folder / "tokenizer_config.json"
    if named.is_file() and read_object(named).get("tokenizer_class") in _CHARACTERS:
        return
    raise FileNotFoundError("it has no tokenizer: tokenizer.json, or the files that its tokenizer is made of")


def _is_name(place: Any) -> bool:
    return isinstance(place, str) and Path(place).name == place
