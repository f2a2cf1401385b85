"""How good a job's result is, as the API says it."""

import logging
from typing import Any, Literal

from pydantic import Field, ValidationError

from api.jobs.privacy import Finite

logger = logging.getLogger(__name__)


class ClassQuality(Finite):
    """Of one label of the evaluation file."""

    records: int
    right: float | None = Field(description="share of them that got this label; null where there are none")


class Quality(Finite):
    """What a public evaluation file says of the result. Nothing of a private row has a part in it."""

    metric: Literal["accuracy", "perplexity"] = Field(description="perplexity: the lower the better")
    value: float
    evaluated: int | None = Field(description="records; null of a job of an earlier version, as the next")
    standard_error: float | None = Field(description="of the value, by how the records differ")
    untrained: float | None = Field(description="the same of the model before training")
    baseline: float | None = Field(
        description="of an answer that has learnt nothing: the share of the file's most frequent label, or the "
        "perplexity of the model before training"
    )
    file: str
    per_class: dict[str, ClassQuality] | None = Field(description="by label; null for a language model")


def quality_of(job_id: str, kept: Any) -> Quality | None:
    """Null for a job that has none, and for figures that cannot be read."""
    if kept is None:
        return None
    try:
        return Quality.model_validate(kept)
    except ValidationError:
        logger.error("ALARM: the quality of job %s cannot be read: the database was changed", job_id)
        return None
