"""What is kept between two attempts at a run: noised iterates, the optimiser's state, the step and the plan.

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

from dpcore.spec.plan import Plan

FORMAT = "tacit-checkpoint-1"


class PlanMismatch(ValueError):
    """The checkpoint is of another plan, or of a model with other trainable parameters."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` iterations. Weights and moments by parameter name, all [*parameter.shape]."""

    step: int
    plan: Plan
    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


def dumps(step: int, plan: Plan, parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer) -> bytes:
    """The run as bytes."""
    tensors = {f"weight/{name}": p.detach().contiguous() for name, p in parameters.items()}
    for name, p in parameters.items():
        for moment, value in optimiser.state[p].items():
            tensors[f"{moment}/{name}"] = value.detach().contiguous()
    data: bytes = save(tensors, metadata={"format": FORMAT, "step": str(step), "plan": plan.model_dump_json()})
    return data


def loads(data: bytes) -> Checkpoint:
    """The bytes as a run. Raises ValueError when they are not a checkpoint."""
    metadata = _metadata(data)
    weights: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for key, value in load(data).items():
        kind, name = key.split("/", 1)
        if kind == "weight":
            weights[name] = value
        else:
            moments.setdefault(name, {})[kind] = value
    return Checkpoint(int(metadata["step"]), Plan.model_validate_json(metadata["plan"]), weights, moments)


def restore(
    saved: Checkpoint, plan: Plan, parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> None:
    """Put a saved run into a model's parameters and its optimiser. Raises PlanMismatch, before anything is changed."""
    if saved.plan != plan:
        raise PlanMismatch("the checkpoint was made under another plan")
    if {n: w.shape for n, w in saved.weights.items()} != {n: p.shape for n, p in parameters.items()}:
        raise PlanMismatch("the checkpoint's trainable parameters are not those of this model")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(saved.weights[name])
            # AdamW keeps its step counter on the CPU.
            optimiser.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in saved.moments[name].items()}


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
