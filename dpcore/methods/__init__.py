"""The torch part of each method. One module a method, found by its name.

Each offers `attach(model, options, *, task, seed)`, which says what trains; `export(model, folder, about, ...)`, which
writes what a job leaves; and `load(folder, base_folder, about)`, which opens that for inference.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import nn

from dpcore.export import About, read_about
from dpcore.terms.methods import get_method as get_spec


def get_method(name: str) -> ModuleType:
    """The module of a method. Raises UnknownMethod with the names that exist."""
    get_spec(name)
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def load_export(folder: str | Path, base_folder: str | Path) -> tuple[nn.Module, About]:
    """An exported model for inference, and what it is. Raises OSError or ValueError for a folder that is none."""
    about = read_about(folder)
    return get_method(about.method).load(Path(folder), Path(base_folder), about), about
