"""From a form, where all is text, to the JSON that a request body is made of."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from domain.kit import strict_json

_NUMBER = re.compile(r"-?(?:[0-9]+|[0-9]*\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
"""HTML's valid floating-point number: JSON's, and .5 and 007."""
_BOOLEANS = {"true": True, "false": False}


def from_text(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with numbers and booleans where the model's are; other text stays as it is, for the model to judge."""
    return {
        name: _read(set(_kinds(model.model_fields[name].annotation)), value) if name in model.model_fields else value
        for name, value in values.items()
    }


def number(text: str) -> int | float | str:
    """The number that the whole text is, in ASCII digits; the text where it is none, or one out of bounds."""
    if not _NUMBER.fullmatch(text):
        return text
    try:
        return strict_json.integer(text) if text.lstrip("-").isdecimal() else strict_json.finite(text)
    except strict_json.UnusableJson:
        return text


def _read(kinds: set[type], value: Any) -> Any:
    if isinstance(value, dict):
        inner = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        return value if inner is None else from_text(inner, value)
    if not isinstance(value, str):
        return value
    if bool in kinds:
        return _BOOLEANS.get(value, value)
    return number(value) if kinds & {int, float} else value


def _kinds(annotation: Any) -> Iterator[type]:
    """The types that an annotation is made of."""
    if get_origin(annotation) is Literal:
        return
    if isinstance(annotation, type):
        yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)
