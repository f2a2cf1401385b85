"""Text that a job samples from the model that it releases. All that steers it is public and stands in the request, so
that what is sampled says no more of private rows than the model does."""

from collections.abc import Sequence
from math import floor
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dpcore.terms.strict import Listed, StrictModel

MOST_TOKENS = 2_000_000
"""That all records of a job may be asked to have."""
MOST_PROMPTS = 1_000
MOST_PROMPT_BYTES = 64 * 2**10
"""Of all prompts together, as the JSON that is kept with the job."""
MOST_REPEATED_BYTES = 64 * 2**20
"""Of the prompts as the file repeats them, once for each record."""


class PromptMessage(StrictModel):
    """A turn of a chat that is to be gone on with."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class SyntheticPrompt(StrictModel):
    """What some of the records begin with: a text, or the beginning of a chat."""

    prompt: str | None = Field(
        default=None, min_length=1, description="a beginning (text), a prompt (completion), or what a user says (chat)"
    )
    messages: Listed[tuple[PromptMessage, ...]] | None = Field(
        default=None, min_length=1, max_length=100, description="of a chat, in place of `prompt`; the last is a user's"
    )
    weight: float = Field(
        default=1.0, ge=1e-6, le=1e6, description="this prompt's part of the records, beside the other prompts' weights"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("a prompt has either prompt or messages")
        if self.messages is not None:
            roles = [message.role for message in self.messages]
            if "system" in roles[1:] or roles[-1] != "user":
                raise ValueError("messages end with a user's, and a system message stands first")
        elif self.prompt is not None and not self.prompt.strip():
            raise ValueError("a prompt is more than white space")
        return self


_Prompts = Annotated[list[str | SyntheticPrompt], Field(min_length=1, max_length=MOST_PROMPTS)]


class Synthetic(StrictModel):
    """How many records are sampled, from what they begin with, and how each token is drawn."""

    records: int = Field(ge=1, le=10_000, description="to sample; those that come out empty are left out")
    max_new_tokens: int = Field(default=64, ge=1, le=4096, description="sampled for each record, at most")
    prompts: Listed[tuple[SyntheticPrompt, ...]] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_PROMPTS,
        description="public values, which the file, the job and its report show: a text each, or an object. Left out, "
        "a record of the task `text` is written from its beginning; the other tasks need them",
    )
    temperature: float = Field(default=1.0, ge=0, le=2, description="0: the likeliest token each time, never drawn")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw among the likeliest tokens that have this together")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of these draws alone; public")

    @field_validator("prompts", mode="before", json_schema_input_type=_Prompts | None)
    @classmethod
    def _texts_are_prompts(cls, prompts: Any) -> Any:
        if not isinstance(prompts, list | tuple):
            return prompts
        return [{"prompt": prompt} if isinstance(prompt, str) else prompt for prompt in prompts]

    @property
    def tokens(self) -> int:
        """That are sampled at most."""
        return self.records * self.max_new_tokens

    @property
    def counts(self) -> list[int]:
        """How many records each prompt begins, in their order; of the one beginning that all have without prompts."""
        return shared_out(self.records, [1.0] if self.prompts is None else [p.weight for p in self.prompts])


def shared_out(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers by weight that add up to the total: rounded down, and one more for the largest remainders, the
    first of equal ones first."""
    whole = sum(weights)
    exact = [total * weight / whole for weight in weights]
    counts = [floor(part) for part in exact]
    order = sorted(range(len(weights)), key=lambda place: (counts[place] - exact[place], place))
    for place in order[: total - sum(counts)]:
        counts[place] += 1
    return counts
