"""Low-rank adaptation: two thin matrices beside each adapted weight, and a classifier's new head."""

from pydantic import Field

from dpcore.terms import memory as sizes
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts
from dpcore.terms.hyperparameters import Defaults, OnePhase, Request
from dpcore.terms.strict import Listed, StrictModel
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

_one = OnePhase(
    "lora",
    classifier=Defaults(steps=200, batch_size=1024, learning_rate=1e-2),
    causal_lm=Defaults(steps=60, batch_size=512, learning_rate=5e-3),
)
resolve, phases = _one.resolve, _one.phases


AUTO, ALL = "auto", "all-linear"


class Options(StrictModel):
    """What is trained."""

    r: int = Field(default=8, ge=1, le=256, description="rank of the update")
    alpha: float = Field(default=16.0, gt=0, le=1e4, description="the update is scaled by alpha / r")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on the input of the adapted layers")
    target_modules: str | Listed[tuple[str, ...]] = Field(
        default=AUTO,
        description=(
            "the adapted linear layers, one name or several; auto: attention's query and value (GPT-2 and others: "
            "query, key and value, which are one layer there; Phi-3, ModernBERT, MPNet, Mamba: all linear layers), for "
            "classifiers in the model's upper half, for language models everywhere; all-linear: every linear layer but "
            "the head"
        ),
    )


def names(options: Options) -> tuple[str, ...]:
    """The layers that were asked for by name."""
    asked = options.target_modules
    if asked in (AUTO, ALL):
        return ()
    return (asked,) if isinstance(asked, str) else asked


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Fits every model whose layers have the names asked for. Raises FieldError for a name that none has, and for a
    language model's head that is one with the embedding; where the facts tell no names, the model itself does before
    the first step."""
    if options.target_modules in (AUTO, ALL):
        return
    asked = names(options)
    if not asked or "" in asked:
        raise FieldError("target_modules", "target_modules is empty; leave it out for attention's query and value")
    if facts.linear is None:
        return
    unknown = [name for name in asked if not _called(name, facts.linear)]
    if unknown:
        there = ", ".join(sorted({layer.rpartition(".")[2] for layer in facts.linear}))
        words = f"target_modules: no linear layer of this model is called {unknown[0][:80]!r}; there are: {there}"
        raise FieldError("target_modules", words)
    if facts.tied_head in asked:
        words = f"target_modules: {facts.tied_head} and the embedding are one matrix; an adapter of it cannot be merged"
        raise FieldError("target_modules", words)


def _called(name: str, layers: tuple[str, ...]) -> list[str]:
    """The layers that a name stands for: one with it at the end of its path, or the one whose path ends it, which a
    model may put a prefix before."""
    return [layer for layer in layers if f".{layer}".endswith(f".{name}") or f".{name}".endswith(f".{layer}")]


_FUSED = {
    *("gpt2", "gpt_bigcode", "openai-gpt", "gpt_neox", "bloom", "falcon", "mpt", "codegen", "deberta"),
}
"""Types whose query, key and value are one layer."""
_WHOLE = {
    *("mpnet", "modernbert", "phi3", "mamba", "mamba2", "ctrl", "fnet", "funnel", "persimmon", "xlnet"),
}
"""Types of which neither this module nor PEFT knows attention's layers: all linear layers are adapted."""


def widths(options: Options, facts: ModelFacts, task: TaskKind) -> list[tuple[int, int]]:
    """Inputs and outputs of each layer that gets two thin matrices: about, from the shape of a transformer."""
    hidden, inner = facts.hidden_size, facts.intermediate_size
    fused = [(hidden, 3 * hidden if facts.model_type in _FUSED else hidden)]
    whole = [(hidden, hidden)] * 4 + [(hidden, inner), (inner, hidden)]
    asked = names(options)
    if asked:
        known = {layer for name in asked for layer in _called(name, facts.linear or ())}
        return fused * (len(known) if facts.linear is not None else facts.layers * len(asked))
    if options.target_modules == ALL:
        return whole * facts.layers
    depth = facts.layers if task in CAUSAL_LM else (facts.layers + 1) // 2
    if facts.model_type in _WHOLE:
        return whole * depth
    return fused * (depth if facts.model_type in _FUSED else 2 * depth)


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable weights: about, because head shapes differ between architectures."""
    adapted = sum(sum(sides) for sides in widths(options, facts, task))
    return options.r * adapted + labels * (facts.hidden_size + 1)


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself."""
    train = trainable(options, facts, labels=labels, task=task)
    return sizes.by_example(train, facts, max_length=max_length, labels=labels)
