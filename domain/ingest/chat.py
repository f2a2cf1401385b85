"""Conversations: what `messages` may hold, and the one way that it is written down."""

import json
from typing import Any

from domain.ingest.values import is_text

ROLES = ("system", "user", "assistant")


class BadMessages(ValueError):
    """Not a conversation to learn from. The words are fixed text: nothing of the file is in them."""


def canonical(value: Any) -> str:
    """A list of {"role", "content"}, or its JSON text, as canonical JSON text. Raises BadMessages."""
    messages = _parsed(value) if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        raise BadMessages("is not a list of messages")
    for place, message in enumerate(messages):
        _require_message(message, first=place == 0)
    if not any(message["role"] == "assistant" for message in messages):
        raise BadMessages("has no message of the assistant, so that there is nothing to learn")
    ordered = [{"role": message["role"], "content": message["content"]} for message in messages]
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessages("is not a list of messages") from None


def _require_message(message: Any, *, first: bool) -> None:
    if not isinstance(message, dict):
        raise BadMessages("has a message that is not an object")
    if message.get("role") in ("tool", "function") or "tool_calls" in message or "function_call" in message:
        raise BadMessages("uses tools, which are not supported: the roles are system, user and assistant")
    if set(message) != {"role", "content"}:
        raise BadMessages("has a message with other keys than role and content")
    if message["role"] not in ROLES:
        raise BadMessages("has a role that is not one of system, user and assistant")
    if message["role"] == "system" and not first:
        raise BadMessages("has a system message that is not the first one")
    if not is_text(message["content"]):
        raise BadMessages("has a message whose content is not a text with at least one character")
