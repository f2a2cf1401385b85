"""What each method takes beside the numbers that all have, as fields of a form: read from the method's own schema, so
that a new method is in the form by being there."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from api.dashboard.forms import filled
from api.dashboard.render import sentence
from api.form_text import from_text
from dpcore.terms.hyperparameters import Request
from dpcore.terms.methods import get_method, method_names


@dataclass(frozen=True)
class OwnField:
    """A field of the form, of one method alone."""

    name: str
    """In the form: `zo.directions`."""
    option: str
    number: bool
    """Of training: it goes under `hyperparameters`."""
    default: str
    choices: tuple[str, ...]
    """None: a field to write in."""
    help: str


@cache
def fields_of(method: str) -> tuple[OwnField, ...]:
    """The method's options, and the numbers of training that others do not have."""
    found = get_method(method)
    options = [_field(method, name, field, False) for name, field in found.Options.model_fields.items()]
    numbers = {name: field for name, field in found.Request.model_fields.items() if name not in Request.model_fields}
    return (*options, *(_field(method, name, field, True) for name, field in numbers.items()))


def chosen(method: str, values: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and numbers of the method that are filled in; none of a method that there is not."""
    if method not in method_names():
        return {}, {}
    found = get_method(method)
    both: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for field in fields_of(method):
        for text in filled(values, field.name).values():
            both[field.number][field.option] = text
    return _read(found.Options, both[0]), _read(found.Request, both[1])


def texts(method: str, options: Mapping[str, Any], numbers: Mapping[str, Any]) -> dict[str, str]:
    """The form's fields for these options and numbers, where they are not as usual."""
    given = {field.name: (numbers if field.number else options).get(field.option) for field in fields_of(method)}
    return {name: _text(value) for name, value in given.items() if value is not None}


def _field(method: str, name: str, field: FieldInfo, number: bool) -> OwnField:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return OwnField(
        f"{method}.{name}", name, number, _text(field.default), choices, sentence(field.description or name)
    )


def _text(value: Any) -> str:
    """As it is written in a field: 16.0 is 16, a list has commas, also of one alone, and nothing is nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"{value[0]}," if len(value) == 1 else ", ".join(map(str, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def _read(model: type[BaseModel], given: Mapping[str, str]) -> dict[str, Any]:
    """Numbers where the method's are; what stands between commas is a list, of names or of numbers."""
    values = from_text(model, given)
    for name, value in values.items():
        only_lists = name in model.model_fields and get_origin(model.model_fields[name].annotation) is tuple
        if isinstance(value, str) and ("," in value or only_lists):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            values[name] = [from_text(model, {name: part})[name] for part in parts]
    return values
