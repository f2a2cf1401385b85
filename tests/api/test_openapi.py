"""What the API's own description promises: for every operation one request that succeeds, and generated ones, right and
wrong, that never find a server error; every answer is as described."""

import contextlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from tests.api.attacks import PLAIN, Call, Ids, filled
from tests.api.conftest import JOBS, World, csv_rows
from tests.api.test_tenants import settle_in

pytestmark = pytest.mark.usefixtures("quick_checks")
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


class Seeds:
    """Real things for an operation to be asked about, so that none spoils another's: fresh for each that may change
    them, the same for all that only read."""

    def __init__(self, world: World) -> None:
        self._world, self._numbers = world, count(1)
        self._read = self._settled()

    def _settled(self) -> Ids:
        return settle_in(self._world, "one", f"seed {next(self._numbers)}", "tenant_one")

    def of(self, operation: str) -> Ids:
        world = self._world
        own = self._read if operation.startswith("GET ") else self._settled()
        (done,) = own.more["job"]
        special: dict[str, Callable[[], dict[str, str]]] = {
            f"GET {JOBS}/{{job_id}}/adapter": lambda: {"job": done},
            f"GET {JOBS}/{{job_id}}/events": lambda: {"job": done},  # the stream of another would not end
            f"POST {JOBS}/{{job_id}}/approve": lambda: {"job": self._waiting(own)},
            f"POST {JOBS}/{{job_id}}/reject": lambda: {"job": self._waiting(own)},
            "DELETE /v1/files/{file_id}": lambda: {"file": world.upload(form={"purpose": "evals"}).json()["id"]},
            "POST /v1/files/{file_id}/answer": self._question,
            "DELETE /v1/keys/{key_id}": self._key,
            "POST /v1/keys/{key_id}/rotate": self._key,
            "POST /v1/budgets/{budget_id}/grants": self._key,
        }
        return replace(own, **special.get(operation, dict)())

    def _waiting(self, own: Ids) -> str:
        rules = {"approval_above": 0.5, "queue_days": 7, "reason": "r"}
        assert self._world.post(f"/v1/budgets/{own.budget}/rules", rules, "steward").status_code == 200
        made: str = self._world.submit(own.file, 1.5)["id"]
        return made

    def _question(self) -> dict[str, str]:
        rows = csv_rows(f" of {secrets.token_hex(8)}")
        self._world.upload(rows)
        waiting = self._world.upload(rows, {"purpose": "evals"}).json()
        assert waiting["question"] is not None
        return {"file": waiting["id"]}

    def _key(self) -> dict[str, str]:
        made = self._world.post("/v1/keys", {"name": "seed", "scopes": ["analyst"]}, "admin")
        return {"key": made.json()["id"]}


class Walk:
    """Every operation of a running service, asked as its description says."""

    def __init__(self, world: World, address: str) -> None:
        self._world, self._address = world, address
        self._headers = {"Authorization": f"Bearer {world.keys['one']['admin']}"}
        self._seeds = Seeds(world)
        self.statuses: dict[str, Counter[int]] = {}

    def run(self, cases: int) -> None:
        """So many generated requests of either kind for each operation, after one that must succeed."""
        description = schemathesis.openapi.from_url(f"{self._address}/openapi.json")
        for operation in (found.ok() for found in description.get_all_operations()):
            own = self._seeds.of(operation.label)
            self.statuses[operation.label] = Counter()
            right = filled(operation.method.upper(), operation.path, own)
            self._succeed(operation, right)
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                self._generate(operation, mode, own, cases)
            while self.statuses[operation.label].total() < cases:  # it takes nothing: there is nothing to vary
                self._succeed(operation, right)

    def _succeed(self, operation: Any, call: Call) -> None:
        """The one request that is known to be right."""
        options: dict[str, Any] = {} if call.json is None else {"json": call.json}
        if call.upload:
            options = {"data": call.form, "files": {"file": ("rows.csv", csv_rows(secrets.token_hex(8)))}}
        answer = requests.request(
            call.method, f"{self._address}{call.path}", params=call.query, headers=self._headers, timeout=60, **options
        )
        assert answer.ok, f"{operation.label}: {answer.status_code} {answer.text}"
        operation.validate_response(answer)
        self.statuses[operation.label][answer.status_code] += 1

    def _generate(self, operation: Any, mode: GenerationMode, own: Ids, cases: int) -> None:
        numbers = count()

        @settings(
            max_examples=cases,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def probe(case: schemathesis.Case) -> None:
            if mode is GenerationMode.POSITIVE:
                _lead(case, own, plain=next(numbers) % 2 == 0)
            answer = case.call_and_validate(headers=self._headers, checks=CHECKS)
            self.statuses[operation.label][answer.status_code] += 1

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with a request that takes nothing
            probe()

    def table(self) -> Iterator[str]:
        """Cases and the share of 2xx, for each operation and for all."""
        yield f"{'operation':58} {'cases':>6} {'2xx':>5} {'share':>6}"
        for label, statuses in [*self.statuses.items(), ("all", sum(self.statuses.values(), Counter()))]:
            good = sum(n for status, n in statuses.items() if status < 300)
            yield f"{label:58} {statuses.total():6} {good:5} {good / statuses.total():6.0%}"


def _lead(case: schemathesis.Case, own: Ids, plain: bool) -> None:
    """To things that exist: an invented id says only that it is none. Plain: without the cursors and numbers that
    nearly never fit each other."""
    for name in case.path_parameters or {}:
        case.path_parameters[name] = PLAIN.get(name) or getattr(own, name.removesuffix("_id"))
    if plain and case.query:
        case.query.pop("after", None)
        case.headers.pop("last-event-id", None)
    if isinstance(case.body, dict) and "training_file" in case.body:
        case.body |= {"training_file": own.file, "model": "minilm-l6", "validation_file": None}
        if plain:
            case.body |= {"method": None, "hyperparameters": None, "integrations": None, "privacy": {"epsilon": 1}}


def test_every_operation_is_as_described(world: World, address: str) -> None:
    walk = Walk(world, address)
    walk.run(cases=2)
    assert len(walk.statuses) > 30
    assert {200, 201, 400, 404} <= set(sum(walk.statuses.values(), Counter()))


@pytest.mark.verify
@pytest.mark.timeout(3600)
def test_every_operation_is_as_described_over_many_requests(
    world: World, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = Walk(world, address)
    walk.run(cases=20)
    with capsys.disabled():
        print("", *walk.table(), sep="\n")
    assert all(statuses.total() >= 20 for statuses in walk.statuses.values())
