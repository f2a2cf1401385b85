"""What an upload answers back: to its steward, in the answer and later, and to nobody else."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.api.attacks import Browser, Call
from tests.api.conftest import CSV, PRIVATE, World

pytestmark = pytest.mark.usefixtures("quick_checks")

UNCOUNTED = {k: v for k, v in PRIVATE.items() if k not in ("labels", "declared_size")}
PUBLISHED = UNCOUNTED | {"labels": "publish", "declared_size": "count"}


def visits(tag: str) -> bytes:
    """Ten texts twice, with two labels, of four patients."""
    lines = [f"{tag} visit {i % 10},{'ab'[i // 10]},patient-{i % 4}" for i in range(20)]
    return ("text,label,patient_id\n" + "\n".join(lines)).encode()


def upload(world: World, tag: str, **form: str) -> dict[str, Any]:
    answer = world.upload(visits(tag), PUBLISHED | form)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_the_answer_and_the_file_have_the_same_report(world: World) -> None:
    made = upload(world, "same")
    report = made["report"]
    assert (report["read"], report["kept"], report["repeated"]) == (20, 10, 10)
    assert report["conflicts"] == {"texts": 10, "records": 20}
    assert report["classes"] == {"a": {"read": 10, "kept": 10}, "b": {"read": 10, "kept": 0}}
    assert (report["max_length"], report["unused_columns"]) == (128, ["patient_id"])
    assert [q["code"] for q in report["questions"]] == ["person_column", "conflicting_labels", "many_repeated"]
    for scope in ("steward", "admin"):
        answer = world.get(f"/v1/files/{made['id']}/report", scope)
        assert (answer.status_code, answer.json()) == (200, report)


def test_nothing_of_it_is_for_an_analyst_or_another_tenant(world: World) -> None:
    made = upload(world, "hidden")
    evals = world.upload(visits("hidden"), {"purpose": "evals"}).json()
    for file in (made["id"], evals["id"]):
        for scope in ("analyst", "auditor"):
            answer = world.get(f"/v1/files/{file}/report", scope)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")
            browser = Browser(world, world.keys["one"][scope])
            assert browser.send(Call("GET", f"/dashboard/files/{file}")).status_code == 403
        assert world.get(f"/v1/files/{file}/report", "steward", tenant="two").status_code == 404
    seen = [world.get(path).text for path in ("/v1/files", f"/v1/files/{made['id']}", f"/v1/budgets/{made['budget']}")]
    seen.append(
        Browser(world, world.keys["one"]["analyst"]).send(Call("GET", f"/dashboard/budgets/{made['budget']}")).text
    )
    assert not any(word in text for text in seen for word in ("patient_id", "repeated", "questions", "unused_columns"))
    assert f'/dashboard/files/{made["id"]}"' not in seen[-1]
    shapes = world.client.get("/openapi.json").json()["components"]["schemas"]
    assert [name for name, shape in shapes.items() if "report" in shape.get("properties", {})] == ["NewlyUploaded"]


def test_the_page_says_what_the_api_says(world: World) -> None:
    made = upload(world, "page", **{"columns[label]": "label"})
    browser = Browser(world, world.keys["one"]["steward"])
    assert f"/dashboard/files/{made['id']}" in browser.send(Call("GET", f"/dashboard/budgets/{made['budget']}")).text
    page = browser.send(Call("GET", f"/dashboard/files/{made['id']}"))
    assert page.status_code == 200
    for words in ("A column that looks like a person: patient_id", "One text, two labels", "5 x epsilon", "Length"):
        assert words in page.text, words


def test_a_public_set_is_told_about_too(world: World) -> None:
    report = world.upload(visits("public"), {"purpose": "evals"}).json()["report"]
    assert (report["kept"], report["repeated"]) == (20, 10)
    assert [q["code"] for q in report["questions"]] == ["conflicting_labels", "many_repeated"]


def test_a_file_without_a_report_says_so(world: World) -> None:
    made = upload(world, "old")
    with world.engine("superuser").begin() as c:
        c.exec_driver_sql("SET LOCAL session_replication_role = replica")
        c.execute(sa.text("DELETE FROM upload_report WHERE file_id = :id"), {"id": made["id"]})
    answer = world.get(f"/v1/files/{made['id']}/report", "steward")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_report")
    page = Browser(world, world.keys["one"]["steward"]).send(Call("GET", f"/dashboard/files/{made['id']}"))
    assert page.status_code == 200
    assert "this file has no report" in page.text


def test_a_file_with_problems_leaves_none(world: World) -> None:
    count = sa.text("SELECT count(*) FROM upload_report")
    with world.engine("admin").connect() as c:
        before = c.execute(count).scalar_one()
        answer = world.upload(CSV + b"x,9\n", PRIVATE)
        assert answer.status_code == 400
        assert "report" not in answer.json()
        assert c.execute(count).scalar_one() == before


def test_a_deleted_file_tells_nothing_more(world: World) -> None:
    made = upload(world, "gone")
    assert world.call("DELETE", f"/v1/files/{made['id']}", "steward").status_code == 200
    assert world.get(f"/v1/files/{made['id']}/report", "steward").json()["error"]["code"] == "not_found"


def test_what_the_question_advises_can_be_done(world: World) -> None:
    """The same rows into a budget for people, once the first one is frozen."""
    first = upload(world, "advice")
    assert (
        world.post(f"/v1/budgets/{first['budget']}/freeze", {"reason": "meant for people"}, "steward").status_code
        == 200
    )
    people = {
        "privacy_budget[unit]": "user",
        "privacy_budget[max_records_per_user]": "3",
        "columns[user]": "patient_id",
    }
    why = {"overlap": "different_population", "overlap_reason": "the same people, whose first budget is frozen"}
    second = upload(world, "advice", **people, **why)
    assert second["budget"] != first["budget"]
    assert "person_column" not in [q["code"] for q in second["report"]["questions"]]


@pytest.mark.parametrize(
    "report",
    [[], "x", None, {"x": "y" * 1_000_001}, {"x": 10**400}, json.loads('{"a":' * 12 + "1" + "}" * 12)],
)
def test_the_database_takes_only_what_a_report_may_be(world: World, report: Any) -> None:
    made = upload(world, f"shape {json.dumps(report)[:20].encode().hex()}")
    insert = sa.text("INSERT INTO upload_report (file_id, report) VALUES (:id, CAST(:report AS jsonb))")
    with world.engine("superuser").begin() as c:
        c.exec_driver_sql("SET LOCAL session_replication_role = replica")
        c.execute(sa.text("DELETE FROM upload_report WHERE file_id = :id"), {"id": made["id"]})
    with world.engine("api").connect() as c, pytest.raises(DBAPIError, match="a_report_is_plain"):
        c.execute(insert, {"id": made["id"], "report": json.dumps(report)})
    with world.engine("api").begin() as c:  # what is none, but could be read, is shown as none
        c.execute(insert, {"id": made["id"], "report": '{"read": "many"}'})
    assert world.get(f"/v1/files/{made['id']}/report", "steward").json()["error"]["code"] == "no_report"


@pytest.mark.parametrize(
    ("login", "statement"),
    [
        ("worker", "SELECT report FROM upload_report"),
        ("worker", "INSERT INTO upload_report (file_id, report) VALUES ('f', '{}')"),
        ("api", "UPDATE upload_report SET report = '{}'"),
        ("api", "DELETE FROM upload_report"),
        ("api", "TRUNCATE upload_report"),
        ("admin", "UPDATE upload_report SET report = '{}'"),
        ("admin", "DELETE FROM upload_report"),
        ("admin", "TRUNCATE upload_report"),
    ],
)
def test_no_login_changes_a_report_and_no_worker_reads_one(world: World, login: str, statement: str) -> None:
    upload(world, f"rights {login} {statement}"[:40].replace(",", ""))
    with world.engine(login).connect() as c, pytest.raises(DBAPIError, match=r"permission denied|append-only"):
        c.exec_driver_sql(statement)
