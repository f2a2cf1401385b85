"""One training step by each contender: forward, backward, clip, noise, AdamW. All from the same weights and records."""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from benchmarks.training.models import (
    Batch,
    Family,
    Size,
    attach,
    make_batch,
    make_model,
    record_losses,
    service_losses,
    tokens_of,
)
from benchmarks.training.processes import Commands, Refused, Timed, available, clock, peak, resident
from dpcore import optimise
from dpcore.engine.per_example import PerExample
from dpcore.machine import recompute
from dpcore.machine.token_budget import cpu_tokens
from dpcore.mechanism.clipping import ClippedSum
from dpcore.mechanism.keystream import Streams
from dpcore.mechanism.noise import noised_mean
from dpcore.terms.mechanisms import subsampled
from dpcore.terms.program import Phase

NONPRIVATE, OURS, HOOKS, GHOST, FASTDP = "nonprivate", "ours", "opacus-hooks", "opacus-ghost", "fastdp"
SAME_LOSS = "nonprivate-same-loss"
RECOMPUTE = "ours-recompute"
RATE = 1e-4


@dataclass(frozen=True)
class Setting:
    """What a contender trains on; fastdp: the folder with its package."""

    family: Family
    size: Size
    examples: int
    length: int
    device: str
    fastdp: Path | None = None


@dataclass(frozen=True)
class Step:
    """run: takes one step and returns its seconds of noise. release: gives back what is kept for the next step, but
    for `kept` bytes."""

    run: Callable[[], float]
    release: Callable[[], None] = lambda: None
    kept: int = 0


def commands(setting: Setting, method: str, contender: str) -> Commands:
    """What a process with this contender answers.

    time(n): seconds of n steps, and those of their noise. memory(): bytes that a step needs at its peak, and those of
    weights and optimiser. trainable(): numbers that train.
    """
    device = torch.device(setting.device)
    before = resident(device)
    model = _model(setting, method, contender)
    batch = make_batch(setting.family, setting.size, setting.examples, setting.length, device)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    step = _MAKE[contender](model, setting, batch)

    def time(steps: int) -> tuple[float, float]:
        began = clock(device)
        noise = sum(step.run() for _ in range(steps))
        return clock(device) - began, noise

    def memory() -> tuple[int, int]:
        step.release()
        state = resident(device) - before
        # What is kept from step to step belongs to the step, not to the weights.
        return peak(step.run, device) + step.kept, state - step.kept

    return {"time": time, "memory": memory, "trainable": lambda: trainable}


def _model(setting: Setting, method: str, contender: str) -> nn.Module:
    """Ghost clipping refuses a head that is the embedding, fastDP counts it wrong: theirs are two where both train."""
    tied = method != "full" or contender not in (GHOST, FASTDP)
    model = make_model(setting.family, setting.size, setting.length, tied=tied)
    if contender in (HOOKS, GHOST):
        without_conv1d(model)
    return attach(model, setting.family, method).to(setting.device)


def without_conv1d(model: nn.Module) -> None:
    """GPT-2's layers as the same in Linear, since Opacus has no rule for Conv1D, and its general one is slow."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv1D):
                linear = nn.Linear(*child.weight.shape)
                linear.weight.data, linear.bias.data = child.weight.data.T.contiguous(), child.bias.data
                setattr(module, name, linear)


def make_phase(*, examples: int, records: int | None = None) -> Phase:
    """A phase of which a benchmark needs no more than that it is one. records: in the file, a hundred draws by
    default."""
    return Phase(
        name="train",
        trains="any",
        mechanism=subsampled(examples, 100 * examples if records is None else records),
        steps=10**6,
        clip_norm=1.0,
        expected_batch=examples,
        learning_rate=RATE,
    )


def _nonprivate(
    model: nn.Module, setting: Setting, batch: Batch, *, losses: Callable[[nn.Module, Family, Batch], Tensor]
) -> Step:
    optimiser = adamw(model)

    def run() -> float:
        losses(model, setting.family, batch).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return 0.0

    return Step(run)


def adamw(model: nn.Module, rate: float = RATE) -> torch.optim.AdamW:
    """The optimiser of all contenders, as dpcore makes it."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)


def _ours(model: nn.Module, setting: Setting, batch: Batch, *, recomputing: bool = False) -> Step:
    """The pieces of dpcore's loop, in micro-batches as it cuts them on a processor; on a GPU in one. recomputing: its
    layers keep their inputs only."""
    phase, streams = make_phase(examples=setting.examples), Streams()
    engine, noise_multiplier = PerExample(model), phase.mechanism.noise_multiplier
    if recomputing and not recompute.switch_on(model, lambda: engine.recomputing()):
        raise Refused("its layers cannot be recomputed")
    optimiser = optimise.make(engine.parameters, phase)
    memory = torch.empty(engine.width, dtype=torch.float64, device=engine.device)
    at_once = setting.examples
    if engine.device.type == "cpu":
        at_once = max(1, cpu_tokens(thin=engine.thin) // tokens_of(setting.family, setting.length))
    parts = batch.cut(at_once)
    done = 0

    def run() -> float:
        nonlocal done
        total = empty_sum(engine, phase, memory)
        for part in parts:
            total.add(engine.gradients(lambda part=part: service_losses(model, setting.family, part), len(part.ids)))
        began = clock(engine.device)
        mean = noised_mean(
            total, noise_multiplier, phase.expected_batch, streams.at("noise", done), dtype=torch.float32
        )
        noise = clock(engine.device) - began
        optimise.step(
            optimiser,
            engine.parameters,
            [engine.unflatten(mean)],
            phase=phase,
            done=done,
            deviation=noise_multiplier * total.sensitivity / phase.expected_batch,
        )
        done += 1
        return noise

    return Step(run, engine.release, memory.nbytes)


def empty_sum(engine: PerExample, phase: Phase, memory: Tensor | None = None) -> ClippedSum:
    """The clipped sum over nothing, as dpcore's loop begins a draw."""
    return ClippedSum.zero(
        engine.width,
        clip_norm=phase.clip_norm,
        clipping=phase.clipping,
        expected_batch=phase.expected_batch,
        device=engine.device,
        memory=memory,
    )


def _opacus(model: nn.Module, setting: Setting, batch: Batch, *, ghost: bool) -> Step:
    if not ghost:
        _require_memory(model, setting)
    opacus = Opacus(model, ghost=ghost, expected_batch=setting.examples)
    noise = Timed(opacus.optimiser, "add_noise", torch.device(setting.device))

    def run() -> float:
        opacus.backward(record_losses(opacus.model, setting.family, batch, positions=True))
        opacus.optimiser.step()
        opacus.optimiser.zero_grad(set_to_none=True)
        return noise.taken()

    return Step(run)


class Opacus:
    """Opacus' model and optimiser in one of its two modes. Losses are [m], its mean over them."""

    def __init__(
        self, model: nn.Module, *, ghost: bool, expected_batch: int, noise: float = 1.0, rate: float = RATE
    ) -> None:
        from opacus import GradSampleModule
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping

        self._ghost = ghost
        self.model: Any
        if ghost:
            self.model = GradSampleModuleFastGradientClipping(model, loss_reduction="mean", max_grad_norm=1.0)
        else:
            self.model = GradSampleModule(model, loss_reduction="mean")
        kind = DPOptimizerFastGradientClipping if ghost else DPOptimizer
        self.optimiser = kind(
            adamw(model, rate), noise_multiplier=noise, max_grad_norm=1.0, expected_batch_size=expected_batch
        )

    def backward(self, losses: Tensor) -> None:
        """Ghost clipping goes through the model twice: once for the norms, once for the sum."""
        from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

        if self._ghost:
            DPTensorFastGradientClipping(self.model, self.optimiser, losses, "mean").backward()
        else:
            losses.mean().backward()


def _fastdp(model: nn.Module, setting: Setting, batch: Batch) -> Step:
    assert setting.fastdp is not None
    sys.path.insert(0, str(setting.fastdp))
    from fastDP import PrivacyEngine, transformers_support  # type: ignore[import-not-found]

    # It would replace forward passes by those of an older transformers, for positions that every record has of its own.
    transformers_support.forward_swapper = lambda module: None
    every_weight = all(p.requires_grad for p in model.parameters())
    optimiser: Any = adamw(model)
    with redirect_stdout(StringIO()):  # it prints what it does
        engine = PrivacyEngine(
            model,
            batch_size=setting.examples,
            sample_size=100 * setting.examples,
            num_steps=1000,
            noise_multiplier=1.0,
            clipping_mode="MixOpt",
            loss_reduction="mean",
            # Its trick against computing gradients twice: the embeddings alone ask autograd for any.
            origin_params=["_embeddings", "wte", "wpe"] if every_weight else None,
        )
        engine.attach(optimiser)

    def run() -> float:
        record_losses(model, setting.family, batch, positions=True).mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return 0.0  # it adds its noise while it clips

    return Step(run)


def _require_memory(model: nn.Module, setting: Setting) -> None:
    """Raises Refused before the machine would begin to swap, or kill."""
    needed = 4 * setting.examples * sum(p.numel() for p in model.parameters() if p.requires_grad)
    if 2 * needed > available(torch.device(setting.device)):
        raise Refused(
            f"gradients of {setting.examples} records need {needed / 2**30:.1f} GiB, and as much to work with"
        )


_MAKE: dict[str, Callable[[nn.Module, Setting, Batch], Step]] = {
    NONPRIVATE: partial(_nonprivate, losses=record_losses),
    SAME_LOSS: partial(_nonprivate, losses=service_losses),
    OURS: _ours,
    RECOMPUTE: partial(_ours, recomputing=True),
    HOOKS: partial(_opacus, ghost=False),
    GHOST: partial(_opacus, ghost=True),
    FASTDP: _fastdp,
}
