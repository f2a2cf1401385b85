"""The kinds of task: what a record of a file holds, and what a model learns from it. One module a kind, found by name.

A kind's module offers `KIND`, what is said of it; half of one is refused when this package is loaded, before any file
or job. `dpcore/tasks/<name>.py` is its torch side, and a migration adds its name to the database's CHECKs of `task`.
"""

import pkgutil
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from dpcore.terms.errors import HalfMade
from dpcore.terms.kind import Column, Kind

DEFAULT_KIND = "classification"


class UnknownKind(ValueError):
    """No kind of task has this name."""


def load() -> dict[str, Kind]:
    """All kinds by name: those with labels first, and of each those that others are measured as. Raises HalfMade,
    naming the kind and what is wrong with it."""
    found = {module.name: _read(module.name) for module in pkgutil.iter_modules(__path__)}
    kinds = dict(sorted(found.items(), key=lambda one: (one[1].causal_lm, one[0] != one[1].measured_as, one[0])))
    tellers: dict[str, str] = {}
    for name, kind in kinds.items():
        stand = kinds.get(kind.measured_as)
        if stand is None or stand.measured_as != kind.measured_as or stand.causal_lm != kind.causal_lm:
            raise HalfMade(f"kind of task {name!r}: measured_as: {kind.measured_as!r} cannot stand for it")
        for column in kind.tells:
            if (other := tellers.setdefault(column, name)) != name:
                raise HalfMade(f"kind of task {name!r}: tells: the column {column!r} tells {other!r} already")
    columns_of(kinds)
    return kinds


def columns_of(kinds: Mapping[str, Kind]) -> dict[str, Column]:
    """Every column of texts by name. Raises HalfMade for two that have a name in common alone."""
    columns: dict[str, Column] = {}
    for name, kind in kinds.items():
        for column in kind.columns:
            if columns.setdefault(column.name, column) != column:
                raise HalfMade(f"kind of task {name!r}: columns: another kind has another column {column.name!r}")
    return columns


def _read(name: str) -> Kind:
    try:
        kind = import_module(f"{__name__}.{name}").KIND
    except AttributeError as error:
        raise HalfMade(f"kind of task {name!r}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "its parts"
        raise HalfMade(f"kind of task {name!r}: {place}: {first['msg']}") from error
    if not isinstance(kind, Kind):
        raise HalfMade(f"kind of task {name!r}: KIND is no Kind")
    return kind


KINDS: Mapping[str, Kind] = load()
COLUMNS: Mapping[str, Column] = columns_of(KINDS)

if TYPE_CHECKING:
    TaskKind = str
else:
    TaskKind = Literal[tuple(KINDS)]
    """The name of a kind; a request is held against those that there are."""

CAUSAL_LM = frozenset(name for name, kind in KINDS.items() if kind.causal_lm)
"""Kinds whose records teach a language model to write; the others have one of a public set of labels each."""


def get_kind(name: TaskKind) -> Kind:
    """What is said of a kind. Raises UnknownKind with the names that exist."""
    if name not in KINDS:
        raise UnknownKind(f"unknown kind of task {name!r}; there are: {', '.join(KINDS)}")
    return KINDS[name]


def told_by(columns: Collection[str]) -> TaskKind:
    """The kind that the names of some columns tell."""
    return next((name for name, kind in KINDS.items() if not set(kind.tells).isdisjoint(columns)), DEFAULT_KIND)
