"""Base models from local folders: safetensors only, no code from the folder, nothing from the network."""

import inspect
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from dpcore.terms.folders import weights_found
from dpcore.terms.reasons import reason
from dpcore.terms.tasks import CAUSAL_LM, TaskKind, get_kind
from dpcore.tokenizers import (
    choose_padding,
    in_table,
    load_tokenizer,
    padding_of,
    require_rows,
    table_rows,
    with_padding,
)
from dpcore.word_head import start_from_words

__all__ = ["build_model", "fresh_in_base", "fresh_like", "load_model", "load_tokenizer", "seeded", "with_padding"]

_NAMED = 5
"""Weights that an error names at most."""
_FRESH: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()


def build_model(
    kind: TaskKind, folder: str | Path, labels: Sequence[str], *, seed: int, words: bool = False
) -> PreTrainedModel:
    """The base model for a task, in evaluation mode, float32: a causal language model as it is, or a classifier with
    a fresh head for the public labels, whatever head the folder has. words: the head starts from the labels' words
    where it can (see `start_from_words`).

    The seed drives the initialisation of the head alone, and of a pooler that the folder lacks, which is a part of it
    (see `fresh_in_base`). A classifier's configuration, and a language model's that names a token outside its table,
    gets a padding token that no text holds. Raises OSError where the folder lacks a configuration, weights in
    safetensors or a tokenizer, and ValueError, in one line that is fit for the public, where it lacks weights of the
    base model itself (an adapter cannot carry their random stand-ins), holds no model for this task, or one that cannot
    be loaded or whose tokenizer has tokens beyond its embedding table.
    """
    folder, causal = Path(folder), kind in CAUSAL_LM
    config = _read_config(folder, kind)
    if not get_kind(kind).of_pictures:
        tokenizer = load_tokenizer(folder)
        require_rows(config, tokenizer)
        padding = padding_of(config)
        if not causal or (padding is not None and not in_table(padding, table_rows(config))):
            config.pad_token_id = choose_padding(config, tokenizer)
    model, missing = _load(kind, folder, config, labels, seed=seed)
    fresh = () if causal else _fresh(model, missing)
    own = "" if causal else f"{model.base_model_prefix}."
    lacking = sorted(
        key for key in missing if key.startswith(own) and not key.startswith(tuple(f"{f}." for f in fresh))
    )
    if lacking:
        raise ValueError(f"the model's folder lacks weights: {', '.join(lacking[:_NAMED])}")
    _FRESH[model] = fresh
    if words:
        start_from_words(model, load_tokenizer(folder), labels)
    return model


def load_model(kind: TaskKind, folder: str | Path, labels: Sequence[str]) -> PreTrainedModel:
    """A model that is complete, a classifier's head too, in evaluation mode, float32. Raises as `build_model` does."""
    folder = Path(folder)
    model, missing = _load(kind, folder, _read_config(folder, kind), labels, seed=0, own_head=True)
    if missing:
        raise ValueError(f"the model's folder lacks weights: {', '.join(sorted(missing)[:_NAMED])}")
    return model


def fresh_in_base(model: nn.Module) -> tuple[str, ...]:
    """Modules of the base model that `build_model` found no weights for and drew from the seed: a pooler, which stands
    between body and head. They train and leave with the head."""
    return _FRESH.get(model, ())


def fresh_like(model: nn.Module, other: nn.Module) -> None:
    """What is fresh in `other` is fresh in `model`, which was made of it."""
    _FRESH[model] = fresh_in_base(other)


def _read_config(folder: Path, kind: TaskKind) -> PreTrainedConfig:
    """The configuration. Raises OSError or ValueError for a folder from which no model can be made for this task."""
    try:
        values: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError("the model's folder has no config.json") from error
    except ValueError as error:
        raise ValueError("config.json of the model is not JSON") from error
    model_type = values.get("model_type") if isinstance(values, dict) else None
    if model_type not in CONFIG_MAPPING:
        code = ": it needs code of its own (auto_map), which is not run here" if "auto_map" in values else ""
        raise ValueError(f"model_type {model_type!r} of config.json is not one that transformers knows{code}")
    parts = [values, *(part for part in values.values() if isinstance(part, dict))]
    for name in ("quantization_config", "compression_config"):
        if any(part.get(name) for part in parts):
            raise ValueError(
                f"config.json has {name}: quantised weights cannot be trained; use the model that they were made from"
            )
    if not weights_found(folder):
        pickled = "; its .bin files are not opened, save it again as safetensors" if any(folder.glob("*.bin")) else ""
        raise OSError(f"the model's folder has no weights in safetensors{pickled}")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            os.fspath(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a configuration's own checks raise
        raise ValueError(f"config.json of the model cannot be used: {reason(error, folder)}") from error
    known, _, what = _auto(kind)
    if type(config) not in known:
        raise ValueError(f"transformers has no {what} of model_type {model_type!r}")
    return config


def _auto(kind: TaskKind) -> tuple[Any, Any, str]:
    """What transformers has for a kind: configurations, the class that picks among models, and in words."""
    if kind in CAUSAL_LM:
        return MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, "causal language model"
    if get_kind(kind).of_pictures:
        return MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoModelForImageClassification, "classifier of pictures"
    return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification, "classifier"


def _load(
    kind: TaskKind, folder: Path, config: PreTrainedConfig, labels: Sequence[str], *, seed: int, own_head: bool = False
) -> tuple[PreTrainedModel, set[str]]:
    """The model, and the names of the weights that the folder lacks. Raises ValueError, whatever is wrong."""
    _, auto, _ = _auto(kind)
    if kind not in CAUSAL_LM:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    try:
        with _quiet():
            bare = None if kind in CAUSAL_LM or own_head else _without_weights(auto, config)
            state = None if bare is None else _without_head(bare, folder)
        # transformers takes weights from a folder or at hand; with those, it must be told the model's class.
        source: Any = auto if state is None else type(bare)
        with _quiet(), seeded(seed):
            model, report = source.from_pretrained(
                os.fspath(folder) if state is None else None,
                config=config,
                state_dict=state,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except SafetensorError as error:
        raise ValueError(f"the model's safetensors are cut or damaged: {reason(error, folder)}") from error
    except MemoryError:
        raise
    except ImportError as error:
        raise ValueError(f"the model needs a package that is not installed: {reason(error, folder)}") from error
    except Exception as error:  # whatever a model's own code raises
        raise ValueError(f"the model cannot be loaded: {reason(error, folder)}") from error
    if report["mismatched_keys"]:
        names = ", ".join(sorted(key for key, *_ in report["mismatched_keys"])[:_NAMED])
        raise ValueError(f"weights have other shapes than config.json says: {names}")
    # Evaluation mode: the base model's own dropout would only add to the noise.
    return model.eval(), set(report["missing_keys"])


def _without_weights(auto: Any, config: PreTrainedConfig) -> PreTrainedModel:
    """The classifier as it will be, of no memory."""
    with torch.device("meta"):
        bare: PreTrainedModel = auto.from_config(deepcopy(config))
    return bare


def _without_head(bare: PreTrainedModel, folder: Path) -> dict[str, Tensor] | None:
    """The weights of a folder that holds a classifier, but its head's; None where it holds none.

    A folder that has a part of the head only, as ModernBERT's masked language model, brings that part along.
    """
    files = weights_found(folder)
    names = {name for file in files for name in _names(file)}
    heads = tuple(f"{head}." for head in beside_base(bare))
    if not all(any(name.startswith(head) for name in names) for head in heads):
        return None
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(heads)}


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def beside_base(model: PreTrainedModel) -> Iterator[str]:
    """A classifier's modules with weights beside its base model. Raises ValueError where it has none inside."""
    if model.base_model is model:
        raise ValueError(f"{type(model).__name__} has no base model inside, so that its head cannot be told apart")
    return _beside(model, model.base_model, "")


def _beside(module: nn.Module, base: nn.Module, path: str) -> Iterator[str]:
    for name, child in module.named_children():
        if child is base or not any(True for _ in child.parameters()):
            continue
        if any(part is base for part in child.modules()):
            yield from _beside(child, base, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def _fresh(model: PreTrainedModel, missing: set[str]) -> tuple[str, ...]:
    """Modules of the base that are missing as a whole and that transformers itself builds it without: poolers."""
    base, prefix = model.base_model, model.base_model_prefix
    if not missing or "add_pooling_layer" not in inspect.signature(type(base).__init__).parameters:
        return ()
    with torch.device("meta"):
        bare = type(base)(model.config, add_pooling_layer=False)
    needed = {name for name, _ in bare.named_parameters()}
    found = []
    for name, child in base.named_children():
        inside = {f"{name}.{own}" for own, _ in child.named_parameters()}
        if inside and not inside & needed and {f"{prefix}.{own}" for own in inside} <= missing:
            found.append(f"{prefix}.{name}")
    return tuple(found)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generators seeded inside, and as they were outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, and no report that the head is new: it is meant to be."""
    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()
