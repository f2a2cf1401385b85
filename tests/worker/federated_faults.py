"""Faults at random places of federated jobs, each job then brought to its end, and looked at: was anything charged twice
or beyond what was authorised, was a round lost, does a job hang, is a message that is sent again the same?

A worker dies by an exception that nothing catches, raised at a chosen call; its lease then runs out.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from domain.federated import rounds
from domain.kit.statuses import ENDED
from dpcore.federated import server
from dpcore.federated.server import State
from ledger import work
from ledger.errors import RoundClosed
from ledger.verify import verify_budget
from tests.worker.books import authorised, lose, wrong
from tests.worker.federation import Federation
from worker import training
from worker.federated import silo as silos
from worker.federated.coordinator import Coordinator
from worker.federated.silo import SiloTraining
from worker.reconciler import reconcile

LEAST = 2
IN_TRAINING = "silo killed in training"
SILO_KILLS = (
    IN_TRAINING,
    "silo killed between checkpoint and message",
    "silo killed between the message's blob and its row",
    "silo killed right after its message",
)
LATE = "late message of an old round"
TWICE, TWICE_LATER = "message sent twice by one attempt", "message sent again by a later attempt"
OPENING = ("coordinator killed before opening", "coordinator killed after opening")
CLOSING = ("coordinator killed before closing", "coordinator killed after closing")
KEEPING = ("coordinator killed before the checkpoint", "coordinator killed after the checkpoint")
PUBLISHING = "coordinator killed in publishing"
IN_PUBLISHING = tuple(f"{PUBLISHING}, {where}" for where in ("before", "before its commit", "after"))
ENOUGH, TOO_FEW = "drop-out above the threshold", "drop-out below the threshold"
KINDS = (*SILO_KILLS, LATE, TWICE, TWICE_LATER, *OPENING, *CLOSING, *KEEPING, PUBLISHING, ENOUGH, TOO_FEW)


class Killed(BaseException):
    """A worker's process ends here."""


@dataclass
class Totals:
    """What the faults came to."""

    injected: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    rounds: int = 0
    resent: int = 0
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __str__(self) -> str:
        rows = [(kind, self.injected[kind]) for kind in KINDS]
        rows += [("jobs", self.jobs), ("rounds", self.rounds), ("messages made again", self.resent)]
        rows += [(f"wrong: {what}", len(self.wrong[what])) for what in WRONG]
        words = [f"{name:<55}{count:>6}" for name, count in rows]
        return "\n".join([*words, *(f"{what}: {each}" for what, found in self.wrong.items() for each in found)])


WRONG = (
    "the ledger does not verify",
    "charged twice or not as authorised",
    "more steps begun than authorised",
    "rounds lost",
    "jobs stuck",
    "messages made again that differ",
    "states made again that differ",
    "messages taken twice or late",
)


class Matrix:
    """Jobs of one federation, with faults that `chance` deals until each kind came `least` times."""

    def __init__(self, federation: Federation, seed: int, least: int, totals: Totals) -> None:
        self.federation, self.service = federation, federation.service
        self.chance, self.least, self.totals = random.Random(seed), least, totals
        self.armed: set[str] = set()
        self.job = self.weak = ""
        self.made: dict[tuple[str, str, int], list[bytes]] = defaultdict(list)
        self.states: dict[int, list[State]] = defaultdict(list)

    def complete(self) -> bool:
        return all(self.totals.injected[kind] >= self.least for kind in KINDS)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The calls at which a worker may die, and what is written down beside them."""
        with pytest.MonkeyPatch.context() as patch:
            training_, between, blob, row = SILO_KILLS
            self._at(patch, SiloTraining, "save", training_, None)
            self._at(patch, silos, "put_bytes", None, blob)
            self._at(patch, Coordinator, "_open", *OPENING)
            self._at(patch, rounds, "close_round", CLOSING[0], None)
            self._at(patch, Coordinator, "_next", CLOSING[1], None)
            self._at(patch, Coordinator, "_keep", *KEEPING)
            before, uncommitted, after = IN_PUBLISHING
            self._at(patch, Coordinator, "_publish", before, after)
            self._at(patch, training, "publish", None, uncommitted)
            self._watch(patch, between, row)
            yield

    def _at(self, patch: pytest.MonkeyPatch, owner: Any, name: str, before: str | None, after: str | None) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def dying(*arguments: Any, **more: Any) -> Any:
            self._strike(before)
            made = real(*arguments, **more)
            self._strike(after)
            return made

        patch.setattr(owner, name, dying)

    def _watch(self, patch: pytest.MonkeyPatch, between: str, row: str) -> None:
        send, keep = SiloTraining._send, Coordinator._keep

        def sending(silo: SiloTraining, part: Any, number: int, fence: int, data: bytes) -> bool:
            self.made[self.job, part.member.name, number].append(data)
            self._strike(between)
            if LATE in self.armed:
                self._close_meanwhile()
            came = send(silo, part, number, fence, data)
            if TWICE in self.armed and came:
                self._refused(TWICE, silo.lease, number, fence)
            if came:
                self._strike(row)
            elif LATE in self.armed:
                self._refused(LATE, silo.lease, number, fence)
            return came

        def keeping(of: Coordinator, state: State) -> None:
            self.states[state.round].append(state)
            keep(of, state)

        patch.setattr(SiloTraining, "_send", sending)
        patch.setattr(Coordinator, "_keep", keeping)

    def _strike(self, kind: str | None) -> None:
        if kind in self.armed:
            self._count(kind)
            raise Killed(kind)

    def _count(self, kind: str) -> None:
        self.armed.discard(kind)
        self.totals.injected[PUBLISHING if kind in IN_PUBLISHING else kind] += 1

    def _close_meanwhile(self) -> None:
        """The round of a message that is made and not yet sent is closed, and the next one opened."""
        armed, self.armed = self.armed, set()
        self.federation.overdue(self.job)
        self.federation.go(self.job)
        self.armed = armed

    def _refused(self, kind: str, lease: work.Lease, number: int, fence: int) -> None:
        """A message that the database must refuse, and that changes nothing."""
        parts = self.federation.parts(lease.job_id)
        try:
            with self.federation.engine.begin() as c:
                rounds.send(c, lease, number, fence, f"exchange/{self.job}/{number}/again", "0" * 64)
        except (RoundClosed, sa.exc.DBAPIError):
            pass
        else:
            self.totals.wrong["messages taken twice or late"].append(f"{kind}: {lease}, round {number}")
        if self.federation.parts(lease.job_id) != parts:
            self.totals.wrong["messages taken twice or late"].append(f"{kind} changed {lease}, round {number}")
        self._count(kind)

    def run(self, count: int) -> None:
        """One job of so many rounds."""
        self.states.clear()
        self.job = self.federation.submit(rounds=count, least_silos=LEAST)
        members = self.federation.silos(self.job)
        # Who dies in training pays for the round once more, and has none left for the last ones: one silo of each job.
        self.weak = self.chance.choice(list(members))
        for _ in range(5 * count):
            if self.federation.status(self.job) in ENDED:
                break
            self._turn()
        else:
            self.totals.wrong["jobs stuck"].append(f"{self.job}: {self.federation.story(self.job)}")
        lose(self.service)
        reconcile(self.federation.engine, self.service.store, self.federation.settings)
        self._look(members)

    def _turn(self) -> None:
        """The coordinator's turn, then those of its silos but some."""
        self._work(self.job, {kind for kind in (*OPENING, *CLOSING, *KEEPING) if self._dealt(kind, 0.5)})
        if self.federation.status(self.job) in ENDED:
            return
        present = self.federation.silos(self.job)
        absent = self._absent(list(present))
        for name in self.chance.sample(sorted(present), len(present)):
            if name not in absent and self.federation.due(present[name]):
                self._silo(name, present[name])
        if absent:
            self.federation.overdue(self.job)

    def _absent(self, names: list[str]) -> list[str]:
        kind, away = (ENOUGH, 1) if self.chance.random() < 0.5 else (TOO_FEW, len(names) - LEAST + 1)
        if not self._dealt(kind, 0.6) or (kind == ENOUGH and len(names) <= LEAST):
            return []
        self._count(kind)
        return self.chance.sample(names, away)

    def _silo(self, name: str, job_id: str) -> None:
        kinds = [k for k in (*SILO_KILLS, LATE, TWICE, TWICE_LATER) if name == self.weak or k != IN_TRAINING]
        wanted = [kind for kind in kinds if self.totals.injected[kind] < self.least]
        arms = {self.chance.choice(wanted)} if wanted and self.chance.random() < 0.8 else set()
        self._work(job_id, arms)
        if TWICE_LATER in arms and any(part["blob"] for part in self.federation.parts(job_id)):
            with self.federation.engine.begin() as c:
                lease = work.claim(c, job_id, "later", 60)
            if lease is not None:
                last = self.federation.parts(job_id)[-1]
                self._refused(TWICE_LATER, lease, last["number"], last["fence"])
                with self.federation.engine.begin() as c:
                    work.drop(c, lease)

    def _dealt(self, kind: str, odds: float) -> bool:
        return self.totals.injected[kind] < self.least and self.chance.random() < odds

    def _work(self, job_id: str, arms: set[str]) -> None:
        """Attempts until one is not killed."""
        in_publishing = set(IN_PUBLISHING) if job_id == self.job else set()
        self.armed = arms | in_publishing
        while True:
            try:
                self.federation.go(job_id)
                break
            except Killed:
                lose(self.service)
        self.armed = set()

    def _look(self, members: dict[str, str]) -> None:
        totals, federation = self.totals, self.federation
        story = federation.story(self.job)
        totals.jobs += 1
        totals.rounds += len(story)
        statuses = {each: federation.status(each) for each in (self.job, *members.values())}
        if statuses[self.job] != "succeeded" or any(status not in ENDED for status in statuses.values()):
            totals.wrong["jobs stuck"].append(f"{statuses}")
        for each in members.values():
            totals.wrong["charged twice or not as authorised"] += wrong(self.service, each)
            begun, (paid,) = sum(part["steps"] for part in federation.parts(each)), authorised(self.service, each)
            if begun > paid:
                totals.wrong["more steps begun than authorised"].append(f"{each}: {begun} of {paid}")
        for budget_id, (_, reserved) in federation.balances().items():
            with self.service.api.connect() as c:
                found = [finding.what for finding in verify_budget(c, budget_id)]
            totals.wrong["the ledger does not verify"] += found + ([f"{budget_id}: reserved"] if any(reserved) else [])
        self._look_at_rounds(story, members)

    def _look_at_rounds(self, story: list[Any], members: dict[str, str]) -> None:
        """Whoever sent before a round was closed counts, and a round of enough messages moves the factors."""
        for number, states in self.states.items():
            if any(server.dumps(state) != server.dumps(states[0]) for state in states):
                self.totals.wrong["states made again that differ"].append(f"{self.job}, round {number}")
        for each in story:
            number = each["number"]
            sent = [n for n, j in members.items() if any(p["number"] == number and p["blob"] for p in self._parts(j))]
            moved = server.start(self.states[number + 1][0]) != server.start(
                State(self.job, number + 1, self.states[number][0].factors, {}, {}, {})
            )
            if each["came"] != sorted(sent) or moved != (len(sent) >= LEAST):
                self.totals.wrong["rounds lost"].append(f"{self.job}, {number}: {sent} sent, came {each['came']}")
        for (of, name, number), made in self.made.items():
            if of == self.job and len(made) > 1:
                self.totals.resent += 1
                if any(data != made[0] for data in made):
                    self.totals.wrong["messages made again that differ"].append(f"{of}, {name}, {number}")

    def _parts(self, silo_job: str) -> list[Any]:
        return list(self.federation.parts(silo_job))
