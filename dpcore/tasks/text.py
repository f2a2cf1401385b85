"""A text that is to be written from its beginning."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from dpcore.tasks.causal_lm import CausalLM, Columns
from dpcore.tasks.records import Row


def make(tokenizer: PreTrainedTokenizerBase, *, labels: Sequence[str], max_length: int) -> CausalLM:
    """There are no labels."""
    return Texts(tokenizer, max_length)


class Texts(CausalLM):
    """All of a text is a target."""

    def rows(self, columns: Columns) -> list[Row]:
        """columns: `text`."""
        return self.apart([[(text, True)] for text in columns["text"]])
