"""Federated jobs, attempted in this process: rounds, what is paid for them, and what happens when somebody is away."""

import io
import json
import logging
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from domain.federated import cancelling, invitations, rounds
from domain.federated.rounds import NewestRound
from domain.jobs import acting
from domain.kit.settings import WorkerSettings
from domain.kit.tables import job, job_event
from domain.storage.blobs import get_bytes
from dpcore.federated import message, tensors
from dpcore.federated.message import Message
from dpcore.federated.server import State
from dpcore.federated.silo import Silo, put
from dpcore.mechanism.keystream import Streams
from dpcore.methods import get_trainer
from dpcore.models import build_model, load_tokenizer
from ledger import work
from ledger.errors import StaleFence
from tests.worker import tiny
from tests.worker.books import lose, wrong
from tests.worker.federation import GUEST, HOST, ROUNDS, Federation, rehearse_once
from tests.worker.service import Service
from worker import ends
from worker.federated import silo as silo_module
from worker.federated import waiting
from worker.federated.silo import SiloTraining
from worker.lease import Heartbeat
from worker.reconciler import GAVE_UP, reconcile

SECRET = "Erika Mustermann, diabetes"


def same(one: State, other: State) -> bool:
    return all(torch.equal(value, other.factors[name]) for name, value in one.factors.items())


def events(federation: Federation, job_id: str, kind: str) -> list[Any]:
    table = job_event.c
    found = sa.select(job_event).where(table.job_id == job_id, table.name == kind).order_by(table.seq)
    return list(federation.service.all(found))


def test_three_silos_of_two_tenants_train_one_adapter(federation: Federation, states: list[State]) -> None:
    """All rounds, each with all messages; every silo is settled with just its own steps; an adapter is released that
    stock PEFT reads as what the server came to, with a report that says what each silo was promised."""
    job_id = federation.submit(validation=True)
    silos = federation.silos(job_id)
    assert list(silos) == ["silo-1", "silo-2", "silo-3"]
    assert federation.run(job_id) == "succeeded"
    story = federation.story(job_id)
    assert [(r["number"], r["came"]) for r in story] == [(n, list(silos)) for n in range(ROUNDS)]
    for silo_job in silos.values():
        assert federation.status(silo_job) == "succeeded"
        assert federation.authorised(silo_job) == ROUNDS
        assert [part["number"] for part in federation.parts(silo_job)] == list(range(ROUNDS))
        assert wrong(federation.service, silo_job) == []
    assert all(not any(reserved) for _, reserved in federation.balances().values())

    files = federation.service.released(job_id)
    report = json.loads(get_bytes(federation.service.store, files["report"].blob))
    assert [(each["name"], each["own"], each["rounds_counted"]) for each in report["silos"]] == [
        (name, name == "silo-1", ROUNDS) for name in silos
    ]
    for each, silo_job in zip(report["silos"], silos.values(), strict=True):
        promised = federation.service.one(sa.select(job.c.privacy).where(job.c.id == silo_job))[0]
        for name in ("unit", "epsilon", "delta", "noise_multiplier"):
            assert each[name] == promised[name]
            assert each[name]
    adapter = get_bytes(federation.service.store, files["adapter"].blob)
    assert torch.allclose(logits_of_export(federation, adapter), logits_of_state(federation, states[-1]), atol=1e-6)
    assert not same(states[-1], states[0])


def logits_of_export(federation: Federation, adapter: bytes) -> torch.Tensor:
    """As stock PEFT loads it."""
    folder = federation.service.folder / "unpacked"
    with zipfile.ZipFile(io.BytesIO(adapter)) as archive:
        archive.extractall(folder)
    base = AutoModelForSequenceClassification.from_pretrained(federation.service.model, num_labels=len(tiny.LABELS))
    return logits(PeftModel.from_pretrained(base, folder), federation.service.model)


def logits_of_state(federation: Federation, state: State) -> torch.Tensor:
    """Of the factors that the server came to."""
    plan = federation.service.one(sa.select(job.c.plan).where(job.c.id == state.job))[0]
    base = build_model("classification", federation.service.model, tiny.LABELS, seed=plan["seed"])
    attach = get_trainer("federated-lora").attach
    model = attach(base, plan["options"], task="classification", seed=plan["seed"])
    put(model, state.factors)
    return logits(model, federation.service.model)


def logits(model: torch.nn.Module, base: Path) -> torch.Tensor:
    given = load_tokenizer(base)(["old iron here", "a plum"], padding=True, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**given).logits
    return found


def test_a_silo_whose_file_lists_its_labels_in_another_order_trains_the_same(
    quick: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows under labels in another order: with the same draws and noise the message is the same to the bit."""
    quick.files = [quick.add_file("tenant_b", seed=10, names=names) for names in (tiny.LABELS, tiny.LABELS[::-1])]
    monkeypatch.setattr(silo_module, "Streams", partial(Streams, test_secret=b"one for all"))
    job_id = quick.submit(rounds=1)
    quick.round(job_id)
    with quick.service.api.connect() as c:
        sent = rounds.messages(c, job_id, 0)
    one, other = (tensors.loads(get_bytes(quick.service.store, each.blob))[0] for each in sent[1:])
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.verify  # a round that a silo misses is in test_federated_faults.py
def test_a_late_silo_is_dropped_for_that_round_and_comes_back_in_the_next(
    quick: Federation, monkeypatch: pytest.MonkeyPatch, states: list[State], caplog: pytest.LogCaptureFixture
) -> None:
    job_id = quick.submit(rounds=3)
    late = quick.silos(job_id)["silo-3"]
    quick.round(job_id, without=["silo-3"])
    quick.go(job_id)
    assert quick.story(job_id)[0]["came"] is None  # the round waits for it
    real = SiloTraining._await_public_time

    def trains_for_long(self: SiloTraining, *arguments: Any) -> None:
        if quick.story(job_id)[0]["came"] is None:
            quick.overdue(job_id)
            quick.go(job_id)
        real(self, *arguments)

    monkeypatch.setattr(SiloTraining, "_await_public_time", trains_for_long)
    quick.go(late)
    assert "the message of round 0 came too late" in caplog.text
    first, *_ = quick.story(job_id)
    assert first["came"] == ["silo-1", "silo-2"]
    assert [part["blob"] is not None for part in quick.parts(late)] == [False, True]
    after_two = states[-1]
    assert quick.run(job_id) == "succeeded"
    assert [r["came"] for r in quick.story(job_id)[1:]] == [["silo-1", "silo-2", "silo-3"]] * 2
    assert next(state for state in states if state.round == 1) == after_two
    assert quick.authorised(late) == 3


def test_a_round_of_too_few_messages_changes_nothing_and_the_next_one_goes_on(
    quick: Federation, states: list[State]
) -> None:
    job_id = quick.submit(rounds=2)
    quick.round(job_id, without=["silo-2", "silo-3"])
    quick.overdue(job_id)
    assert quick.run(job_id) == "succeeded"
    begun, after_one, after_two = states
    assert (begun.round, after_one.round, after_two.round) == (0, 1, 2)
    assert same(begun, after_one)
    assert not same(after_one, after_two)
    assert [r["came"] for r in quick.story(job_id)] == [["silo-1"], ["silo-1", "silo-2", "silo-3"]]


def test_a_job_none_of_whose_rounds_counted_releases_nothing(quick: Federation) -> None:
    job_id = quick.submit(rounds=1)
    quick.round(job_id, without=["silo-2", "silo-3"])
    quick.overdue(job_id)
    assert quick.run(job_id) == "failed"
    assert failure(quick, job_id)["code"] == "too_few_silos"
    assert quick.service.released(job_id) == {}


def test_an_acceptance_that_is_withdrawn_ends_that_silo_and_too_few_end_the_job(quick: Federation) -> None:
    """Each settled with what was authorised. While enough are left, the others go on."""
    job_id = quick.submit(rounds=4)
    silos = quick.silos(job_id)
    quick.round(job_id)
    withdraw(quick, quick.invited[0])
    assert (quick.status(silos["silo-2"]), quick.authorised(silos["silo-2"])) == ("cancelled", 1)
    quick.round(job_id)
    assert quick.story(job_id)[1]["came"] is None
    quick.go(job_id)
    assert [r["came"] for r in quick.story(job_id)] == [list(silos), ["silo-1", "silo-3"], None]
    withdraw(quick, quick.invited[1])
    assert quick.run(job_id) == "failed"
    assert failure(quick, job_id)["code"] == "too_few_silos"
    assert quick.service.released(job_id) == {}
    reconcile(quick.engine, quick.service.store, quick.settings)
    for name, silo_job in silos.items():
        assert quick.status(silo_job) == "cancelled", name
        assert wrong(quick.service, silo_job) == []
        assert quick.authorised(silo_job) == {"silo-1": 3, "silo-2": 1, "silo-3": 2}[name]
    assert all(not any(reserved) for _, reserved in quick.balances().values())


class Clock:
    """Of a silo's worker: it moves by sleeping alone."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_when_a_message_is_shown_does_not_tell_how_long_its_records_took(
    quick: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two worlds that differ in a record, which costs time: the message is shown at one moment, a multiple of the
    round's seconds after its beginning, by the database's clock."""
    job_id = quick.submit(silos=2, rounds=2, round_seconds=5.0)
    quick.go(job_id)
    real = rounds.newest
    for took, shown in ((0.1, 5.0), (1.0, 5.0), (4.9, 5.0), (5.1, 10.0), (9.0, 10.0)):
        clock = Clock()
        monkeypatch.setattr(silo_module, "time", clock)
        monkeypatch.setattr(
            silo_module.rounds,
            "newest",
            lambda c, parent, took=took: replace(cast(NewestRound, real(c, parent)), seconds=took),
        )
        monkeypatch.setattr(SiloTraining, "require_going", lambda self: None)
        training = SiloTraining.__new__(SiloTraining)
        training.engine, training.heartbeat = quick.engine, Heartbeat(quick.engine, work.Lease(job_id, 1), 60.0, 0.0)
        training._await_public_time(job_id, 0, 5.0)
        assert took + clock.now == pytest.approx(shown)


def withdraw(federation: Federation, invitation_id: str) -> None:
    with federation.service.api.begin() as c:
        invitations.withdraw(c, GUEST, invitation_id)


def failure(federation: Federation, job_id: str) -> dict[str, Any]:
    error: dict[str, Any] = federation.service.one(sa.select(job.c.error).where(job.c.id == job_id))[0]
    return error


def test_a_silo_that_fails_on_its_rows_leaves_for_good_charged_in_full_and_in_silence(
    quick: Federation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = quick.submit(rounds=3)
    silos = quick.silos(job_id)
    quick.round(job_id)
    real = Silo.round

    def fails(self: Silo, *arguments: Any, **more: Any) -> Any:
        if self.name == "silo-2":
            raise RuntimeError(SECRET) from ValueError(SECRET)
        return real(self, *arguments, **more)

    monkeypatch.setattr(Silo, "round", fails)
    with caplog.at_level(logging.DEBUG):
        assert quick.run(job_id) == "succeeded"
    assert [r["came"] for r in quick.story(job_id)] == [list(silos), ["silo-1", "silo-3"], ["silo-1", "silo-3"]]
    failed = silos["silo-2"]
    assert failure(quick, failed)["code"] == "training_failed"
    assert wrong(quick.service, failed) == []  # the whole reservation
    seen = [*quick.service.all(sa.select(job)), *quick.service.all(sa.select(job_event))]
    for words in (SECRET, "RuntimeError", "Traceback"):
        assert words not in str(seen)
    assert SECRET not in caplog.text
    assert events(quick, job_id, "job.failed") == []


def test_a_federated_job_that_is_cancelled_ends_with_all_its_silos(quick: Federation) -> None:
    job_id = quick.submit(rounds=3)
    silos = quick.silos(job_id)
    quick.round(job_id)
    with quick.service.api.begin() as c:
        cancelling.cancel(c, HOST, job_id)
    assert quick.status(job_id) == "cancelled"
    for silo_job in silos.values():
        assert (quick.status(silo_job), quick.authorised(silo_job)) == ("cancelled", 1)
        assert wrong(quick.service, silo_job) == []
    for each in (job_id, *silos.values()):
        quick.go(each)
        assert quick.status(each) == "cancelled"
    assert len(quick.story(job_id)) == 1
    assert quick.service.released(job_id) == {}


@pytest.mark.verify  # other pauses are in test_pauses.py
def test_a_job_and_a_silo_that_were_paused_go_on_when_they_are_resumed(quick: Federation) -> None:
    job_id = quick.submit(rounds=3)
    silos = quick.silos(job_id)
    quick.round(job_id)
    act(quick, acting.pause, HOST, job_id)
    quick.go(job_id)
    assert quick.story(job_id)[0]["came"] is None
    act(quick, acting.resume, HOST, job_id)
    act(quick, acting.pause, GUEST, silos["silo-2"])
    quick.round(job_id)
    assert quick.story(job_id)[0]["came"] == list(silos)
    assert len(quick.parts(silos["silo-2"])) == 1
    act(quick, acting.resume, GUEST, silos["silo-2"])
    assert quick.run(job_id) == "succeeded"
    assert [r["came"] for r in quick.story(job_id)] == [list(silos)] * 3
    assert [wrong(quick.service, each) for each in silos.values()] == [[], [], []]


def test_a_coordinator_that_lost_its_lease_ends_nothing(quick: Federation) -> None:
    """No entry of the ledger asks for the fence of a job that reserved nothing."""
    job_id = quick.submit(silos=2)
    with quick.engine.begin() as c:
        late = work.claim(c, job_id, "late", 60, paid=False)
    lose(quick.service)
    with quick.engine.begin() as c:
        now = work.claim(c, job_id, "now", 60, paid=False)
    assert late is not None
    assert now is not None
    for fence in (late.fence, None):
        for end in (ends.cancel, partial(ends.fail, reason=GAVE_UP)):
            with pytest.raises(StaleFence), quick.engine.begin() as c:
                end(c, job_id, fence)
    assert quick.status(job_id) == "queued"
    with quick.engine.begin() as c:
        ends.fail(c, job_id, now.fence, GAVE_UP)
    assert quick.status(job_id) == "failed"


def act(federation: Federation, what: Callable[..., object], viewer: Any, job_id: str) -> None:
    with federation.service.api.begin() as c:
        what(c, viewer, job_id)


@pytest.mark.verify
def test_progress_of_fifty_rounds_is_seen_in_at_most_twenty_parts(
    quick: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a silo and of the federated job; and nothing is authorised beyond what was reserved."""
    many = 50
    job_id = quick.submit(silos=2, rounds=many)
    silos = quick.silos(job_id)
    for each in silos.values():
        quick.go(each)  # rehearsed, one after the other
    monkeypatch.setattr(SiloTraining, "_train_round", sends_nothing_new)
    monkeypatch.setattr(silo_module, "hint", lambda *_: None)
    monkeypatch.setattr("worker.federated.coordinator.hint", lambda *_: None)
    monkeypatch.setattr(waiting, "LINGER", 300.0)
    monkeypatch.setattr(waiting, "POLL", 0.01)
    everybody = [threading.Thread(target=quick.go, args=(each,)) for each in (job_id, *silos.values())]
    for one in everybody:
        one.start()
    for one in everybody:
        one.join()
    assert quick.status(job_id) == "succeeded"
    assert [r["came"] for r in quick.story(job_id)] == [list(silos)] * many
    closed = events(quick, job_id, "round.closed")
    assert 0 < len(closed) <= 20
    assert closed[-1].data["round"] == many
    for each in silos.values():
        assert quick.authorised(each) == many
        assert 0 < len(events(quick, each, "steps.authorised")) <= 20
        assert wrong(quick.service, each) == []


def sends_nothing_new(self: SiloTraining, part: Any, start: bytes, kept: bytes | None) -> Message:
    """A round without training."""
    began, about = tensors.loads(start)
    delta = {n: torch.zeros_like(value) for n, value in began.items() if part.options.trains(n, about["round"])}
    return Message(about["job"], about["round"], part.member.name, message.sha256(start), delta)


@pytest.mark.verify  # three more ways of the same rounds
@pytest.mark.parametrize(
    ("how", "options"),
    [
        ({}, {"clipping": "delta", "factors": "alternating", "local_steps": 2}),
        ({"users": 200}, {}),
        ({"model": "writer", "task": "text"}, {}),
    ],
    ids=["delta, alternating", "users", "language model"],
)
def test_other_jobs_run_to_their_end(
    service: Service,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    states: list[State],
    how: dict[str, Any],
    options: dict[str, Any],
) -> None:
    rehearse_once(monkeypatch)
    tiny.save_writer(tmp_path / "writer")
    settings = settings.model_copy(update={"models": {**settings.models, "writer": tmp_path / "writer"}})
    made = Federation(service, settings, **how, **options)
    job_id = made.submit(silos=2, rounds=2)
    silos = made.silos(job_id)
    assert made.run(job_id) == "succeeded", failure(made, job_id)
    assert [r["came"] for r in made.story(job_id)] == [list(silos)] * 2
    assert [wrong(service, each) for each in silos.values()] == [[], []]
    assert set(service.released(job_id)) == {"adapter", "report"}
    assert not same(states[0], states[1])
    assert not same(states[1], states[2])
    made.engine.dispose()
