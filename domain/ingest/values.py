"""What a text, a label and a user's id may be."""

from typing import Any

LONGEST_LABEL = 200
"""Characters of a label."""
LONGEST_USER = 1000
"""Characters of a user's id."""


def is_text(value: Any) -> bool:
    """Whether it is Unicode text with at least one character and without NUL."""
    return isinstance(value, str) and bool(value.strip()) and _encodable(value) and "\0" not in value


def label_of(value: Any) -> str | None:
    """A label as text: whole numbers are written out; anything else but a short line of text is None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= LONGEST_LABEL and value.isprintable() and value.strip() == value:
        return value
    return None


def user_of(value: Any) -> str | None:
    """A user's id as text: whole numbers are written out; anything else but a short text is None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if is_text(value) and len(value) <= LONGEST_USER else None


def _encodable(value: str) -> bool:
    """JSON may smuggle in half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
