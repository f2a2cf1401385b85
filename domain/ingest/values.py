"""What a text and a label may be."""

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

LONGEST_LABEL = 200
"""Characters of a label."""
_WHOLE = re.compile(r"(-?\d+)\.0+")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def is_text(value: Any) -> bool:
    """Whether it is Unicode text with at least one character and without NUL."""
    return isinstance(value, str) and bool(value.strip()) and _encodable(value) and "\0" not in value


def label_of(value: Any) -> str | None:
    """A label as text, in one writing whatever the format: numbers in the fewest digits, as a text file has them, whole
    ones without a fraction; anything else but a short line of text is None."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if not math.isfinite(value):
            return None
        if isinstance(value, float):
            value = repr(float(value) + 0.0)  # no minus before nothing
        else:
            value = f"{value:f}" if isinstance(value, Decimal) else str(value)
    if isinstance(value, str) and 0 < len(value) <= LONGEST_LABEL and value.isprintable() and value.strip() == value:
        whole = _WHOLE.fullmatch(value)
        return value if whole is None else whole[1]
    return None


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels as people count them: numbers by their value, then texts. The same whatever order they come in."""

    def place(label: str) -> tuple[bool, Decimal, str]:
        number = _NUMBER.fullmatch(label) is not None
        return not number, Decimal(label) if number else Decimal(0), label

    return sorted(labels, key=place)


def _encodable(value: str) -> bool:
    """JSON may smuggle in half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
