"""A frozen model whose layers are coupled so that each can be undone, with a thin adapter beside each, and how to open
a folder that holds the adapters. Needs torch, transformers and safetensors, nothing else.

from load import load
model = load("folder of the base model")  # left out: the hub's repository that tacit.json names
tokenizer = transformers.AutoTokenizer.from_pretrained("this folder")
"""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig
from transformers.cache_utils import Cache

FLOAT32 = {"dtype" if transformers.__version__ >= "5" else "torch_dtype": torch.float32}
"""transformers before 4.56 knows the old name alone."""
BITS = 8
"""Of each number of a state, which a shift loses and the backward pass needs again: a byte a layer."""
COUPLING = 2.0**-BITS
"""lambda times beta: how much of the state before last goes into the next."""
GRID = 2.0**40
"""States are whole multiples of its inverse, so that what was added is taken away again to the bit."""
LARGEST = 2.0**21
"""Beyond it a number has no place on the grid."""


def load(base: str | None = None, folder: str | Path = Path(__file__).parent) -> Any:
    """The fine-tuned model, in evaluation mode, float32. Raises ValueError for a base that the tensors do not fit."""
    folder = Path(folder)
    about = json.loads((folder / "tacit.json").read_text(encoding="utf-8"))
    trained = load_file(folder / "trained.safetensors")
    labels = dict(enumerate(about["labels"]))
    auto = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    head = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}} if labels else {}
    revision = None if base else about["commit"]
    model = auto.from_pretrained(
        base or about["repository"] or about["base_model"], revision=revision, **FLOAT32, **head
    )
    if labels and model.config.pad_token_id is None and (folder / "tokenizer_config.json").exists():
        # A decoder reads the last token that is not padding, and needs to know what padding is.
        model.config.pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    downs = {int(found[1]): p for name, p in trained.items() if (found := re.search(r"\.(\d+)\.down\.weight$", name))}
    couple(model, width=len(next(iter(downs.values()))), first=min(downs))
    wanted = {name: p.shape for name, p in model.named_parameters()}
    unknown = [name for name, tensor in trained.items() if wanted.get(name) != tensor.shape]
    if unknown or len(downs) != sum(isinstance(module, Coupled) for module in model.modules()):
        raise ValueError("this is not the base model of the folder: its layers have other adapters")
    model.load_state_dict(trained, strict=False)
    return model.eval()


def couple(model: Any, *, width: int, first: int) -> None:
    """Couple the layers of a model from the `first` on, in place; everything is frozen but their adapters, which change
    nothing yet. Raises ValueError for a model whose layers are not one list."""
    layers = _layers(model)
    size = int(model.config.hidden_size)
    model.requires_grad_(False)
    passes = Passes()
    for place in range(first, len(layers)):
        ends = (place == first, place == len(layers) - 1)
        layers[place] = Coupled(layers[place], size, width, passes, *ends).to(next(model.parameters()))
    model.eval()


def _layers(model: Any) -> nn.ModuleList:
    """The list of a model's layers. Raises ValueError where there is none, or more than one."""
    depth = getattr(model.config, "num_hidden_layers", None)
    found = [
        part
        for part in model.base_model.modules()
        if isinstance(part, nn.ModuleList) and len(part) == depth and len({type(layer) for layer in part}) == 1
    ]
    if len(found) != 1:
        raise ValueError(
            f"a reversible network needs one list of layers, and {type(model).__name__} has {len(found)}; "
            "take lora or side"
        )
    return found[0]


@dataclass
class States:
    """The two states of one pass, before a layer and after it: on the grid, int64 [m, T, d] each (before the first
    layer there is none), and as the model sees them. `rest`: what a layer puts out beside its state."""

    grid: tuple[Any, ...]
    seen: tuple[Any, ...]
    rest: tuple[Any, ...] | None = None


@dataclass
class Passes:
    """What the layers of one model share: the pass that is on its way from the first to the last, and whether layers
    keep their graphs, as plain autograd would."""

    running: States | None = None
    keeps: bool = False


@dataclass(frozen=True)
class Call:
    """What a layer is given beside the state: masks, positions; none of it is trained."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> Iterator[Tensor]:
        """Also those in tuples."""
        for value in (*self.args, *self.kwargs.values()):
            yield from (v for v in (value if isinstance(value, tuple | list) else (value,)) if isinstance(v, Tensor))

    def without_cache(self) -> "Call":
        """What is computed twice would fill a decoder's cache twice."""
        return Call(
            tuple(None if isinstance(value, Cache) else value for value in self.args),
            {name: None if isinstance(value, Cache) else value for name, value in self.kwargs.items()},
        )


class Coupled(nn.Module):
    """A frozen layer in a reversible network, in the layer's own place. A reconstruction of DP-MemArc's reversible
    variant (Liu et al. 2024) from MEFT (Liao et al. 2023), with three changes.

    h_0 is what the first coupled layer reads, h_1 = layer_0(h_0) + A_0(h_0), and from there on, with c = COUPLING,

    h_{l+1} = c h_{l-1} + F_l(h_l);   F_l(h) = layer_l(h) - c h + A_l(h);   A(h) = Up relu(Down norm(h))

    MEFT's two states are (c h_{l-1}, h_l). Its second adapter, G, reads the very h_l that the next A reads and is
    added at the same place, so that one of them is enough. F is centred: with Up at zero h_{l+1} departs from
    layer_l(h_l) by c (h_{l-1} - h_l), where MEFT's departs by c h_{l-1}.

    Undone in floating point, an error grows 1/c times a layer, and more as the weights move. So states are integers:
    c h is a shift, of which the lost bits are kept, and the inverse is exact (MacKay et al. 2018), for a c so small
    that training starts at the model. Rounding to the grid has the gradient of the identity.
    """

    def __init__(self, layer: nn.Module, size: int, width: int, passes: Passes, first: bool, last: bool) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(size, width, bias=False)
        self.up = nn.Linear(width, size, bias=False)
        nn.init.zeros_(self.up.weight)
        self.passes, self.first, self.last = passes, first, last

    def __getattr__(self, name: str) -> Any:
        """A model asks its layers what they are: which kind of attention they have, for one."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def train(self, mode: bool = True) -> "Coupled":
        """Always in evaluation mode: dropout would not fall the same way when the layer is computed again."""
        return super().train(False)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The next state [m, T, d], as the layer itself puts it out. Raises ValueError in a model that does anything
        between its layers."""
        if self.first:
            start = on_grid(hidden_states)
            self.passes.running = States((None, start), (None, off_grid(start, self.down.weight.dtype)))
        states = self.passes.running
        if states is None or not (self.first or hidden_states is states.seen[1]):
            raise ValueError(
                "a reversible network needs a model that does nothing between its layers; take lora or side"
            )
        if self.last:
            self.passes.running = None
        trained = [p for p in (self.down.weight, self.up.weight) if p.requires_grad]
        call = Call(args, kwargs)
        if torch.is_grad_enabled() and trained:
            if any(tensor.requires_grad for tensor in call.tensors()):
                raise ValueError("a reversible network needs layers that read one state each; take lora or side")
            after = _Step.apply(self, states, call.without_cache(), *states.seen, *trained)  # type: ignore[no-untyped-call]
        else:
            after, _ = advance(self, states, self.work(states.seen[1], call, states))
        states.seen = (states.seen[1], after)
        if self.last:  # nothing of the pass outlives it but what was saved for the way back
            states.seen = states.grid = ()
        return after if states.rest is None else (after, *states.rest)

    def work(self, now: Tensor, call: Call, states: States) -> Tensor:
        """F of the state [m, T, d]: what is added to the state before it."""
        with torch.autocast(now.device.type, enabled=False):
            out = self.layer(now, *call.args, **call.kwargs)
            states.rest = tuple(out[1:]) if isinstance(out, tuple) else None
            hidden: Tensor = out[0] if isinstance(out, tuple) else out
            added = hidden + self.change(now)
            return added if self.first else added - COUPLING * now

    def change(self, now: Tensor) -> Tensor:
        """A of the state [m, T, d]."""
        # Of one scale whatever the model, without which one layer's outliers would fill a clipped gradient.
        return self.up(F.relu(self.down(F.layer_norm(now, now.shape[-1:]))))  # type: ignore[no-any-return]


def on_grid(state: Tensor) -> Tensor:
    """The nearest multiples, int64; what is no number becomes one, and is told apart by `advance`."""
    return (state.double().nan_to_num(0.0).clamp(-LARGEST, LARGEST) * GRID).round().to(torch.int64)


def off_grid(state: Tensor, dtype: torch.dtype) -> Tensor:
    """The same bits at every call."""
    return (state.double() / GRID).to(dtype)


def advance(layer: Coupled, states: States, added: Tensor) -> tuple[Tensor, Tensor | None]:
    """Put the next state on the grid: as the model sees it, and the bits that the state before it lost."""
    before, now = states.grid
    after, lost = on_grid(added), None
    if before is not None:
        after += before >> BITS
        lost = (before & (2**BITS - 1)).to(torch.uint8)
    states.grid = (now, after)
    # A state that is not finite stays so for the loss to see, and its record is left out of the sum.
    return off_grid(after, added.dtype) + 0 * added, lost


def undo(states: States, added: Tensor, lost: Tensor) -> None:
    """From (now, after) back to (before, now)."""
    now, after = states.grid
    states.grid = ((after - on_grid(added)) << BITS | lost.to(torch.int64), now)


class _Step(torch.autograd.Function):
    """One layer of a pass. Nothing is kept but the lost bits, and by the last layer the last two states: going back,
    each layer computes F a second time, with a graph, hands on what autograd makes of it, and finds its other state."""

    @staticmethod
    def forward(
        ctx: Any, layer: Coupled, states: States, call: Call, before: Tensor | None, now: Tensor, *trained: Tensor
    ) -> Tensor:
        keeps = layer.passes.keeps
        leaf = now.detach().requires_grad_(keeps and now.requires_grad)
        with torch.set_grad_enabled(keeps):
            added = layer.work(leaf, call, states)
        after, lost = advance(layer, states, added.detach())
        # Parameters are known by identity, which hooks on saved tensors would not keep.
        ctx.layer, ctx.states, ctx.call, ctx.trained = layer, states, call, trained
        ctx.graph = (leaf, added) if keeps else None
        # A backward pass with a thread of its own has none of the modes that see how parameters are used.
        ctx.modes = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        ctx.save_for_backward(lost, *(states.grid if layer.last else ()))
        return after

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        states: States = ctx.states
        lost, *last = ctx.saved_tensors
        if last:
            states.grid = (last[0], last[1])
        leaf, added = ctx.graph or _again(ctx, lost)
        wanted = [tensor for tensor in (leaf, *ctx.trained) if tensor.requires_grad]
        found = dict(zip(map(id, wanted), torch.autograd.grad(added, wanted, grad, allow_unused=True), strict=True))
        before = COUPLING * grad if ctx.needs_input_grad[3] else None
        return None, None, None, before, found.get(id(leaf)), *(found[id(p)] for p in ctx.trained)


def _again(ctx: Any, lost: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's input and F of it, with a graph; the states go one layer back. Of the first layer A is enough."""
    layer, states = ctx.layer, ctx.states
    now = states.grid[0]
    leaf = off_grid(now, layer.down.weight.dtype).requires_grad_(ctx.needs_input_grad[4])
    with torch.enable_grad(), ExitStack() as entered:
        active = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        for mode in ctx.modes:
            if mode not in active:
                entered.enter_context(mode)
        if layer.first:  # below it nothing trains and nothing is undone
            return leaf, layer.change(leaf)
        added = layer.work(leaf, ctx.call, states)
    undo(states, added.detach(), lost)
    return leaf, added


@contextmanager
def plainly(model: nn.Module) -> Iterator[None]:
    """Inside, the layers keep their graphs and nothing is computed again: exact autograd of the same numbers."""
    passes = [module.passes for module in model.modules() if isinstance(module, Coupled)]
    for shared in passes:
        shared.keeps = True
    try:
        yield
    finally:
        for shared in passes:
            shared.keeps = False
