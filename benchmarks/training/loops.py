"""Training loops over a file of records: dpcore's own, Opacus' with its BatchMemoryManager, and non-private ones.

Each takes one optimiser step at a time, on `batch` records or so many in expectation, of at most `tokens` padded tokens
at once. All see their records through the same task, which counts what passes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training import texts
from benchmarks.training.models import Size, attach, make_model
from benchmarks.training.processes import Commands, Timed, clock
from benchmarks.training.steps import Opacus, adamw, make_phase, without_conv1d
from dpcore import checkpoint
from dpcore.run import run as train
from dpcore.tasks import TextTask
from dpcore.tasks.records import Records
from dpcore.terms.program import Program
from dpcore.terms.speed import Speed

STEPS_A_CHECKPOINT = 10
"""dpcore's loop saves twenty times in a run, of 200 steps by the service's default."""

OURS, HOOKS, GHOST, PADDED, BUCKETED = "ours", "opacus-hooks", "opacus-ghost", "nonprivate", "bucketed"


@dataclass(frozen=True)
class Setting:
    """What the loops run on."""

    text: texts.Text
    size: Size
    batch: int
    tokens: int
    device: str


@dataclass
class Counted:
    """A task that counts the tokens that pass through it, with and without padding, and the shapes they come in.

    wrap: what the model is put into first.
    """

    task: TextTask
    wrap: Callable[[nn.Module], nn.Module]
    max_length: int = 0
    real: int = 0
    padded: int = 0
    shapes: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.max_length = self.task.max_length
        self.synthetic = self.task.synthetic

    def losses(self, model: nn.Module, records: Records, indices: np.ndarray, length: int) -> Tensor:
        self.real += int(records.lengths[indices].sum())
        self.padded += len(indices) * length
        self.shapes.add((len(indices), length))
        return self.task.losses(self.wrap(model), records, indices, length)

    def forget(self) -> None:
        """Begin to count again."""
        self.real = self.padded = 0
        self.shapes.clear()


class Usual(nn.Module):
    """A model as a usual loop has it: it gives its logits, and does not show its head, which could pass them over.

    positions: whether it is told every record's positions, as libraries with hooks need it.
    """

    def __init__(self, model: nn.Module, *, positions: bool) -> None:
        super().__init__()
        self.model, self.config, self._positions = model, getattr(model, "config", None), positions

    def forward(self, **inputs: Any) -> Any:
        if self._positions:
            ids: Tensor = inputs["input_ids"]
            inputs["position_ids"] = torch.arange(ids.shape[1], device=ids.device).repeat(len(ids), 1)
        return self.model(**inputs)


def commands(setting: Setting, records: Records, method: str, contender: str) -> Commands:
    """step(): takes one step; its seconds, and how many real tokens it saw. seen(): the share of padding in all that
    passed, and in how many shapes it came."""
    device = torch.device(setting.device)
    text = setting.text
    model = make_model(text.family, setting.size, text.max_length, tied=contender != GHOST or method != "full")
    if contender in (HOOKS, GHOST):
        without_conv1d(model)
    attached = attach(model, text.family, method).to(device)
    counted = Counted(texts.make(text), _WRAP[contender])
    steps = _MAKE[contender](attached, counted, records, setting)

    saving = Timed(checkpoint, "dumps", device)
    next(steps)  # up to the first step: dpcore rehearses
    counted.forget()

    def step() -> tuple[float, int]:
        before, began = counted.real, clock(device)
        next(steps)
        seconds = clock(device) - began - saving.taken() * (1 - 1 / STEPS_A_CHECKPOINT)
        return seconds, counted.real - before

    def seen() -> tuple[float, int]:
        return 1 - counted.real / counted.padded, len(counted.shapes)

    return {"step": step, "seen": seen}


def _ours(model: nn.Module, task: Counted, records: Records, setting: Setting) -> Iterator[None]:
    """dpcore's loop in a thread of its own, which waits for leave before every step, where a ledger would give it."""
    phase = make_phase(examples=setting.batch, records=len(records))
    program = Program(method="any", max_length=task.max_length, phases=(phase,))
    leave: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[BaseException | None] = SimpleQueue()

    def authorise(phase: int, asked: int) -> int:
        done.put(None)
        return leave.get()

    def run() -> None:
        try:
            train(
                model=model,
                task=task,
                records=records,
                program=program,
                authorise=authorise,
                save=lambda data: None,
                should_stop=lambda: False,
                speed=Speed(tokens=setting.tokens),
            )
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            done.put(error)
        else:
            done.put(StopIteration())

    Thread(target=run, daemon=True).start()
    _wait(done)  # for the rehearsal
    yield
    while True:
        leave.put(1)
        _wait(done)
        yield


def _wait(done: "SimpleQueue[BaseException | None]") -> None:
    error = done.get()
    if error is not None:
        raise error


def _opacus(model: nn.Module, task: Counted, records: Records, setting: Setting, *, ghost: bool) -> Iterator[None]:
    opacus = Opacus(model, ghost=ghost, expected_batch=setting.batch)
    opacus.model.config = model.config
    return opacus_steps(opacus, task, records, setting.batch, setting.tokens // task.max_length)


def opacus_steps(opacus: Opacus, task: Counted, records: Records, batch: int, at_once: int) -> Iterator[None]:
    """Poisson draws cut into physical batches, each padded to its longest."""
    from opacus.data_loader import DPDataLoader
    from opacus.utils.batch_memory_manager import BatchMemoryManager
    from torch.utils.data import TensorDataset

    stepped: list[object] = []
    opacus.optimiser.attach_step_hook(stepped.append)
    loader = DPDataLoader(TensorDataset(torch.arange(len(records))), sample_rate=batch / len(records))
    lengths = records.lengths
    yield
    while True:
        with BatchMemoryManager(
            data_loader=loader,
            max_physical_batch_size=at_once,
            optimizer=opacus.optimiser,
        ) as physical:
            for (drawn,) in physical:
                indices = drawn.numpy()
                if len(indices):
                    losses = task.losses(opacus.model, records, indices, int(lengths[indices].max()))
                    opacus.backward(losses)
                opacus.optimiser.step()
                opacus.optimiser.zero_grad(set_to_none=True)
                if stepped:
                    stepped.clear()
                    yield


def _nonprivate(
    model: nn.Module,
    task: Counted,
    records: Records,
    setting: Setting,
    *,
    cut: Callable[[np.ndarray, np.ndarray, Setting], Iterator[np.ndarray]],
) -> Iterator[None]:
    """Shuffled batches, gradients gathered over what is computed at once, each padded to its longest."""
    optimiser = adamw(model)
    generator = np.random.default_rng(0)
    lengths = records.lengths
    yield
    while True:
        order = generator.permutation(len(records))
        for start in range(0, len(order) - setting.batch + 1, setting.batch):
            for indices in cut(order[start : start + setting.batch], lengths, setting):
                losses = task.losses(model, records, indices, int(lengths[indices].max()))
                (losses.sum() / setting.batch).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            yield


def _as_drawn(batch: np.ndarray, lengths: np.ndarray, setting: Setting) -> Iterator[np.ndarray]:
    """As many records at once as fit when all are of the largest length."""
    size = setting.tokens // setting.text.max_length
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


def _by_length(batch: np.ndarray, lengths: np.ndarray, setting: Setting) -> Iterator[np.ndarray]:
    """Sorted, longest first, as many at once as fit when all are as long as the longest."""
    order = batch[np.argsort(-lengths[batch], kind="stable")]
    while len(order):
        size = max(1, setting.tokens // int(lengths[order[0]]))
        yield order[:size]
        order = order[size:]


_MAKE: dict[str, Callable[[nn.Module, Counted, Records, Setting], Iterator[None]]] = {
    OURS: _ours,
    HOOKS: partial(_opacus, ghost=False),
    GHOST: partial(_opacus, ghost=True),
    PADDED: partial(_nonprivate, cut=_as_drawn),
    BUCKETED: partial(_nonprivate, cut=_by_length),
}

_WRAP: dict[str, Callable[[nn.Module], nn.Module]] = {
    OURS: lambda model: model,
    HOOKS: partial(Usual, positions=True),
    GHOST: partial(Usual, positions=True),
    PADDED: partial(Usual, positions=False),
    BUCKETED: lambda model: model,
}
