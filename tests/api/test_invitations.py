"""Federated jobs over HTTP: a tenant invites, another's steward accepts at a price of its own, and either side leaves."""

from typing import Any

import pytest
import sqlalchemy as sa

from domain.kit.tables import invitation, job
from tests.api.attacks import INVITATIONS, difference
from tests.api.conftest import JOBS, PRIVATE, World
from tests.api.federated import METHOD, accept, accepted, federated, federated_body, invite, method
from tests.superuser import past_triggers

pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture
def theirs(world: World) -> dict[str, Any]:
    """A private file of tenant two's with a budget of 8 that nothing has touched."""
    made: dict[str, Any] = world.upload(tenant="two").json()
    return made


def balance(world: World, file: dict[str, Any], tenant: str = "two") -> dict[str, Any]:
    return world.get(f"/v1/budgets/{file['budget']}", "steward", tenant=tenant).json()


def verified(world: World, file: dict[str, Any], tenant: str) -> bool:
    found = world.post(f"/v1/budgets/{file['budget']}/verify", None, "auditor", tenant=tenant).json()
    assert found["ok"], found
    return True


def refused(answer: Any) -> tuple[int, str]:
    assert answer.status_code >= 400, answer.text
    assert answer.json()["error"]["message"] == answer.json()["detail"]
    return answer.status_code, answer.json()["error"]["code"]


def statuses(world: World, *jobs: str) -> list[str]:
    with world.engine("admin").connect() as connection:
        found = dict(connection.execute(sa.select(job.c.id, job.c.status).where(job.c.id.in_(jobs))).all())
    return [found[id] for id in jobs]


def test_the_whole_way(world: World, training: dict[str, Any], theirs: dict[str, Any]) -> None:
    sent = invite(world, training["id"], note="the study of May", days=3)
    assert sent.status_code == 201, sent.text
    asked = sent.json()
    assert (asked["direction"], asked["status"], asked["guest"]) == ("sent", "open", "tenant_two")
    assert asked["expires_at"] - asked["created_at"] == 3 * 86400
    assert asked["method"][METHOD]["rounds"] == 4
    path = f"{INVITATIONS}/{asked['id']}"

    received = world.get(path, "steward", tenant="two").json()
    assert received == asked | {"direction": "received"}
    assert world.get(path, "analyst", tenant="two").status_code == 404, "for stewards to answer"
    offer = {"training_file": theirs["id"], "privacy": {"share": 0.25}}
    estimate = world.post(f"{path}/estimate", offer, "steward", tenant="two").json()
    assert (estimate["fits"], estimate["privacy"]["share"] <= 0.25) == (True, True)
    assert estimate["rounds"] == {"total": 4, "message_bytes": estimate["rounds"]["message_bytes"]} | {
        "model_ratio": pytest.approx(22_700_000 * 4 / estimate["rounds"]["message_bytes"], rel=0.1)
    }
    before = balance(world, theirs)
    answer = accept(world, asked["id"], theirs["id"], privacy=offer["privacy"])
    assert answer.status_code == 200, answer.text
    taken = answer.json()
    assert (taken["status"], taken["federated_job"], taken["silo"]) == ("accepted", None, None)
    child = world.get(f"{JOBS}/{taken['job']}", "steward", tenant="two").json()
    assert (child["status"], child["status_detail"]) == ("queued", "waiting_for_silos")
    assert (child["federated"], child["parent"], child["silos"]) == (True, None, None)
    assert child["privacy"] == estimate["privacy"]
    assert child["rounds"]["total"] == 4
    assert balance(world, theirs)["share_left"] == pytest.approx(before["share_left"] - child["privacy"]["share"])
    assert world.get(path).json() == asked | {"status": "accepted"}, "the host learns nothing else"

    planned = world.post(f"{JOBS}/estimate", federated_body(training["id"], [asked["id"]])).json()
    made = federated(world, training["id"], [asked["id"]])
    assert (made["privacy"], made["rounds"]["message_bytes"]) == (
        planned["privacy"],
        planned["rounds"]["message_bytes"],
    )
    assert made["privacy"]["budget"] == training["budget"]
    assert (made["federated"], made["parent"], made["status"]) == (True, None, "queued")
    own, guest = made["silos"]
    assert own == {"name": "silo-1", "own": True, "tenant": None, "job": own["job"], "state": "waiting"} | {
        "declared_size": 400,
        "rounds_sent": 0,
        "rounds_missed": 0,
    }
    assert guest == own | {"name": "silo-2", "own": False, "tenant": "tenant_two", "job": None}
    assert made["rounds"] == {"total": 4, "done": 0, "open": None, "sent": None, "missed": None} | {
        name: made["rounds"][name] for name in ("message_bytes", "model_ratio")
    }
    used = world.get(path).json()
    assert (used["status"], used["federated_job"], used["silo"], used["job"]) == ("used", made["id"], "silo-2", None)
    used = world.get(path, "steward", tenant="two").json()
    assert (used["status"], used["federated_job"], used["job"]) == ("used", None, child["id"])
    child = world.get(f"{JOBS}/{child['id']}", "steward", tenant="two").json()
    assert (child["status_detail"], child["parent"], child["rounds"]["sent"]) == (None, None, 0)
    assert world.get(f"{JOBS}/{own['job']}").json()["parent"] == made["id"]
    assert world.get(f"{JOBS}/{made['id']}", "steward", tenant="two").status_code == 404
    receipts = world.get(f"{JOBS}/{made['id']}/receipts").json()
    assert [r["seq"] for r in receipts] == [made["receipt"]["seq"]]

    assert world.post(f"{JOBS}/{made['id']}/cancel").json()["status"] == "cancelled"
    assert statuses(world, made["id"], own["job"], child["id"]) == ["cancelled"] * 3
    shown = world.get(f"{JOBS}/{made['id']}").json()
    assert [silo["state"] for silo in shown["silos"]] == ["left", "left"]
    assert shown == next(one for one in world.get(JOBS).json()["data"] if one["id"] == made["id"])
    for file, tenant in ((training, "one"), (theirs, "two")):
        assert balance(world, file, tenant)["share_left"] == before["share_left"]
        assert verified(world, file, tenant)

    with past_triggers(world.database) as c:
        c.execute(sa.update(job).values(status="succeeded", status_detail=None))
    assert world.get(f"{JOBS}/{made['id']}").json()["fine_tuned_model"] == f"ft:minilm-l6::{made['id']}"
    assert world.get(f"{JOBS}/{own['job']}").json()["fine_tuned_model"] is None


def test_what_a_guest_cannot_take_part_with_is_named(
    world: World, training: dict[str, Any], theirs: dict[str, Any]
) -> None:
    asked = invite(world, training["id"]).json()["id"]
    path = f"{INVITATIONS}/{asked}"
    other_labels = world.upload(form=PRIVATE | {"labels": "0,1,2"}, tenant="two").json()["id"]
    pairs = b"text,text_pair,label\n" + b"".join(b"one %d,other %d,%d\n" % (i, i, i % 2) for i in range(400))
    other_task = world.upload(pairs, PRIVATE | {"task": "pair"}, tenant="two").json()["id"]
    users = b"text,label,user\n" + b"".join(b"of user %d,%d,u%d\n" % (i, i % 2, i) for i in range(400))
    unit = {"privacy_budget[unit]": "user", "privacy_budget[max_records_per_user]": "1", "columns[user]": "user"}
    other_unit = world.upload(users, PRIVATE | unit, tenant="two").json()["id"]
    for file, code in (
        (other_task, "tasks_differ"),
        (other_labels, "labels_differ"),
        (other_unit, "units_differ"),
        (training["id"], "not_found"),
    ):
        for call in ("estimate", "accept"):
            answer = world.post(
                f"{path}/{call}", {"training_file": file, "privacy": {"epsilon": 1}}, "steward", tenant="two"
            )
            assert (refused(answer)[1], answer.json()["error"]["param"]) == (code, "training_file")
    for privacy in ({}, {"epsilon": 1.0, "share": 0.1}):
        assert refused(accept(world, asked, theirs["id"], privacy=privacy)) == (400, "invalid_request")
    assert refused(accept(world, asked, theirs["id"], "analyst")) == (403, "missing_scope")
    assert refused(accept(world, asked, training["id"], tenant="one")) == (403, "not_the_guest")
    assert refused(invite(world, training["id"], method={"type": "lora"})) == (400, "invalid_request")
    assert refused(invite(world, training["id"], method=method(dropout=0.5)))[0] == 400
    assert refused(invite(world, theirs["id"])) == (404, "not_found")
    with world.engine("superuser").begin() as connection:
        change(connection, asked, "asked = jsonb_set(asked, '{model_revision}', '\"another\"')")
    assert refused(accept(world, asked, theirs["id"])) == (409, "model_changed")
    with world.engine("superuser").begin() as connection:
        change(connection, asked, "expires_at = created_at, created_at = created_at - interval '1 day'")
    assert refused(accept(world, asked, theirs["id"])) == (409, "invitation_not_open")
    assert world.get(path).json()["status"] == "expired"
    assert balance(world, theirs)["share_left"] == 1


def change(connection: sa.Connection, id: str, what: str) -> None:
    """What only time or an operator does."""
    connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
    connection.execute(sa.text(f"UPDATE public.invitation SET {what} WHERE id = :id"), {"id": id})


def test_a_guest_without_room_is_told_how_much_and_nothing_is_reserved(
    world: World, training: dict[str, Any], theirs: dict[str, Any]
) -> None:
    asked = invite(world, training["id"]).json()["id"]
    nearly = accept(world, invite(world, training["id"]).json()["id"], theirs["id"], privacy={"share": 0.9})
    assert nearly.status_code == 200, nearly.text
    before, host = balance(world, theirs), world.get(f"{INVITATIONS}/{asked}").json()
    answer = accept(world, asked, theirs["id"], privacy={"share": 0.5})
    assert refused(answer) == (403, "privacy_budget_exceeded")
    largest = answer.json()["largest_share"]
    assert 0 < largest <= before["share_left"]
    assert balance(world, theirs) == before
    assert world.get(f"{INVITATIONS}/{asked}").json() == host, "a refusal is told to the guest alone"
    assert accept(world, asked, theirs["id"], privacy={"share": largest}).status_code == 200


def test_a_job_takes_accepted_invitations_that_ask_for_the_same(
    world: World, training: dict[str, Any], theirs: dict[str, Any]
) -> None:
    good = accepted(world, training["id"], theirs["id"])
    open_one = invite(world, training["id"]).json()["id"]
    foreign = world.post(
        INVITATIONS,
        {"guest": "tenant_one", "model": "minilm-l6", "training_file": theirs["id"], "method": method()},
        "steward",
        tenant="two",
    ).json()["id"]
    gone = accepted(world, training["id"], theirs["id"])
    assert world.post(f"{INVITATIONS}/{gone}/withdraw").json()["status"] == "withdrawn"
    before = balance(world, training, "one")
    for silos, options, expected in (
        ([], {}, (400, "too_few_silos")),
        ([good], {"least_silos": 3}, (400, "too_few_silos")),
        ([foreign], {}, (404, "not_found")),
        ([good, "inv-nothing"], {}, (404, "not_found")),
        ([open_one], {}, (409, "invitation_not_accepted")),
        ([gone], {}, (409, "invitation_not_accepted")),
        ([good], {"rounds": 5}, (409, "silos_differ")),
    ):
        answer = world.post(JOBS, federated_body(training["id"], silos, **options))
        assert refused(answer) == expected
        assert answer.json()["error"]["param"] == f"method.{METHOD}.silos"
    told = [world.post(JOBS, federated_body(training["id"], [id])) for id in (foreign, "inv-nothing")]
    assert difference(*told, (foreign, "inv-nothing")) == ""
    assert balance(world, training, "one") == before
    federated(world, training["id"], [good])
    another = federated_body(training["id"], [good]) | {"suffix": "another"}
    assert refused(world.post(JOBS, another)) == (409, "invitation_not_accepted")


@pytest.mark.parametrize("who", ["host", "guest"])
def test_either_side_withdraws_before_and_after_the_job(
    world: World, training: dict[str, Any], theirs: dict[str, Any], who: str
) -> None:
    scope, tenant = ("analyst", "one") if who == "host" else ("steward", "two")
    before = balance(world, theirs)
    asked = accepted(world, training["id"], theirs["id"])
    assert balance(world, theirs)["share_left"] < before["share_left"]
    for _ in range(2):  # twice changes nothing
        answer = world.post(f"{INVITATIONS}/{asked}/withdraw", None, scope, tenant=tenant)
        assert answer.json()["status"] == "withdrawn", answer.text
    assert balance(world, theirs)["share_left"] == before["share_left"]
    assert refused(accept(world, asked, theirs["id"])) == (409, "invitation_not_open")

    asked = accepted(world, training["id"], theirs["id"])
    made = federated(world, training["id"], [asked])
    assert world.post(f"{INVITATIONS}/{asked}/withdraw", None, scope, tenant=tenant).status_code == 200
    shown = world.get(f"{JOBS}/{made['id']}").json()
    assert (shown["status"], [silo["state"] for silo in shown["silos"]]) == ("queued", ["waiting", "left"])
    assert balance(world, theirs)["share_left"] == before["share_left"]
    assert verified(world, theirs, "two")
    analyst = world.post(f"{INVITATIONS}/{asked}/withdraw", None, "analyst", tenant="two")
    assert refused(analyst) == (404, "not_found")
    world.post(f"{JOBS}/{made['id']}/cancel")


def test_an_invitation_whose_row_is_damaged_ends_no_list(world: World, training: dict[str, Any]) -> None:
    bad, good = (invite(world, training["id"]).json()["id"] for _ in range(2))
    with world.engine("superuser").begin() as connection:
        change(connection, bad, "asked = '{}'")
    listed = [one["id"] for one in world.get(INVITATIONS).json()["data"]]
    assert good in listed
    assert bad not in listed
    assert refused(world.get(f"{INVITATIONS}/{bad}")) == (409, "invitation_unreadable")
    with world.engine("superuser").begin() as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        connection.execute(sa.delete(invitation).where(invitation.c.id == bad))


def test_rounds_are_read_with_one_statement_and_only_where_there_are_some(
    world: World, training: dict[str, Any], theirs: dict[str, Any]
) -> None:
    made = federated(world, training["id"], [accepted(world, training["id"], theirs["id"])])
    read: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        read.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        for path, most in (
            (JOBS, 1),
            (f"{JOBS}/{made['id']}", 1),
            (f"{JOBS}/{world.submit(training['id'], 1.0)['id']}", 0),
        ):
            read.clear()
            assert world.get(path).status_code == 200
            assert sum("federated_round" in statement for statement in read) == most, path
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    world.post(f"{JOBS}/{made['id']}/cancel")
