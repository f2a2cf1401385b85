"""What a record is, and one loss for each that depends on that record alone."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from dpcore.tasks.causal_lm import CausalLM
from dpcore.tasks.sequence_classification import SequenceClassification
from dpcore.terms.tasks import TaskKind

TextTask = SequenceClassification | CausalLM


def make_task(
    kind: TaskKind, tokenizer: PreTrainedTokenizerBase, *, labels: Sequence[str] = (), max_length: int
) -> TextTask:
    """The task of a kind. Raises ValueError, with a public reason, when labels or tokenizer do not fit it."""
    if kind == "classification" or kind == "pair":
        return SequenceClassification(tokenizer, labels, max_length, pair=kind == "pair")
    if labels:
        raise ValueError(f"records of kind {kind} have no labels")
    return CausalLM(tokenizer, max_length, kind=kind)
