"""The torch part of each method. One module a method, found by its name.

Each offers `attach(model, options, *, task, seed)`, which says what trains, and `export(model, folder, about, ...)`,
which writes what a job leaves.
"""

from importlib import import_module
from types import ModuleType

from dpcore.spec.methods import get_method as get_spec


def get_method(name: str) -> ModuleType:
    """The module of a method. Raises UnknownMethod with the names that exist."""
    get_spec(name)
    return import_module(f"{__name__}.{name.replace('-', '_')}")
