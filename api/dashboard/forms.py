"""From the fields of a form to the API's own request bodies, so that both are checked by the same rules; and what its
page shows of a form that was refused."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, ValidationError

from api.errors import HttpError, status_of
from api.form_text import from_text, number
from domain.kit import strict_json
from domain.kit.refusals import Invalid, Refusal
from domain.kit.share_words import share_of

SAMPLED_NUMBERS = {
    "synthetic": "records",
    "synthetic_tokens": "max_new_tokens",
    "synthetic_temperature": "temperature",
    "synthetic_top_p": "top_p",
    "synthetic_seed": "seed",
}
"""By the form's name for them what a request calls them."""
SAMPLED = (*SAMPLED_NUMBERS, "synthetic_prompts")
"""Fields of the text that a job samples."""
Body = TypeVar("Body", bound=BaseModel)
Made = TypeVar("Made")


@dataclass(frozen=True)
class RefusedForm:
    """A form that was refused: what stood in it, which field is wrong, and what to change."""

    form: str
    values: Mapping[str, str]
    field: str
    message: str
    status: int


def parse(model: type[Body], values: Mapping[str, Any]) -> Body:
    """The request that the fields stand for. Raises Invalid, naming the first wrong field and never its value."""
    try:
        return model.model_validate(from_text(model, values))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = str(first["loc"][-1]) if first["loc"] else ""
        raise Invalid(f"{field or 'form'}: {first['msg']}", code="invalid_request", param=field) from None


def filled(values: Mapping[str, str], *names: str) -> dict[str, str]:
    """These fields, where something is in them: an empty one is left to the service."""
    return {name: values[name].strip() for name in names if values.get(name, "").strip()}


def tried(
    connection: sa.Connection, form: str, values: Mapping[str, str], act: Callable[[], Made]
) -> Made | RefusedForm:
    """What a form asks for; where a field of it is in the way, nothing is done, and its page can say so in place.
    Raises every refusal that names no field."""
    try:
        with connection.begin_nested():
            return act()
    except (Refusal, HttpError) as error:
        if not error.param:
            raise
        field = error.param.rpartition(".")[2]
        return RefusedForm(form, values, field, error.message.removeprefix(f"{error.param}: "), status_of(error))


def price(values: Mapping[str, str]) -> dict[str, Any]:
    """What a job may cost, as it is filled in: a share as a part or in percent, or an epsilon. Raises Invalid."""
    given: dict[str, Any] = dict(filled(values, "share", "epsilon"))
    if "share" in given:
        given["share"] = _part(given["share"], "share")
    return given


def measured(values: Mapping[str, str]) -> dict[str, Any]:
    """How much of its price a job spends on measuring its result, where that is filled in. Raises Invalid."""
    given = filled(values, "measure")
    return {"measure": {"share": _part(given["measure"], "measure.share")}} if given else {}


def sampled(values: Mapping[str, str]) -> dict[str, Any]:
    """The text that a job is to sample, where that is filled in. Raises Invalid."""
    given = filled(values, *SAMPLED)
    if not given:
        return {}
    if "synthetic" not in given:
        raise Invalid("say how many records are to be sampled", code="invalid_request", param="synthetic")
    wanted: dict[str, Any] = {theirs: number(given[ours]) for ours, theirs in SAMPLED_NUMBERS.items() if ours in given}
    if "synthetic_prompts" in given:
        wanted["prompts"] = [_prompt(line) for line in given["synthetic_prompts"].splitlines() if line.strip()]
    return {"synthetic": wanted}


def _prompt(line: str) -> str | dict[str, Any]:
    """A line of the form: a text, or a prompt as the API takes one that is more than a text."""
    try:
        value = strict_json.loads(line)
    except (ValueError, RecursionError):
        return line
    return value if isinstance(value, dict) and {"prompt", "messages"} & value.keys() else line


def prompt_line(prompt: Mapping[str, Any]) -> str:
    """The line that `sampled` reads as this prompt."""
    text = prompt.get("prompt")
    if isinstance(text, str) and prompt.keys() == {"prompt"} and text.strip().splitlines() == [_prompt(text)]:
        return text
    return json.dumps(dict(prompt))  # in ASCII: no reader of lines breaks it


def _part(text: str, param: str) -> float:
    try:
        return share_of(text)
    except ValueError as error:
        raise Invalid(str(error), code="invalid_request", param=param) from None
