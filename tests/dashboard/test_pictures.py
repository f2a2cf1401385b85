"""The pictures in the docs, taken of the real thing: TACIT_PICTURES=1 writes them to docs/pictures."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from tests.api.conftest import JOBS, job_body
from tests.dashboard.conftest import House, Open, working

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
MOST = 200_000  # bytes
pytestmark = pytest.mark.skipif(os.environ.get("TACIT_PICTURES") != "1", reason="set TACIT_PICTURES=1 to take pictures")
WIDE = {"viewport": {"width": 1120, "height": 900}}
SPREAD = """
SET session_replication_role = replica;  -- the ledger is append-only: the pictures' copy gets a fortnight of history
UPDATE ledger.entry SET at = at - (14 - seq) * interval '25 hours';
UPDATE job SET created_at = created_at - interval '12 days' + interval '2 days' * (
  SELECT count(*) FROM job earlier WHERE earlier.created_at < job.created_at), finished_at = NULL WHERE status <> 'queued';
"""


def test_take_the_pictures(house: House, open_page: Open) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    house.upload(form={"purpose": "evals"}, name="held-out.csv")
    file = house.tickets(41, name="support-tickets.jsonl", **{"privacy_budget[name]": "Support tickets 2026"})
    other = house.tickets(42, name="reviews.jsonl", **{"privacy_budget[name]": "Product reviews"})
    for epsilon, name in ((1.2, "baseline"), (2.0, "more-steps"), (1.5, "rank-4"), (2.0, "larger-batch")):
        made = house.job(file["id"], epsilon, suffix=name, steps=20 + len(name))
        if name == "rank-4":
            house.post(f"/v1/fine_tuning/jobs/{made['id']}/cancel")
        else:
            house.work(made["id"])
    house.work(house.job(other["id"], 1.0, suffix="stars")["id"])
    with house.engine("superuser").begin() as connection:
        connection.execute(sa.text(SPREAD))
    job = house.job(file["id"], 2.5, suffix="triage-v2", steps=200, metadata={"team": "support"})
    house.job(file["id"], 1.0, suffix="nightly")

    page = open_page(**WIDE)
    page.goto("/dashboard/budgets")
    take(page, "budgets")
    page.goto(f"/dashboard/jobs/{job['id']}")
    with working(house, job["id"]) as gate:
        gate.open(8)
        expect(page.locator("#state")).to_contain_text("Step 80")
        take(page, "job-running", height=900)
        page.goto(f"/dashboard/budgets/{file['budget']}")
        take(page, "budget", height=1400)
        page.goto("/dashboard/jobs")
        take(page, "jobs")
        dark = open_page(color_scheme="dark", **WIDE)
        dark.goto(f"/dashboard/budgets/{file['budget']}")
        take(dark, "dark", height=1100)
    page.goto(f"/dashboard/jobs/{job['id']}")
    expect(page.locator("#state .badge")).to_have_text("succeeded")
    take(page, "job-done", height=1500)
    form = f"/dashboard/estimate?training_file={file['id']}&model=tiny&steps=60&batch_size=100"
    page.goto(f"{form}&epsilon=1")
    take(page, "estimate", height=1250)
    page.goto(f"{form}&epsilon=4")
    largest = house.post(f"{JOBS}/estimate", job_body(file["id"], 1.0, model="tiny")).json()["largest_epsilon"]
    house.submit(file["id"], largest * 0.98, model="tiny")  # somebody else comes first
    page.locator("#submit").click()
    expect(page.get_by_role("heading", name="The budget has no room for this job")).to_be_visible()
    take(page, "refusal", height=700)
    phone = open_page("steward", viewport={"width": 390, "height": 844}, device_scale_factor=1.5)
    phone.goto(f"/dashboard/budgets/{file['budget']}")
    take(phone, "phone", height=1250)
    sizes = {picture.name: picture.stat().st_size for picture in PICTURES.glob("*.png")}
    assert {name: size for name, size in sizes.items() if size > MOST} == {}


def take(page: Page, name: str, height: int = 0) -> None:
    """The page from its top, so high."""
    page.evaluate("document.activeElement.blur()")
    size = page.viewport_size
    assert size is not None
    whole = page.evaluate("document.documentElement.scrollHeight")
    page.screenshot(
        path=PICTURES / f"{name}.png",
        full_page=True,
        clip={"x": 0, "y": 0, "width": size["width"], "height": min(whole, height or whole)},
        animations="disabled",
    )
