"""The page of a statement, as people see it: light, dark, on a phone and on paper, without a script or a request."""

import os
from pathlib import Path

from playwright.sync_api import Page

from tests.api.conftest import JOBS
from tests.dashboard.accessible import look_at
from tests.dashboard.conftest import House, Open
from tests.worker import tiny

PICTURES = os.environ.get("TACIT_LOOK", "")


def published(house: House) -> tuple[str, str]:
    """A job that has released an adapter, and its budget."""
    file = house.tickets(31)
    rows = b"text,label\n" + b"".join(b"public %d,%s\n" % (i, tiny.LABELS[i % 2].encode()) for i in range(40))
    evals = house.upload(rows, {"purpose": "evals"}).json()["id"]
    words = {"intended_use": "triage of incoming tickets, ward 3", "suffix": "triage", "metadata": {"team": "blue"}}
    job = house.job(file["id"], validation_file=evals, **words)
    house.work(job["id"])
    assert house.get(f"{JOBS}/{job['id']}").json()["status"] == "succeeded"
    return job["id"], file["budget"]


def on_paper(page: Page, name: str) -> None:
    """It prints, on a few sheets."""
    data = page.pdf(format="A4")
    assert data.startswith(b"%PDF")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") + data.count(b"/Type/Page") <= 14
    if PICTURES:
        (Path(PICTURES) / f"{name}.pdf").write_bytes(data)


def test_the_pages_of_a_job_and_a_budget_are_read_and_printed(house: House, open_page: Open) -> None:
    job, budget = published(house)
    page = open_page("steward")
    page.goto(f"/dashboard/jobs/{job}")
    page.get_by_role("link", name="Read or print the statement").click()
    page.get_by_role("heading", name="Statement of a private job").wait_for()
    assert page.locator("script").count() == 0
    assert "guessing finds 1" in page.locator("body").inner_text()
    assert page.locator("svg path.job").count() == page.locator("svg path.all").count() == 1
    assert "triage of incoming tickets, ward 3" in page.locator("body").inner_text()
    look_at(page, "statement-job")
    on_paper(page, "statement-job")
    page.goto(f"/dashboard/budgets/{budget}")
    page.get_by_role("link", name="Statement of all that was released").click()
    page.get_by_role("heading", name="all that was released").wait_for()
    assert job in page.locator("body").inner_text()
    look_at(page, "statement-budget")
    on_paper(page, "statement-budget")


def test_an_analyst_sees_no_dossier_of_a_budget(house: House, open_page: Open) -> None:
    file = house.tickets(32)
    page = open_page("analyst")
    page.goto(f"/dashboard/budgets/{file['budget']}")
    assert page.get_by_role("link", name="Statement of all that was released").count() == 0
    answer = page.goto(f"/dashboard/budgets/{file['budget']}/statement")
    assert answer is not None
    assert answer.status == 403
