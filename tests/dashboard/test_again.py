"""'Plan another like it': whatever was asked for is asked for again, and leads to the same plan."""

import random
from collections.abc import Collection
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from api.dashboard import estimate, jobs
from api.jobs.schemas import Job
from dpcore.terms.methods import get_method, method_names
from tests.api.conftest import JOBS
from tests.api.federated import METHOD
from tests.dashboard.conftest import House
from tests.dashboard.test_walk import OVER_USERS

SILOED = METHOD
"""Needs accepted invitations: `test_every_option_of_every_method_is_planned_again` has it."""
PLANNED, MOST_TRIES = 4, 40
"""Some options are refused beside others: it is tried until so many are taken."""
APART = {OVER_USERS: {"target_modules"}}
"""Whose model's layers have other names."""


def unusual(draws: random.Random, name: str) -> Any:
    """A value that a field of this name may have; None for those that only go with others."""
    odd = draws.uniform(0.0123, 0.9)
    values: dict[str, Any] = {
        "r": draws.randint(1, 7),
        "alpha": draws.uniform(0.5, 40),
        "dropout": odd / 3,
        "target_modules": draws.choice([["query"], ["key", "value"], ["query", "key", "value"]]),
        "reduction": draws.choice([2, 4]),
        "width": draws.choice([2, 4]),
        "full_steps": draws.randint(1, 9),
        "full_learning_rate": odd / 97,
        "directions": draws.randint(1, 5),
        "scale": odd,
        "clip_norm": odd * 3,
        "weight_averaging": odd,
        "steps": draws.randint(2, 40),
        "batch_size": draws.randint(5, 200),
        "learning_rate": odd / 31,
        "temperature": 1 + odd,
        "mixing": odd,
        "teacher_steps": draws.randint(1, 9),
        "teacher_learning_rate": odd / 53,
        "student_layers": [0],
        "student_sparsity": odd,
        "sparsity": odd,
        "local_batch": draws.randint(1, 4),
        "local_steps": draws.randint(1, 3),
        "most_tokens": draws.randint(20, 90),
        "server_learning_rate": odd,
    }
    return values.get(name)


def some(draws: random.Random, model: type[BaseModel], without: Collection[str]) -> dict[str, Any]:
    """A third of the fields; one that has choices has one of them."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name in without or draws.random() > 0.35:
            continue
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        found[name] = draws.choice(choices) if choices else unusual(draws, name)
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", [name for name in method_names() if name != SILOED])
def test_a_random_request_is_planned_again(house: House, method: str) -> None:
    """Shares and epsilons with all their digits, and numbers that no field has by itself."""
    draws, found = random.Random(f"again {method}"), get_method(method)
    over_users = method == OVER_USERS
    file = (house.letters if over_users else house.tickets)(100 + list(method_names()).index(method))
    planned = 0
    without = APART.get(method, ())
    for _ in range(MOST_TRIES):
        if planned == PLANNED:
            break
        block = some(draws, found.Options, without)
        block["hyperparameters"] = some(draws, found.Request, without)
        price = draws.choice([{"share": draws.uniform(0.001, 0.2)}, {"epsilon": draws.uniform(0.4, 2)}, {}])
        body = {"model": "writer" if over_users else "tiny", "training_file": file["id"], "privacy": price}
        body["method"] = {"type": method, method: block}
        made = house.post(JOBS, body)
        if made.status_code != 201:
            assert made.status_code in (400, 403), made.text
            continue
        planned += 1
        job = Job.model_validate(made.json())
        house.post(f"{JOBS}/{job.id}/cancel")
        query = {name: str(value) for name, value in jobs.query_of(jobs.request_of(job)).items()}
        asked = estimate.body_of(query)
        again = house.post(f"{JOBS}/estimate", asked.model_dump(mode="json")).json()
        assert again["method"] == made.json()["method"]
        assert again["privacy"]["phases"] == made.json()["privacy"]["phases"]
        if price:
            assert {name: getattr(asked.privacy, name) for name in price} == price
    assert planned == PLANNED
