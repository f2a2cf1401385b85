"""What the API's own description promises: generated requests, right and wrong, never find a server error."""

import contextlib

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from tests.api.conftest import World

CASES = 5
"""Of each operation and kind."""
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]


def test_no_generated_request_finds_a_server_error(world: World, quick_checks: None, address: str) -> None:
    description = schemathesis.openapi.from_url(f"{address}/openapi.json")
    headers = {"Authorization": f"Bearer {world.keys['one']['admin']}"}
    operations = [found.ok() for found in description.get_all_operations()]
    assert len(operations) > 20
    seen: set[int] = set()
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=CASES,
                derandomize=True,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def probe(case: schemathesis.Case) -> None:
                seen.add(case.call_and_validate(headers=headers, checks=CHECKS).status_code)

            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with a request that takes nothing
                probe()
    assert {200, 201, 400, 404} <= seen
