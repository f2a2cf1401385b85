"""What can be said about a method without training: the Protocol that its file keeps, and what reads such a file."""

import inspect
from types import ModuleType
from typing import Any, Protocol, TypeVar, cast

from dpcore.terms.errors import HalfMade
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Hyperparameters, Request
from dpcore.terms.program import Phase
from dpcore.terms.strict import StrictModel
from dpcore.terms.tasks import TaskKind


class Method(Protocol):
    """A method's side in `dpcore/terms/methods/`. A value that does not fit raises FieldError."""

    @property
    def Options(self) -> type[StrictModel]:
        """What is trained, as a caller may choose it; every option has a default."""

    @property
    def Request(self) -> type[Request]:
        """The numbers that a caller may ask for; every one has a default."""

    def check(self, options: Any, facts: ModelFacts, task: TaskKind) -> None:
        """Raises ValueError for a kind of model that the method cannot train on this task, FieldError for an option."""

    def resolve(
        self, request: Any, options: Any, *, task: TaskKind, declared_size: int, epsilon: float, facts: ModelFacts
    ) -> Hyperparameters:
        """The numbers of a job on a file of `declared_size` units at about `epsilon`, from public values alone."""

    def phases(self, options: Any, hyperparameters: Any, *, declared_size: int) -> tuple[Phase, ...]:
        """The phases in order, before the noise is chosen: their noise multipliers are relative to one another's."""

    def trainable(self, options: Any, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
        """How many values train, about."""

    def memory(self, options: Any, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
        """Bytes that training needs beside the process itself, by formula."""


Kept = TypeVar("Kept")


def keeping(module: ModuleType, protocol: type[Kept]) -> Kept:
    """The module as what the Protocol says. Raises HalfMade, naming the module and all that is missing or called
    otherwise, and what its __all__ offers beyond the Protocol: a hook with its name misspelt would never be called."""
    members = {name: member for name, member in vars(protocol).items() if not name.startswith("_")}
    wrong = []
    for name, member in members.items():
        found = getattr(module, name, None)
        if found is None:
            wrong.append(f"{name} is missing")
        elif isinstance(member, property):
            kind = inspect.get_annotations(member.fget, eval_str=True)["return"].__args__[0]  # type: ignore[arg-type]
            if not (isinstance(found, type) and issubclass(found, kind)):
                wrong.append(f"{name} must be a {kind.__name__}")
        elif (difference := _otherwise(found, member)) is not None:
            wrong.append(f"{name} {difference}")
    wrong += [
        f"{name} is no part of a {protocol.__name__}" for name in set(getattr(module, "__all__", ())) - members.keys()
    ]
    if wrong:
        raise HalfMade(f"{module.__name__} is half-made: {'; '.join(sorted(wrong))}")
    return cast(Kept, module)


def _otherwise(found: Any, member: Any) -> str | None:
    """In what a function cannot be called as the Protocol's."""
    if not callable(found):
        return "must be a function"
    wanted = [p for p in inspect.signature(member).parameters.values() if p.name != "self"]
    signature = inspect.signature(found)
    try:
        signature.bind(
            *(p.name for p in wanted if p.kind is not p.KEYWORD_ONLY),
            **{p.name: None for p in wanted if p.kind is p.KEYWORD_ONLY},
        )
    except TypeError as error:
        return f"cannot be called as {', '.join(p.name for p in wanted)}: {error}"
    return None
