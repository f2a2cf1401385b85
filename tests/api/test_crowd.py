"""More clients at once than connections to the database: everyone is served, nobody waits for a thread that waits."""

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.api.conftest import World

CLIENTS = 80


def test_a_crowd_is_served(world: World, address: str) -> None:
    headers = {"Authorization": f"Bearer {world.keys['one']['admin']}"}

    def ask(_: int) -> list[int]:
        with httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False) as client:
            return [client.get("/v1/budgets").status_code for _ in range(2)]

    with ThreadPoolExecutor(CLIENTS) as crowd:
        assert {status for answers in crowd.map(ask, range(CLIENTS)) for status in answers} == {200}
