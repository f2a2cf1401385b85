"""A number is a number in every request: what Python or pydantic would take for one is refused by the field's name."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app
from api.files.schemas import NewFile
from dpcore.terms.methods import get_method, method_names
from tests.api.attacks import DASHBOARD, Browser, Call
from tests.api.conftest import JOBS, PRIVATE, World, job_body
from tests.kinds import WRONG_KIND, candidates

pytestmark = pytest.mark.usefixtures("quick_checks")
FREE = ("method", "hyperparameters", "integrations")
"""What is parsed by the method, and a list that must be empty."""
NO_NUMBERS = ("true", "1_000", "1_0", "Infinity", "nan", "\uff11", "0x1", "1e999", "9" * 21)


def bodies(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, schema) of all JSON bodies."""
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                yield method.upper(), path, content["application/json"]["schema"]


def said(answer: Any, param: str | None) -> list[str]:
    """What the answer says of a field."""
    return [e["message"] for e in answer.json().get("errors", []) if e["param"] == param]


def test_every_field_of_every_body_takes_its_own_kind_alone(world: World) -> None:
    description = create_app(world.settings).openapi()
    seen: set[tuple[str, str | None]] = set()
    for method, path, schema in bodies(description):
        for place, body, fits in candidates(schema, description, FREE):
            if place[:1] == ("method",) and place[1:2] not in ((), ("type",)):
                continue  # read by the method itself, once the file is known: the next test
            answer = world.call(method, re.sub(r"\{\w+\}", "x", path), json=body)
            param = ".".join(place) or None
            seen.add((path, param))
            words = said(answer, param)
            if fits:
                assert not any(map(WRONG_KIND.search, words)), (path, body, answer.text)
            else:
                assert answer.status_code == 400, (path, body, answer.text)
                assert words, (path, body, answer.text)
    assert {
        ("/v1/budgets", "reference.steps"),
        (JOBS, "privacy.epsilon"),
        (JOBS, "privacy.share"),
        (JOBS, "allow_duplicate"),
        (JOBS, "metadata.note"),
        (f"{JOBS}/{{job_id}}/approve", "reason"),
        ("/v1/keys/{key_id}/rotate", "overlap_hours"),
    } < seen


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", method_names())
def test_every_option_and_number_of_a_method_takes_its_own_kind_alone(
    world: World, training: dict[str, Any], name: str
) -> None:
    method = get_method(name)
    for model, inside in ((method.Options, False), (method.Request, True)):
        schema = model.model_json_schema()
        for place, values, fits in candidates(schema, schema):
            if not place:
                continue
            chosen = {"hyperparameters": values} if inside else values
            body = job_body(training["id"], 1.0, method={"type": name, name: chosen})
            answer = world.post(f"{JOBS}/estimate", body)
            error = answer.json().get("error", {"param": None, "message": ""})
            if fits:
                assert not WRONG_KIND.search(error["message"]), (values, answer.text)
            else:
                param = f"method.{name}.{'hyperparameters.' if inside else ''}{place[0]}"
                assert (answer.status_code, error["param"]) == (400, param), (values, answer.text)


def test_a_refusal_names_the_field_and_all_that_it_takes_and_repeats_nothing(
    world: World, training: dict[str, Any]
) -> None:
    method = {"type": "lora", "lora": {"hyperparameters": {"steps": "8675309"}}}
    for change, message in (
        ({"method": method}, "method.lora.hyperparameters.steps: Input should be 'auto' or a valid integer"),
        ({"privacy": {"epsilon": "8675309"}}, "privacy.epsilon: Input should be a valid number"),
        ({"allow_duplicate": "8675309"}, "allow_duplicate: Input should be a valid boolean"),
        ({"privacy": [8675309]}, "privacy: Input should be an object"),
        (
            {"method": {"type": "lora", "lora": {"target_modules": 8675309}}},
            "method.lora.target_modules: Input should be a valid string or a list",
        ),
    ):
        answer = world.post(f"{JOBS}/estimate", job_body(training["id"], 1.0) | change)
        assert (answer.status_code, answer.json()["detail"]) == (400, message)
        assert "8675309" not in answer.text


def test_whole_floats_and_integers_are_one_kind_of_number(world: World, training: dict[str, Any]) -> None:
    """As clients write them whose numbers are all floats; the plan is the same."""
    lora = {"r": 4, "alpha": 16, "hyperparameters": {"steps": 40, "batch_size": 20, "learning_rate": 1}}
    floats = {"r": 4.0, "alpha": 16.0, "hyperparameters": {"steps": 40.0, "batch_size": 2e1, "learning_rate": 1.0}}
    answers = [
        world.post(f"{JOBS}/estimate", job_body(training["id"], epsilon, seed=seed, method={"type": "lora", "lora": m}))
        for m, epsilon, seed in ((lora, 1, 3), (floats, 1.0, 3.0))
    ]
    assert [a.status_code for a in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


def test_the_text_of_an_upload_form_is_a_number_or_is_refused(world: World) -> None:
    schema = NewFile.model_json_schema()
    fields = {place for place, value, fits in candidates(schema, schema) if value == _within(place, 4.0) and fits}
    assert {("declared_size",), ("max_length",), ("privacy_budget", "epsilon"), ("privacy_budget", "delta")} < fields
    for place in fields:
        name = place[0] + "".join(f"[{inner}]" for inner in place[1:])
        for text in (*NO_NUMBERS, " 1 "):
            answer = world.upload(form=PRIVATE | {name: text})
            assert answer.status_code == 400, (name, text)
            (words,) = said(answer, ".".join(place))
            assert re.search("valid (integer|number)$", words), (name, text, words)
    assert world.upload(form=PRIVATE | {"labels": "[true, false]"}).json()["error"]["param"] == "labels"
    assert world.upload(form=PRIVATE | {"labels": "[" * 60_000}).json()["error"]["param"] == "labels"
    for made in (
        world.upload(form=PRIVATE | {"max_length": "064", "columns[text]": "1"}, content=b"1,label\na,0\n"),
        world.upload(form=PRIVATE | {"privacy_budget[epsilon]": ".8e1", "labels": "[0, 1]"}),
    ):
        assert made.status_code == 201, made.text


def _within(place: tuple[str, ...], value: Any) -> Any:
    for name in reversed(place):
        value = {name: value}
    return value


def test_the_text_of_a_page_s_form_is_a_number_or_is_refused(world: World, training: dict[str, Any]) -> None:
    analyst, steward = (Browser(world, world.keys["one"][scope]) for scope in ("analyst", "steward"))
    asked = {"training_file": training["id"], "model": "minilm-l6", "method": "lora", "epsilon": "1", "suffix": "1"}
    asked |= {"steps": " 40 ", "batch_size": "auto", "clip_norm": ".5", "weight_averaging": "0"}
    assert analyst.send(Call("GET", f"{DASHBOARD}/estimate", query=asked)).status_code == 200
    numbers = ("epsilon", "share", "steps", "batch_size", "learning_rate", "clip_norm", "weight_averaging", "lora.r")
    for name in numbers:
        for text in NO_NUMBERS:
            answer = analyst.send(Call("GET", f"{DASHBOARD}/estimate", query=asked | {name: text}))
            assert answer.status_code == 400, (name, text)
            assert re.search("Input should be .*valid (integer|number)|a share is ", answer.text), (name, text)
    for text, status in (("true", 303), ("1", 400)):
        form = asked | {"allow_duplicate": text}
        assert analyst.send(Call("POST", f"{DASHBOARD}/estimate", form=form)).status_code == status, text
    for name in ("epsilon", "approval_above"):
        for text in NO_NUMBERS:
            form = {"project": "blue", "reason": "r", name: text}
            answer = steward.send(Call("POST", f"{DASHBOARD}/budgets/{training['budget']}/grants", form=form))
            assert answer.status_code == 400, (name, text)


def test_a_number_in_an_address_is_one(world: World) -> None:
    for path in (JOBS, "/v1/files", "/v1/budgets"):
        for text in ("true", "Infinity", "nan", "\uff11", "1.5", "0x1"):
            answer = world.get(path, params={"limit": text})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit"), text
