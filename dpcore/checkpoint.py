"""What is kept between two attempts at a run: noised iterates and their average, the optimiser's state, the step, the
plan, and the clip norm where it follows noised counts.

safetensors with JSON in its header, never pickle. There is no sampler state, no noise state and no partial sum in it:
a resumed run draws afresh, and what is in a checkpoint follows from noised outputs alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from dpcore.terms.plan import Plan

FORMAT = "tacit-checkpoint-1"


class PlanMismatch(ValueError):
    """The checkpoint is of another plan, or of a model with other trainable parameters."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` iterations. Weights, averages (none where nothing is averaged) and moments by parameter name,
    all [*parameter.shape] but for the optimiser's counters []. clip_norm: of the next step."""

    step: int
    plan: Plan
    clip_norm: float
    weights: dict[str, Tensor]
    averages: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


def dumps(
    step: int,
    plan: Plan,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    *,
    averages: Mapping[str, Tensor],
    clip_norm: float,
) -> bytes:
    """The run as bytes."""
    tensors = {f"weight/{name}": p.detach().contiguous() for name, p in parameters.items()}
    tensors |= {f"average/{name}": average.contiguous() for name, average in averages.items()}
    for name, p in parameters.items():
        for moment, value in optimiser.state[p].items():
            tensors[f"{moment}/{name}"] = value.detach().contiguous()
    metadata = {"format": FORMAT, "step": str(step), "plan": plan.model_dump_json()}
    if clip_norm != plan.clip_norm:
        metadata["clip_norm"] = clip_norm.hex()  # to the last bit
    data: bytes = save(tensors, metadata=metadata)
    return data


def loads(data: bytes) -> Checkpoint:
    """The bytes as a run. Raises ValueError when they are not a checkpoint."""
    metadata = _metadata(data)
    plan = Plan.model_validate_json(metadata["plan"])
    clip_norm = float.fromhex(metadata["clip_norm"]) if "clip_norm" in metadata else plan.clip_norm
    weights: dict[str, Tensor] = {}
    averages: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for key, value in load(data).items():
        kind, name = key.split("/", 1)
        if kind == "weight":
            weights[name] = value
        elif kind == "average":
            averages[name] = value
        else:
            moments.setdefault(name, {})[kind] = value
    return Checkpoint(int(metadata["step"]), plan, clip_norm, weights, averages, moments)


def restore(
    saved: Checkpoint,
    plan: Plan,
    parameters: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    averages: Mapping[str, Tensor],
) -> None:
    """Put a saved run into a model's parameters, its optimiser and the averages of its iterates.

    Raises PlanMismatch, before anything is changed.
    """
    if saved.plan != plan:
        raise PlanMismatch("the checkpoint was made under another plan")
    if {n: w.shape for n, w in saved.weights.items()} != {n: p.shape for n, p in parameters.items()}:
        raise PlanMismatch("the checkpoint's trainable parameters are not those of this model")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(saved.weights[name])
            # Counters stay on the CPU. Before the first step there is no moment.
            moments = saved.moments.get(name, {})
            optimiser.state[p] = {k: v.to(p.device) if v.shape == p.shape else v for k, v in moments.items()}
        for name, average in averages.items():
            average.copy_(saved.averages[name])


def read_step(data: bytes) -> int:
    """How many iterations a checkpoint holds."""
    return int(_metadata(data)["step"])


def _metadata(data: bytes) -> dict[str, Any]:
    """The header of safetensors: eight bytes of length, then JSON."""
    try:
        size = int.from_bytes(data[:8], "little")
        metadata: dict[str, Any] = json.loads(data[8 : 8 + size])["__metadata__"]
    except (ValueError, KeyError) as error:
        raise ValueError("not a checkpoint") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"not a checkpoint of format {FORMAT}")
    return metadata
