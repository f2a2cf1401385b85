"""Nothing of another's can be seen, used or told from nothing: every route of the application, every place for an id.

Two tenants on one service; and within a tenant an analyst without a grant.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.dependencies.models import Dependant

from api.auth import authenticated
from api.dashboard.session import visitor
from domain.access.bootstrap import ALL_SCOPES
from tests.api.attacks import (
    HOOK,
    INVITATIONS,
    KINDS,
    PUBLIC,
    Browser,
    Call,
    Ids,
    attacks,
    difference,
    listing,
    made_up,
    routes,
)
from tests.api.conftest import JOBS, World, job_body
from tests.api.test_jobs import finish

pytestmark = pytest.mark.usefixtures("quick_checks")
COLUMNS = (*KINDS, "cursor", "listing")
SECRETS = "of someone else"


def settle_in(world: World, keys: str, name: str, tenant: str, **grantee: Any) -> Ids:
    """A budget with a file, a queued job and a finished one, a grant of it, and an invitation that the tenant sends
    itself; all named so that it would show."""
    form = {"purpose": "fine-tune", "privacy_budget[epsilon]": "50", "privacy_budget[name]": name}
    form |= {"declared_size": "400", "labels": "0,1"}
    file = world.upload(form=form, tenant=keys, granted=False).json()
    grant = world.grant(file["budget"], keys, **grantee)
    key = world.viewer("analyst", keys).key_id
    with world.engine("worker").connect() as at_work:
        done = finish(world, file, at_work, keys, tenant)
    job = world.post(JOBS, job_body(file["id"], 2.0, metadata={"for": name}, suffix=name), "admin", tenant=keys).json()
    results = world.get(f"{JOBS}/{done}", "admin", tenant=keys).json()["result_files"]
    asked = {"guest": tenant, "model": "minilm-l6", "training_file": file["id"], "note": name}
    invited = world.post(INVITATIONS, asked, "steward", tenant=keys).json()["id"]
    hook = world.post("/v1/webhooks", {"url": HOOK, "events": ["job.ended"]}, "steward", tenant=keys).json()["id"]
    own = (file["budget"], file["id"], job["id"], key, grant["id"], invited, hook)
    return Ids(*own, {"job": [done], "file": results})


@pytest.fixture(scope="module")
def others(world: World, quick_checks: None) -> Ids:
    """What tenant one has, its public evaluation set included."""
    ids = settle_in(world, "one", SECRETS, "tenant_one")
    evals = world.upload(form={"purpose": "evals"}).json()["id"]
    return replace(ids, more={**ids.more, "file": [*ids.more["file"], evals]})


class Matrix:
    """What came of each attack, by route and column."""

    def __init__(self) -> None:
        self.tried: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.leaks: list[str] = []

    def run(self, world: World, browser: Browser, own: Ids, others: Ids, hidden: list[str]) -> None:
        unknown = made_up(others)
        for method, path, needs in routes(world.client.app):
            for column, theirs, nothing, *ids in attacks(method, path, needs, own, others, unknown):
                answer, expected = browser.send(theirs), browser.send(nothing)
                self.tried[method, path][column] += 1
                told = difference(answer, expected, *ids)
                if answer.status_code < 400 or told:
                    self.leaks.append(f"{method} {path} with a foreign {column}: {answer.status_code} {told}")
            call = listing(method, path, own)
            if call is not None:
                answer = browser.send(call)
                self.tried[method, path]["listing"] += 1
                self.leaks += [f"{method} {path} shows {word}" for word in hidden if word in answer.text]

    def show(self, title: str) -> None:
        print(f"\n{title}\n{'':60}" + "".join(f"{c:>9}" for c in COLUMNS))
        for (method, path), row in sorted(self.tried.items(), key=lambda r: (r[0][1], r[0][0])):
            print(f"{method:7}{path:53}" + "".join(f"{row.get(c) or '.':>9}" for c in COLUMNS))
        cells = sum(len(row) for row in self.tried.values())
        calls = sum(sum(row.values()) for row in self.tried.values())
        print(
            f"routes x attacks: {len(self.tried)} x {len(COLUMNS)}, {cells} apply, {calls} tried; leaks {len(self.leaks)}"
        )


def words(ids: Ids) -> list[str]:
    return [SECRETS, *(id for kind in KINDS for id in ids.all_of(kind))]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("scope", ALL_SCOPES)
def test_another_tenants_things_are_as_good_as_nothing(world: World, others: Ids, scope: str) -> None:
    own = settle_in(world, "two", "own", "tenant_two")
    before = snapshot(world, others)
    matrix = Matrix()
    matrix.run(world, Browser(world, world.keys["two"][scope]), own, others, words(others))
    matrix.show(f"two tenants, a key of the scope {scope}")
    assert not matrix.leaks, "\n".join(matrix.leaks)
    assert snapshot(world, others) == before


def test_without_a_grant_a_budget_is_as_good_as_nothing(world: World, others: Ids) -> None:
    """Within one tenant: an analyst who has a budget of its own. Evaluation sets are public within the tenant."""
    made = world.post("/v1/keys", {"name": "outsider", "scopes": ["analyst"]}, "admin").json()
    world.keys["outsiders"] = world.keys["one"] | {"analyst": made["key"]}
    own = settle_in(world, "outsiders", "own", "tenant_one", project=None, key=made["id"])
    hidden = replace(others, more={**others.more, "file": others.more["file"][:-1]})
    before = snapshot(world, others)
    matrix = Matrix()
    matrix.run(world, Browser(world, made["key"]), own, hidden, words(hidden))
    matrix.show("one tenant, an analyst without a grant")
    assert not matrix.leaks, "\n".join(matrix.leaks)
    assert snapshot(world, others) == before


def test_the_attacks_find_what_is_there(world: World, others: Ids) -> None:
    """The owner's own calls get answers on the same paths: otherwise a 404 would show nothing."""
    owner = Browser(world, world.keys["one"]["admin"])
    finished = replace(others, job=others.more["job"][0], file=others.more["file"][0])
    uploaded = replace(finished, file=others.file)
    for method, path, _ in routes(world.client.app):
        call = listing(method, path, uploaded if path.endswith("/report") else finished)
        if call is not None and "{" in path:
            answer = owner.send(call)
            assert answer.status_code in (200, 409), (path, answer.text)


def test_every_route_asks_who_calls(world: World) -> None:
    """By its dependencies, and in fact: without a key there is 401, or the way to the log-in form."""
    found = routes(world.client.app)
    assert {(method, path) for method, path, _ in found} >= PUBLIC
    for method, path, needs in found:
        if (method, path) in PUBLIC:
            continue
        assert needs is not None, path
        assert {authenticated, visitor} & set(_calls(needs)), f"{method} {path} asks nobody who calls"
        answer = world.client.request(method, path.replace("{", "").replace("}", ""), follow_redirects=False)
        assert answer.status_code in ((401,) if path.startswith("/v1") else (303,)), (method, path)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)


def snapshot(world: World, ids: Ids) -> list[str]:
    """What the owner sees of its things, which no attack may have changed."""
    owner = Browser(world, world.keys["one"]["admin"])
    calls = [f"/v1/budgets/{ids.budget}", f"/v1/budgets/{ids.budget}/grants", "/v1/keys"]
    calls += [f"{INVITATIONS}/{ids.invitation}"]
    calls += [f"{JOBS}/{id}" for id in ids.all_of("job")] + [f"/v1/files/{id}" for id in ids.all_of("file")]
    return [owner.send(Call("GET", path)).text for path in calls]


def test_queue_position_counts_what_the_caller_sees(world: World, others: Ids) -> None:
    own = world.upload(tenant="two").json()["id"]
    before = world.post(JOBS, job_body(own), tenant="two").json()["queue_position"]
    with world.engine("admin").connect() as connection:
        queued = sa.text("SELECT count(*) FROM job WHERE status = 'queued' AND tenant_id = 'tenant_two'")
        assert before == connection.execute(queued).scalar_one()
    for scope in ("analyst", "steward"):
        page = world.get(JOBS, scope, tenant="two").json()["data"]
        assert [job["queue_position"] for job in page] == [
            world.get(f"{JOBS}/{job['id']}", scope, tenant="two").json()["queue_position"] for job in page
        ]
