"""What a host can see does not depend on how full its guest's budget is, nor on whether there is such a guest."""

import re
from typing import Any

import pytest

from tests.api.attacks import INVITATIONS, Browser, Call
from tests.api.conftest import JOBS, World, job_body, make_keys
from tests.api.federated import accept, federated_body, invite
from tests.api.test_two_worlds import plain

pytestmark = pytest.mark.usefixtures("quick_checks")
SCOPES = ("steward", "analyst", "auditor")
SECRETS = re.compile(r"[0-9a-f]{32,}…?|<time .*?</time>|[0-9.,]+ [kM]?B\b")
"""What differs from one run to the next in a page: hashes, signatures, tokens, times."""


def test_a_host_learns_nothing_of_its_guest(world: World) -> None:
    full, empty, nobody = (life(world, name) for name in ("full", "empty", "nobody"))
    for stage, told in full.items():
        parted = [pair for pair in zip(told, empty[stage], strict=True) if pair[0] != pair[1]]
        assert parted == [], stage
        assert len(str(told)) > 5000
    for stage in ("invited", "answered"):
        assert nobody[stage] == full[stage], stage
    assert full["answered"] != full["accepted"] != full["submitted"] != full["withdrawn"]


def life(world: World, name: str) -> dict[str, Any]:
    """What the host sees at each stage: of a guest that first has no room, one that has all, or none at all."""
    host, guest = f"host-{name}", f"guest-{name}"
    tenants = (host, guest) if name != "nobody" else (host,)
    world.keys.update(make_keys(world.database, world.settings, tenants))
    file = world.upload(tenant=host).json()["id"]
    sent = invite(world, file, f"tenant_{guest}", tenant=host)
    assert sent.status_code == 201, sent.text
    asked = sent.json()["id"]
    seen = {"invited": look(world, host, sent)}
    if name == "nobody":
        return seen | {"answered": look(world, host)}
    theirs = world.upload(tenant=guest).json()["id"]
    share = 0.25
    if name == "full":
        assert world.post(JOBS, job_body(theirs, privacy={"share": 0.95}), tenant=guest).status_code == 201
        refused = accept(world, asked, theirs, tenant=guest, privacy={"share": share})
        assert refused.status_code == 403, refused.text
        share = refused.json()["largest_share"]
    seen["answered"] = look(world, host)
    assert accept(world, asked, theirs, tenant=guest, privacy={"share": share}).status_code == 200
    seen["accepted"] = look(world, host)
    made = world.post(JOBS, federated_body(file, [asked]), tenant=host)
    assert made.status_code == 201, made.text
    seen["submitted"] = look(world, host, made)
    assert world.post(f"{INVITATIONS}/{asked}/withdraw", None, "steward", tenant=guest).status_code == 200
    seen["withdrawn"] = look(world, host)
    return seen


def look(world: World, host: str, *answers: Any) -> list[Any]:
    """What all of the host's keys get, from the API and on the dashboard, ids numbered as they come."""
    names: dict[str, str] = {}
    found = [(answer.status_code, plain(answer.json(), names)) for answer in answers]
    for scope in SCOPES:
        browser = Browser(world, world.keys[host][scope])
        for path in (INVITATIONS, JOBS, "/v1/budgets", "/v1/files"):
            listed = world.get(path, scope, tenant=host)
            found.append((listed.status_code, plain(listed.json(), names)))
            for one in listed.json().get("data", ()):
                place = f"{path}/{one['id']}"
                for more in ("", "/events"):
                    inner = world.get(place + more, scope, tenant=host)
                    found.append((more, inner.status_code, plain(inner.json(), names)))
                if path in (INVITATIONS, JOBS):
                    page = browser.send(
                        Call("GET", f"/dashboard/{place.rpartition('/v1/')[2].removeprefix('fine_tuning/')}")
                    )
                    found.append((page.status_code, plain(SECRETS.sub("<>", page.text), names)))
        offer = {"training_file": "file-1", "privacy": {"epsilon": 1}}
        for one in world.get(INVITATIONS, scope, tenant=host).json().get("data", ()):
            for call in ("estimate", "accept"):
                answer = world.post(f"{INVITATIONS}/{one['id']}/{call}", offer, scope, tenant=host)
                found.append((call, answer.status_code, plain(answer.json(), names)))
        audit = world.get("/v1/audit", scope, tenant=host).json().get("data", ())
        found.append([(row["action"], row["status"]) for row in audit if "invitation" not in row["action"]])
    return found
