"""Values of the right and of a wrong kind for each place of a JSON schema, as pydantic and OpenAPI write it."""

import re
from collections.abc import Collection, Iterator
from typing import Any

CANDIDATES = (True, False, "1", "0.5", "true", 0, 1, 4.0, 1.5, [], {})
"""Wherever a number is asked for, a boolean or a text among them would pass for one within its bounds."""
WRONG_KIND = re.compile(r"Input should be .*(valid|a list|an object)")
"""What a refusal says of a value of another kind; one of the right kind may be too large, or come without what must come
with it."""
Place = tuple[str, ...]


def candidates(
    schema: dict[str, Any], document: dict[str, Any], free: Collection[str] = (), place: Place = ()
) -> Iterator[tuple[Place, Any, bool]]:
    """(names on the way, what the schema describes with a candidate there and nothing else, is it of the kind).

    `free`: names of places that take anything; there must be no other.
    """
    described = list(_alternatives(schema, document))
    kinds = {_kind(one, free, place) for one in described}
    if kinds == {"anything"}:
        return
    yield from ((place, value, _fits(value, kinds)) for value in CANDIDATES)
    for one in described:
        if one.get("type") == "object":
            assert one.get("additionalProperties", True) is not True or {*place} & {*free}, f"{place} takes anything"
        inner = dict(one.get("properties", {}))
        if isinstance(one.get("additionalProperties"), dict):
            inner["note"] = one["additionalProperties"]
        for name, of_field in inner.items():
            for path, value, fits in candidates(of_field, document, free, (*place, name)):
                yield path, {name: value}, fits
        items = one.get("prefixItems") or ([one["items"]] if "items" in one else [])
        for number, of_item in enumerate(items):
            for path, value, fits in candidates(of_item, document, free, place):
                yield path, [value if i == number else 0.5 for i in range(len(items))], fits


def _alternatives(schema: dict[str, Any], document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        yield from _alternatives(found, document)
    elif "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from _alternatives(one, document)
    else:
        yield schema


def _kind(schema: dict[str, Any], free: Collection[str], place: Place) -> str:
    if "const" in schema or "enum" in schema:
        assert schema["type"] == "string", f"no candidate is made for the values of {place}"
        return "word"
    if "type" not in schema:
        assert {*place} & {*free}, f"{place} takes anything"
        return "anything"
    kind: str = schema["type"]
    return kind


def _fits(value: Any, kinds: set[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, int | float):
        return "number" in kinds or ("integer" in kinds and value == int(value))
    return {str: "string", list: "array", dict: "object"}[type(value)] in kinds
