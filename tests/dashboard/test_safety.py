"""What keeps the dashboard closed: sessions, forms, the content policy, and nothing that the API would not show."""

import re
import time

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from api.dashboard import (
    budgets,
    decisions,
    estimate,
    files,
    granting,
    inbox,
    invitations,
    jobs,
    keys,
    login,
    opening,
    questions,
    session,
    uploads,
    webhooks,
)
from domain.kit.settings import secret_bytes
from domain.kit.tables import api_key
from tests.api.conftest import World
from tests.dashboard.conftest import House, Open, log_in

SCRIPT = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


def sign_in(house: World, key: str, name: str = "tacit_session") -> tuple[dict[str, str], str]:
    """Cookies of a new session, and the token of its forms."""
    house.client.cookies.clear()
    form = house.client.get("/dashboard/login")
    answer = house.client.post("/dashboard/login", data={"token": token_in(form.text), "key": key})
    assert answer.status_code == 303, answer.text
    cookies = {name: house.client.cookies[name]}
    house.client.cookies.clear()
    return cookies, token_in(house.client.get("/dashboard/budgets", cookies=cookies).text)


def token_in(text: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', text)
    assert found is not None
    return found[1]


def inside(house: World, cookies: dict[str, str]) -> bool:
    return house.client.get("/dashboard/budgets", cookies=cookies).status_code == 200


def test_the_cookie_is_ours_short_lived_and_out_of_reach(house: House) -> None:
    form = house.client.get("/dashboard/login")
    data = {"token": token_in(form.text), "key": house.keys["one"]["analyst"], "next": "//elsewhere.example/"}
    answer = house.client.post("/dashboard/login", data=data)
    assert answer.headers["location"] == "/dashboard/budgets"  # not where a link wanted to lead
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("tacit_session="))
    assert {"HttpOnly", "SameSite=strict", "Path=/dashboard", "Max-Age=28800"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert house.keys["one"]["analyst"] not in cookie
    secure = house.client.get("https://testserver/dashboard/login")
    assert all("Secure" in c for c in secure.headers.get_list("set-cookie"))


def test_a_session_ends_with_log_out_with_its_key_and_with_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"name": "short", "scopes": ["analyst"]}
    made = house.post("/v1/keys", body, "admin").json()
    for end in ("log-out", "expiry", "revocation", "age", "forgery"):
        cookies, token = sign_in(house, made["key"] if end != "age" else house.keys["one"]["analyst"])
        assert inside(house, cookies)
        with monkeypatch.context() as patch:
            if end == "log-out":
                assert house.client.post("/dashboard/logout", cookies=cookies, data={"token": token}).status_code == 303
            elif end == "expiry":
                expire(house, made["id"], "-1 second")
            elif end == "revocation":
                expire(house, made["id"], "1 day")
            elif end == "age":
                later = time.time() + session.LIFETIME + 1
                patch.setattr(session.time, "time", lambda later=later: later)
            else:
                id, _, rest = cookies["tacit_session"].partition(".")
                other = house.post("/v1/keys", body, "admin").json()["id"]
                cookies = {"tacit_session": f"{id}.{other}.{rest.partition('.')[2]}"}
            if end == "revocation":
                house.call("DELETE", f"/v1/keys/{made['id']}")
            assert not inside(house, cookies), end
        if end == "expiry":
            expire(house, made["id"], "1 day")
        if end == "revocation":
            made = house.post("/v1/keys", body, "admin").json()


def expire(house: House, key_id: str, after: str) -> None:
    with house.engine("admin").begin() as connection:
        at = sa.func.now() + sa.text(f"interval '{after}'")
        connection.execute(sa.update(api_key).where(api_key.c.id == key_id).values(expires_at=at))


def test_every_form_carries_its_sessions_token(house: House) -> None:
    file = house.tickets(21)
    job = house.job(file["id"])["id"]
    asked = {"guest": "tenant_one", "model": "tiny", "training_file": file["id"]}
    invited = house.post("/v1/invitations", asked, "steward").json()["id"]
    key = house.viewer("steward").key_id
    cookies, _ = sign_in(house, house.keys["one"]["admin"])
    _, foreign = sign_in(house, house.keys["one"]["steward"])
    posts = [
        (f"/dashboard/jobs/{job}/cancel", {}),
        (f"/dashboard/jobs/{job}/pause", {}),
        (f"/dashboard/jobs/{job}/resume", {}),
        (f"/dashboard/jobs/{job}/approve", {}),
        (f"/dashboard/jobs/{job}/reject", {"reason": "x"}),
        (f"/dashboard/budgets/{file['budget']}/grants", {"project": "mallory"}),
        (f"/dashboard/budgets/{file['budget']}/grants/grant_x/revoke", {}),
        ("/dashboard/budgets/new", {"name": "n", "epsilon": "1", "delta": "1e-6", "unit": "record"}),
        (f"/dashboard/budgets/{file['budget']}/limit", {"epsilon": "1", "reason": "x"}),
        (f"/dashboard/budgets/{file['budget']}/freeze", {"reason": "x"}),
        (f"/dashboard/budgets/{file['budget']}/name", {"name": "x"}),
        (f"/dashboard/budgets/{file['budget']}/rules", {"queue_days": "1", "reason": "x"}),
        (f"/dashboard/budgets/{file['budget']}/verify", {}),
        (f"/dashboard/files/{file['id']}/delete", {}),
        (f"/dashboard/inbox/{job}/approve", {}),
        (f"/dashboard/inbox/{job}/reject", {"reason": "x"}),
        ("/dashboard/keys", {"name": "n", "scope_admin": "1"}),
        (f"/dashboard/keys/{key}/rotate", {"overlap_hours": "0"}),
        (f"/dashboard/keys/{key}/revoke", {}),
        ("/dashboard/estimate", {"training_file": file["id"], "model": "tiny", "epsilon": "1"}),
        (f"/dashboard/questions/{file['id']}", {"answer": "withdraw"}),
        (f"/dashboard/invitations/{invited}/accept", {"training_file": file["id"], "share": "0.1"}),
        (f"/dashboard/invitations/{invited}/withdraw", {}),
        ("/dashboard/webhooks", {"url": "https://hooks.example/", "tell.job.ended": "yes"}),
        ("/dashboard/webhooks/hook_x/remove", {}),
        ("/dashboard/files", {"purpose": "evals"}),
        ("/dashboard/logout", {}),
    ]
    rooms = (budgets, decisions, estimate, files, granting, inbox, invitations, jobs, keys, login, opening, questions)
    rooms += (uploads, webhooks)
    routes = [r for room in rooms for r in room.router.routes if "POST" in r.methods]
    assert len(posts) == len(routes) - 1  # the other is the log-in, below
    lists = ("/v1/fine_tuning/jobs", "/v1/keys", "/v1/budgets", f"/v1/budgets/{file['budget']}/entries", "/v1/files")
    before = [house.get(path, "admin").json()["data"] for path in lists]
    for path, fields in posts:
        for wrong in ({}, {"token": foreign}, {"token": "é"}):
            sent = {"files": {"file": ("a.csv", b"")}} if path == "/dashboard/files" else {}
            answer = house.client.post(path, cookies=cookies, data=wrong | fields, **sent)
            assert answer.status_code == 403, (path, answer.text)
            assert "form" in answer.text
    assert inside(house, cookies)
    assert house.get(f"/v1/invitations/{invited}").json()["status"] == "open"
    assert house.get(f"/v1/fine_tuning/jobs/{job}").json()["status"] == "queued"
    assert [house.get(path, "admin").json()["data"] for path in lists] == before
    house.client.cookies.clear()
    assert house.client.post("/dashboard/login", data={"key": house.keys["one"]["admin"]}).status_code == 403


def test_nothing_is_seen_without_a_session_or_from_another_tenant(house: House) -> None:
    file = house.tickets(22)
    job = house.job(file["id"])["id"]
    paths = [
        *("/dashboard/", "/dashboard/budgets", "/dashboard/jobs", "/dashboard/estimate", "/dashboard/models"),
        *("/dashboard/inbox", "/dashboard/keys", "/dashboard/audit", "/dashboard/budgets/new", "/dashboard/status"),
        *("/dashboard/webhooks", f"/dashboard/files/new?budget={file['budget']}"),
        f"/dashboard/budgets/{file['budget']}",
        f"/dashboard/files/{file['id']}",
        f"/dashboard/files/{file['id']}/jobs",
        *(f"/dashboard/jobs/{job}{rest}" for rest in ("", "/adapter", "/receipts.json", f"/results/{file['id']}")),
        f"/dashboard/keys/{house.viewer('steward').key_id}",
    ]
    cookies, _ = sign_in(house, house.keys["two"]["admin"])
    for path in paths[1:]:
        answer = house.client.get(path)
        assert (answer.status_code, answer.headers["location"][:16]) == (303, "/dashboard/login"), path
        assert job not in house.client.get(path, cookies=cookies).text
    for path in paths[11:]:
        assert house.client.get(path, cookies=cookies).status_code == 404


def test_scopes_decide_here_as_in_the_api(house: House) -> None:
    file = house.tickets(23)
    job = house.job(file["id"])["id"]
    seen = {}
    for scope in ("steward", "analyst", "auditor"):
        cookies, token = sign_in(house, house.keys["one"][scope])
        gets = ("/dashboard/budgets", "/dashboard/jobs", f"/dashboard/jobs/{job}", "/dashboard/estimate")
        gets += ("/dashboard/inbox", "/dashboard/budgets/new", "/dashboard/keys", "/dashboard/audit")
        posts = (f"/dashboard/jobs/{job}/approve", f"/dashboard/budgets/{file['budget']}/grants")
        posts += ("/dashboard/budgets/new", f"/dashboard/budgets/{file['budget']}/verify", "/dashboard/keys")
        posts += (f"/dashboard/files/{file['id']}/delete", f"/dashboard/inbox/{job}/reject")
        seen[scope] = [house.client.get(path, cookies=cookies).status_code for path in gets] + [
            house.client.post(path, cookies=cookies, data={"token": token}).status_code for path in posts
        ]
    assert seen == {
        "steward": [200, 200, 200, 403, 200, 200, 200, 403, 409, 400, 400, 200, 403, 409, 400],
        "analyst": [200, 200, 200, 200, *[403] * 11],
        "auditor": [200, *[403] * 6, 200, 403, 403, 403, 200, 403, 403, 403],
    }


def test_a_file_that_came_is_a_line_in_words_without_its_seal(house: House) -> None:
    budget = house.tickets(27)["budget"]
    path = f"/v1/budgets/{budget}/entries"
    (seal,) = (e["detail"] for e in house.get(path, "auditor").json()["data"] if e["kind"] == "records")
    for scope, lines in (("auditor", 1), ("analyst", 0)):
        cookies, _ = sign_in(house, house.keys["one"][scope])
        text = house.client.get(f"/dashboard/budgets/{budget}", cookies=cookies).text
        assert text.count("records were added") == lines
        assert seal["digest"] not in text


def test_wrong_keys_wait_for_each_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "PAUSE", 0.2)
    form = house.client.get("/dashboard/login")
    begun = time.monotonic()
    answer = house.client.post("/dashboard/login", data={"token": token_in(form.text), "key": "tacit_wrong"})
    assert answer.status_code == 401
    assert "copied whole" in answer.text
    assert "tacit_wrong" not in answer.text
    assert time.monotonic() - begun >= 0.2
    monkeypatch.setattr(login, "MOST_WAITING", 0)
    form = house.client.get("/dashboard/login")
    data = {"token": token_in(form.text), "key": "tacit_wrong"}
    assert house.client.post("/dashboard/login", data=data).status_code == 429


def test_text_of_others_is_shown_as_text(house: House, open_page: Open) -> None:
    file = house.tickets(24, name=f"{SCRIPT}.jsonl".replace("/", ""), **{"privacy_budget[name]": SCRIPT})
    job = house.job(file["id"], suffix=SCRIPT[:64], metadata={SCRIPT[:60]: SCRIPT})
    freeze = {"reason": SCRIPT}
    page = open_page()
    for path in ("budgets", f"budgets/{file['budget']}", "jobs", f"jobs/{job['id']}", f"estimate?suffix={SCRIPT}"):
        page.goto(f"/dashboard/{path}")
        expect(page.locator("body")).to_be_visible()
        assert page.locator("main script, main img").count() == 0
        assert page.evaluate("document.querySelectorAll('[style], [onerror], [onclick]').length") == 0
    page.goto(f"/dashboard/budgets/{file['budget']}")
    expect(page.get_by_role("heading", level=1)).to_have_text(SCRIPT)
    house.post(f"/v1/budgets/{file['budget']}/freeze", freeze, "steward")
    expect(page.locator("#balance")).to_contain_text(SCRIPT)  # by polling


def test_the_policy_forbids_what_the_pages_do_not_use(house: House) -> None:
    pages = house.client.get("/dashboard/login").headers
    policy = dict(part.split(" ", 1) for part in pages["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert pages["cache-control"] == "no-store"
    assert pages["x-content-type-options"] == "nosniff"
    for path in ("/v1/models", "/openapi.json", "/healthz", "/dashboardx"):
        policy = house.client.get(path).headers["content-security-policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'"


def test_own_files_are_kept_for_ever_under_their_hash(house: House) -> None:
    addresses = set(re.findall(r"/dashboard/static/[^\"]+", house.client.get("/dashboard/login").text))
    assert len(addresses) == 3
    for address in addresses:
        answer = house.client.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        other = re.sub(r"static/\w{4}", "static/0000", address)
        assert house.client.get(other).status_code == 404
    assert house.client.get("/dashboard/static/../app.py").status_code == 404


def test_errors_are_pages_here_and_json_there(house: House) -> None:
    cookies, _ = sign_in(house, house.keys["one"]["admin"])
    for path in ("/dashboard/nothing", "/dashboard/budgets/%01", "/dashboard/budgets/b", "/dashboard/jobs?after=x"):
        answer = house.client.get(path, cookies=cookies)
        assert answer.status_code in (400, 404)
        assert answer.headers["content-type"].startswith("text/html"), path
    assert house.client.get("/dashboard/nothing").status_code == 404
    assert house.client.put("/dashboard/budgets").status_code == 405
    assert house.client.get("/v1/nothing").headers["content-type"] == "application/problem+json"
    assert house.client.get("/").headers["location"].startswith("/dashboard")


def test_an_analyst_sees_no_more_than_the_api_shows(house: House, open_page: Open) -> None:
    file = house.tickets(25, name="private-name-of-a-ward.jsonl")
    job = house.job(file["id"])
    house.work(job["id"])
    page = open_page("analyst")
    texts = []
    for path in ("budgets", f"budgets/{file['budget']}", "jobs", f"jobs/{job['id']}", "estimate"):
        page.goto(f"/dashboard/{path}")
        texts.append(page.content())
    whole = "\n".join(texts)
    for secret in ("private-name-of-a-ward", "attempt", "fence", "Ledger, newest first", file["sha256"]):
        assert secret not in whole, secret
    assert not re.search(r"\d\d:\d\d:\d\d", whole)  # times to the minute
    page = open_page("steward")
    page.goto(f"/dashboard/budgets/{file['budget']}")
    expect(page.get_by_role("main")).to_contain_text("private-name-of-a-ward")
    expect(page.get_by_role("table", name="Ledger, newest first")).to_contain_text("settle, succeeded")


def test_a_session_that_ends_leaves_the_open_page(house: House, open_page: Open) -> None:
    made = house.post("/v1/keys", {"name": "watcher", "scopes": ["steward"]}, "admin").json()
    job = house.job(house.tickets(26)["id"])["id"]
    page = open_page("")
    log_in(page, made["key"])
    page.goto(f"/dashboard/jobs/{job}")
    house.call("DELETE", f"/v1/keys/{made['id']}")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible(timeout=15_000)
    expect(page.get_by_role("main")).to_contain_text("Your session has ended")


def test_the_secret_of_sessions_is_not_the_pepper(house: House) -> None:
    pepper = secret_bytes(house.settings.key_pepper)
    cookies, token = sign_in(house, house.keys["one"]["analyst"])
    assert pepper.hex() not in cookies["tacit_session"] + token


def test_a_key_that_logs_out_without_end_takes_a_bounded_place() -> None:
    ended: dict[str, dict[str, int]] = {}
    first = session.new_session("key_one")
    session.end(ended, first)
    for _ in range(2 * session.MOST_ENDED):
        session.end(ended, session.new_session("key_one"))
    assert sum(map(len, ended.values())) <= session.MOST_ENDED
    assert session.is_over(ended, first)  # no longer by its id
    later = session.Session("id", "key_one", first.expires + session.LIFETIME)
    assert not session.is_over(ended, later)
    assert not session.is_over(ended, session.new_session("key_two"))
