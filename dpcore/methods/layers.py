"""A model with only some of its layers, as its own class builds it from a configuration with that many: so it loads
with stock readers, and is then what it was here."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from dpcore.models import fresh_like, seeded

_LAYERS = "num_hidden_layers"
"""A configuration that calls it otherwise answers to this name too."""
_BY_LAYER = ("layer", "attention_window")
"""In the names of a configuration's lists with a value for each layer: layer_types, no_rope_layers."""


def find_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Where a model keeps the layers that its configuration counts, and what stands there.

    Raises ValueError for a model that has no such list, as ALBERT, whose layers are one, or several, as BART.
    """
    count, name = getattr(model.config, _LAYERS, None), type(model).__name__
    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = {
        path: module
        for path, module in lists.items()
        if len(module) == count
        and any(True for _ in module.parameters())
        and not any(path.startswith(f"{other}.") for other in lists)
    }
    if not outer:
        raise ValueError(f"the layers of {name} cannot be found: it keeps no list of {count}, as its config.json says")
    if len(outer) > 1:
        raise ValueError(
            f"{name} has more than one list of {count} layers ({', '.join(outer)}): none can be told apart"
        )
    return next(iter(outer.items()))


def only_layers(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A new model with these layers alone, numbered from 0, with the weights of the old one: in evaluation mode, of its
    type and on its device, every weight requiring a gradient. kept: in the model's order, each once.

    Raises ValueError for layers that there are not, for a model whose layers cannot be found, and for one that stock
    transformers does not build without the others (ModernBERT's first layer is another than the rest).
    """
    path, layers = find_layers(model)
    if not kept or sorted({*kept} & {*range(len(layers))}) != [*kept]:
        raise ValueError(f"layers {[*kept]} of 0 to {len(layers) - 1}: name some, each once and in order")
    try:
        with seeded(0):
            made: PreTrainedModel = type(model)(_cut(model.config, kept, len(layers)))
        made.load_state_dict(_renumbered(model.state_dict(), path, kept))
    except (ValueError, TypeError, AssertionError, RuntimeError, IndexError) as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise ValueError(
            f"{type(model).__name__} cannot be built of layers {', '.join(map(str, kept))} alone: {first}"
        ) from error
    if model.can_generate():
        made.generation_config = deepcopy(model.generation_config)
    fresh_like(made, model)
    like = next(model.parameters())
    return made.to(device=like.device, dtype=like.dtype).eval()


def _cut(config: PreTrainedConfig, kept: Sequence[int], of: int) -> PreTrainedConfig:
    """The configuration with so many layers; lists with a value for each keep those of the layers that stay. Raises
    what its class raises where it cannot be read again."""
    cut = deepcopy(config)
    for name, values in vars(config).items():
        if isinstance(values, list) and len(values) == of and any(part in name for part in _BY_LAYER):
            setattr(cut, name, [values[layer] for layer in kept])
    setattr(cut, _LAYERS, len(kept))
    again: Any = type(cut).from_dict(cut.to_dict())
    if getattr(again, _LAYERS) != len(kept):
        raise ValueError("its configuration does not take another number of layers")
    return cut


def _renumbered(weights: Mapping[str, Tensor], path: str, kept: Sequence[int]) -> dict[str, Tensor]:
    """The weights of the layers that stay by their new names, and all others."""
    new = {f"{path}.{layer}.": f"{path}.{number}." for number, layer in enumerate(kept)}
    renamed = {}
    for name, value in weights.items():
        if not name.startswith(f"{path}."):
            renamed[name] = value
            continue
        number, _, rest = name.removeprefix(f"{path}.").partition(".")
        if (place := new.get(f"{path}.{number}.")) is not None:
            renamed[place + rest] = value
    return renamed
