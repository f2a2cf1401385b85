"""What can be said about each method without training. One module a method, found by its name, which keeps the Protocol
`dpcore.terms.method.Method`; one that does not is refused."""

import pkgutil
from functools import cache
from importlib import import_module

from dpcore.terms.method import Method, keeping

DEFAULT_METHOD = "lora"


class UnknownMethod(ValueError):
    """No method has this name."""


def method_names() -> tuple[str, ...]:
    """Names of all methods, sorted. A module's underscores are hyphens in the name: `lora_fa` is `lora-fa`."""
    return tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__)))


def get_method(name: str) -> Method:
    """What is said about a method. Raises UnknownMethod with the names that exist, and HalfMade."""
    if name not in method_names():
        raise UnknownMethod(f"unknown method {name!r}; there are: {', '.join(method_names())}")
    return _read(f"{__name__}.{name.replace('-', '_')}")


@cache
def _read(module: str) -> Method:
    # The Protocol's members are properties where a module has classes: mypy takes no type for a Protocol.
    return keeping(import_module(module), Method)  # type: ignore[type-abstract]
