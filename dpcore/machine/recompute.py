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
        layer.forward = _Checkpointed(layer.forward, contexts)
    return bool(layers)


def rebind(model: nn.Module, contexts: Callable[[], Contexts]) -> None:
    """Let the layers that are checkpointed already ask another for their contexts."""
    for module in model.modules():
        if isinstance(checkpointed := vars(module).get("forward"), _Checkpointed):
            checkpointed.contexts = contexts


class _Checkpointed:
    """A layer's forward pass that keeps its input only."""

    def __init__(self, forward: Callable[..., Any], contexts: Callable[[], Contexts]) -> None:
        self._forward, self.contexts = forward, contexts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # The second pass would fill a decoder's cache a second time, and training needs none.
        args = tuple(None if isinstance(value, Cache) else value for value in args)
        kwargs = {name: None if isinstance(value, Cache) else value for name, value in kwargs.items()}
        return checkpoint(self._forward, *args, use_reentrant=False, context_fn=self.contexts, **kwargs)
