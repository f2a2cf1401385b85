"""A text, and one of a public set of labels."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from dpcore.tasks.sequence_classification import SequenceClassification


def make(tokenizer: PreTrainedTokenizerBase, *, labels: Sequence[str], max_length: int) -> SequenceClassification:
    """Raises ValueError for a repeated label, or fewer than two."""
    return SequenceClassification(tokenizer, labels, max_length)
