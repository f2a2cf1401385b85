"""Whether records meet in a forward pass: read off its operations, so that it holds whatever the weights are.

The pass runs on two records and on three. What differs in size between the two runs carries records; an operation that
takes such a thing and gives nothing that carries records has reduced over them, or asked them a question.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dpcore.engine.errors import MixedExamples, Packed

FEW, MORE = 2, 3
"""Records in the two runs; one alone may take a path of its own."""

_READ_OUT = {Tensor.tolist: "tolist", Tensor.numpy: "numpy", Tensor.__array__: "numpy"}
"""These read numbers without an operation of torch."""
_SIZE_ONLY = ("new_", "empty", "zeros", "ones", "full", "rand", "arange", "scalar_tensor", "sym_")
"""Operations whose names begin so take nothing of a tensor but its size and type."""
_PACKING = ("nonzero", "masked_select", "masked_scatter", "unique", "bincount", "histc")
"""What stands where in the result depends on the values of all records."""
_ALONG = (
    *("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"),
    *("sort", "topk", "softmax", "log_softmax", "flip", "roll"),
)
"""These keep the size of the dimension that they work along."""

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Call:
    """One operation: its name, the module that it ran in, the shapes of what it took and gave (`masks`: of what it took
    as a boolean index), and the dimensions that it was told to work along."""

    name: str
    module: str
    taken: Shapes
    given: Shapes
    masks: Shapes
    along: tuple[int, ...]


def require_apart(model: nn.Module, losses: Callable[[np.ndarray], Tensor]) -> None:
    """Raises MixedExamples, naming module and operation, where the forward pass of public records reduces over the
    batch, asks it a question (amax, any, all, item), or does other things for two records than for three; Packed where
    it asks which values there are (nonzero, unique).

    losses(indices): one loss for each index out of range(3).
    """
    few, more = (_record(model, losses, np.arange(count)) for count in (FEW, MORE))
    for one, other in zip_longest(few, more):
        if one is None or other is None or one.name != other.name or len(one.given) != len(other.given):
            raise MixedExamples(
                f"{(one or other).module}: the forward pass does other things for {FEW} records than for {MORE}"
            )
        _require_apart(one, other)


def _require_apart(one: _Call, other: _Call) -> None:
    """The same operation in both runs."""
    if one.taken == other.taken or one.name.startswith(_SIZE_ONLY):
        return
    place, name = one.module, one.name.lstrip("_")
    if name.startswith(_PACKING) or one.masks != other.masks:
        raise Packed(f"{place}: {name} depends on which values all records of the batch have")
    if one.given == other.given:
        what = "reduces over the records of the batch" if one.given else "asks the batch a question"
        raise MixedExamples(f"{place}: {name} {what}, so that a record's loss depends on the others'")
    if name.startswith(_ALONG) and any(one.taken[0][d] != other.taken[0][d] for d in one.along):
        raise MixedExamples(f"{place}: {name} runs along the records of the batch")


def _record(model: nn.Module, losses: Callable[[np.ndarray], Tensor], indices: np.ndarray) -> list[_Call]:
    """The operations of the model's forward pass, as the losses call it; of all that they do where they do not."""
    given: list[tuple[Any, Any]] = []
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: given.append((args, kwargs)), with_kwargs=True)
    calls: list[_Call] = []
    with torch.no_grad():
        try:
            losses(indices)
        finally:
            hook.remove()
        with _module_names(model) as inside, _Functions(calls, inside), _Operations(calls, inside):
            if given:
                model(*given[0][0], **given[0][1])
            else:
                losses(indices)
    return calls


@contextmanager
def _module_names(model: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, the innermost last."""
    names = {id(module): name for name, module in model.named_modules()}
    running = ["the model"]
    hooks = (
        register_module_forward_pre_hook(lambda module, _: running.append(names.get(id(module)) or running[-1])),
        register_module_forward_hook(lambda *_: (running.pop(), None)[1], always_call=True),
    )
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation, below autograd and below what torch composes of others."""

    def __init__(self, calls: list[_Call], inside: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._calls, self._inside = calls, inside

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        schema = func._schema
        named = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
        defaults = {a.name: a.default_value for a in schema.arguments if a.name in ("dim", "dims")}
        along = next((named.get(name, default) for name, default in defaults.items()), None)
        first = next((tensor for tensor in args if isinstance(tensor, Tensor)), None)
        self._calls.append(
            _Call(
                schema.name.removeprefix("aten::"),
                self._inside[-1],
                _shapes((args, kwargs)),
                _shapes(out),
                _shapes([t for t in tree_leaves(named.get("indices")) if _is_mask(t)]),
                () if first is None else _dimensions(along, first.dim()),
            )
        )
        return out


class _Functions(TorchFunctionMode):
    """Notes what reads numbers out of a tensor without an operation."""

    def __init__(self, calls: list[_Call], inside: list[str]) -> None:
        super().__init__()
        self._calls, self._inside = calls, inside

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READ_OUT:
            self._calls.append(_Call(_READ_OUT[func], self._inside[-1], _shapes(args), (), (), ()))
        return func(*args, **(kwargs or {}))


def _is_mask(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bool


def _shapes(values: Any) -> Shapes:
    """Of the tensors among values, also inside lists."""
    return tuple(tuple(value.shape) for value in tree_leaves(values) if isinstance(value, Tensor))


def _dimensions(along: Any, count: int) -> tuple[int, ...]:
    """What an operation was told to work along; all dimensions where it was told nothing."""
    told = along if isinstance(along, list | tuple) else [along]
    return tuple(d for d in told if isinstance(d, int)) or tuple(range(count))
