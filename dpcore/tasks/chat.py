"""Chats as the tokenizer's own template writes them, cut so that no message can spell a token of the template.

The template is rendered with a place-holder for every message. Its own text is tokenised with its special tokens, the
messages without any, and the pieces are put side by side.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
_PLACE = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True)
class Piece:
    """A part of a rendered chat: the content of a turn, or, where `turn` is None, the template's own text."""

    turn: int | None
    text: str
    target: bool


@dataclass(frozen=True)
class Turns:
    """A chat: role and content of each message."""

    roles: tuple[str, ...]
    contents: tuple[str, ...]


def read(messages: str) -> Turns:
    """A chat from its JSON; an empty one for what is not a list of messages with known roles."""
    try:
        turns: Any = json.loads(messages)
        roles, contents = tuple(turn["role"] for turn in turns), tuple(turn["content"] for turn in turns)
    except (ValueError, TypeError, KeyError):
        return Turns((), ())
    if not all(role in ROLES for role in roles) or not all(isinstance(content, str) for content in contents):
        return Turns((), ())
    return Turns(roles, contents)


class Chat:
    """A tokenizer's chat template, read once for each sequence of roles."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ValueError for a tokenizer without a template."""
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template")
        self._tokenizer = tokenizer
        self._known: dict[tuple[str, ...], tuple[Piece, ...]] = {}

    def pieces(self, roles: tuple[str, ...]) -> tuple[Piece, ...]:
        """A chat with these roles in pieces; none for one that the template does not take."""
        if not roles:
            return ()
        if roles not in self._known:
            try:
                self._known[roles] = self._cut(roles)
            # A template is a program and refuses as it likes; outside, nobody may see that it refused a record.
            except Exception:  # noqa: BLE001
                self._known[roles] = ()
        return self._known[roles]

    def _cut(self, roles: tuple[str, ...]) -> tuple[Piece, ...]:
        # Place-holders cut the text in turns: own text, number of a turn, own text, ..., own text.
        parts = _PLACE.split(self._rendered(roles))
        pieces = [Piece(None, parts[0], False)]
        for number, text in zip(parts[1::2], parts[2::2], strict=True):
            turn = int(number)
            target = roles[turn] == "assistant"
            # What the template writes after this very turn ends it; what comes then belongs to the next.
            tail = _PLACE.split(self._rendered(roles[: turn + 1]))[-1] if target else ""
            end = tail if text.startswith(tail) else ""
            pieces += [Piece(turn, "", target), Piece(None, end, target), Piece(None, text[len(end) :], False)]
        return tuple(piece for piece in pieces if piece.turn is not None or piece.text)

    def _rendered(self, roles: tuple[str, ...]) -> str:
        turns = [{"role": role, "content": f"\ue000{i}\ue001"} for i, role in enumerate(roles)]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False))
