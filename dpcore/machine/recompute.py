"""Gradient checkpointing: a layer keeps its input only, and is computed again in the backward pass.

transformers' own switch works in training mode alone, which would turn the base model's dropout on. So its layers are
wrapped here, one by one, where it marks them; weights, names and results stay as they are.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint, noop_context_fn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def switch_on(model: nn.Module, contexts: Callable[[], Contexts] = noop_context_fn) -> bool:
    """Let every layer that can be checkpointed be. False when there is none, or they are already.

    contexts(): asked in each forward pass of a layer; what that pass and its repetition run in.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and "forward" not in vars(m)]
    for layer in layers:
        layer.forward = _checkpointed(layer.forward, contexts)
    return bool(layers)


def _checkpointed(forward: Callable[..., Any], contexts: Callable[[], Contexts]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        # The second pass would fill a decoder's cache a second time, and training needs none.
        args = tuple(None if isinstance(value, Cache) else value for value in args)
        kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return run
