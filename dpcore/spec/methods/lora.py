"""Low-rank adaptation: two thin matrices beside each adapted weight, and a classifier's new head."""

from typing import Literal

from pydantic import Field

from dpcore.spec import memory as sizes
from dpcore.spec.errors import FieldError
from dpcore.spec.facts import ModelFacts
from dpcore.spec.hyperparameters import Defaults, Hyperparameters, OnePhase, Request
from dpcore.spec.strict import Listed, StrictModel
from dpcore.spec.tasks import CAUSAL_LM, TaskKind

__all__ = ["Hyperparameters", "Options", "Request", "check", "memory", "phases", "plan", "resolve", "trainable"]

_one = OnePhase(
    "lora",
    classifier=Defaults(steps=200, batch_size=1024, learning_rate=1e-2),
    causal_lm=Defaults(steps=60, batch_size=512, learning_rate=5e-3),
)
resolve, phases, plan = _one.resolve, _one.phases, _one.plan


class Options(StrictModel):
    """What is trained."""

    r: int = Field(default=8, ge=1, le=256, description="rank of the update")
    alpha: float = Field(default=16.0, gt=0, le=1e4, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on the input of the adapted layers")
    target_modules: Literal["auto"] | Listed[tuple[str, ...]] = Field(
        default="auto",
        description=(
            "the adapted linear layers; auto: attention's query and value (GPT-2: query, key and value, which are one "
            "layer there), for classifiers in the model's upper half, for language models everywhere"
        ),
    )


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Fits every model whose layers have the names asked for. Raises FieldError for a name that none has; where the
    facts tell no names, the model itself does before the first step."""
    if options.target_modules == "auto":
        return
    if not options.target_modules:
        raise FieldError("target_modules", "target_modules is empty; leave it out for attention's query and value")
    if facts.linear is None:
        return
    unknown = [name for name in options.target_modules if not _called(name, facts.linear)]
    if unknown:
        there = ", ".join(sorted({layer.rpartition(".")[2] for layer in facts.linear}))
        words = f"target_modules: no linear layer of this model is called {unknown[0][:80]!r}; there are: {there}"
        raise FieldError("target_modules", words)


def _called(name: str, layers: tuple[str, ...]) -> list[str]:
    """The layers that a name stands for: one with it at the end of its path, or the one whose path ends it, which a
    model may put a prefix before."""
    return [layer for layer in layers if f".{layer}".endswith(f".{name}") or f".{name}".endswith(f".{layer}")]


def adapted(options: Options, facts: ModelFacts, task: TaskKind) -> int:
    """Layers that get two thin matrices."""
    if options.target_modules != "auto":
        if facts.linear is None:
            return facts.layers * len(options.target_modules)
        return len({layer for name in options.target_modules for layer in _called(name, facts.linear)})
    depth = facts.layers if task in CAUSAL_LM else (facts.layers + 1) // 2
    return depth * (1 if facts.model_type == "gpt2" else 2)


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable weights: about, because head shapes differ between architectures."""
    width = 3 * facts.hidden_size if facts.model_type == "gpt2" else facts.hidden_size
    per_target = options.r * (facts.hidden_size + width)
    return adapted(options, facts, task) * per_target + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself."""
    train = trainable(options, facts, labels=labels, task=task)
    return sizes.by_example(train, facts, max_length=max_length, labels=labels)
