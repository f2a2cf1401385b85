"""Kinds of values that requests share: ids and words that a database can hold and a log can print."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from dpcore.terms.strict import StrictModel

ID_PATTERN = r"^[A-Za-z0-9_-]{1,80}$"
Id = Annotated[str, Path(pattern=ID_PATTERN)]
IdInBody = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
"""An id inside a body."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A line of text for people."""
Project = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
"""What several keys belong to."""
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Why a decision was taken; it becomes part of the ledger."""
IntendedUse = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"),
]
"""What the result of a job is for, in the words of whoever asks."""


def _part(share: float) -> float:
    if 0 < share < 0.01 or round(share, 4) != share:
        raise ValueError("held_out is 0, or a share of 0.01 to 0.5 with at most four decimals")
    return share


Epsilon = Annotated[float, Field(ge=1e-6, le=100)]
Delta = Annotated[float, Field(ge=1e-30, le=0.999999)]
"""What the ledger's columns hold; both exclude what rounds to nothing or to one."""
Share = Annotated[float, Field(gt=0, le=1)]
"""Of a budget's cap at its main order."""
HeldOut = Annotated[
    float,
    AfterValidator(_part),
    Field(ge=0, le=0.5, description="share of the units that no job trains on: 0, or 0.01 to 0.5; it never changes"),
]
"""Of a budget's units."""


class Body(StrictModel):
    """A request body: unknown fields are refused, so that a misspelt one is never silently ignored, and so is a value
    whose kind is not its field's."""

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        try:
            _check_text(value)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return value


def _check_text(value: Any) -> None:
    """Refuse text that a database cannot hold: NUL, and half of a surrogate pair."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError("text must not hold NUL or unpaired surrogates")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner)
