"""What a job prunes, kept on its model from the beginning: public values, the same at every attempt."""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from dpcore.terms.methods.prune import Options

_PLAN = "_tacit_prune"


@dataclass
class Plan:
    """layers: how many the base model has; 0 where none are dropped. left: the numbers there of those that the model
    still has. masks: entries that were pruned before the first step, by the name of the matrix. public: the weights as
    they were then, by name, where they come back."""

    options: Options
    layers: int
    left: tuple[int, ...]
    masks: dict[str, Tensor]
    public: dict[str, Tensor]


def put(model: nn.Module, plan: Plan) -> None:
    """Keep a plan on its model."""
    setattr(model, _PLAN, plan)


def plan_of(model: nn.Module) -> Plan:
    """The plan of a model that `attach` made."""
    return cast(Plan, getattr(model, _PLAN))
