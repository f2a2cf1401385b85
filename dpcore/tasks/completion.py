"""A prompt, and what is to be written after it."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from dpcore.tasks.causal_lm import CausalLM, Columns
from dpcore.tasks.records import Row


def make(tokenizer: PreTrainedTokenizerBase, *, labels: Sequence[str], max_length: int) -> CausalLM:
    """There are no labels."""
    return Completions(tokenizer, max_length)


class Completions(CausalLM):
    """The completion is the target."""

    def rows(self, columns: Columns) -> list[Row]:
        """columns: `prompt` and `completion`."""
        pairs = zip(columns["prompt"], columns["completion"], strict=True)
        # Each side is tokenised alone, because whoever uses the model has the prompt alone.
        return self.apart(
            [[(prompt + boundary(prompt, completion), False), (completion, True)] for prompt, completion in pairs]
        )


def boundary(prompt: str, completion: str) -> str:
    """What is put between the two so that no word runs into another: a newline, unless there is white space already."""
    return "" if not prompt or prompt[-1].isspace() or completion[:1].isspace() else "\n"
