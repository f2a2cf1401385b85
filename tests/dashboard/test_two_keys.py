"""From an empty service to a downloaded adapter, in a browser alone: an administrator makes two keys, and a steward and
an analyst do the rest, each with one of them."""

import hashlib
import json
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.accessible import look_at
from tests.dashboard.conftest import House, Open, log_in, working
from tests.worker import tiny


def rows(count: int, seed: int) -> bytes:
    texts, labels = tiny.rows(count, seed, mark=str(seed))
    pairs = zip(texts, labels, strict=True)
    return "\n".join(json.dumps({"text": f"{text} {seed}", "label": tiny.LABELS[k]}) for text, k in pairs).encode()


@pytest.mark.verify  # its parts are in test_desk.py, test_uploads.py and test_walk.py
def test_a_steward_and_an_analyst_need_no_command(house: House, open_page: Open, tmp_path: Path) -> None:
    admin, steward, analyst = open_page("admin"), open_page(""), open_page("")
    admin.get_by_role("link", name="Keys").click()
    look_at(admin, "keys")
    log_in(steward, make_key(admin, "Ward records", "steward"))
    log_in(analyst, make_key(admin, "Triage study", "analyst"))
    look_at(steward, "budgets-empty")
    analyst.get_by_role("link", name="New job").click()
    expect(analyst.get_by_text("No budget is open to you yet")).to_be_visible()
    look_at(analyst, "new-job-empty")

    steward.get_by_role("link", name="Open the first one").click()
    look_at(steward, "budget-new")
    steward.get_by_label("Name").fill("Ward notes 2026")
    steward.get_by_label("Epsilon", exact=True).fill("8")
    steward.get_by_label("Delta").fill("1e-5")
    steward.get_by_role("button", name="Open the budget").click()
    expect(steward.get_by_role("heading", name="Ward notes 2026")).to_be_visible()
    budget = steward.url

    upload(steward, "held-out.jsonl", rows(60, 2), public=True)
    look_at(steward, "file-public")
    steward.goto(budget)
    steward.get_by_role("link", name="Upload a file").first.click()
    upload(steward, "notes.jsonl", rows(400, 1), on="Ward notes 2026")
    look_at(steward, "file-private")

    steward.goto(budget)
    decisions = steward.locator("#decisions")
    decisions.get_by_text("Rules for later jobs").click()
    decisions.get_by_label("Approval above epsilon").fill("0.5")
    decisions.get_by_label("Reason").first.fill("the board reads what is larger")
    decisions.get_by_role("button", name="Set the rules").click()
    steward.get_by_text("Let someone use this budget").click()
    look_at(steward, "budget-steward")
    grants = steward.locator("#grants")
    key = grants.locator("#known-keys option").filter(has_text="Triage study").get_attribute("value")
    assert key is not None
    grants.get_by_label("Key", exact=True).fill(key)
    grants.get_by_label("Share").fill("0.5")
    grants.get_by_role("button", name="Grant", exact=True).click()
    expect(grants.get_by_role("row").filter(has_text="Triage study")).to_contain_text("50 %")

    analyst.get_by_role("link", name="New job").click()
    analyst.get_by_label("Private file").select_option(index=1)
    analyst.get_by_label("Base model").select_option("tiny")
    analyst.get_by_label("Evaluate on").select_option(index=1)
    analyst.get_by_label("Share of the budget").fill("0.25")
    for label, value in {"Steps": "20", "Expected batch": "100", "Learning rate": "0.05", "Name": "triage"}.items():
        analyst.get_by_label(label, exact=True).fill(value)
    analyst.get_by_label("What it is for").fill("to sort new notes by ward")
    analyst.get_by_role("button", name="Estimate").click()
    expect(analyst.get_by_role("heading", name="This job fits")).to_be_visible()
    look_at(analyst, "plan")
    analyst.get_by_role("button", name="Submit this job").click()
    expect(analyst.locator("#state")).to_contain_text("waits for a steward's approval")
    job = analyst.url.rpartition("/")[2]

    steward.get_by_role("link", name="Inbox").click()
    waits = steward.get_by_role("article").filter(has_text="triage")
    expect(waits).to_contain_text("to sort new notes by ward")
    expect(waits).to_contain_text("Triage study")
    look_at(steward, "inbox")
    waits.get_by_label("Reason for an approval").fill("as the study's plan says")
    waits.get_by_role("button", name="Approve and run").click()
    expect(steward.get_by_text("Nothing waits for you.")).to_be_visible()

    with working(house, job) as gate:
        gate.open(10)
        expect(analyst.locator("#state .badge")).to_have_text("running")
        look_at(analyst, "job-running")
        gate.open(100)
        expect(analyst.locator("#state .badge")).to_have_text("succeeded")
    expect(analyst.locator("#events")).to_contain_text("Ward records")
    look_at(analyst, "job-done")
    with analyst.expect_download() as coming:
        analyst.get_by_role("link", name="Download the adapter").click()
    adapter = Path(coming.value.path()).read_bytes()
    told = re.search(r"[0-9a-f]{64}", analyst.locator("#results .hash").first.inner_text())
    assert told is not None
    assert told[0] == hashlib.sha256(adapter).hexdigest()
    assert "adapter_config.json" in {Path(name).name for name in zipfile.ZipFile(BytesIO(adapter)).namelist()}
    for who, path, name in (
        (analyst, "jobs", "jobs"),
        (analyst, f"budgets/{budget.rpartition('/')[2]}", "budget-analyst"),
        (steward, "budgets", "budgets"),
        (steward, "models", "models"),
        (steward, "files/new", "upload"),
        (admin, "status", "status"),
        (admin, "audit", "audit"),
    ):
        who.goto(f"/dashboard/{path}")
        look_at(who, name)


def make_key(admin: Page, name: str, scope: str) -> str:
    """A key of this name, made on the page, and the secret that is shown once."""
    admin.goto("/dashboard/keys")
    admin.get_by_label("Name").fill(name)
    admin.locator(f"#scope-{scope}").check()
    admin.get_by_role("button", name="Make the key").click()
    secret = admin.locator("#secret").inner_text()
    admin.get_by_role("link", name="I have copied it").click()
    return secret


def upload(page: Page, name: str, content: bytes, *, on: str = "", public: bool = False) -> None:
    """A file with the script's form, until its report is on the screen."""
    if public:
        page.goto("/dashboard/files/new")
    page.locator("#file").set_input_files({"name": name, "mimeType": "application/jsonl", "buffer": content})
    if public:
        page.get_by_label(re.compile("public set")).check()
    fields: dict[str, Any] = {"Labels": ",".join(tiny.LABELS), "Longest record": "16"}
    if on:
        page.locator("#budget").select_option(label=f"{on}, for each record")
        fields["Declared size"] = "400"
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
