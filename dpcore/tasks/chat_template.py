"""Chats as the tokenizer's own template writes them, cut so that no message can spell a token of the template.

The template is rendered with a place-holder for every message, so that what is its own text is known. A chat is then
tokenised as a whole; where a message spells a special token, the pieces are tokenised alone, the messages without any
special token, and put side by side.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from dpcore.tasks.in_context import TextPart

ROLES = ("system", "user", "assistant")
_SPACE = "\u2003"
"""White space that no template writes itself: where it is gone, the template strips the messages."""
_PLACE = re.compile(f"({_SPACE}?)\ue000([0-9]+)\ue001({_SPACE}?)")


@dataclass(frozen=True)
class Piece:
    """A part of a rendered chat: the content of a turn, or, where `turn` is None, the template's own text."""

    turn: int | None
    text: str
    target: bool
    stripped: bool = False
    """Whether the template takes the white space around this turn's content away."""

    def of(self, turns: "Turns") -> str:
        """Its text in a chat."""
        if self.turn is None:
            return self.text
        content = turns.contents[self.turn]
        return content.strip() if self.stripped else content


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

    def parts(self, turns: Turns) -> list[TextPart]:
        """A chat's text, cut; empty for one that the template does not take."""
        pieces = self.pieces(turns.roles)
        return [TextPart(piece.of(turns), piece.turn is not None, piece.target) for piece in pieces]

    def ends(self) -> list[int]:
        """The special token with which the template ends a turn of the assistant's; nothing where it has none."""
        pieces = self.pieces(("user", "assistant"))
        end = next((piece.text for piece in reversed(pieces) if piece.target and piece.turn is None), "")
        ids = self._tokenizer(end, add_special_tokens=False)["input_ids"]
        added = self._tokenizer.added_tokens_decoder
        return [number for number in ids if number in added and added[number].special][:1]

    def _cut(self, roles: tuple[str, ...]) -> tuple[Piece, ...]:
        # Place-holders cut the text in turns: own text, then space, number of a turn, space, own text, again and again.
        parts = _PLACE.split(self._rendered(roles))
        pieces = [Piece(None, parts[0], False)]
        for before, number, after, text in zip(*(parts[i::4] for i in (1, 2, 3, 4)), strict=True):
            turn, stripped = int(number), not before and not after
            target = roles[turn] == "assistant"
            # What the template writes after this very turn ends it; what comes then belongs to the next.
            tail = _PLACE.split(self._rendered(roles[: turn + 1]))[-1] if target else ""
            end = tail if text.startswith(tail) else ""
            pieces += [
                Piece(turn, "", target, stripped),
                Piece(None, end, target),
                Piece(None, text[len(end) :], False),
            ]
        return tuple(piece for piece in pieces if piece.turn is not None or piece.text)

    def _rendered(self, roles: tuple[str, ...]) -> str:
        turns = [{"role": role, "content": f"{_SPACE}\ue000{i}\ue001{_SPACE}"} for i, role in enumerate(roles)]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False))
