"""The torch part of each method. One module a method, found by its name, which keeps the Protocol `Trainer`; one that
does not is refused."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.export import About, read_about
from dpcore.readers import Reader
from dpcore.terms.method import keeping
from dpcore.terms.methods import get_method
from dpcore.terms.program import Phase
from dpcore.terms.tasks import TaskKind
from dpcore.train import Iterate


class Trainer(Protocol):
    """A method's side in `dpcore/methods/`. A method of one phase that does nothing between its steps takes `begin` and
    `between` from `dpcore.methods.plain`; one that learns the task as it is, `learns`."""

    def attach(self, model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> nn.Module:
        """The model with what trains; the seed drives the initialisation only. Raises ValueError for a model that the
        method cannot train."""

    def begin(self, model: nn.Module, phase: Phase, kept: Mapping[str, Tensor], *, task: TaskKind) -> None:
        """Let train what this phase trains, at its start and at a resume: `kept` is what `between` kept. It may be
        called for a phase, for a later one and for the first again, before anything has trained."""

    def learns(self, model: nn.Module, phase: Phase, task: Any) -> Any:
        """The task as this phase learns it, asked for once, before anything has trained: losses of another kind, each
        of its own record alone, are made here."""

    def between(self, iterate: Iterate) -> bool:
        """What is done after a step, on the noised iterate; True when it changed what trains."""

    def export(self, model: Any, folder: str | Path, about: About, *, tokenizer: Reader | None = None) -> None:
        """Write what a job leaves."""

    def load(self, folder: Path, base_folder: Path, about: About) -> nn.Module:
        """What `export` wrote, for inference."""


def get_trainer(name: str) -> Trainer:
    """The torch part of a method. Raises UnknownMethod with the names that exist, and HalfMade."""
    get_method(name)
    return _read(f"{__name__}.{name.replace('-', '_')}")


@cache
def _read(module: str) -> Trainer:
    return keeping(import_module(module), Trainer)  # type: ignore[type-abstract]


def load_export(folder: str | Path, base_folder: str | Path) -> tuple[nn.Module, About]:
    """An exported model for inference, and what it is. Raises OSError or ValueError for a folder that is none."""
    about = read_about(folder)
    return get_trainer(about.method).load(Path(folder), Path(base_folder), about), about
