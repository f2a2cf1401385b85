"""Jobs of several phases, of an indivisible one, and jobs that an earlier version planned, attempted in this process."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import safetensors.torch
import sqlalchemy as sa

from domain.kit.settings import WorkerSettings
from domain.kit.tables import job, job_event
from domain.storage.blobs import get_bytes
from dpcore import checkpoint as checkpoints
from dpcore.terms import accounting
from dpcore.terms.mechanisms import PoissonGaussian, Whole
from dpcore.terms.program import Phase, Program
from ledger import work
from tests.worker.books import authorised, lose, paid, price
from tests.worker.service import Service
from worker import training as module
from worker.attempt import attempt

FULL, BIASES = 6, 10
Attempt = Callable[[str], None]


@pytest.fixture
def go(engine: sa.Engine, settings: WorkerSettings) -> Attempt:
    return lambda job_id: attempt(engine, settings, job_id)


TWO_PHASES: dict[str, dict[str, Any]] = {
    "bitfit": {"options": {"full_steps": FULL}},
    "distill": {"numbers": {"teacher_steps": FULL}},
}
NAMES = {"bitfit": ("everything", "biases"), "distill": ("teacher", "student")}


def two_phases(service: Service, method: str = "bitfit") -> str:
    """Everything first, then the biases; or a teacher, then its student: 16 steps in chunks of one."""
    return service.submit(method=method, steps=BIASES, hint=False, **TWO_PHASES[method])


def whole(service: Service, steps: int = 40) -> str:
    def indivisible(made: Phase) -> tuple[Phase, ...]:
        assert isinstance(made.mechanism, PoissonGaussian)
        return (made.model_copy(update={"mechanism": Whole(of=made.mechanism)}),)

    return service.submit(steps=steps, phases=indivisible, hint=False)


def after(
    monkeypatch: pytest.MonkeyPatch, ordinal: int, count: int, happens: Callable[[], None], *, then_die: bool = False
) -> list[int]:
    """Something happens once `count` chunks of a phase were authorised. What was asked for, by phase."""
    asked: list[int] = []
    real = module.Training._authorise

    def watched(self: Any, program: Program, at: int, steps: int) -> int:
        granted = real(self, program, at, steps)  # committed
        asked.append(at)
        if asked.count(ordinal) == count and at == ordinal:
            happens()
            if then_die:
                raise Died
        return granted

    monkeypatch.setattr(module.Training, "_authorise", watched)
    return asked


class Died(BaseException):
    """The process ends here."""


def report(service: Service, job_id: str) -> Mapping[str, Any]:
    blob = service.released(job_id)["report"].blob
    found: Mapping[str, Any] = json.loads(get_bytes(service.store, blob))
    return found


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", TWO_PHASES)
def test_both_phases_are_paid_for_under_their_own_number_and_reported(
    service: Service, go: Attempt, method: str
) -> None:
    id, (first, second) = two_phases(service, method), NAMES[method]
    go(id)
    assert service.status(id) == "succeeded"
    rows = paid(service, id)
    assert [(r.ordinal, r.steps_authorised, r.steps_max) for r in rows] == [(0, FULL, FULL), (1, BIASES, BIASES)]
    assert service.settlement(id).spent_change == price(rows)
    told = report(service, id)["privacy"]
    assert [(p["name"], p["steps_authorised"]) for p in told["phases"]] == [(first, FULL), (second, BIASES)]
    assert told["steps_authorised"] == FULL + BIASES
    # Epsilons of phases are no sum: the job's is below it, and above each of them.
    alone = [p["epsilon_alone"] for p in told["phases"]]
    assert max(alone) < told["epsilon_charged"] < sum(alone)
    steps = [
        e.data for e in service.all(sa.select(job_event).order_by(job_event.c.seq)) if e.name == "steps.authorised"
    ]
    assert [d["step"] for d in steps] == list(range(1, FULL + BIASES + 1))
    assert {d["phase"] for d in steps[:FULL]} == {first}
    assert {d["total_steps"] for d in steps} == {FULL + BIASES}


KILLS = [(0, 3), (0, FULL), (1, 1), (1, 4)]
"""In the first phase, after it, at the second one's first step, in its middle. Of `distill`: compression_kills.py."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("ordinal", "count"), KILLS)
def test_a_worker_killed_in_any_phase_or_between_is_followed_by_one_that_goes_on(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch, ordinal: int, count: int
) -> None:
    """The step that was authorised last is lost, and stays charged; no phase gets more than it reserved."""
    id = two_phases(service)
    with monkeypatch.context() as patch:
        after(patch, ordinal, count, lambda: None, then_die=True)
        with pytest.raises(Died):
            go(id)
    lose(service)
    asked = after(monkeypatch, -1, 1, lambda: None)
    go(id)
    assert service.status(id) == "succeeded"
    assert authorised(service, id) == [FULL, BIASES]
    assert set(asked) == ({0, 1} if ordinal == 0 else {1})
    assert service.settlement(id).spent_change == price(paid(service, id))


@pytest.mark.parametrize(
    ("method", "ordinal", "count", "paid_for"),
    [
        ("distill", 0, 3, [3, 0]),
        pytest.param("distill", 0, FULL, [FULL, 0], marks=pytest.mark.verify),
        ("distill", 1, 4, [FULL, 4]),
        pytest.param("bitfit", 1, 4, [FULL, 4], marks=pytest.mark.verify),
    ],
)
def test_a_cancel_costs_what_was_authorised_of_both_phases(
    service: Service,
    go: Attempt,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    ordinal: int,
    count: int,
    paid_for: list[int],
) -> None:
    """Of a student that never began nothing; and neither teacher nor student leaves."""
    id = two_phases(service, method)

    def cancel() -> None:
        with service.api.begin() as c:
            work.request_stop(c, id)

    asked = after(monkeypatch, ordinal, count, cancel)
    go(id)
    assert service.status(id) == "cancelled"
    assert authorised(service, id) == paid_for
    assert asked == [0] * paid_for[0] + [1] * paid_for[1], "nothing more is asked for"
    assert service.settlement(id).spent_change == price(paid(service, id))
    assert not service.released(id)


def test_a_pause_in_the_second_phase_settles_nothing_and_goes_on_there(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = two_phases(service)

    def pause() -> None:
        with service.api.begin() as c:
            work.pause(c, id)

    with monkeypatch.context() as patch:
        after(patch, 1, 4, pause)
        go(id)
    assert service.status(id) == "queued"
    assert authorised(service, id) == [FULL, 4]
    with service.api.begin() as c:
        work.resume(c, id)
        c.execute(sa.update(job).where(job.c.id == id).values(status="queued", status_detail=None))
    asked = after(monkeypatch, -1, 1, lambda: None)
    go(id)
    assert service.status(id) == "succeeded"
    assert set(asked) == {1}
    assert authorised(service, id) == [FULL, BIASES]


def test_a_failure_in_the_second_phase_costs_both_in_full(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = two_phases(service)

    def fail() -> None:
        raise RuntimeError("something that the data did")

    after(monkeypatch, 1, 2, fail)
    go(id)
    assert service.status(id) == "failed"
    whole_price = accounting.total([tuple(r.reserved) for r in paid(service, id)])
    assert service.settlement(id).spent_change == list(whole_price)


def test_a_program_that_is_not_the_one_reserved_is_not_run(service: Service, go: Attempt) -> None:
    """The second phase was reserved with fewer steps than the row of the job says."""
    id = two_phases(service)
    with service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.text("UPDATE ledger.phase SET steps_max = steps_max - 1 WHERE ordinal = 1"))
    go(id)
    assert service.status(id) == "failed"
    assert authorised(service, id) == [0, 0]


def test_an_indivisible_phase_is_authorised_once_and_runs_to_its_end(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = after(monkeypatch, -1, 1, lambda: None)
    id = whole(service)
    go(id)
    assert service.status(id) == "succeeded"
    assert asked == [0]
    assert authorised(service, id) == [40]
    assert report(service, id)["privacy"]["mechanism"] == "Poisson-subsampled Gaussian, as one indivisible whole"


def test_an_indivisible_phase_goes_on_after_a_pause_without_paying_again(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = whole(service)
    with monkeypatch.context() as patch:
        asked = after(patch, 0, 1, lambda: patch.setattr(module, "draining", lambda: True))
        go(id)
    assert service.status(id) == "running"
    assert asked == [0]
    go(id)
    assert service.status(id) == "succeeded"
    assert authorised(service, id) == [40]


def test_an_indivisible_phase_that_was_lost_before_it_was_kept_fails_and_is_charged(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is no output of its mechanism."""
    id = whole(service)
    with monkeypatch.context() as patch:
        after(patch, 0, 1, lambda: None, then_die=True)
        with pytest.raises(Died):
            go(id)
    lose(service)
    go(id)
    assert service.status(id) == "failed"
    assert not service.released(id)
    assert service.settlement(id).spent_change == list(paid(service, id)[0].reserved)


def of_the_first_version(service: Service, job_id: str) -> None:
    """Write the job's program as the first versions wrote a plan."""
    made = service.one(sa.select(job.c.plan).where(job.c.id == job_id)).plan
    (only,) = made["phases"]
    plan = {name: value for name, value in made.items() if name != "phases"}
    plan |= {name: value for name, value in only.items() if name not in ("name", "trains", "estimator", "mechanism")}
    plan |= {name: only["mechanism"][name] for name in ("sample_rate", "noise_multiplier")}
    with service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.update(job).where(job.c.id == job_id).values(plan=plan))


def test_a_job_of_the_first_version_that_is_queued_is_run(service: Service, go: Attempt) -> None:
    id = service.submit(hint=False)
    of_the_first_version(service, id)
    go(id)
    assert service.status(id) == "succeeded"
    assert authorised(service, id) == [40]


def test_a_job_of_the_first_version_goes_on_from_its_checkpoint(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = service.submit(hint=False)
    of_the_first_version(service, id)

    def as_it_was(run: checkpoints.Checkpoint) -> bytes:
        """What the first versions kept."""
        tensors = {f"weight/{name}": weight.detach().contiguous() for name, weight in run.weights.items()}
        for name, moments in run.moments.items():
            tensors |= {f"{moment}/{name}": value.contiguous() for moment, value in moments.items()}
        plan = json.dumps(service.one(sa.select(job.c.plan).where(job.c.id == id)).plan)
        metadata = {"format": "tacit-checkpoint-1", "step": str(run.step), "plan": plan}
        return safetensors.torch.save(tensors, metadata=metadata)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "dumps", as_it_was)
        after(patch, 0, 9, lambda: patch.setattr(module, "draining", lambda: True))
        go(id)
    kept = authorised(service, id)[0]
    assert 0 < kept < 40
    asked = after(monkeypatch, -1, 1, lambda: None)
    go(id)
    assert service.status(id) == "succeeded"
    assert len(asked) == (40 - (kept - 2)) // 2  # not from its beginning; the chunk that was thrown away stays paid
    assert authorised(service, id) == [40]
