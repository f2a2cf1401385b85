"""A steward's day in a real browser: open, grant, decide, verify, delete; keys and the audit log for who keeps them."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ledger.verify import Finding
from tests.dashboard.conftest import House, Open, log_in
from tests.dashboard.test_safety import sign_in
from tests.dashboard.test_walk import fill

WORST = "a-name-without-a-blank-" * 3


def test_a_steward_does_a_days_work(house: House, open_page: Open) -> None:
    page = open_page("steward")
    page.get_by_role("link", name="Open the first one").click()
    fill(page, {"Name": "Tickets of 2026", "Epsilon": "eight", "Delta": "1e-6", "Most records of a user": "4"})
    page.get_by_label("Protects each").select_option("user")
    page.get_by_role("button", name="Open the budget").click()
    wrong = page.get_by_label("Epsilon", exact=True)
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(wrong).to_be_focused()
    expect(wrong).to_have_accessible_description(re.compile("valid number"))
    expect(page.get_by_label("Protects each")).to_have_value("user")
    wrong.fill("8")
    page.get_by_role("button", name="Open the budget").click()
    expect(page.get_by_label("Most records of a user")).to_have_count(0)
    expect(page.get_by_role("heading", name="Tickets of 2026")).to_be_visible()
    budget = page.url.rpartition("/")[2]
    opened = house.get(f"/v1/budgets/{budget}", "steward").json()
    assert (opened["epsilon"], opened["delta"], opened["max_records_per_user"]) == (8, 1e-6, 4)

    file = house.tickets(61, **{"privacy_budget[name]": "Calls"})
    page.goto(f"/dashboard/budgets/{file['budget']}")
    decisions = page.locator("#decisions")
    decisions.get_by_text("Rules for later jobs").click()
    decisions.get_by_label("Approval above epsilon").fill("1")
    decisions.get_by_label("Days to begin").fill("99")
    decisions.get_by_label("Reason").first.fill("the board's word")
    decisions.get_by_role("button", name="Set the rules").click()
    wrong = decisions.get_by_label("Days to begin")
    expect(wrong).to_have_accessible_description(re.compile("less than or equal to 30"))
    expect(decisions.get_by_label("Reason").first).to_have_value("the board's word")
    wrong.fill("9")
    decisions.get_by_role("button", name="Set the rules").click()
    expect(page.locator("#balance")).to_contain_text("more than epsilon 1 waits for a steward")
    assert house.get(f"/v1/budgets/{file['budget']}").json()["queue_days"] == 9

    first = house.job(file["id"], suffix="first", validation_file=public_file(house))
    page.goto("/dashboard/jobs")
    expect(page.get_by_role("row").filter(has_text="first").locator(".badge")).to_have_text("waits for approval")
    page.get_by_role("link", name="Inbox 1 waiting").click()
    expect(page.locator("#count")).to_have_text("1 thing waits for a steward.")
    waits = page.get_by_role("article").filter(has_text="first")
    expect(waits).to_contain_text("It is the first")
    waits.get_by_label("Reason for an approval").fill("as planned")
    waits.get_by_role("button", name="Approve and run").click()
    expect(page.get_by_role("heading", name="Inbox")).to_be_visible()
    expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
    house.work(first["id"])

    second = house.job(file["id"], suffix="second", epsilon=2, steps=30)
    page.reload()
    waits = page.get_by_role("article").filter(has_text="second")
    earlier = waits.get_by_role("row").filter(has_text="first")
    expect(earlier.locator(".badge")).to_have_text("succeeded")
    quality = house.get(f"/v1/fine_tuning/jobs/{first['id']}").json()["quality"]["value"]
    expect(earlier.locator("[data-label=Quality]")).to_have_text(f"{quality:.3f}")
    left = house.get(f"/v1/budgets/{file['budget']}").json()["share_left"]
    assert number_in(waits, "Left with it, all else as now") <= 100 * left
    share = 100 * second["privacy"]["share"]
    assert abs(number_in(waits, "Left without it") - 100 * left - share) <= 0.02
    expect(waits).to_contain_text("Calls")
    waits.get_by_label("Reason for a rejection").fill("not this one")
    waits.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("Nothing waits for you.")).to_be_visible()
    told = house.get(f"/v1/fine_tuning/jobs/{second['id']}/events").json()["data"][0]["message"]
    assert "not this one" in told

    page.goto(f"/dashboard/budgets/{file['budget']}")
    decisions.get_by_text("Lower the limit", exact=True).first.click()
    expect(decisions).to_contain_text("you cannot take it back")
    fill_in(decisions, {"New limit": "9", "Reason": "less is enough"}, within="limit")
    decisions.get_by_role("button", name="Lower the limit").click()
    expect(decisions.get_by_label("New limit")).to_have_accessible_description(re.compile("only the operator raises"))
    decisions.get_by_label("New limit").fill("6")
    decisions.get_by_role("button", name="Lower the limit").click()
    expect(page.locator("#balance")).to_contain_text("of 6")
    decisions.get_by_role("button", name="Verify the ledger now").click()
    expect(page.get_by_role("heading", name="The ledger holds")).to_be_visible()
    page.get_by_role("link", name="Back to the budget").click()

    page.get_by_role("link", name="tickets.jsonl", exact=True).click()
    third = house.job(file["id"], epsilon=0.5)
    page.get_by_text("Delete this file").click()
    page.get_by_role("button", name="Delete the file").click()
    expect(page.get_by_role("main")).to_contain_text("cancel them first")
    page.get_by_role("link", name=third["id"]).click()
    page.get_by_text("Cancel this job").click()
    page.get_by_role("button", name="Cancel the job").click()
    page.goto(f"/dashboard/files/{file['id']}")
    page.get_by_text("Delete this file").click()
    page.get_by_role("button", name="Delete the file").click()
    expect(page.get_by_role("heading", name="Calls")).to_be_visible()
    assert house.get(f"/v1/files/{file['id']}", "steward").status_code == 404

    decisions.get_by_text("Freeze the budget", exact=True).first.click()
    fill_in(decisions, {"Reason": "somebody asked"}, within="freeze")
    decisions.get_by_role("button", name="Freeze the budget").click()
    expect(page.locator("#balance")).to_contain_text("somebody asked")
    expect(decisions.get_by_text("Freeze the budget")).to_have_count(0)
    page.goto("/dashboard/budgets")
    page.get_by_role("link", name="Open a budget").click()
    expect(page.get_by_role("heading", name="Open a budget")).to_be_visible()


def test_keys_are_made_given_a_new_secret_and_revoked_and_each_act_is_in_the_log(house: House, open_page: Open) -> None:
    page = open_page("admin")
    page.get_by_role("link", name="Keys").click()
    form = page.locator("#make")
    fill(page, {"Name": "Ada of the ward", "Project": "ward"})
    form.get_by_role("button").click()
    expect(form.get_by_role("group", name="What it may do")).to_have_accessible_description(re.compile("at least 1"))
    expect(form.get_by_label("Name")).to_have_value("Ada of the ward")
    form.get_by_label("steward").check()
    with page.expect_response(lambda answer: answer.url.endswith("/dashboard/keys")) as answered:
        form.get_by_role("button").click()
    assert answered.value.header_value("cache-control") == "no-store"
    secret = page.locator("#secret").inner_text()
    assert house.client.get("/v1/budgets", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert secret not in page.url
    page.get_by_role("link", name="I have copied it").click()
    row = page.get_by_role("row").filter(has_text="Ada of the ward")
    expect(row).to_contain_text("ward")
    assert secret not in page.content()
    id = row.locator(".id").inner_text()
    assert re.fullmatch(r"key_[0-9a-f]{32}", id)

    hers = open_page("")
    log_in(hers, secret)
    row.get_by_role("link").click()
    page.get_by_label("Hours that both work").fill("1000")
    page.get_by_role("button", name="Rotate the key").click()
    expect(page.get_by_label("Hours that both work")).to_have_accessible_description(re.compile("less than or equal"))
    page.get_by_label("Hours that both work").fill("0")
    page.get_by_role("button", name="Rotate the key").click()
    renewed = page.locator("#secret").inner_text()
    answers = [house.client.get("/v1/budgets", headers={"Authorization": f"Bearer {k}"}) for k in (secret, renewed)]
    assert [answer.status_code for answer in answers] == [401, 200]
    page.goto(f"/dashboard/keys/{id}")
    page.get_by_text("Revoke this key").click()
    page.get_by_role("button", name="Revoke the key").click()
    expect(page.get_by_role("heading", name="Revoked")).to_be_visible()
    expect(page.get_by_text("Revoke this key")).to_have_count(0)
    hers.goto("/dashboard/budgets")
    expect(hers.get_by_role("main")).to_contain_text("Your session has ended")

    page.goto(f"/dashboard/keys/{house.viewer('admin').key_id}")
    expect(page.get_by_role("main")).to_contain_text("It cannot revoke itself")
    page.get_by_role("link", name="Audit log").click()
    table = page.get_by_role("table", name="Requests, newest first")
    for what in (
        "POST /dashboard/keys/{key_id}/revoke",
        "POST /dashboard/keys/{key_id}/rotate",
        "POST /dashboard/keys",
    ):
        line = table.get_by_role("row").filter(has=page.get_by_role("cell", name=what, exact=True)).filter(has_text=id)
        expect(line).to_contain_text("admin")
    auditor = open_page("auditor")
    auditor.goto("/dashboard/audit")
    expect(auditor.get_by_role("main")).to_contain_text(house.viewer("admin").key_id)


def test_a_form_that_comes_after_a_log_out_does_nothing_and_is_filled_again(house: House, open_page: Open) -> None:
    """Of a job's page: that page. Of a form that its address can fill: what was typed is still there."""
    file = house.tickets(62)
    page = open_page("admin")
    page.goto("/dashboard/budgets/new")
    fill(page, {"Name": "half typed // & so", "Epsilon": "3", "Delta": "1e-5"})
    log_out_elsewhere(page)
    page.get_by_role("button", name="Open the budget").click()
    expect(page.get_by_role("status").first).to_contain_text("what you sent was not done")
    log_in_here(page, house.keys["one"]["admin"])
    expect(page.get_by_label("Name")).to_have_value("half typed // & so")
    assert "half typed" not in house.get("/v1/budgets", "steward").text

    form = f"/dashboard/estimate?training_file={file['id']}&model=tiny&epsilon=1&steps=20"
    page.goto(form)
    log_out_elsewhere(page)
    page.get_by_role("button", name="Submit this job").click()
    log_in_here(page, house.keys["one"]["admin"])
    expect(page.get_by_role("heading", name="This job fits")).to_be_visible()
    assert [job["id"] for job in of_file(house, file)] == []
    page.get_by_role("button", name="Submit this job").click()
    expect(page.locator("#state .badge")).to_have_text("queued")

    place = page.url
    page.get_by_text("Cancel this job").click()
    log_out_elsewhere(page)
    page.evaluate("document.querySelector('#cancelling form').submit()")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    log_in_here(page, house.keys["one"]["admin"])
    expect(page).to_have_url(place)
    expect(page.locator("#state .badge")).to_have_text("queued")


def test_a_form_of_a_session_before_leads_back_to_what_was_typed(house: House) -> None:
    cookies, _ = sign_in(house, house.keys["one"]["steward"])
    _, before = sign_in(house, house.keys["one"]["steward"])
    sent = {"token": before, "name": "typed", "epsilon": "3"}
    answer = house.client.post("/dashboard/budgets/new", cookies=cookies, data=sent)
    assert answer.status_code == 403
    assert 'href="/dashboard/budgets/new?name=typed&amp;epsilon=3"' in answer.text
    house.client.cookies.clear()
    answer = house.client.post("/dashboard/logout", data={"token": before})
    assert answer.headers["location"] == "/dashboard/login"  # it is what was wanted
    answer = house.client.post("/dashboard/budgets/new", data={"name": "x" * 9000})
    assert answer.headers["location"] == "/dashboard/login?next=%2Fdashboard%2Fbudgets%2Fnew&unsent=1"
    broken = {"content-type": "multipart/form-data"}
    answer = house.client.post("/dashboard/budgets/new", content=b"x", headers=broken)
    assert answer.headers["location"] == "/dashboard/login?next=%2Fdashboard%2Fbudgets%2Fnew&unsent=1"


def test_two_stewards_decide_on_one_job_and_nobody_on_their_own(house: House, open_page: Open) -> None:
    file = house.tickets(63)
    rules = {"approval_above": 0.5, "queue_days": 5, "reason": "r"}
    house.post(f"/v1/budgets/{file['budget']}/rules", rules, "steward")
    job = house.job(file["id"], suffix="twice")
    body = {"model": "tiny", "training_file": file["id"], "privacy": {"epsilon": 1}}
    own = house.post("/v1/fine_tuning/jobs", body, "admin").json()
    page = open_page("admin")
    page.goto("/dashboard/inbox")
    assert house.post(f"/v1/fine_tuning/jobs/{job['id']}/approve", {}, "steward").status_code == 200
    page.get_by_role("article").filter(has_text="twice").get_by_role("button", name="Approve and run").click()
    expect(page.get_by_role("main")).to_contain_text("the job does not wait for approval")
    page.get_by_role("link", name="Back to the page before").click()
    page.get_by_role("article").filter(has_text=own["id"]).get_by_role("button", name="Approve and run").click()
    expect(page.get_by_role("main")).to_contain_text("nobody approves a job of their own")
    page.get_by_role("link", name="Back to the page before").click()
    expect(page.get_by_role("heading", name="Inbox")).to_be_visible()
    assert house.get(f"/v1/fine_tuning/jobs/{own['id']}").json()["status_detail"] == "waiting_for_approval"


def test_a_file_that_asks_is_answered_in_the_inbox(house: House, open_page: Open) -> None:
    first = house.tickets(64)
    lines = house.get(f"/v1/files/{first['id']}/content", "steward").content
    waiting = house.upload(lines, {"purpose": "evals"}, name="public.jsonl").json()
    page = open_page("steward")
    page.get_by_role("link", name=re.compile("Inbox [0-9]+ waiting")).click()
    asked = page.get_by_role("region", name="Waiting for your answer")
    asked.get_by_label("Answer").select_option("withdraw the file")
    asked.get_by_role("button", name=re.compile("Answer")).click()
    expect(page).to_have_url(re.compile("/dashboard/inbox$"))
    expect(asked).to_have_count(0)
    assert house.get(f"/v1/files/{waiting['id']}", "steward").status_code == 404


def test_a_grant_is_chosen_from_what_is_known_and_mended_in_place(house: House, open_page: Open) -> None:
    file = house.tickets(65)
    page = open_page("admin")
    page.goto(f"/dashboard/budgets/{file['budget']}")
    page.get_by_text("Let someone use this budget").click()
    form = page.locator("#granting")
    known = form.locator("#known-keys option").evaluate_all("all => all.map((one) => [one.value, one.label])")
    assert [house.viewer("auditor").key_id, "auditor"] in known
    assert form.locator("#known-projects option").evaluate_all("all => all.map((one) => one.value)").count("lab") == 1
    fill_in(form, {"Key": "key_nobody", "or epsilon": "2", "Reason": "a study"}, within="grant")
    form.get_by_role("button", name="Grant").click()
    expect(form.get_by_label("Key", exact=True)).to_have_accessible_description("no such key")
    expect(form.get_by_label("or epsilon")).to_have_value("2")
    form.get_by_label("Key", exact=True).fill(house.viewer("auditor").key_id)
    form.get_by_role("button", name="Grant").click()
    expect(page.get_by_role("table", name="Who may use this budget")).to_contain_text("key_")
    steward = open_page("steward")
    steward.goto(f"/dashboard/budgets/{file['budget']}")
    assert "lab" in steward.locator("#known-projects option").evaluate_all("all => all.map((one) => one.value)")


def test_a_ledger_that_does_not_hold_is_shown_with_its_problems(
    house: House, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = house.tickets(66)
    found = [Finding(file["budget"], 2, "the hash of the entry is not what its content gives")]
    monkeypatch.setattr("api.ledger.endpoints.keeper.verify", lambda *_: found)
    page = open_page("auditor")
    page.goto(f"/dashboard/budgets/{file['budget']}")
    expect(page.locator("#decisions").get_by_role("button")).to_have_count(1)
    page.get_by_role("button", name="Verify the ledger now").click()
    expect(page.get_by_role("heading", name="The ledger does not hold")).to_be_visible()
    expect(page.get_by_role("table", name="What does not hold")).to_contain_text("the hash of the entry")


def test_an_analyst_without_a_grant_is_told_what_is_missing(house: House, open_page: Open) -> None:
    made = house.post("/v1/keys", {"name": "new", "scopes": ["analyst"], "project": "elsewhere"}, "admin").json()
    page = open_page("")
    log_in(page, made["key"])
    page.get_by_role("link", name="New job").click()
    main = page.get_by_role("main")
    expect(main).to_contain_text("No budget is open to you yet")
    expect(main).to_contain_text(made["id"])
    expect(main).to_contain_text("elsewhere")
    expect(main.get_by_role("button")).to_have_count(0)


def test_a_phone_shows_a_budget_with_the_longest_names(house: House, open_page: Open) -> None:
    file = house.tickets(67, name=f"{WORST}.jsonl", **{"privacy_budget[name]": WORST})
    house.post("/v1/keys", {"name": "p", "scopes": ["analyst"], "project": "p" * 80}, "admin")
    house.grant(file["budget"], project="p" * 80, epsilon=7.123456, approval_above=1.234567)
    house.grant(file["budget"], project=None, key=house.viewer("auditor").key_id)
    for number in range(3):
        house.job(file["id"], 0.4 + number / 7, suffix=f"{number}" + "x" * 63)
    house.post(f"/v1/budgets/{file['budget']}/freeze", {"reason": WORST * 3}, "steward")
    for scope in ("admin", "analyst"):
        page = open_page(scope, viewport={"width": 320, "height": 640})
        page.goto(f"/dashboard/budgets/{file['budget']}")
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_without_scripts_a_page_is_not_loaded_anew_under_somebody_who_types(house: House) -> None:
    file = house.tickets(68)
    reloads = {}
    for scope in ("steward", "analyst"):
        cookies, _ = sign_in(house, house.keys["one"][scope])
        for path in ("inbox", f"budgets/{file['budget']}"):
            reloads[scope, path.partition("/")[0]] = (
                'http-equiv="refresh"' in house.client.get(f"/dashboard/{path}", cookies=cookies).text
            )
    assert reloads == {
        ("steward", "inbox"): False,
        ("steward", "budgets"): False,
        ("analyst", "inbox"): False,  # it is not theirs
        ("analyst", "budgets"): True,
    }


def public_file(house: House) -> str:
    lines = house.get("/v1/files", "steward").json()["data"]
    made = house.upload(
        b'{"text": "apple pear plum", "label": "fruit"}\n{"text": "iron tin zinc", "label": "metal"}\n',
        {"purpose": "evals", "labels": "fruit,metal", "max_length": "16"},
        name=f"public-{len(lines)}.jsonl",
    )
    assert made.status_code == 201, made.text
    id: str = made.json()["id"]
    return id


def number_in(waits: Any, term: str) -> float:
    """The percentage that a fact of a waiting job says."""
    fact = waits.locator(".facts > div").filter(has=waits.page.get_by_text(term, exact=True)).locator("dd")
    return float(fact.inner_text().removesuffix(" %"))


def fill_in(place: Any, values: dict[str, str], within: str) -> None:
    for label, value in values.items():
        place.locator(f"form[action$={within}], form[action$={within}s]").get_by_label(label, exact=True).fill(value)


def log_out_elsewhere(page: Page) -> None:
    """In another tab of the same browser."""
    other = page.context.new_page()
    other.goto("/dashboard/models")
    other.get_by_role("button", name="Log out").click()
    other.get_by_role("heading", name="Log in").wait_for()
    other.close()


def log_in_here(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()


def of_file(house: House, file: dict[str, Any]) -> list[dict[str, Any]]:
    return [job for job in house.get("/v1/fine_tuning/jobs").json()["data"] if job["training_file"] == file["id"]]
