"""SIGKILL at chosen moments of jobs, each then resumed or cancelled, and looked at: was it lost, was it charged twice, do
the parts of what it leaves fit each other?

All draws and noises come from one secret, so that what is released can be compared, bit for bit, with that of a job
which nobody killed and which was granted as many steps as the other did not lose.
"""

import io
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from domain.storage.blobs import get_bytes
from ledger import work
from tests.worker.books import authorised, lose, wrong
from tests.worker.service import PATIENCE, Service, Worker

Point = tuple[str, int, Literal["before", "after"]]
"""The n-th call of a function."""
AUTHORISE, SAVE = "worker.training:Training._authorise", "worker.checkpoints:save"
PUT = "worker.checkpoints:put_bytes"


@dataclass(frozen=True)
class Kill:
    """Where one job is killed, once for each point, and how many steps of each phase were paid for and lost by it."""

    job: str
    what: str
    points: tuple[Point, ...]
    lost: tuple[int, ...]
    then: Literal["resumed", "cancelled"] = "resumed"

    def __str__(self) -> str:
        return f"{self.job}: {self.what}"


def killed(job: str, what: str, place: str, call: int, when: Literal["before", "after"], *lost: int) -> Kill:
    return Kill(job, what, ((place, call, when),), lost)


def publishing(job: str, *nothing: int) -> list[Kill]:
    return [
        killed(job, "in publishing, before its transaction", "worker.results:store_adapter", 1, "after", *nothing),
        killed(job, "in publishing, settled and not committed", "domain.jobs.releases:settle", 1, "after", *nothing),
        killed(job, "in publishing, all said and not committed", "worker.training:publish", 1, "after", *nothing),
    ]


@dataclass
class Totals:
    """What the kills came to."""

    jobs: int = 0
    kills: int = 0
    lost: list[str] = field(default_factory=list)
    double_charges: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"jobs {self.jobs}, kills {self.kills}, jobs lost {len(self.lost)}, double charges "
            f"{len(self.double_charges)}, parts that do not fit each other {len(self.unfit)}"
        )


@dataclass
class Matrix(ABC):
    """The jobs of one service, and what was released by those that nobody killed."""

    service: Service
    totals: Totals = field(default_factory=Totals)
    _whole: dict[tuple[str, tuple[int, ...]], dict[str, bytes]] = field(default_factory=dict)

    @abstractmethod
    def submit(self, name: str) -> str:
        """A job of this name."""

    @abstractmethod
    def steps(self, name: str) -> tuple[int, ...]:
        """Of its phases."""

    @abstractmethod
    def unfit(self, name: str, files: Mapping[str, bytes]) -> list[str]:
        """What does not go together in a result."""

    def run(self, kill: Kill) -> None:
        """One job; what is wrong with it is in the totals."""
        service, totals, id = self.service, self.totals, self.submit(kill.job)
        for point in kill.points:
            status = self.attempt(id, at=point)
            assert status == -9, f"{kill}: no call {point[1]} of {point[0]}, the attempt ended with {status}"
            totals.kills += 1
            lose(service)
        if kill.then == "cancelled":
            with service.api.begin() as c:
                work.request_stop(c, id)
        self.attempt(id)
        totals.jobs += 1
        end = {"resumed": "succeeded", "cancelled": "cancelled"}[kill.then]
        released = service.released(id)
        if service.status(id) != end or bool(released) != (end == "succeeded"):
            totals.lost.append(f"{kill}: {service.status(id)}, {len(released)} results")
            return
        totals.double_charges += [f"{kill}: {what}" for what in wrong(service, id)]
        steps = self.steps(kill.job)
        if end == "succeeded" and authorised(service, id) != [*steps]:
            totals.double_charges.append(f"{kill}: authorised {authorised(service, id)} of {steps}")
        if end == "succeeded":
            made = self._files(id)
            totals.unfit += [f"{kill}: {what}" for what in self.unfit(kill.job, made)]
            if made != self._unkilled(kill):
                totals.unfit.append(f"{kill}: not what the same steps give where nobody is killed")

    def _unkilled(self, kill: Kill) -> dict[str, bytes]:
        """What a job leaves that was granted so many steps fewer."""
        key = (kill.job, kill.lost)
        if key not in self._whole:
            id = self.submit(kill.job)
            granted = [steps - lost for steps, lost in zip(self.steps(kill.job), kill.lost, strict=True)]
            assert self.attempt(id, grants=granted) == 0
            assert self.service.status(id) == "succeeded"
            self._whole[key] = self._files(id)
        return self._whole[key]

    def attempt(self, id: str, *, at: Point | None = None, grants: list[int] | None = None) -> int:
        """One process, and how it ended, as Popen has it."""
        told = {"job": id, "secret": "one for all", "at": at, "grants": grants}
        started = Worker.start(self.service, 60, {"DYING": json.dumps(told)}, "tests.worker.dying")
        return started.process.wait(PATIENCE)

    def _files(self, id: str) -> dict[str, bytes]:
        """Of the result, without what names the job's price: weights, masks, and what says of what they are."""
        with zipfile.ZipFile(
            io.BytesIO(get_bytes(self.service.store, self.service.released(id)["adapter"].blob))
        ) as left:
            return {name: left.read(name) for name in left.namelist() if name != "README.md"}


def survive(matrix: Matrix, kills: list[Kill], capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, with nothing wrong in the end; the totals are printed."""
    for kill in kills:
        matrix.run(kill)
    totals = matrix.totals
    with capsys.disabled():
        print("", totals, *totals.lost, *totals.double_charges, *totals.unfit, sep="\n", flush=True)
    assert totals.kills == sum(len(kill.points) for kill in kills)
    assert (totals.lost, totals.double_charges, totals.unfit) == ([], [], [])
