"""What pages say of shares, over random histories of budgets: the parts that a page shows are 100 %, jobs that only
another order admits are labelled, and what is shown as fitting is admitted by the database when it is tried."""

import html
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from domain.jobs import life
from domain.kit import tables
from domain.kit.ids import new_id
from domain.kit.share_words import WHOLE, percent
from ledger import reserve, work
from ledger.budgets import Balance, balance
from ledger.errors import BudgetExceeded, BudgetFrozen, GrantExceeded
from tests.api.attacks import DASHBOARD, Browser, Call
from tests.api.conftest import JOBS, PRIVATE, World, job_body

pytestmark = pytest.mark.usefixtures("quick_checks")
BLOCKS, HISTORIES, ACTS = 25, 8, 8
SHAPES = ((40, 20), (1, 1), (300, 100), (7, 400), (2000, 4))
"""Steps and expected batch: the main order suits some of them better than others."""
TRIED = 12
"""Most jobs that are tried at once, where a page says that more fit."""


def hundredths(shown: str) -> int:
    """12.34 % as 1234."""
    return round(float(shown.removesuffix(" %").replace("−", "-").replace(",", "")) * 100)


def figures(page: str) -> dict[str, int]:
    """The first list of figures of a page, those in percent."""
    listed = re.search(r'<dl class="figures">(.*?)</dl>', page, re.S)
    assert listed, page
    found = re.findall(r"<dt>(?:<span[^>]*></span>)?([^<]*)</dt><dd>([−0-9.,]+ %)", listed[1])
    return {name: hundredths(value) for name, value in found}


def column(page: str, caption: str, label: str) -> list[str]:
    """A column of a table, by its caption, row by row."""
    table = re.search(rf"<caption[^>]*>{caption}</caption>(.*?)</table>", page, re.S)
    assert table, caption
    return [
        html.unescape(re.sub("<small>.*?</small>|<[^>]*>", "", cell, flags=re.S)).strip()
        for cell in re.findall(rf'<td data-label="{label}"[^>]*>(.*?)</td>', table[1], re.S)
    ]


@dataclass
class Life:
    """A budget with a file, and what happens to it."""

    world: World
    worker: sa.Connection
    browsers: dict[str, Browser]
    draws: random.Random
    file: dict[str, Any]
    seen: set[str]
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each answered."""

    @property
    def budget(self) -> str:
        return str(self.file["budget"])

    def held(self) -> Balance:
        with self.world.engine("api").connect() as connection:
            return balance(connection, self.budget)

    def shape(self) -> tuple[int, int]:
        return self.draws.choice(SHAPES)

    def body(self, shape: tuple[int, int], price: dict[str, float]) -> dict[str, Any]:
        method = {"type": "lora", "lora": {"r": 4, "hyperparameters": {"steps": shape[0], "batch_size": shape[1]}}}
        return job_body(self.file["id"], method=method, privacy=price)

    def page(self, who: str, path: str, **query: str) -> str:
        answer = self.browsers[who].send(Call("GET", f"{DASHBOARD}/{path}", query=query))
        assert answer.status_code in (200, 400), answer.text
        return str(answer.text)

    def ask(self) -> None:
        """By share or epsilon: any, or the most that is said to fit."""
        shape, who = self.shape(), self.draws.choice(["analyst", "admin"])
        price = self.draws.choice([{"share": self.draws.uniform(0.01, 0.5)}, {"epsilon": self.draws.uniform(0.1, 4)}])
        if self.draws.random() < 0.25:
            told = self.world.post(f"{JOBS}/estimate", self.body(shape, {"share": 1.0}), who).json()
            what = self.draws.choice(["share", "epsilon", "epsilon"])
            if told.get(f"largest_{what}", 0) > 0:
                price = {what: told[f"largest_{what}"]}
        made = self.world.post(JOBS, self.body(shape, price), who)
        self.seen.add(f"{next(iter(price))} {made.status_code}")
        if made.status_code == 201:
            self.jobs[made.json()["id"]] = made.json()
            self.seen.add(f"main order {made.json()['privacy']['main_order']}")

    def work(self) -> None:
        """A worker takes some of the steps of a job; it may end there, in one of three ways."""
        waiting = [id for id, made in self.jobs.items() if made["status"] == "queued"]
        if not waiting or self.held().frozen_reason is not None:
            return
        id = self.draws.choice(waiting)
        total = self.jobs[id]["privacy"]["steps_planned"]
        lease = work.claim(self.worker, id, "w", 60)
        if lease is None:
            return
        life.started(self.worker, id)
        end = self.draws.choice(["succeeded", "failed", "cancelled", "goes on"])
        steps = total if end == "succeeded" else self.draws.randint(0, total)
        if steps:
            work.authorise(self.worker, lease, 0, steps)
        if end == "goes on":
            work.drop(self.worker, lease)
        else:
            reserve.settle(self.worker, id, end, lease.fence)  # type: ignore[arg-type]
            said = {
                "succeeded": lambda: life.succeeded(self.worker, id),
                "cancelled": lambda: life.cancelled(self.worker, id),
            }
            said.get(end, lambda: life.failed(self.worker, id, "training_failed", "It failed."))()
        self.worker.commit()
        self.jobs[id]["status"] = "running" if end == "goes on" else end
        self.seen.add(end)

    def cancel(self) -> None:
        waiting = [id for id, made in self.jobs.items() if made["status"] == "queued"]
        if waiting:
            id = self.draws.choice(waiting)
            assert self.world.post(f"{JOBS}/{id}/cancel", scope="admin").status_code == 200
            self.jobs[id]["status"] = "cancelled"

    def lower(self) -> None:
        """Below the limit, seldom below what is used."""
        held = self.held()
        used = held.epsilon_of(held.used)
        least = self.draws.choice([used, used, 0.0])
        epsilon = round(least + self.draws.random() * (held.epsilon - least), 3)
        body = {"epsilon": max(epsilon, 0.01), "reason": "r"}
        answer = self.world.post(f"/v1/budgets/{self.budget}/limit", body, "steward")
        self.seen.add(f"lowered {answer.status_code}")

    def grant(self) -> None:
        """The analyst gets another sub-limit in epsilon."""
        path = f"/v1/budgets/{self.budget}/grants"
        for one in self.world.get(path, "steward").json()["data"]:
            if one["revoked_at"] is None:
                self.world.call("DELETE", f"{path}/{one['id']}", "steward")
        body = {"project": "lab", "epsilon": round(self.draws.uniform(0.3, self.held().epsilon), 3)}
        answer = self.world.post(path, body, "steward")
        if answer.status_code != 201:
            assert self.world.post(path, {"project": "lab"}, "steward").status_code == 201
        self.seen.add(f"granted {answer.status_code}")

    def look(self) -> None:
        """Every page's parts, and what they say fits."""
        held = self.held()
        place = held.filter.main
        used, cap = held.used[place], held.cap[place]
        for who in ("admin", "analyst"):
            for path in (f"budgets/{self.budget}", "budgets"):
                page = self.page(who, path)
                if path == "budgets":
                    page = page[page.index(self.budget) :]
                shown = figures(page)
                if cap <= 0:
                    assert shown == {}
                    assert "no job can be had by its share" in page
                    self.seen.add("no parts")
                    continue
                assert sum(shown.values()) == WHOLE, shown
                taken = shown["Spent"] + shown["Reserved"]
                assert min(used, cap) * WHOLE <= taken * cap < min(used, cap) * WHOLE + cap
                assert held.spent[place] * WHOLE <= shown["Spent"] * cap or shown["Spent"] == WHOLE
                if used > cap:
                    assert "more is taken than the main order has" in page
                if path == "budgets":
                    continue
                self._require_jobs_to_add_up(page, shown)
                if who == "admin":
                    after = column(page, "Ledger, newest first", "Used after")
                    changes = column(page, "Ledger, newest first", "Change")
                    assert hundredths(after[0]) == -(-used * WHOLE // cap)
                    assert sum(map(hundredths, changes)) == hundredths(after[0])
        for who in ("admin", "analyst"):
            self._require_plans_to_fit(who)
        if cap > 0 and not held.frozen_reason:
            self._require_open_share(percent(WHOLE * max(0, cap - used) // cap))

    def _require_jobs_to_add_up(self, page: str, shown: dict[str, int]) -> None:
        if not self.jobs:
            return
        parts = column(page, "Jobs of this budget, newest first", "Share")
        newest = list(reversed(self.jobs.values()))
        for job, part in zip(newest, parts, strict=False):
            assert (part == "another order") == (job["privacy"]["main_order"] is False)
        if len(parts) > len(newest):  # a foot: the column is the whole
            assert sum(hundredths(part) for part in parts if part != "another order") == WHOLE
            assert hundredths(parts[-1]) == shown["Left"]
            self.seen.add("jobs add up")
        else:
            self.seen.add("jobs are more than the whole")

    def _require_plans_to_fit(self, who: str) -> None:
        """The estimate's parts are 100 %, and so many like it, and the largest share, are admitted."""
        shape = self.shape()
        query = {"training_file": self.file["id"], "model": "minilm-l6", "method": "lora", "lora.r": "4"}
        query |= {"steps": str(shape[0]), "batch_size": str(shape[1])}
        most = self.draws.choice([2, 2, 60])
        price = self.draws.choice([{"share": f"{self.draws.uniform(0.5, most):.4f} %"}, {"epsilon": "0.5"}])
        page = self.page(who, "estimate", **query, **price)
        if '<h2 id="h-plan">' not in page:
            return
        shown = figures(page[page.index('id="h-plan"') :])
        fitting = int(re.search(r"Jobs like it that fit</dt><dd>([0-9,]+)", page)[1].replace(",", ""))  # type: ignore[index]
        number = {"share": float(price["share"][:-2]) / 100} if "share" in price else {"epsilon": 0.5}
        told = self.world.post(f"{JOBS}/estimate", self.body(shape, number), who).json()
        if self.held().frozen_reason is not None:
            assert fitting == 0
            self.seen.add("frozen")
        if "This job fits" in page:
            assert fitting >= 1
            if "Used before" in shown:
                assert sum(shown[part] for part in ("Used before", "This job", "Left after")) == WHOLE
                self.seen.add("a plan adds up")
            else:
                assert "another order" in page.lower()
                self.seen.add("a plan by another order")
            assert self.admitted(who, told, min(fitting, TRIED))
        else:
            assert fitting == 0
        suggested = re.search(r"Plan it with ([0-9.]+ %) of the budget", page)
        if suggested:
            largest = float(suggested[1][:-2]) / 100
            assert largest == pytest.approx(told["largest_share"], abs=1e-9)
            again = self.world.post(f"{JOBS}/estimate", self.body(shape, {"share": told["largest_share"]}), who).json()
            assert again["privacy"]["main_order"]
            assert self.admitted(who, again, 1)
            self.seen.add("a largest share")

    def _require_open_share(self, shown: str) -> None:
        """What the budget's page says is left is to be had by a steward who submits, for the quiet shape at least."""
        share = hundredths(shown) / WHOLE
        told = self.world.post(f"{JOBS}/estimate", self.body((1, 1), {"share": share}), "admin").json()
        if share <= 0 or told.get("error", {}).get("code") == "share_too_small":
            return
        assert told["fits"], told
        assert self.admitted("admin", told, 1)
        self.seen.add("the open share")

    def admitted(self, who: str, plan: dict[str, Any], times: int) -> bool:
        """Whether the database takes so many jobs of this plan at once; nothing of it stays."""
        viewer = self.world.viewer(who)
        priced = [
            reserve.Priced(p["sample_rate"], p["noise_multiplier"], p["steps"]) for p in plan["privacy"]["phases"]
        ]
        with self.world.engine("api").connect() as connection:
            for _ in range(times):
                id = new_id("ftjob", "-")
                row = {"id": id, "tenant_id": "tenant_one", "created_by": viewer.key_id, "model": "m", "seed": 0}
                connection.execute(tables.job.insert().values(row | {"method": {}, "plan": {}, "privacy": {}}))
                used = {"job_id": id, "file_id": self.file["id"], "budget_id": self.budget}
                connection.execute(tables.job_file.insert().values(used))
                charge = reserve.Charge(new_id("reservation"), self.file["id"], self.budget, priced)
                try:
                    reserve.reserve(connection, id, [charge])
                except (BudgetExceeded, GrantExceeded, BudgetFrozen):
                    connection.rollback()
                    return False
            connection.rollback()
        return True


@pytest.fixture(scope="module")
def browsers(world: World) -> dict[str, Browser]:
    return {who: Browser(world, world.keys["one"][who]) for who in ("admin", "analyst")}


def lives(world: World, worker: sa.Connection, browsers: dict[str, Browser], seeds: range) -> Iterator[set[str]]:
    for seed in seeds:
        draws = random.Random(seed)
        form = {"privacy_budget[epsilon]": str(draws.choice([0.8, 2, 8, 20]))}
        one = Life(world, worker, browsers, draws, world.private_file(**PRIVATE | form), set())
        acts = [one.ask] * 5 + [one.work] * 3 + [one.cancel, one.lower, one.grant]
        for _ in range(ACTS):
            draws.choice(acts)()
        one.look()
        print(seed, sorted(one.seen), flush=True)
        yield one.seen


@pytest.mark.sampled(1)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_pages_show_adds_up_and_fits(
    world: World, at_work: sa.Connection, browsers: dict[str, Browser], block: int
) -> None:
    seen = set().union(*lives(world, at_work, browsers, range(block * HISTORIES, (block + 1) * HISTORIES)))
    assert {"a plan adds up", "jobs add up"} <= seen
