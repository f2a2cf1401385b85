"""Values as JSON means them. pydantic alone would take true, "1" and 1.0 for the integer 1."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Strict, model_validator

Item = TypeVar("Item")
Listed = Annotated[Item, Strict(False)]
"""Of a tuple: JSON knows lists alone. What is in it stays strict."""
_BEGINNING = "Input should be "
_OBJECTS = ("dict_type", "model_type", "model_attributes_type")
_KINDS = {"list_type": "a list", "tuple_type": "a list", **dict.fromkeys(_OBJECTS, "an object")}
"""JSON's words for what pydantic's messages call by Python's."""


class StrictModel(BaseModel):
    """A number is a number, neither a boolean nor text; an integer has no fraction; a boolean is true or false; text is
    text. 3 and 3.0 are the same number, also where an integer or a float is asked for. Unknown fields are refused."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, values: Any) -> Any:
        # Clients whose numbers are all floats write 3.0 for 3; a float's field makes a float of it again.
        if not isinstance(values, dict):
            return values
        return {k: [*map(_number, v)] if isinstance(v, list) else _number(v) for k, v in values.items()}


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def expected(details: Sequence[Mapping[str, Any]]) -> str:
    """What pydantic says of one field, in a sentence that names every kind that it takes and never the value: `Input
    should be 'auto' or a valid integer`. The first message alone where it is of another form."""
    told = (_BEGINNING + _KINDS[d["type"]] if d["type"] in _KINDS else str(d["msg"]) for d in details)
    first, *others = dict.fromkeys(told)
    if not first.startswith(_BEGINNING):
        return first
    return " or ".join([first, *(m.removeprefix(_BEGINNING) for m in others if m.startswith(_BEGINNING))])
