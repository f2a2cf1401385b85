"""A teacher from elsewhere: found and checked in the database, then loaded. Nothing private is read: a public model, or
what a job of the same budget released."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
from torch import nn
from transformers import PreTrainedTokenizerBase

from domain.files.binding import BrokenBinding, open_file
from domain.kit.purposes import RESULT
from domain.kit.settings import WorkerSettings
from domain.kit.tables import file, job, job_file, release
from domain.models.allow_list import BaseModelFacts, find
from domain.storage.blobs import NotMounted, Store
from domain.storage.sealing import Sealed
from dpcore.methods import load_export
from dpcore.models import build_model, load_model, load_tokenizer
from dpcore.terms.folders import head_labels
from dpcore.terms.program import Program
from dpcore.terms.tasks import CAUSAL_LM, TaskKind
from dpcore.terms.teachers import PublicTeacher, Teacher, named_student
from ledger.tables import reservation
from worker.errors import Refused


@dataclass(frozen=True)
class Released:
    """What an earlier job released, not yet read, and what it was made of."""

    model: str
    model_revision: str | None
    labels: tuple[str, ...]
    adapter: Sealed


def read_released(connection: sa.Connection, store: Store, teacher: str, source: sa.Row[Any]) -> Released:
    """What a job released, opened and not read. teacher: its id. source: the row of the training file.

    Raises Refused unless the job is of the file's tenant, has succeeded and was charged to the file's budget and to no
    other, whatever the service said when the job was submitted; and for another task.
    """
    row = connection.execute(
        sa.select(job.c.model, job.c.model_revision, job.c.plan, file.c.task, file.c.labels)
        .join(job_file, job_file.c.job_id == job.c.id)
        .join(file, file.c.id == job_file.c.file_id)
        .where(job.c.id == teacher, job.c.tenant_id == source.tenant_id, job.c.status == "succeeded")
    ).one_or_none()
    charged = connection.execute(
        sa.select(reservation.c.budget_id, reservation.c.state).where(reservation.c.job_id == teacher)
    ).all()
    if row is None or {tuple(charge) for charge in charged} != {(source.budget_id, "settled")}:
        raise Refused("not_trainable", "The teacher is no job that has succeeded under the training file's budget.")
    result = connection.execute(
        sa.select(file)
        .join(release, release.c.file_id == file.c.id)
        .where(
            release.c.job_id == teacher,
            release.c.kind == "adapter",
            file.c.purpose == RESULT,
            file.c.tenant_id == source.tenant_id,
            file.c.deleted_at.is_(None),
        )
    ).one_or_none()
    if result is None:
        raise Refused("not_trainable", "What the teacher's job released is no longer there.")
    if row.task != source.task:
        raise Refused("not_trainable", "The teacher's job learnt another task.")
    try:
        adapter = open_file(connection, store, result)
    except NotMounted as error:
        raise Refused("not_trainable", "The teacher lies where this worker keeps nothing: in another silo.") from error
    except BrokenBinding as error:
        raise Refused(error.code, "The teacher is not what was released: the service's data was changed.") from error
    other = named_student(Program.model_validate(row.plan))
    model, revision = (row.model, row.model_revision) if other is None else (other, None)
    return Released(model, revision, tuple(row.labels or ()), adapter)


def load_teacher(
    settings: WorkerSettings,
    teacher: Teacher,
    released: Released | None,
    archive: bytes,
    *,
    task: TaskKind,
    labels: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[nn.Module, list[int] | None]:
    """The teacher in evaluation mode, and where it has each label if in another order.

    released, archive: of an earlier job, and the bytes of its adapter. Raises ValueError in words for everybody where
    it does not go with labels or tokenizer, and what a loader raises.
    """
    name = teacher.model if isinstance(teacher, PublicTeacher) else "" if released is None else released.model
    base = find(settings, name)
    if not isinstance(base, BaseModelFacts):
        raise ValueError(f"the teacher's base model {name!r} is not one that this worker can use")
    if load_tokenizer(base.folder).get_vocab() != tokenizer.get_vocab():
        raise ValueError("the teacher has another tokenizer than the student")
    if released is None:
        return _public(base, task, labels)
    if released.model_revision not in (None, base.revision):
        raise ValueError("the teacher's base model has other weights than when it was trained")
    if {*released.labels} != {*labels}:
        raise ValueError("the teacher has other labels than the training file")
    return _unpacked(archive, base.folder), _order(released.labels, labels)


def _public(base: BaseModelFacts, task: TaskKind, labels: Sequence[str]) -> tuple[nn.Module, list[int] | None]:
    if task in CAUSAL_LM:
        return build_model(task, base.folder, (), seed=0), None
    own = head_labels(base.folder)
    if {*own} != {*labels}:
        raise ValueError("the teacher has other labels than the training file")
    return load_model(task, base.folder, own), _order(own, labels)


def _order(theirs: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    order = [list(theirs).index(label) for label in wanted]
    return None if order == sorted(order) else order


def _unpacked(archive: bytes, base: Path) -> nn.Module:
    """What a job left, loaded as its method loads it."""
    with TemporaryDirectory(prefix="tacit-teacher-") as folder:
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            files.extractall(folder)
        return load_export(folder, base)[0]
