"""What a record is, and one loss for each that depends on that record alone. One module a kind of task, found by its
name, which offers `make(tokenizer, *, labels, max_length)`; the others are what kinds share."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from transformers import PreTrainedTokenizerBase

from dpcore.tasks.causal_lm import CausalLM
from dpcore.tasks.sequence_classification import SequenceClassification
from dpcore.terms.tasks import HalfMadeKind, TaskKind, get_kind

Task = SequenceClassification | CausalLM


def make_task(
    kind: TaskKind, tokenizer: PreTrainedTokenizerBase, *, labels: Sequence[str] = (), max_length: int
) -> Task:
    """The task of a kind. Raises ValueError, with a public reason, when labels or tokenizer do not fit it, and
    HalfMadeKind, naming the module, for one that has no torch side."""
    if labels and not get_kind(kind).labelled:
        raise ValueError(f"records of kind {kind} have no labels")
    module = f"{__name__}.{kind}"
    make = getattr(import_module(module), "make", None) if find_spec(module) else None
    if make is None:
        raise HalfMadeKind(f"kind of task {kind!r}: no function `make` in a module {module}")
    made: Task = make(tokenizer, labels=labels, max_length=max_length)
    return made
