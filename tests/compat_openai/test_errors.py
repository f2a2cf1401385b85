"""Refusals arrive as the package's own classes, and a final one is asked for once: requests are counted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from tests.compat_openai.test_jobs import Submit


@contextmanager
def counted(client: openai.OpenAI, most: int = 1) -> Iterator[None]:
    """No more than so many requests go out."""
    sent: list[str] = []
    client._client.event_hooks["request"] = [lambda request: sent.append(request.url.path)]
    try:
        yield
    finally:
        client._client.event_hooks["request"] = []
    assert len(sent) == most, sent


Refused = Callable[[openai.OpenAI, str], Any]
FINAL: dict[str, tuple[type[openai.APIStatusError], str, str | None, Refused]] = {
    "no key of ours": (
        openai.AuthenticationError,
        "invalid_api_key",
        None,
        lambda c, file: c.with_options(api_key="sk-nope").models.list(),
    ),
    "a missing scope": (openai.PermissionDeniedError, "missing_scope", None, lambda c, file: c.files.delete(file)),
    "over budget": (
        openai.PermissionDeniedError,
        "privacy_budget_exceeded",
        "privacy.epsilon",
        lambda c, file: c.fine_tuning.jobs.create(
            model="tiny", training_file=file, extra_body={"privacy": {"epsilon": 80}}
        ),
    ),
    "an unknown model": (
        openai.BadRequestError,
        "unknown_model",
        "model",
        lambda c, file: c.fine_tuning.jobs.create(model="nope", training_file=file),
    ),
    "an unknown job": (openai.NotFoundError, "not_found", None, lambda c, file: c.fine_tuning.jobs.retrieve("ftjob-0")),
    "an unknown file": (openai.NotFoundError, "not_found", None, lambda c, file: c.files.content("file-0")),
    "a foreign cursor": (
        openai.BadRequestError,
        "unknown_cursor",
        "after",
        lambda c, file: c.fine_tuning.jobs.list(after="ftjob-0"),
    ),
    "too large a page": (
        openai.BadRequestError,
        "invalid_request",
        "limit",
        lambda c, file: c.fine_tuning.jobs.list(limit=101),
    ),
}


@pytest.mark.parametrize("what", FINAL)
def test_a_final_refusal_has_its_class_and_is_asked_for_once(
    analyst: openai.OpenAI, training_file: str, what: str
) -> None:
    kind, code, param, call = FINAL[what]
    with counted(analyst), pytest.raises(kind) as refused:
        call(analyst, training_file)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert str(refused.value.request_id).startswith("req_")
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.message


def test_conflicts_are_final_too(analyst: openai.OpenAI, submit: Submit) -> None:
    """The package repeats every 409 that does not say so."""
    id = submit().id
    with counted(analyst), pytest.raises(openai.ConflictError) as early:
        analyst.get(f"/fine_tuning/jobs/{id}/adapter", cast_to=object)
    assert early.value.code == "no_adapter"
    analyst.fine_tuning.jobs.cancel(id)
    for call in (analyst.fine_tuning.jobs.pause, analyst.fine_tuning.jobs.resume):
        with counted(analyst), pytest.raises(openai.ConflictError) as late:
            call(id)
        assert late.value.code == "job_has_ended"


def test_another_request_under_the_same_idempotency_key(analyst: openai.OpenAI, submit: Submit) -> None:
    headers = {"Idempotency-Key": "compat-1"}
    first = submit(extra_headers=headers)
    assert submit(extra_headers=headers).id == first.id
    with counted(analyst), pytest.raises(openai.UnprocessableEntityError) as reused:
        submit(seed=5, extra_headers=headers)
    assert reused.value.code == "idempotency_key_reused"
