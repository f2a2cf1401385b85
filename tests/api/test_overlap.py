"""Records and users stay with the budget that they came to first, whatever they come as, unless the steward decides."""

import logging
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from domain.files.fingerprints import OtherFingerprintKey
from domain.kit.tables import file
from ledger.tables import budget
from tests.api.conftest import PRIVATE, World

pytestmark = pytest.mark.usefixtures("quick_checks")

CANARY = "canary-b7d2"
INLINE = PRIVATE | {"declared_size": "100"}
OTHERS = {"overlap": "different_population", "overlap_reason": "greetings that everybody writes"}
USERS = INLINE | {
    "privacy_budget[unit]": "user",
    "privacy_budget[max_records_per_user]": "2",
    "columns[user]": "who",
}


def under(budget_id: str, **form: str) -> dict[str, str]:
    return {k: v for k, v in INLINE.items() if "[" not in k} | {"budget": budget_id} | form


def texts(count: int = 10) -> list[str]:
    """Texts that no other test has."""
    tag = secrets.token_hex(8)
    return [f"text {i} of {tag}" for i in range(count)]


def csv(texts: list[str], users: list[str] | None = None) -> bytes:
    if users is None:
        return b"text,label\n" + b"".join(f"{text},{i % 2}\n".encode() for i, text in enumerate(texts))
    rows = (f"{text},{i % 2},{user}\n".encode() for i, (text, user) in enumerate(zip(texts, users, strict=True)))
    return b"text,label,who\n" + b"".join(rows)


def made(world: World, content: bytes, form: dict[str, Any] = INLINE, **options: Any) -> dict[str, Any]:
    answer = world.upload(content, form, **options)
    assert answer.status_code == 201, answer.text
    return answer.json()


def entries(world: World, budget_id: str) -> list[dict[str, Any]]:
    return world.get(f"/v1/budgets/{budget_id}/entries", "auditor").json()["data"]


def decisions(world: World, budget_id: str) -> list[str]:
    """The budgets that this one was decided to share no people with, in the order of its chain."""
    return [entry["detail"]["other_budget"] for entry in entries(world, budget_id) if entry["kind"] == "overlap"]


def counts(world: World) -> tuple[int, ...]:
    """Budgets, files, fingerprints and stored rows."""
    with world.engine("admin").connect() as connection:
        tables = [budget, file, sa.table("fingerprint")]
        found = [connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one() for t in tables]
    return (*found, len(list(Path(world.settings.blobs, "files").rglob("*.parquet"))))


def test_whatever_they_come_as_they_stay_with_their_budget(world: World) -> None:
    rows = texts()
    first = made(world, csv(rows))
    assert not first["budget_inherited"]
    budgets_before = counts(world)[0]
    relabelled = b"sentence\tclass\n" + b"".join(f"{text}\tother\n{text} x\tone\n".encode() for text in rows)
    mapping = {"columns[text]": "sentence", "columns[label]": "class", "labels": "one,other"}
    again = [
        made(world, csv(rows)),
        made(world, csv(rows[:3]), name="part.csv"),
        made(world, csv(rows[3:])),
        made(world, csv([*texts(), rows[0]])),
        made(world, csv([f" {text.upper()} " for text in reversed(rows)])),
        made(world, relabelled, INLINE | mapping, name="other.tsv"),
        made(world, csv(rows, ["somebody"] * len(rows)), INLINE | {"columns[user]": "who"}),
        made(world, csv(rows), under(first["budget"])),
    ]
    assert {upload["budget"] for upload in again} == {first["budget"]}
    assert [upload["budget_inherited"] for upload in again] == [True] * 7 + [False]
    for upload in (first, *again):
        assert world.call("DELETE", f"/v1/files/{upload['id']}", "steward").status_code == 200
    assert made(world, csv(rows))["budget"] == first["budget"]
    assert counts(world)[0] == budgets_before
    # One entry an upload, whatever is new in it: analysts see how long the chain is.
    kinds = Counter(entry["kind"] for entry in entries(world, first["budget"]))
    assert kinds == {"open": 1, "grant": 1, "records": len(again) + 2}


def test_an_inherited_budget_keeps_its_unit_and_its_delta(world: World) -> None:
    rows, who = texts(), [f"user {secrets.token_hex(4)}"] * 10
    first = made(world, csv(rows))
    before = counts(world)
    answer = world.upload(csv(rows, who), USERS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unit_mismatch")
    assert answer.json()["budgets"] == [first["budget"]]
    large = world.upload(csv(rows), INLINE | {"declared_size": "1000000"})
    assert (large.status_code, large.json()["error"]["code"]) == (400, "delta_too_large")
    assert counts(world) == before
    of_users = made(world, csv(texts(), who), USERS)
    other_bound = world.upload(csv(texts(), who), USERS | {"privacy_budget[max_records_per_user]": "3"})
    assert other_bound.json()["error"]["code"] == "unit_mismatch"
    assert made(world, csv(texts(), who), USERS)["budget"] == of_users["budget"]


def test_rows_of_one_budget_enter_another_by_decision_alone(world: World) -> None:
    rows = texts()
    one, two = made(world, csv(rows))["budget"], made(world, csv(texts()))["budget"]
    before = counts(world)
    mixed = csv([*texts(), rows[0]])
    refused = world.upload(mixed, under(two))
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "overlapping_records")
    assert (refused.json()["budgets"], refused.headers["x-should-retry"]) == ([one], "false")
    assert rows[0] not in refused.text
    assert counts(world) == before

    upload = made(world, mixed, under(two, **OTHERS))
    assert (upload["budget"], upload["budget_inherited"]) == (two, False)
    for here, there in ((one, two), (two, one)):
        (decision,) = (entry for entry in entries(world, here) if entry["kind"] == "overlap")
        assert decision["detail"] == {
            "file": upload["id"],
            "other_budget": there,
            "reason": OTHERS["overlap_reason"],
        }
    verified = world.post(f"/v1/budgets/{two}/verify", scope="auditor")
    assert (verified.status_code, verified.json()["ok"]) == (200, True), verified.text


def test_rows_of_two_budgets_are_refused_until_it_is_decided(world: World) -> None:
    rows = texts(2)
    held = sorted(made(world, csv([text, *texts()]))["budget"] for text in rows)
    before = counts(world)
    both = csv([*rows, *texts()])
    for form in (INLINE, under(held[0])):
        refused = world.upload(both, form)
        assert refused.json()["error"]["code"] == "overlapping_records"
        assert refused.json()["budgets"] == (held if form is INLINE else held[1:])
    assert counts(world) == before
    opened = made(world, both, INLINE | OTHERS)
    assert opened["budget"] not in held
    decided = [decisions(world, one) for one in (opened["budget"], *held)]
    assert decided == [held, [opened["budget"]], [opened["budget"]]]


def test_a_user_stays_whatever_the_unit(world: World) -> None:
    who = [f"{CANARY} {secrets.token_hex(4)}" for _ in range(10)]
    first = made(world, csv(texts(), who), INLINE | {"columns[user]": "who"})
    again = made(world, csv(texts(), [user.upper() for user in who]), INLINE | {"columns[user]": "who"})
    assert (again["budget"], again["budget_inherited"]) == (first["budget"], True)
    assert not made(world, csv(texts()))["budget_inherited"]


def test_tenants_never_meet(world: World) -> None:
    rows, who = texts(), [f"user {i}" for i in range(10)]
    first = made(world, csv(rows, who), INLINE | {"columns[user]": "who"})
    foreign = made(world, csv(rows, who), INLINE | {"columns[user]": "who"}, tenant="two")
    assert foreign["budget"] != first["budget"]
    assert not foreign["budget_inherited"]
    with world.engine("admin").connect() as connection:
        macs = "SELECT count(DISTINCT mac) = count(*) FROM fingerprint WHERE budget_id = ANY (:budgets)"
        assert connection.execute(sa.text(macs), {"budgets": [first["budget"], foreign["budget"]]}).scalar_one()


def test_evaluation_sets_are_not_fingerprinted(world: World) -> None:
    rows = texts()
    before = counts(world)
    made(world, csv(rows), {"purpose": "evals"})
    assert counts(world)[2] == before[2]
    assert not made(world, csv(rows))["budget_inherited"]
    assert world.upload(csv(rows, rows), {"purpose": "evals", "columns[user]": "who"}).status_code == 400


def test_of_racing_uploads_one_opens_a_budget_and_the_others_inherit_it(world: World) -> None:
    rows = texts(50)
    before = counts(world)[0]
    with ThreadPoolExecutor(6) as pool:
        uploads = list(pool.map(lambda i: made(world, csv(rows[i:])), range(6)))
    assert len({upload["budget"] for upload in uploads}) == 1
    assert sorted(upload["budget_inherited"] for upload in uploads) == [False] + [True] * 5
    assert counts(world)[0] == before + 1


def test_of_racing_uploads_into_two_budgets_one_is_refused(world: World) -> None:
    rows = texts(50)
    two = [made(world, csv(texts()))["budget"] for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda i: world.upload(csv(rows), under(two[i])), range(2)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]


def test_the_database_refuses_what_nobody_decided(world: World) -> None:
    """Even a service that does not look, or does not wait."""
    one, two = (made(world, csv(texts()))["budget"] for _ in range(2))
    insert = "INSERT INTO fingerprint (tenant_id, kind, mac, budget_id) VALUES (%s, 'record', %s, %s)"
    url = world.database.api_url.replace("+psycopg", "")
    mac = secrets.token_bytes(32)
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        first.execute(insert, ["tenant_one", mac, one])
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(second.execute, insert, ["tenant_one", mac, two])
            with pytest.raises(TimeoutError):
                late.result(0.3)
            first.commit()
            with pytest.raises(psycopg.Error, match="nobody decided") as refused:
                late.result(20)
        assert refused.value.sqlstate == "TC006"
    for tenant, where in (("tenant_two", one), ("tenant_one", "budget-0")):
        with psycopg.connect(url) as api, pytest.raises(psycopg.errors.ForeignKeyViolation):
            api.execute(insert, [tenant, secrets.token_bytes(32), where])
    for statement in ("UPDATE fingerprint SET kind = 'user'", "DELETE FROM fingerprint", "TRUNCATE fingerprint"):
        with psycopg.connect(url) as api, pytest.raises(psycopg.errors.InsufficientPrivilege):
            api.execute(statement)


def test_files_by_user_count_users(world: World) -> None:
    who = [f"user {secrets.token_hex(4)}"] * 4 + [f"user {secrets.token_hex(4)}"]
    upload = made(world, csv(texts(5), who), USERS | {"declared_size": "count"})
    assert upload["declared_size"] == 2
    held = world.get(f"/v1/budgets/{upload['budget']}").json()
    assert (held["unit"], held["max_records_per_user"]) == ("user", 2)
    content = world.get(f"/v1/files/{upload['id']}/content", "steward").text
    assert len(content.splitlines()) == 3
    opened = world.post(
        "/v1/budgets", {"name": "u", "epsilon": 8, "delta": 1e-3, "unit": "user", "max_records_per_user": 1}, "steward"
    ).json()["id"]
    assert world.upload(csv(texts(), texts()), under(opened)).json()["error"]["param"] == "columns.user"
    second = made(world, csv(texts(5), texts(1) * 5), under(opened, declared_size="count") | {"columns[user]": "who"})
    assert second["declared_size"] == 1


def test_answers_and_logs_hold_neither_texts_nor_ids(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rows, who = [f"{CANARY} {text}" for text in texts()], [f"{CANARY} {i} {secrets.token_hex(4)}" for i in range(10)]
    form = INLINE | {"columns[user]": "who"}
    other = made(world, csv(texts()))["budget"]
    answers = [
        world.upload(csv(rows, who), form),
        world.upload(csv(rows, who), form),
        world.upload(csv(rows, who), USERS),
        world.upload(csv(rows, who), under(other) | {"columns[user]": "who"}),
        world.upload(csv(rows, who), under(other, **OTHERS) | {"columns[user]": "who"}),
        world.upload(csv(rows, who), form),
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 400, 409, 201, 409]
    assert all(CANARY not in answer.text for answer in answers)
    assert CANARY not in caplog.text
    assert all(CANARY not in world.get(f"/v1/budgets/{other}{part}", "auditor").text for part in ("", "/entries"))


def test_overlap_is_for_the_steward_alone(world: World) -> None:
    rows = texts()
    first = made(world, csv(rows))
    for scope in ("analyst", "auditor"):
        answer = world.upload(csv(rows), INLINE, scope=scope)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")
        assert first["budget"] not in answer.text
    upload = made(world, csv(rows))
    seen = world.get(f"/v1/files/{upload['id']}").json()
    assert "budget_inherited" not in seen
    assert world.get(f"/v1/budgets/{first['budget']}/entries").status_code == 403


def test_a_service_with_another_fingerprint_key_does_not_start(world: World) -> None:
    """Every record would look new to it, and come under a second budget. The database forgets no key that it has met."""
    other = world.settings.model_copy(update={"fingerprint_key": SecretStr("ab" * 32)})
    with pytest.raises(OtherFingerprintKey, match="TACIT_FINGERPRINT_KEY"), TestClient(create_app(other)):
        pass
    with TestClient(create_app(world.settings)):
        pass
    for login in ("api", "admin"):
        for change in ("DELETE FROM fingerprint_key", "UPDATE fingerprint_key SET mark = sha256('')"):
            with world.engine(login).connect() as connection, pytest.raises(sa.exc.DBAPIError):
                connection.execute(sa.text(change))
