"""What can be said about each method without training. One module a method, found by its name.

A method's module offers: `Options`, `Request`, `Hyperparameters`, `check` (a method that cannot train this kind of
model on this task says so), `resolve`, `phases`, `plan`, `trainable`, `memory`. A value that does not fit raises
FieldError, in `check` for an option and in `resolve` for a number.
"""

import pkgutil
from importlib import import_module
from types import ModuleType

DEFAULT_METHOD = "lora"


class UnknownMethod(ValueError):
    """No method has this name."""


def method_names() -> tuple[str, ...]:
    """Names of all methods, sorted. A module's underscores are hyphens in the name: `lora_fa` is `lora-fa`."""
    return tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__)))


def get_method(name: str) -> ModuleType:
    """The module of a method. Raises UnknownMethod with the names that exist."""
    if name not in method_names():
        raise UnknownMethod(f"unknown method {name!r}; there are: {', '.join(method_names())}")
    return import_module(f"{__name__}.{name.replace('-', '_')}")
