"""A teacher from elsewhere: a public model of the allow-list, or what an earlier job of the same budget released; and a
student that is another model than the job's. What does not go with the job is refused before anything is reserved; the
worker looks again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from domain.access.grants import Viewer
from domain.jobs import reading
from domain.jobs.planning import Draft
from domain.kit.refusals import Conflict, Invalid, NotFound
from domain.kit.tables import file, job_file
from domain.models.allow_list import BaseModelFacts, Models
from dpcore.terms.errors import FieldError
from dpcore.terms.folders import head_labels, same_tokens
from dpcore.terms.methods import UnknownMethod, get_method
from dpcore.terms.strict import StrictModel
from dpcore.terms.tasks import CAUSAL_LM
from dpcore.terms.teachers import PublicTeacher, ReleasedTeacher, Taught, require_larger, student_model
from ledger.tables import reservation


def with_student(
    models: Models, model: BaseModelFacts, method: str, options: Mapping[str, Any]
) -> tuple[BaseModelFacts, BaseModelFacts | None]:
    """The job's model, with the facts of the student beside its own where the options name another model, and that
    model. A text must fit both. Raises Invalid or Conflict, naming the field; options that cannot be read are left to
    `planning.draft`."""
    try:
        name = student_model(_options(method, dict(options)))
    except (UnknownMethod, ValidationError):
        return model, None
    if name is None:
        return model, None
    place = f"method.{method}.student_model"
    student = _base(models, name, place)
    if not same_tokens(model.folder, student.folder):
        raise _other_tokens(place, student, model, "a student")
    most = min(model.facts.max_positions, student.facts.max_positions)
    facts = model.facts.model_copy(update={"student": student.facts, "max_positions": most})
    return replace(model, facts=facts), student


def require_teacher(
    connection: sa.Connection,
    viewer: Viewer,
    models: Models,
    made: Draft,
    model: BaseModelFacts,
    training: sa.Row[Any],
    method: str,
) -> BaseModelFacts | None:
    """The base model of the teacher that the options name; None where they name none.

    training: the whole row of the training file. method: as the caller called it. Raises Invalid, NotFound or Conflict,
    naming the field; a job of another tenant, or one that the viewer may not see, is not found. What an earlier job
    released cannot be deleted until the caller's transaction ends.
    """
    options = _options(made.program.method, made.program.options)
    if not isinstance(options, Taught) or options.taught_by is None:
        return None
    named, student = options.taught_by, options.student(model.facts)
    if isinstance(named, PublicTeacher):
        place = f"method.{method}.teacher_model"
        teacher = _public(models, named, training, place)
        facts = teacher.facts
    else:
        place = f"method.{method}.teacher_job"
        row = _released(connection, viewer, named, training, place)
        before = _options(row.plan["method"], row.plan.get("options", {}))
        other = student_model(before)
        teacher = _base(models, other or row.model, place)
        if other is None and row.model_revision not in (None, teacher.revision):
            raise Conflict(
                f"{place}: the base model {teacher.name} has other weights than when that job was trained",
                code="model_unavailable",
                param=place,
            )
        facts = before.student(teacher.facts) if isinstance(before, Taught) else teacher.facts
    if not same_tokens(teacher.folder, model.folder):
        raise _other_tokens(place, teacher, model, "a teacher")
    try:
        require_larger(place, facts, student)
    except FieldError as error:
        raise Invalid(str(error), code="invalid_request", param=place) from None
    return teacher


def _other_tokens(place: str, one: BaseModelFacts, other: BaseModelFacts, whom: str) -> Invalid:
    return Invalid(
        f"{place}: {one.name} has another tokenizer than {other.name}, so that it would read other tokens; "
        f"take {whom} with the same one",
        code="tokenizers_differ",
        param=place,
    )


def _options(method: str, options: dict[str, Any]) -> StrictModel:
    return get_method(method).Options.model_validate(options)


def _base(models: Models, name: str, place: str) -> BaseModelFacts:
    if name in models.unusable:
        because = models.unusable[name].because
        raise Conflict(
            f"{place}: the model {name} cannot be used now: {because}", code="model_unavailable", param=place
        )
    if name not in models.usable:
        there = ", ".join(models.usable)
        raise Invalid(f"{place}: unknown model; there are: {there}", code="unknown_model", param=place)
    return models.usable[name]


def _public(models: Models, named: PublicTeacher, training: sa.Row[Any], place: str) -> BaseModelFacts:
    teacher = _base(models, named.model, place)
    if training.task in CAUSAL_LM:
        if not teacher.facts.causal_lm:
            raise Invalid(f"{place}: {teacher.name} is no causal language model", code="unsupported_task", param=place)
        return teacher
    labels = head_labels(teacher.folder)
    if {*labels} != {*training.labels}:
        has = f"its head has the labels {', '.join(labels)}" if labels else "it has no classifier's head"
        raise Invalid(
            f"{place}: {has}, and the training file's are {', '.join(training.labels)}; take a public classifier for "
            "these, or let the job train its teacher",
            code="labels_differ",
            param=place,
        )
    return teacher


def _released(
    connection: sa.Connection, viewer: Viewer, named: ReleasedTeacher, training: sa.Row[Any], place: str
) -> sa.Row[Any]:
    """The job, all of whose charges are to the training file's budget, and whose adapter is there."""
    try:
        row = reading.require(connection, viewer, named.job)
        paid_by = set(
            connection.scalars(sa.select(reservation.c.budget_id).where(reservation.c.job_id == named.job)).all()
        )
        if paid_by != {training.budget_id}:
            raise Invalid(
                f"{place}: that job was paid for by another budget than the training file's; a teacher must have "
                "learnt under the same one",
                code="budgets_differ",
                param=place,
            )
        reading.adapter(connection, viewer, named.job, keep=True)
    except NotFound:
        raise NotFound("fine-tuning job", place) from None
    except Conflict as error:
        raise Conflict(f"{place}: {error.message}", code=error.code, param=place) from None
    learnt = connection.execute(
        sa.select(file.c.task, file.c.labels)
        .join(job_file, job_file.c.file_id == file.c.id)
        .where(job_file.c.job_id == named.job)
    ).one()
    if learnt.task != training.task:
        raise Invalid(
            f"{place}: that job learnt the task {learnt.task}, and the training file is for {training.task}",
            code="tasks_differ",
            param=place,
        )
    if {*(learnt.labels or ())} != {*(training.labels or ())}:
        raise Invalid(
            f"{place}: that job learnt other labels than the training file's", code="labels_differ", param=place
        )
    return row
