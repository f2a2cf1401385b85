"""Kinds of values that requests share: ids and words that a database can hold and a log can print."""

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict, StringConstraints

ID_PATTERN = r"^[A-Za-z0-9_-]{1,80}$"
Id = Annotated[str, Path(pattern=ID_PATTERN)]
Reference = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
"""An id inside a body."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A line of text for people."""


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a misspelt one is never silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
