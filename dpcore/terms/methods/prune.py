"""Pruning while training (DPIMP of "Differentially Private Model Compression", Mireshghallah et al. 2022, algorithms 2
and 3; a reconstruction, the full text was not at hand).

Unstructured: on a public schedule the matrix entries of smallest magnitude are set to zero and stay so. Structured:
whole layers are dropped, by a public rule. It is one run of DP-SGD: which entries go follows from noised iterates or
from public weights alone, which costs nothing.
"""

from typing import Annotated, Literal

from pydantic import Field

from dpcore.terms import hyperparameters as shared
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts, require_texts
from dpcore.terms.hyperparameters import Hyperparameters, Request
from dpcore.terms.layers import kept
from dpcore.terms.methods import full, lora
from dpcore.terms.program import Phase
from dpcore.terms.strict import Listed, StrictModel
from dpcore.terms.tasks import TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

_ROUNDS = 5
"""Prunings where nobody names a number, or as many as the steps have room for."""

_Step = Annotated[int, Field(ge=1, le=1_000_000)]


class Options(StrictModel):
    """What is pruned, when, and what trains."""

    kind: Literal["unstructured", "structured"] = Field(
        default="unstructured",
        description=(
            "unstructured: single entries of the layers' matrices become zero, which makes the file smaller and "
            "nothing faster; structured: whole layers are dropped, which makes the model smaller and faster"
        ),
    )
    sparsity: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description=(
            "unstructured: the share of zeros at the end, of the layers' matrices; embeddings, norms, biases and the "
            "head stay whole"
        ),
    )
    scope: Literal["global", "matrix"] = Field(
        default="global",
        description="unstructured: whether magnitudes are compared over all matrices, or within each one",
    )
    keep_layers: Literal["half"] | int | Listed[tuple[int, ...]] = Field(
        default="half",
        description=(
            "structured: how many layers stay, evenly spread with the first and the last among them, or their numbers, "
            "counted from 0; half: half of them, rounded up"
        ),
    )
    weights: Literal["all", "lora"] = Field(
        default="all", description="what trains: all weights that are left, or LoRA's factors beside a pruned base"
    )
    when: Literal["auto", "schedule", "start"] = Field(
        default="auto",
        description=(
            "schedule: in steps during training, by the magnitudes of the noised weights; start: at once before the "
            "first step, by those of the public weights; auto: schedule, and start under weights: lora"
        ),
    )
    rounds: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        default="auto",
        description=f"prunings of the schedule, those of entries ever smaller; auto: {_ROUNDS}, or as many as fit",
    )
    first: Literal["auto"] | _Step = Field(
        default="auto", description="the step after which the first pruning is; auto: so that all are equally far apart"
    )
    last: Literal["auto"] | _Step = Field(
        default="auto", description="the step after which the last pruning is; auto: two thirds of the steps"
    )
    rewind: bool = Field(
        default=False,
        description=(
            "after each pruning of the schedule what is left starts again from the public weights, so that the steps "
            "before it have only found the zeros"
        ),
    )
    r: int = Field(default=8, ge=1, le=256, description="rank of LoRA's update, under weights: lora")
    alpha: float = Field(default=16.0, gt=0, le=1e4, description="the update is scaled by alpha / r")
    target_modules: str | Listed[tuple[str, ...]] = Field(
        default=lora.AUTO, description="the layers that LoRA adapts, as for the method lora"
    )

    @property
    def lora(self) -> lora.Options:
        """Of the adapter."""
        return lora.Options(r=self.r, alpha=self.alpha, target_modules=self.target_modules)

    @property
    def scheduled(self) -> bool:
        """Whether pruning goes on during training."""
        return self.when == "schedule" or (self.when == "auto" and self.weights == "all")

    def layers_from(self, layers: int, steps: int) -> dict[int, int]:
        """How many of so many layers are left from which step on. Raises FieldError as `schedule` does."""
        if self.kind == "unstructured":
            return {0: layers}
        shares = {0: 0.0 if self.scheduled else 1.0} | schedule(self, steps)
        return {step: len(left_layers(self, layers, share)) for step, share in shares.items()}


_SCHEDULE = ("rounds", "first", "last", "rewind")
_ADAPTER = ("r", "alpha", "target_modules")
_ENTRIES, _LAYERS = ("sparsity", "scope", "rewind"), ("keep_layers",)


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Fits every model whose layers can be found, which the model itself tells before the first step. Raises FieldError
    for layers that there are not, for options that mean nothing beside others, and as `lora` does; ValueError for
    a model of pictures."""
    require_texts("prune", facts)
    structured = options.kind == "structured"
    _require_unused(options, _ENTRIES if structured else _LAYERS, f"kind: {options.kind}")
    if options.weights == "lora" and options.when == "schedule":
        raise FieldError(
            "when", "when: with weights: lora the base is frozen, so it is pruned at the start; leave when out"
        )
    if not options.scheduled:
        _require_unused(options, _SCHEDULE, "pruning at the start")
    if options.weights == "lora":
        lora.check(options.lora, facts, task)
    else:
        _require_unused(options, _ADAPTER, "weights: all")
    if structured:
        kept_layers(options, facts.layers)


def _require_unused(options: Options, names: tuple[str, ...], because: str) -> None:
    """Raises FieldError for an option that was given a value of its own and would do nothing."""
    for name in names:
        if getattr(options, name) != Options.model_fields[name].default:
            raise FieldError(name, f"{name} means nothing with {because}; leave it out")


def kept_layers(options: Options, layers: int) -> tuple[int, ...]:
    """The numbers of the layers that stay at the end, ascending. Raises FieldError unless at least one of `layers` is
    dropped and one is left, and for a list that is none of them."""
    asked = options.keep_layers
    stay = kept("keep_layers", -(-layers // 2) if asked == "half" else asked, layers)
    if len(stay) == layers:
        raise FieldError("keep_layers", f"keep_layers: all {layers} layers of the model would stay; name fewer")
    return stay


def left_layers(options: Options, layers: int, share: float) -> tuple[int, ...]:
    """The layers that are left once so much of the dropping is done: those that go do so from the last one down."""
    stay = kept_layers(options, layers)
    going = [layer for layer in range(layers) if layer not in stay]
    return tuple(sorted((*stay, *going[: len(going) - round(share * len(going))])))


def schedule(options: Options, steps: int) -> dict[int, float]:
    """After which steps there is a pruning, and how much of the whole is done then; empty at the start alone.

    The i-th of r prunings reaches 1 - (1 - i/r)^3 of the zeros (Zhu and Gupta 2017), or i/r of the layers that go.
    Raises FieldError for a schedule that does not fit the steps.
    """
    if not options.scheduled:
        return {}
    last = max(1, 2 * steps // 3) if options.last == "auto" else options.last
    if last > steps:
        raise FieldError("last", f"last: step {last} comes after the job's {steps} steps; name an earlier one")
    if options.rewind and last == steps:
        raise FieldError("rewind", f"rewind after the last step would undo the training; name a last below {steps}")
    room = last if options.first == "auto" else last - options.first + 1
    if room < 1:
        raise FieldError("first", f"first: step {options.first} comes after the last pruning, which is at step {last}")
    rounds = min(_ROUNDS, room) if options.rounds == "auto" else options.rounds
    if rounds > room:
        raise FieldError("rounds", f"rounds: {rounds} prunings do not fit into the {room} steps until step {last}")
    first = last - (rounds - 1) * (last // rounds) if options.first == "auto" else options.first
    at = [last - (last - first) * (rounds - i) // max(1, rounds - 1) for i in range(1, rounds + 1)]
    power = 1 if options.kind == "structured" else 3
    return {step: 1 - (1 - i / rounds) ** power for i, step in enumerate(at, start=1)}


def resolve(
    request: Request, options: Options, *, task: TaskKind, declared_size: int, epsilon: float, facts: ModelFacts
) -> Hyperparameters:
    """The numbers of `full`, or of `lora`. Raises FieldError as they do, and for a schedule that does not fit."""
    like = lora.resolve if options.weights == "lora" else full.resolve
    numbers = like(request, options, task=task, declared_size=declared_size, epsilon=epsilon, facts=facts)
    schedule(options, numbers.steps)
    return numbers


def phases(options: Options, hyperparameters: Hyperparameters, *, declared_size: int) -> tuple[Phase, ...]:
    """One phase, before, between and after the prunings."""
    trains = "lora" if options.weights == "lora" else "full"
    return (shared.phase(hyperparameters, name="train", trains=trains, declared_size=declared_size),)


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable weights at the first step."""
    facts = _at_first(options, facts)
    if options.weights == "lora":
        return lora.trainable(options.lora, facts, labels=labels, task=task)
    return full.trainable(full.Options(), facts, labels=labels, task=task)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself: as `full` or `lora`, with one for each entry that may be
    pruned, and the public weights once more where they come back."""
    facts = _at_first(options, facts)
    if options.weights == "lora":
        return lora.memory(options.lora, facts, max_length=max_length, labels=labels, task=task)
    mask = facts.parameters if options.kind == "unstructured" else 0
    public = 4 * facts.parameters if options.rewind else 0
    return full.memory(full.Options(), facts, max_length=max_length, labels=labels, task=task) + mask + public


def _at_first(options: Options, facts: ModelFacts) -> ModelFacts:
    """The sizes of the model that the first step trains."""
    if options.kind == "unstructured" or options.scheduled:
        return facts
    return facts.model_copy(update={"layers": len(kept_layers(options, facts.layers))})
