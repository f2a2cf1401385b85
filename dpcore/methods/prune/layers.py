"""Layers that go while a model trains: what is left stays the very parameters that it was."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from dpcore.methods.layers import find_layers, only_layers


def shrink(model: PreTrainedModel, stay: Sequence[int]) -> None:
    """Leave a model only these of its layers, in place, numbered anew. Its parameters are the same objects, so that
    whoever knows them by identity, as an optimiser does, knows them still. Raises as `only_layers` does."""
    path, _ = find_layers(model)
    before = dict(model.named_parameters(remove_duplicate=False))
    made = only_layers(model, stay)
    for place, module in made.named_modules():
        for leaf, _ in [*module.named_parameters(recurse=False, remove_duplicate=False)]:
            setattr(module, leaf, before[_earlier(f"{place}.{leaf}" if place else leaf, path, stay)])
    model.__dict__ = made.__dict__


def _earlier(name: str, path: str, stay: Sequence[int]) -> str:
    """What a parameter was called when there were more layers."""
    if not name.startswith(f"{path}."):
        return name
    number, _, rest = name.removeprefix(f"{path}.").partition(".")
    return f"{path}.{stay[int(number)]}.{rest}"
