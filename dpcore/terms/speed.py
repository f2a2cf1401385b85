"""How a machine cuts the work into pieces."""

from typing import Annotated, Literal

from pydantic import Field

from dpcore.terms.strict import StrictModel


class Speed(StrictModel):
    """How a machine cuts a draw into micro-batches. None of it changes what is computed beyond rounding."""

    tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="padded tokens in one micro-batch; auto: found for the machine on public records"
    )
    lengths_per_doubling: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="padded lengths between a length and its double: more of them, less padding, but more "
        "micro-batches that are not full; auto: as many as suit the expected batch",
    )
    buffer_bytes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="per-example gradients of one micro-batch"
    )
    recompute: bool = Field(
        default=False,
        description="layers keep their inputs only; without it, from when one single record does not fit",
    )
