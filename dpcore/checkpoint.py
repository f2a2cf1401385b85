"""What is kept between two attempts at a run: noised iterates and their average, the optimiser's state, phase and step,
the program, the clip norm where it follows noised counts, and what a method keeps between its steps.

safetensors with JSON in its header, never pickle. There is no sampler state, no noise state and no partial sum in it:
a resumed run draws afresh, and what is in a checkpoint follows from noised outputs alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from dpcore.terms.program import Program

FORMAT = "tacit-checkpoint-2"
FIRST = "tacit-checkpoint-1"
"""Of the revisions in which a job was one plan."""
_WEIGHT, _AVERAGE, _KEPT = "weight", "average", "kept"


class PlanMismatch(ValueError):
    """The checkpoint is of another program, or of a model with other trainable parameters."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` iterations of a phase. Weights that were trained so far, averages (none where nothing is
    averaged) and moments by parameter name, all [*parameter.shape] but for the optimiser's counters []. clip_norm: of
    the next step. paid: whether an indivisible phase was authorised. before: iterations of earlier phases."""

    phase: int
    step: int
    program: Program
    clip_norm: float
    paid: bool
    weights: Mapping[str, Tensor]
    averages: Mapping[str, Tensor]
    moments: Mapping[str, Mapping[str, Tensor]]
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    before: int = 0


def dumps(run: Checkpoint) -> bytes:
    """The run as bytes."""
    named = {(_WEIGHT, name): weight for name, weight in run.weights.items()}
    named |= {(_AVERAGE, name): average for name, average in run.averages.items()}
    named |= {(_KEPT, name): value for name, value in run.kept.items()}
    named |= {(moment, name): value for name, of in run.moments.items() for moment, value in of.items()}
    tensors = {f"{kind}/{name}": value.detach().contiguous() for (kind, name), value in named.items()}
    metadata = {"format": FORMAT, "phase": str(run.phase), "step": str(run.step), "before": str(run.before)}
    metadata["program"] = run.program.model_dump_json()
    if run.paid:
        metadata["paid"] = "true"
    if run.clip_norm != run.program.phases[run.phase].clip_norm:
        metadata["clip_norm"] = run.clip_norm.hex()  # to the last bit
    data: bytes = save(tensors, metadata=metadata)
    return data


def loads(data: bytes) -> Checkpoint:
    """The bytes as a run. Raises ValueError when they are not a checkpoint."""
    metadata = _metadata(data)
    program = Program.model_validate_json(metadata["program"])
    phase = int(metadata["phase"])
    clip_norm = metadata.get("clip_norm")
    by_kind: dict[str, dict[str, Tensor]] = {}
    for key, value in load(data).items():
        kind, name = key.split("/", 1)
        by_kind.setdefault(kind, {})[name] = value
    weights, averages, kept = (by_kind.pop(kind, {}) for kind in (_WEIGHT, _AVERAGE, _KEPT))
    moments: dict[str, dict[str, Tensor]] = {}
    for moment, values in by_kind.items():
        for name, value in values.items():
            moments.setdefault(name, {})[moment] = value
    return Checkpoint(
        phase=phase,
        step=int(metadata["step"]),
        program=program,
        clip_norm=program.phases[phase].clip_norm if clip_norm is None else float.fromhex(clip_norm),
        paid="paid" in metadata,
        weights=weights,
        averages=averages,
        moments=moments,
        kept=kept,
        before=int(metadata["before"]),
    )


def require_same(saved: Checkpoint, program: Program) -> None:
    """Raises PlanMismatch for a run of another program."""
    if saved.program != program:
        raise PlanMismatch("the checkpoint was made under another program")


def restore(
    saved: Checkpoint,
    touched: Mapping[str, nn.Parameter],
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    averages: Mapping[str, Tensor],
) -> None:
    """Put a saved run into the parameters that were trained so far, the optimiser of those that train now, and the
    averages of its iterates.

    Raises PlanMismatch, before anything is changed.
    """
    if {n: w.shape for n, w in saved.weights.items()} != {n: p.shape for n, p in touched.items()}:
        raise PlanMismatch("the checkpoint's trainable parameters are not those of this model")
    with torch.no_grad():
        for name, p in touched.items():
            p.copy_(saved.weights[name])
        for name, p in parameters.items():
            # Counters stay on the CPU. Before the first step there is no moment.
            moments = saved.moments.get(name, {})
            optimiser.state[p] = {k: v.to(p.device) if v.shape == p.shape else v for k, v in moments.items()}
        for name, average in averages.items():
            average.copy_(saved.averages[name])


def read_step(data: bytes) -> int:
    """How far a checkpoint has come in its program: the number of its next step among the steps of all phases."""
    metadata = _metadata(data)
    program = Program.model_validate_json(metadata["program"])
    return program.before(int(metadata["phase"])) + int(metadata["step"])


def _metadata(data: bytes) -> dict[str, Any]:
    """The header of safetensors: eight bytes of length, then JSON."""
    try:
        size = int.from_bytes(data[:8], "little")
        metadata: dict[str, Any] = json.loads(data[8 : 8 + size])["__metadata__"]
    except (ValueError, KeyError) as error:
        raise ValueError("not a checkpoint") from error
    if metadata.get("format") == FIRST:
        return metadata | {"phase": "0", "before": "0", "program": metadata["plan"]}
    if metadata.get("format") != FORMAT:
        raise ValueError(f"not a checkpoint of format {FORMAT}")
    return metadata
