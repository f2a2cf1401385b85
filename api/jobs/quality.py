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


class PrivateQuality(Finite):
    """What a measurement on units that no job trained on says of the result: noised, and charged to the budget."""

    metric: Literal["accuracy", "perplexity"] = Field(
        description="accuracy: the mean over units of the share of their records that are right; perplexity: the "
        "exponential of the mean over units of their records' losses, each cut at most_loss"
    )
    value: float
    evaluated: int = Field(description="units, noised: about as many were looked at")
    standard_error: float = Field(
        description="of the value, for all such units as these: by their number and by the noise, at most"
    )
    noise_error: float = Field(description="the noise's part of it: how far the value is from that of these very units")
    most_loss: float | None = Field(description="at which a record's loss was cut, in nats; null for an accuracy")
    share: float | None = Field(description="what it took of the budget's cap at its main order, within the job's")


class Quality(Finite):
    """What is known of the result. Of a public evaluation file: nothing of a private row has a part in it. Of a private
    measurement: a noised figure that was charged to the budget."""

    metric: Literal["accuracy", "perplexity"] = Field(description="perplexity: the lower the better")
    value: float
    evaluated: int | None = Field(
        description="records, or units of a private measurement; null of a job of an earlier version, as the next"
    )
    standard_error: float | None = Field(
        description="of the value, by how the records differ and, of a private measurement, by its noise"
    )
    untrained: float | None = Field(description="the same of the model before training")
    baseline: float | None = Field(
        description="of an answer that has learnt nothing: the share of the file's most frequent label, or the "
        "perplexity of the model before training"
    )
    file: str | None = Field(description="the public file; null where source is private")
    source: Literal["public", "private"] = Field(
        default="public",
        description="of these figures; private: a measurement on units that the budget holds out",
    )
    private: PrivateQuality | None = Field(
        default=None, description="the measurement, beside a public file's figures too; null where none was made"
    )
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
