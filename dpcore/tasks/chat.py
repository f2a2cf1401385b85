"""A conversation, of which the assistant's turns are to be written."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from dpcore.tasks import chat_template, in_context
from dpcore.tasks.causal_lm import CausalLM, Columns, array, row_of
from dpcore.tasks.records import Row


def make(tokenizer: PreTrainedTokenizerBase, *, labels: Sequence[str], max_length: int) -> "Chats":
    """There are no labels. Raises ValueError for a tokenizer that has no chat template."""
    return Chats(tokenizer, max_length)


class Chats(CausalLM):
    """Conversations as the tokenizer's template writes them: targets are the assistant's turns, and what ends them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self._chat = chat_template.Chat(tokenizer)
        self._template: dict[str, np.ndarray] = {}
        super().__init__(tokenizer, max_length)

    def rows(self, columns: Columns) -> list[Row]:
        """columns: `messages`, each a chat as JSON."""
        chats = [chat_template.read(messages) for messages in columns["messages"]]
        parts = [self._chat.parts(turns) for turns in chats]
        rows = in_context.encode(self._tokenizer, parts)
        return [self._in_parts(cut) if row is None else row for row, cut in zip(rows, parts, strict=True)]

    def beginning(self, row: Mapping[str, str], *, whole: bool = False) -> list[int]:
        """Always uncut, up to the assistant's turn. Raises ValueError for messages that the template does not take."""
        try:
            ids: list[int] = self._tokenizer.apply_chat_template(
                json.loads(row["messages"]), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except Exception as error:  # noqa: BLE001  (a template is a program and refuses as it likes)
            raise ValueError(f"The chat template does not take these messages: {error}") from None
        return list(ids)

    def beside_texts(self) -> list[int]:
        """The template's own tokens too."""
        turns = [{"role": role, "content": "a"} for role in ("user", "assistant")]
        whole = self.encode({"messages": [json.dumps(turns)]}).tokens
        return [*super().beside_texts(), *(int(token) for token in whole)]

    def _in_parts(self, parts: Sequence[in_context.TextPart]) -> Row:
        """A chat whose messages are tokenised alone, because one of them spells a special token."""
        foreign = iter(self.ids([part.text for part in parts if part.foreign]))
        return row_of([(next(foreign) if part.foreign else self._own_text(part.text), part.target) for part in parts])

    def _own_text(self, text: str) -> np.ndarray:
        """The template's text: what looks like a special token in it is one."""
        if text not in self._template:
            encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=False)
            self._template[text] = array(encoded["input_ids"])
        return self._template[text]
