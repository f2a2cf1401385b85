"""JSON as RFC 8259 means it, within bounds: what Python would take beyond that is refused, in words without content."""

import json
import math
from collections.abc import Callable
from typing import Any


class UnusableJson(ValueError):
    """JSON that Python would accept and nobody else means. The message names the rule and quotes nothing."""


def loads(text: str) -> Any:
    """The value. Raises UnusableJson, another ValueError for what is no JSON, RecursionError for what is nested too
    deeply to read."""
    return json.loads(
        text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=finite, parse_int=integer
    )


class Unusable:
    """Stands for a value that `loads` would refuse; `why` is what it would say."""

    def __init__(self, why: str) -> None:
        self.why = why


def read(text: str) -> Any:
    """As `loads`, but a number out of bounds does not matter where nobody wants it: an `Unusable` stands for it."""

    def kept(parse: Callable[[str], Any]) -> Callable[[str], Any]:
        def parsed(text: str) -> Any:
            try:
                return parse(text)
            except UnusableJson as error:
                return Unusable(str(error))

        return parsed

    return json.loads(
        text,
        object_pairs_hook=_unique,
        parse_constant=kept(_no_constant),
        parse_float=kept(finite),
        parse_int=kept(integer),
    )


def unusable_in(value: Any) -> str | None:
    """Why a value that was `read` cannot be used; None where it can."""
    level = [value]
    while level:
        for one in level:
            if isinstance(one, Unusable):
                return one.why
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return None


def require_depth(value: Any, most: int) -> None:
    """Raises UnusableJson when arrays and objects are nested more than `most` deep."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise UnusableJson("it is nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnusableJson("a key occurs twice")
    return found


def _no_constant(name: str) -> None:
    raise UnusableJson("NaN and Infinity are not JSON")


class Written(float):
    """A float that knows how it was written, for whom a float is not exact enough."""

    digits: str


def finite(digits: str) -> float:
    """The float. Raises UnusableJson for one that would be infinite."""
    number = Written(digits)
    number.digits = digits
    if not math.isfinite(number):
        raise UnusableJson("a number is too large")
    return number


def integer(digits: str) -> int:
    """The integer. Raises UnusableJson for one of more than 20 digits."""
    if len(digits) > 20:
        raise UnusableJson("a number is too large")
    return int(digits)
