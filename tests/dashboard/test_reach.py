"""Everybody can use the pages: labels, landmarks, headings, contrast, phones, dark rooms."""

import itertools
from typing import Any, get_args

import pytest
from playwright.sync_api import Page

from domain.ingest.report import Code
from tests.api.federated import accept, invite, method
from tests.dashboard.conftest import House, Open

SEEDS = itertools.count(31)
AUDIT = """() => {
  const problems = [];
  const say = (what, element) => problems.push(what + ": " + (element ? element.outerHTML.slice(0, 120) : ""));
  const seen = (e) => e.checkVisibility && e.checkVisibility() && !e.closest(".unseen, .skip");
  if (document.documentElement.lang !== "en") say("no language");
  if (document.querySelectorAll("h1").length !== 1) say("not one h1");
  for (const place of ["header", "main", "footer"])
    if (document.querySelectorAll("body > " + place).length !== 1) say("landmark " + place);
  let last = 0;
  for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
    const level = Number(h.tagName[1]);
    if (level > last + 1) say("heading skips a level", h);
    last = level;
  }
  for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
    if (!e.labels.length || !e.labels[0].textContent.trim()) say("no label", e);
  for (const e of document.querySelectorAll("a, button, summary"))
    if (!(e.textContent.trim() || e.getAttribute("aria-label"))) say("no name", e);
  for (const t of document.querySelectorAll("table")) {
    if (!t.caption) say("no caption", t);
    for (const th of t.querySelectorAll("th")) if (!th.scope) say("no scope", th);
  }
  for (const e of document.querySelectorAll("svg"))
    if (e.getAttribute("aria-hidden") !== "true" && !(e.getAttribute("role") === "img" &&
        (e.getAttribute("aria-label") || document.getElementById(e.getAttribute("aria-labelledby"))))) say("no text", e);
  for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
    for (const name of ["aria-labelledby", "aria-describedby"])
      for (const id of (e.getAttribute(name) || "").split(" ").filter(Boolean))
        if (!document.getElementById(id)) say("points nowhere", e);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) say("an id twice");

  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return rgb(getComputedStyle(document.documentElement).backgroundColor);
  };
  let worst = 21, texts = 0;
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !seen(e) || e.closest("svg, noscript, script")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [luminance(rgb(style.color)), luminance(behind(e))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    worst = Math.min(worst, contrast);
    texts += 1;
    if (contrast < 4.5) say("contrast " + contrast.toFixed(2), e);
  }
  return { problems, worst, texts };
}"""
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
DESK, PHONE = {"width": 1200, "height": 900}, {"width": 320, "height": 640}


def everywhere(house: House, page: Page) -> dict[str, Any]:
    """What the audit finds on every kind of page, and by how much it is too wide for a phone."""
    file = house.tickets(next(SEEDS))
    done, failed, queued = (house.job(file["id"], 1.0, suffix=name)["id"] for name in ("done", "failed", "queued"))
    house.work(done)
    house.post(f"/v1/fine_tuning/jobs/{failed}/cancel")
    house.job(file["id"], 1.5, metadata={"a-note-with-a-long-name": "and-long-text-without-a-single-blank-" * 4})
    form = f"estimate?training_file={file['id']}&model=tiny"
    bitfit = {"full_steps": 5, "hyperparameters": {"steps": 20, "batch_size": 100}}
    two_phases = house.job(file["id"], method={"type": "bitfit", "bitfit": bitfit}, privacy={"share": 0.05})["id"]
    invited, taken = (invite(house, file["id"], "tenant_one", model="tiny").json()["id"] for _ in range(2))
    part = accept(house, taken, house.tickets(next(SEEDS))["id"], tenant="one").json()["job"]
    chosen = method(silos=[taken])
    federated = house.job(file["id"], method=chosen, privacy={"share": 0.05})["id"]
    asks = house.tickets(next(SEEDS))
    house.post(f"/v1/budgets/{asks['budget']}/rules", {"approval_above": 1, "queue_days": 9, "reason": "r"}, "steward")
    house.job(asks["id"], 2.0)
    rows = house.get(f"/v1/files/{asks['id']}/content", "steward").content
    assert house.upload(rows, {"purpose": "evals"}, name="public.jsonl").json()["status"] == "uploaded"
    paths = {
        "inbox": "inbox",
        "a budget to be opened": "budgets/new?epsilon=8&sample_rate=0.1",
        "keys": "keys",
        "key": f"keys/{house.viewer('steward').key_id}",
        "audit log": "audit",
        "invitations": "invitations",
        "invitation": f"invitations/{invited}",
        "price of a silo": f"invitations/{invited}?training_file={file['id']}&share=0.05",
        "no price": f"invitations/{invited}?training_file={file['id']}&share=x",
        "federated": f"jobs/{federated}",
        "a silo of it": f"jobs/{part}",
        "budgets": "budgets",
        "budget": f"budgets/{file['budget']}",
        "file": f"files/{file['id']}",
        "side by side": f"files/{file['id']}/jobs",
        "asked": f"files/{asked_about(house)}",
        "upload": "files/new",
        "upload to a budget": f"files/new?budget={file['budget']}",
        "jobs": "jobs",
        "done": f"jobs/{done}",
        "cancelled": f"jobs/{failed}",
        "queued": f"jobs/{queued}",
        "two phases": f"jobs/{two_phases}",
        "form": "estimate",
        "fits": f"{form}&epsilon=1&steps=20",
        "does not fit": f"{form}&epsilon=50&steps=20",
        "wrong": f"{form}&epsilon=x",
        "by share": f"{form}&share=0.05&steps=20&method=bitfit&bitfit.full_steps=5",
        "too large a share": f"{form}&share=1&steps=20&method=zo&zo.directions=4",
        "wrong option": f"{form}&share=0.05&method=zo&zo.directions=none",
        "advanced": f"{form}&epsilon=1&clipping=flat&clip_norm=0",
        "models": "models",
        "status": "status",
        "webhooks": "webhooks",
        "missing": "nothing",
    }
    found = {}
    for name, path in paths.items():
        page.goto(f"/dashboard/{path}")
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        found[name] = audited(page)
        assert found[name]["texts"] > 3
    page.get_by_role("button", name="Log out").click() if name != "missing" else page.goto("/dashboard/login")
    found["login"] = audited(page)
    return found


def audited(page: Page) -> dict[str, Any]:
    """The page that is open, at a desk and on a phone."""
    found = page.evaluate(AUDIT)
    page.set_viewport_size(PHONE)
    wide = page.evaluate(WIDE)
    page.set_viewport_size(DESK)
    return found | {"wide": wide}


OF_PICTURES = {"single_record", "empty_class"}
"""Questions that only archives of pictures raise."""


def asked_about(house: House) -> str:
    """A file with something of everything that a report may ask, under names without a blank."""
    name, seed = "patient_" + "id_" * 60, next(SEEDS)
    lines = [f"{seed} text {i % 8},{('NULL', 'x' * 190)[i // 10]},p{i % 3},more" for i in range(20)]
    form = {"purpose": "fine-tune", "privacy_budget[epsilon]": "8", "declared_size": "count", "labels": "publish"}
    made = house.upload("\n".join([f"text,label,{name},input", *lines]).encode(), form).json()
    assert {q["code"] for q in made["report"]["questions"]} == set(get_args(Code)) - OF_PICTURES
    id: str = made["id"]
    return id


@pytest.mark.sampled(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_name_their_parts_and_can_be_read_and_a_phone_needs_no_sideways_scrolling(
    house: House, open_page: Open, scheme: str
) -> None:
    found = everywhere(house, open_page(color_scheme=scheme, viewport=DESK))
    assert {name: page["problems"] for name, page in found.items() if page["problems"]} == {}
    assert {name: page["wide"] for name, page in found.items() if page["wide"] > 0} == {}
