"""From the fields of a form to the API's own request bodies, so that both are checked by the same rules."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from api.form_text import from_text
from domain.kit.refusals import Invalid
from domain.kit.share_words import share_of

Body = TypeVar("Body", bound=BaseModel)


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


def price(values: Mapping[str, str]) -> dict[str, Any]:
    """What a job may cost, as it is filled in: a share as a part or in percent, or an epsilon. Raises Invalid."""
    given: dict[str, Any] = dict(filled(values, "share", "epsilon"))
    if "share" in given:
        try:
            given["share"] = share_of(given["share"])
        except ValueError as error:
            raise Invalid(str(error), code="invalid_request", param="share") from None
    return given
