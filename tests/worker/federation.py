"""Two tenants, three silos, and a job over them: submitted by the domain, worked on in this process, turn by turn."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from domain.access.grants import Viewer
from domain.federated import invitations, rounds
from domain.federated.invitations import Proposal, Terms
from domain.federated.rounds import Membership
from domain.federated.submitting import submit_federated
from domain.jobs.resolving import Wanted, plan_job
from domain.kit.ids import new_id
from domain.kit.settings import WorkerSettings
from domain.kit.tables import api_key, federated_round, job, silo_round, tenant
from domain.models.allow_list import base_models
from dpcore.terms.tasks import TaskKind
from ledger.budgets import Reference, open_budget
from ledger.tables import budget, phase, reservation
from tests.worker import tiny
from tests.worker.service import DECLARED, Service
from worker import attempt as attempt_module
from worker.assignment import Assignment
from worker.attempt import attempt
from worker.federated import silo as silo_module
from worker.federated.masks import SiloMasks
from worker.federated.silo import Prepared, SiloTraining

HOST = Viewer("key_a", "tenant_a", frozenset({"steward", "analyst"}))
GUEST = Viewer("key_b", "tenant_b", frozenset({"steward", "analyst"}))
ROUNDS = 2
QUICK = {"rounds": ROUNDS, "round_seconds": 0.1, "patience_seconds": 60.0, "r": 2}
NUMBERS = {"batch_size": 80}


class Rehearsed(SiloTraining):
    """A silo that is built and rehearsed at its first attempt alone, which takes most of an attempt's time. Its draws
    and noise are new in each one, as in a worker of its own."""

    parts: ClassVar[dict[str, Prepared]] = {}
    now: ClassVar[dict[str, "Rehearsed"]] = {}

    def _prepare(self, assignment: Assignment, member: Membership) -> Prepared:
        self.now[assignment.job_id] = self
        if assignment.job_id not in self.parts:
            self.parts[assignment.job_id] = super()._prepare(assignment, member)
        part = self.parts[assignment.job_id]
        masks = SiloMasks.of(self, member) if part.options.masked else None
        return replace(part, member=member, streams=silo_module.Streams(), masks=masks)

    def should_stop(self) -> bool:
        return super(Rehearsed, self.now[self.lease.job_id]).should_stop()  # the silo keeps asking its first attempt


def rehearse_once(patch: pytest.MonkeyPatch) -> None:
    """For the length of a test."""
    patch.setattr(Rehearsed, "parts", {})
    patch.setattr(Rehearsed, "now", {})
    patch.setitem(attempt_module._KINDS, "silo", Rehearsed)


class Federation:
    """A federated job of tenant a, on its own file and on two files of tenant b."""

    def __init__(
        self,
        service: Service,
        settings: WorkerSettings,
        *,
        model: str = "tiny",
        task: TaskKind = "classification",
        users: int | None = None,
        share: float = 0.25,
        **options: Any,
    ) -> None:
        self.service, self.settings, self.model, self.share = service, settings, model, share
        self.engine = sa.create_engine(settings.database_url.get_secret_value())
        self.models = base_models(settings)
        self.options = {**QUICK, **options}
        with service.api.begin() as c:
            c.execute(tenant.insert().values(id="tenant_b", name="b"))
            key = {"id": "key_b", "tenant_id": "tenant_b", "name": "b", "prefix": "q", "mac": b"n"}
            c.execute(api_key.insert().values(**key, scopes=["steward", "analyst"]))
        self._kind: dict[str, Any] = {"task": task, "users": users}
        plain = task == "classification" and users is None
        self.own = service.train_file if plain else self.add_file("tenant_a", seed=1)
        self.files = [self.add_file("tenant_b", seed=10 + number) for number in (1, 2)]

    def add_file(self, tenant_id: str, seed: int, names: Sequence[str] = tiny.LABELS, home: str = "") -> str:
        """A private file under a budget of its own. names: of its labels, in its order: the same rows in any. home:
        where its rows lie."""
        budget_id, users = new_id("budget"), self._kind["users"]
        with self.service.api.begin() as c:
            open_budget(
                c,
                id=budget_id,
                tenant_id=tenant_id,
                name=budget_id,
                epsilon=Decimal(100),
                delta=Decimal("1e-5"),
                unit="record" if users is None else "user",
                max_records_per_user=None if users is None else 4,
                reference=Reference(0.05, 200),
            )
        texts, labels = tiny.rows(DECLARED, seed=seed)
        places = [names.index(tiny.LABELS[label]) for label in labels]
        return self.service.add_file(
            texts, places, private=True, tenant_id=tenant_id, budget_id=budget_id, names=names, home=home, **self._kind
        )

    def invite(self, number: int, **asked: Any) -> str:
        """An invitation of tenant b, accepted with one of its files."""
        proposal = Proposal(
            guest="tenant_b",
            model=self.model,
            training_file=self.own,
            options=self.options,
            hyperparameters=NUMBERS,
            seed=None,
            note=None,
            days=7,
        )
        with self.service.api.begin() as c:
            made = invitations.propose(c, HOST, self.models, proposal)
        with self.service.api.begin() as c:
            terms = Terms(training_file=self.files[number], epsilon=None, share=self.share, queue_days=None)
            invitations.accept(c, GUEST, self.models, self.service.store, made, terms, check_first=True)
        return made

    def submit(self, *, silos: int = 3, validation: bool = False, **options: Any) -> str:
        """The federated job's id."""
        self.options |= options
        self.invited = invited = [self.invite(number) for number in range(silos - 1)]
        job_id = new_id("ftjob", "-")
        wanted = Wanted(
            model=self.model,
            training_file=self.own,
            validation_file=self.service.eval_file if validation else None,
            method="federated-lora",
            options={**self.options, "silos": invited},
            hyperparameters=NUMBERS,
            epsilon=None,
            delta=None,
            seed=None,
            suffix=None,
            metadata={},
            share=self.share,
            allow_duplicate=True,
        )
        with self.service.api.begin() as c:
            planned = plan_job(c, HOST, self.models, invitations.with_public_seed(wanted))
            submit_federated(c, planned, self.service.store, job_id=job_id, viewer=HOST, check_first=True)
        return job_id

    def silos(self, job_id: str) -> dict[str, str]:
        """The silos' jobs by name, of those that have not left."""
        with self.service.api.connect() as c:
            return {each.name: each.job_id for each in rounds.taking_part(c, job_id)}

    def go(self, job_id: str) -> None:
        """One attempt."""
        attempt(self.engine, self.settings, job_id)

    def due(self, job_id: str) -> bool:
        """Whether a worker would take it up."""
        with self.engine.connect() as c:
            return bool(c.scalar(sa.select(rounds.due()).where(job.c.id == job_id)))

    def round(self, job_id: str, *, without: Collection[str] = ()) -> None:
        """The round before is closed and the next one opened, and each silo but these sends its message."""
        self.go(job_id)
        for name, each in self.silos(job_id).items():
            if name not in without:
                self.go(each)

    def overdue(self, job_id: str) -> None:
        """Nobody waits any more for what the newest round waits for."""
        with self.service.admin.begin() as c:
            c.execute(sa.text("SET LOCAL session_replication_role = replica"))
            late = federated_round.c.job_id == job_id, federated_round.c.came.is_(None)
            ago = {
                name: sa.text(f"now() - interval '{hours} hours'")
                for name, hours in (("opened_at", 2), ("closes_at", 1))
            }
            closed = sa.case((federated_round.c.closed_at.is_not(None), sa.text("now() - interval '2 hours'")))
            c.execute(sa.update(federated_round).where(*late).values(**ago, closed_at=closed))

    def turns(self, job_id: str, most: int = 60) -> Iterator[str]:
        """Each job that was worked on, one after the other as they are due, until the federated one has ended."""
        silos = self.silos(job_id)
        for _ in range(most):
            for each in [job_id, *silos.values()]:
                if self.status(each) in ("queued", "running") and self.due(each):
                    self.go(each)
                    yield each
            if self.status(job_id) not in ("queued", "running"):
                return
        raise AssertionError(f"{job_id} has not ended after {most} turns: {self.story(job_id)}")

    def run(self, job_id: str, most: int = 60) -> str:
        """To its end; answers the status."""
        for _ in self.turns(job_id, most):
            pass
        return self.status(job_id)

    def status(self, job_id: str) -> str:
        with self.service.api.connect() as c:
            return str(c.scalar(sa.select(job.c.status).where(job.c.id == job_id)))

    def authorised(self, job_id: str) -> int:
        """Steps of a silo's job that are paid for."""
        with self.service.api.connect() as c:
            steps = sa.select(sa.func.sum(phase.c.steps_authorised)).join(
                reservation, reservation.c.id == phase.c.reservation_id
            )
            return int(c.scalar(steps.where(reservation.c.job_id == job_id)) or 0)

    def story(self, job_id: str) -> list[Mapping[str, Any]]:
        """The rounds, with who came."""
        with self.service.api.connect() as c:
            found = c.execute(
                sa.select(federated_round).where(federated_round.c.job_id == job_id).order_by(federated_round.c.number)
            )
            return list(found.mappings())

    def parts(self, silo_job: str) -> list[Mapping[str, Any]]:
        """A silo's rounds."""
        with self.service.api.connect() as c:
            found = c.execute(
                sa.select(silo_round).where(silo_round.c.job_id == silo_job).order_by(silo_round.c.number)
            )
            return list(found.mappings())

    def balances(self) -> dict[str, tuple[list[int], list[int]]]:
        """Spent and reserved of each budget."""
        with self.service.api.connect() as c:
            rows = c.execute(sa.select(budget.c.id, budget.c.spent, budget.c.reserved))
            return {row.id: (list(row.spent), [int(x) for x in row.reserved]) for row in rows}
