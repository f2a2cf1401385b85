"""A teacher that an earlier job released: loaded by the worker, free, and held to the budget whatever the service said."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, BertModel
from transformers import PreTrainedTokenizerFast as Tokenizer

from domain.kit.settings import WorkerSettings
from domain.kit.tables import file, job
from domain.storage.blobs import get_bytes
from dpcore.methods.distill.pair import TeacherAndStudent
from ledger.budgets import Reference, open_budget
from ledger.tables import phase, reservation
from tests.worker import tiny
from tests.worker.books import authorised, lose, wrong
from tests.worker.service import Service
from tests.worker.test_programs import Died, after
from worker.attempt import attempt

Attempt = Callable[[str], None]


@pytest.fixture
def go(engine: sa.Engine, settings: WorkerSettings, public: Path) -> Attempt:
    offered = settings.model_copy(update={"models": {**settings.models, "public": public}})
    return lambda job_id: attempt(engine, offered, job_id)


@pytest.fixture
def public(service: Service, tmp_path: Path) -> Path:
    """A classifier with a head for the very labels, in another order."""
    labels = list(reversed(tiny.LABELS))
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    shape = {"vocab_size": 23, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = BertForSequenceClassification(
            BertConfig(**shape, num_hidden_layers=2, max_position_embeddings=32, pad_token_id=0, **names)
        )
    model.save_pretrained(tmp_path / "public")
    Tokenizer.from_pretrained(service.model).save_pretrained(tmp_path / "public")
    return tmp_path / "public"


def taught(service: Service, teacher: str) -> str:
    return service.submit(method="distill", options={"teacher": "job", "teacher_job": teacher}, steps=8, hint=False)


def error(service: Service, job_id: str) -> dict[str, str]:
    told: dict[str, str] = service.one(sa.select(job.c.error).where(job.c.id == job_id)).error
    return told


def test_a_released_teacher_teaches_and_is_not_paid_again(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its own scores, as its adapter gives them, are what the student sees; the job has the student's phase alone."""
    first = service.submit(method="lora", steps=8, hint=False)
    go(first)
    assert service.status(first) == "succeeded"
    seen: list[TeacherAndStudent] = []
    learn_from = TeacherAndStudent.learn_from
    monkeypatch.setattr(TeacherAndStudent, "learn_from", lambda self, *a: (seen.append(self), learn_from(self, *a))[1])
    id = taught(service, first)
    go(id)
    assert service.status(id) == "succeeded", error(service, id)
    rows = service.all(
        sa.select(phase).join(reservation, reservation.c.id == phase.c.reservation_id).where(reservation.c.job_id == id)
    )
    assert [(r.steps_authorised, r.steps_max) for r in rows] == [(8, 8)]
    # The student leaves alone, and stock transformers reads it.
    with zipfile.ZipFile(io.BytesIO(get_bytes(service.store, service.released(id)["adapter"].blob))) as archive:
        archive.extractall(tmp_path / "student")
    assert not list((tmp_path / "student").glob("adapter_*"))
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    ids = torch.tensor([[2, 15, 16, 3]])
    torch.testing.assert_close(student(input_ids=ids).logits, seen[0].student(input_ids=ids).logits)
    assert [student.config.id2label[i] for i in range(2)] == list(tiny.LABELS)
    # The teacher is the first job's result: an adapter that has moved from where it began.
    assert any("lora_B" in name and p.any() for name, p in seen[0].teacher.named_parameters())  # type: ignore[union-attr]


def test_a_public_teacher_s_labels_are_put_in_order(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    learn_from = TeacherAndStudent.learn_from
    monkeypatch.setattr(TeacherAndStudent, "learn_from", lambda self, *a: (seen.append(a[1]), learn_from(self, *a))[1])
    options = {"teacher": "public", "teacher_model": "public"}
    id = service.submit(method="distill", options=options, steps=4, hint=False)
    go(id)
    assert service.status(id) == "succeeded", error(service, id)
    assert seen == [[1, 0]]


@pytest.fixture
def small(service: Service, tmp_path: Path) -> Path:
    """Another model of the same words."""
    shape = {"vocab_size": 23, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertModel(BertConfig(**shape, num_hidden_layers=2, max_position_embeddings=32)).save_pretrained(
            tmp_path / "small"
        )
    Tokenizer.from_pretrained(service.model).save_pretrained(tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.parametrize("teaches", [False, pytest.param(True, marks=pytest.mark.verify)])
def test_another_model_learns_from_a_teacher_of_this_job_and_leaves_by_its_own_name(
    service: Service, engine: sa.Engine, settings: WorkerSettings, small: Path, tmp_path: Path, teaches: bool
) -> None:
    offered = settings.model_copy(update={"models": {**settings.models, "small": small}})
    options, numbers = {"student_model": "small", "teacher_trains": "full"}, {"teacher_steps": 4}
    id = service.submit(method="distill", options=options, numbers=numbers, steps=4, hint=False)
    attempt(engine, offered, id)
    assert service.status(id) == "succeeded", error(service, id)
    left = service.released(id)
    with zipfile.ZipFile(io.BytesIO(get_bytes(service.store, left["adapter"].blob))) as archive:
        archive.extractall(tmp_path / "student")
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert (student.config.hidden_size, student.config.num_hidden_layers) == (16, 2)
    sha256 = hashlib.sha256((small / "model.safetensors").read_bytes()).hexdigest()
    report = json.loads(get_bytes(service.store, left["report"].blob))
    for said in (json.loads((tmp_path / "student" / "tacit.json").read_text()), report):
        assert (said["base_model"], said["base_model_sha256"]) == ("small", sha256)
    assert [p["steps_authorised"] for p in report["privacy"]["phases"]] == [4, 4]
    if not teaches:
        return
    # As a later job's teacher it is what it became, and larger than a student of one of its layers.
    options = {"teacher": "job", "teacher_job": id, "student_layers": 1}
    second = service.submit(method="distill", model="small", options=options, steps=4, hint=False)
    attempt(engine, offered, second)
    assert service.status(second) == "succeeded", error(service, second)


def as_if_never_checked(service: Service, change: sa.Update) -> None:
    """A change of rows that no trigger sees."""
    with service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(change)


def test_a_teacher_of_another_budget_is_refused_by_the_database_and_by_the_worker(
    service: Service, go: Attempt
) -> None:
    """Whoever can write rows of jobs, past the service: nothing is charged."""
    first = service.submit(method="lora", steps=4, hint=False)
    go(first)
    before = taught(service, first)
    with service.api.begin() as c:
        open_budget(
            c,
            id="budget_b",
            tenant_id="tenant_a",
            name="b",
            epsilon=Decimal(10),
            delta=Decimal("1e-5"),
            unit="record",
            max_records_per_user=None,
            reference=Reference(0.05, 200),
        )
    as_if_never_checked(
        service, sa.update(reservation).where(reservation.c.job_id == first).values(budget_id="budget_b")
    )
    with pytest.raises(sa.exc.IntegrityError, match="budget budget_a alone paid for"):
        taught(service, first)
    refused(service, go, before, "no job that has succeeded under the training file's budget")


def test_a_teacher_that_is_not_done_or_none_is_refused_by_the_database(service: Service, go: Attempt) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="job_teacher"):
        taught(service, "ftjob-nobody")
    queued = service.submit(method="lora", steps=4, hint=False)
    with pytest.raises(sa.exc.IntegrityError, match="released nothing"):
        taught(service, queued)


def test_a_plan_that_names_another_teacher_than_the_database_allowed_is_not_run(service: Service, go: Attempt) -> None:
    """The column alone was checked against the budget; the plan is only a wish."""
    first = service.submit(method="lora", steps=1, hint=False)
    go(first)
    for other in (True, False):
        id = taught(service, first)
        as_if_never_checked(service, sa.update(job).where(job.c.id == id).values(teacher_job=id if other else None))
        refused(service, go, id, "another teacher than", code="plan_mismatch")


def test_a_teacher_that_is_gone_all_the_same_ends_the_job_before_anything_more_is_charged(
    service: Service, go: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service deletes no such file. At the start for nothing; at a resume, as every end but a cancel, in full."""
    first = service.submit(method="lora", steps=4, hint=False)
    go(first)
    queued, begun = taught(service, first), taught(service, first)
    with monkeypatch.context() as patch:
        after(patch, 0, 3, lambda: None, then_die=True)
        with pytest.raises(Died):
            go(begun)
    lose(service)
    gone = service.released(first)["adapter"].id
    as_if_never_checked(service, sa.update(file).where(file.c.id == gone).values(deleted_at=sa.func.now()))
    refused(service, go, queued, "no longer there")
    go(begun)
    assert (service.status(begun), authorised(service, begun), wrong(service, begun)) == ("failed", [3], [])
    assert not service.released(begun)


def test_a_teacher_whose_row_was_exchanged_is_refused(service: Service, go: Attempt) -> None:
    """The row of one result over the blob of another: the binding tells."""
    one, two = (service.submit(method="lora", steps=4, hint=False) for _ in range(2))
    go(one)
    go(two)
    rows = [service.released(id)["adapter"] for id in (one, two)]
    with service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.update(file).where(file.c.id == rows[1].id).values(blob="elsewhere"))
        c.execute(sa.update(file).where(file.c.id == rows[0].id).values(blob=rows[1].blob))
    refused(service, go, taught(service, one), "not what was released", code="file_binding_broken")


def refused(service: Service, go: Attempt, id: str, words: str, *, code: str = "not_trainable") -> None:
    go(id)
    assert service.status(id) == "failed"
    assert error(service, id)["code"] == code
    assert words in error(service, id)["message"]
    assert service.settlement(id).spent_change == [0] * len(service.settlement(id).spent_change)
