"""The model of a job, from public values alone: the allow-list, the labels, the method's options."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from domain.kit.logs import describe
from domain.kit.settings import WorkerSettings
from domain.models.allow_list import BaseModelFacts, UnusableModel, find
from domain.models.reasons import of_files
from dpcore.machine.micro_batches import out_of_memory
from dpcore.methods import get_trainer
from dpcore.methods.distill.pair import TeacherAndStudent
from dpcore.models import build_model, with_padding
from dpcore.pictures import PictureReader
from dpcore.readers import Reader, load_reader
from dpcore.tasks import AnyTask, make_task
from dpcore.terms.teachers import named, named_student
from dpcore.word_head import start_from_words
from worker.assignment import Assignment
from worker.errors import STORE_ERRORS, Refused, Unavailable
from worker.log import log
from worker.teachers import load_teacher


@dataclass(frozen=True)
class Built:
    """A model ready to be trained, on the device that it is trained on."""

    model: nn.Module
    task: AnyTask
    tokenizer: Reader
    """What made the task's records, or their pictures, and leaves with the model."""
    base: BaseModelFacts
    """What leaves is made of it: a student's model, where that is another than the job's."""


def build(settings: WorkerSettings, assignment: Assignment) -> Built:
    """Load the base model and attach the method. Raises Refused with a public reason: no row has been read; Unavailable
    while a teacher cannot be read."""
    program = assignment.program
    known = _find(settings, assignment.model)
    if assignment.model_revision not in (None, known.revision):
        message = f"The base model {known.name!r} has other weights than when the job was submitted: submit it again."
        raise Refused("model_unavailable", message)
    other = named_student(program)
    own = known if other is None else _find(settings, other)
    base, reader = _load(assignment, own)
    with _refusing(assignment, "not_trainable", f"The method {program.method!r}, this task and this model do not fit"):
        task = make_task(assignment.task, reader, labels=assignment.labels, max_length=program.max_length)
        model = get_trainer(program.method).attach(base, program.options, task=assignment.task, seed=program.seed)
        if program.head == "words":  # again: what the method made of the model may have a head of its own
            assert not isinstance(reader, PictureReader)
            start_from_words(model, reader, assignment.labels)
    if other is not None:
        _train_teacher(assignment, model, known, reader)
    _teach(settings, assignment, model, reader)
    try:
        model.to(pick_device(settings.device))
    except RuntimeError as error:
        log.error("job %s: device %s: %s", assignment.job_id, settings.device, describe(error))
        raise Refused("out_of_memory", "The model does not fit onto this worker's device.") from error
    return Built(model, task, reader, own)


def _find(settings: WorkerSettings, name: str) -> BaseModelFacts:
    known = find(settings, name)
    if known is None:
        raise Refused("model_unavailable", f"The base model {name!r} is not one of this worker's.")
    if isinstance(known, UnusableModel):
        raise Refused("model_unavailable", f"The base model {name!r} cannot be used by this worker: {known.because}.")
    return known


def _load(assignment: Assignment, known: BaseModelFacts) -> tuple[PreTrainedModel, Reader]:
    with _refusing(assignment, "model_unavailable", f"The base model {known.name!r} cannot be loaded"):
        program = assignment.program
        words = program.head == "words"
        base = build_model(assignment.task, known.folder, assignment.labels, seed=program.seed, words=words)
        reader = load_reader(assignment.task, known.folder)
        return base, reader if isinstance(reader, PictureReader) else with_padding(reader, base)


def _train_teacher(assignment: Assignment, model: nn.Module, known: BaseModelFacts, reader: Reader) -> None:
    """Let the job's own model teach a student that is made of another."""
    base, own = _load(assignment, known)
    with _refusing(assignment, "not_trainable", "The model and its student do not go together"):
        assert not isinstance(own, PictureReader)
        assert not isinstance(reader, PictureReader)
        if own.get_vocab() != reader.get_vocab():
            raise ValueError("the teacher has another tokenizer than the student")
        assert isinstance(model, TeacherAndStudent)
        model.train_teacher(base)


def _teach(settings: WorkerSettings, assignment: Assignment, model: nn.Module, reader: Reader) -> None:
    """Hand over the teacher that the program names, if any. Raises Unavailable while the store is away."""
    teacher, released = named(assignment.program), assignment.teacher
    if teacher is None:
        return
    try:
        archive = b"" if released is None else released.adapter.whole()
    except STORE_ERRORS as error:
        raise Unavailable from error
    with _refusing(assignment, "not_trainable", "The teacher cannot be used"):
        made, order = load_teacher(
            settings,
            teacher,
            released,
            archive,
            task=assignment.task,
            labels=assignment.labels,
            tokenizer=reader,
        )
        assert isinstance(model, TeacherAndStudent)
        model.learn_from(made, order)


@contextmanager
def _refusing(assignment: Assignment, code: str, what: str) -> Iterator[None]:
    """Whatever goes wrong inside would go wrong again: the job ends, and the reason is a public model's."""
    try:
        yield
    except Exception as error:
        log.error("job %s: %s: %s", assignment.job_id, what, describe(error))
        if out_of_memory(error):
            raise Refused("out_of_memory", "The model does not fit into this worker's memory.") from error
        raise Refused(code, f"{what}: {of_files(error).rstrip('.')}.") from error


def pick_device(wanted: str) -> torch.device:
    """The device that a setting names; `auto` is the first GPU where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)
