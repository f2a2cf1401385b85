"""Conversations: what `messages` may hold, and the one way that it is written down."""

import json
from collections.abc import Mapping
from typing import Any

from domain.ingest.values import is_text

ROLES = ("system", "user", "assistant")
_SAME = {"developer": "system"}
_SHARED = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}
"""Roles of conversations whose messages are {"from", "value"}."""
_TOOLS = ("tool_calls", "function_call", "tool_call_id")
_TOOL_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response")
_NAMED = (
    "name",
    "refusal",
    "audio",
    "annotations",
    "reasoning",
    "reasoning_content",
    "thinking",
    "images",
    "id",
    "loss",
)
"""Keys that other services know; others are not told, for they may be somebody's words."""
_MEDIA = {
    "an image": ("image", "image_url", "input_image"),
    "a sound": ("audio", "input_audio", "audio_url"),
    "a video": ("video", "video_url"),
    "a file": ("file", "input_file", "document"),
}


class BadMessages(ValueError):
    """Not a conversation to learn from. The words are fixed text: nothing of the file is in them."""


def canonical(value: Any) -> str:
    """A list of {"role", "content"}, or its JSON text, as canonical JSON text. Raises BadMessages.

    What a client wrote for nothing (null, an empty list, a weight of 1) is nothing; a content of text parts is one
    text, the parts in lines of their own; `developer` is `system`, and {"from", "value"} is {"role", "content"}.
    """
    messages = _parsed(value) if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        raise BadMessages("is not a list of messages")
    ordered = [_message(message, first=place == 0) for place, message in enumerate(messages)]
    if not any(message["role"] == "assistant" for message in ordered):
        raise BadMessages("has no message of the assistant, so that there is nothing to learn")
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessages("is not a list of messages") from None


def _message(message: Any, *, first: bool) -> dict[str, str]:
    if not isinstance(message, dict):
        raise BadMessages("has a message that is not an object")
    said = {key: value for key, value in message.items() if not _is_nothing(value)}
    if said.keys() >= {"from", "value"} and said.keys().isdisjoint({"role", "content"}):
        role = said.pop("from")
        said |= {"role": _SHARED.get(role, role) if isinstance(role, str) else role, "content": said.pop("value")}
    if said.get("role") in _TOOL_ROLES or any(key in said for key in _TOOLS):
        raise BadMessages("uses tools, which are not supported: the roles are system, user and assistant")
    if said.pop("weight", 1) != 1:
        raise BadMessages(
            "has a message whose 'weight' is not 1: every turn of the assistant is learnt from, so end the "
            "conversation with the turn that counts, and leave 'weight' out"
        )
    _require_known(said)
    role = _SAME.get(said["role"], said["role"]) if isinstance(said["role"], str) else None
    if role not in ROLES:
        raise BadMessages("has a role that is not one of system (or developer), user and assistant")
    if role == "system" and not first:
        raise BadMessages("has a system message that is not the first one")
    return {"role": role, "content": _content(said["content"])}


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and not value)


def _require_known(said: Mapping[str, Any]) -> None:
    others = said.keys() - {"role", "content"}
    if others:
        named = [f"'{key}'" for key in _NAMED if key in others]
        which = f"the keys {' and '.join(named)}" if named else "other keys than role and content"
        raise BadMessages(f"has a message with {which}, which nothing is learnt from: leave them out")
    for key in ("role", "content"):
        if key not in said:
            raise BadMessages(f"has a message without '{key}'")


def _content(content: Any) -> str:
    """A text, or the texts of its parts. Raises BadMessages, naming what is no text."""
    if isinstance(content, list):
        content = "\n".join(_part(part) for part in content)
    if not is_text(content):
        raise BadMessages("has a message whose content is not a text with at least one character")
    text: str = content
    return text


def _part(part: Any) -> str:
    said = {key: value for key, value in part.items() if not _is_nothing(value)} if isinstance(part, dict) else {}
    kind = said.get("type")
    if kind == "text" and said.keys() == {"type", "text"} and isinstance(said["text"], str):
        return said["text"]
    found = next((what for what, kinds in _MEDIA.items() if kind in kinds), None)
    if found is None:
        raise BadMessages('has a message with a part that is not of the form {"type": "text", "text": ...}')
    raise BadMessages(f"has a message with {found}, and only texts are learnt from")
