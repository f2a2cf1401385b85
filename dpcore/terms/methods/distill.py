"""Distillation (DPKD, Algorithm 1 of Mireshghallah et al. 2022, "Differentially Private Model Compression"; its losses
and numbers are a reconstruction): a small student learns from the records and from a teacher's answers to them.

The student is the base model with some of its layers, or another model. Its loss on a record holds the teacher's answer
to that very record, inside the gradient that is clipped and noised. A teacher that learnt from the same file is paid
for: trained here, it is a phase of the job, and both phases have one joint price.
"""

from typing import Annotated, Literal

from pydantic import Field

from dpcore.terms import hyperparameters as shared
from dpcore.terms import layers
from dpcore.terms import memory as sizes
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts, require_texts
from dpcore.terms.hyperparameters import Defaults
from dpcore.terms.method import Method
from dpcore.terms.methods import full, get_method
from dpcore.terms.program import Phase
from dpcore.terms.strict import Listed, StrictModel
from dpcore.terms.tasks import CAUSAL_LM, TaskKind
from dpcore.terms.teachers import PublicTeacher, ReleasedTeacher, Teacher, require_larger

__all__ = ["Options", "Request", "check", "memory", "phases", "resolve", "trainable"]

TEACHER, STUDENT = "teacher", "student"
"""Names of the phases."""

CLASSIFIER = Defaults(steps=60, batch_size=1024, learning_rate=full.CLASSIFIER.learning_rate)
WRITER = Defaults(steps=40, batch_size=512, learning_rate=full.WRITER.learning_rate)
_TEACHER_STEPS = {"classifier": 60, "writer": 30}
_TEACHER_RATES = {
    ("lora", "classifier"): 1e-2,
    ("lora", "writer"): 5e-3,
    ("full", "classifier"): full.CLASSIFIER.learning_rate,
    ("full", "writer"): full.WRITER.learning_rate,
}


class Options(StrictModel):
    """Who teaches, and what is left of the base model."""

    teacher: Literal["train", "public", "job"] = Field(
        default="train",
        description=(
            "train: trained in this job, in a phase of its own that is paid for; public: a public model as it is, "
            "free; job: what an earlier job of the same budget released, paid for then"
        ),
    )
    teacher_trains: Literal["lora", "full"] = Field(
        default="lora", description="what trains in a teacher that this job trains: LoRA's factors or all weights"
    )
    teacher_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description=(
            "with teacher: public, another model that this service offers, with the same tokenizer, for classifiers "
            "with a head for the same labels; left out: the base model itself, which for a classifier has no such head"
        ),
    )
    teacher_job: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="with teacher: job, the id of a job of the same budget that has succeeded",
    )
    student_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description=(
            "with teacher: train, another model that this service offers, with the same tokenizer and no larger than "
            "the base model, which then is the teacher alone; left out: the student is made of the base model"
        ),
    )
    student_layers: Literal["auto", "half"] | int | Listed[tuple[int, ...]] = Field(
        default="auto",
        description=(
            "layers that the student keeps of its model: how many, evenly chosen with the first and the last among "
            "them, or a list of their numbers from 0; auto: half of the base model's, all of a student_model's"
        ),
    )
    student_sparsity: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description=(
            "share of zeros in the matrices of the student's layers, those of smallest magnitude among its public "
            "weights, from the first step to the end: a smaller file, and nothing faster; left out: none"
        ),
    )
    temperature: float = Field(
        default=1.0, ge=0.05, le=100, description="by which both models' scores are divided before they are compared"
    )
    mixing: float = Field(
        default=0.4,
        ge=0,
        le=0.9,  # docs/core.md: a gradient that vanishes wherever the student matches its teacher has too few digits
        description="weight of the teacher's answer in the student's loss; the record's own has the rest",
    )

    @property
    def taught_by(self) -> Teacher | None:
        """The teacher that comes from elsewhere."""
        if self.teacher == "job":
            return None if self.teacher_job is None else ReleasedTeacher(self.teacher_job)
        return None if self.teacher_model is None else PublicTeacher(self.teacher_model)

    def keeps(self, of: int) -> tuple[int, ...]:
        """The layers that the student keeps, of so many. Raises FieldError."""
        asked = self.student_layers
        if asked == "auto":
            asked = "half" if self.student_model is None else of
        return layers.kept("student_layers", (of + 1) // 2 if asked == "half" else asked, of)

    def student(self, facts: ModelFacts) -> ModelFacts:
        """The student's model, with the layers that it keeps. facts: of the base model. Raises FieldError."""
        whole = facts.student or facts
        return whole.model_copy(update={"layers": len(self.keeps(whole.layers))})


class Request(shared.Request):
    """What a caller may ask for: of both phases, but for the number of steps and the learning rate, which are the
    student's."""

    teacher_steps: Literal["auto"] | Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default="auto", description="of a teacher that is trained, before the student's"
    )
    teacher_learning_rate: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        default="auto", description="of a teacher that is trained"
    )


class Hyperparameters(shared.Hyperparameters):
    """A request with every number resolved; without a teacher that is trained it has none of its numbers."""

    teacher_steps: int | None = None
    teacher_learning_rate: float | None = None


def check(options: Options, facts: ModelFacts, task: TaskKind) -> None:
    """Raises FieldError for layers that the student's model lacks, for a model that cannot be the student, and for a
    teacher that is not named, or twice, or of whom nothing would be learnt; ValueError for a model of pictures."""
    require_texts("distill", facts)
    student = options.student(facts)
    for field, of in (
        ("student_model", "train"),
        ("teacher_trains", "train"),
        ("teacher_model", "public"),
        ("teacher_job", "job"),
    ):
        if getattr(options, field) != Options.model_fields[field].default and options.teacher != of:
            raise FieldError(field, f"{field} is for teacher: {of}, and this is teacher: {options.teacher}; drop one")
    if options.teacher == "job" and options.teacher_job is None:
        raise FieldError("teacher_job", "teacher_job is missing: the id of the job whose result teaches")
    if facts.student is not None:
        _require_pair(facts, student, task)
    if options.mixing == 0 and options.teacher != "public":
        raise FieldError(
            "mixing", "with mixing 0 nothing is learnt from the teacher; teacher: public trains the student alone, free"
        )
    if options.teacher == "public" and options.teacher_model is None and options.mixing and task not in CAUSAL_LM:
        raise FieldError(
            "teacher_model",
            "teacher_model is missing: this base model has no head for these labels, so that it knows nothing to "
            "teach; name a public classifier for them, or let the job train its teacher",
        )


def _require_pair(teacher: ModelFacts, student: ModelFacts, task: TaskKind) -> None:
    """Raises FieldError for another model that cannot be the student of this one."""
    if task not in student.tasks:
        raise FieldError("student_model", f"student_model: this model cannot be trained for the task {task}")
    if task in CAUSAL_LM and student.vocab_size != teacher.vocab_size:
        raise FieldError(
            "student_model",
            f"student_model: it has scores for {student.vocab_size:,} words, and the teacher for "
            f"{teacher.vocab_size:,}; take one with as many",
        )
    require_larger("student_model", teacher, student)


def resolve(
    request: Request, options: Options, *, task: TaskKind, declared_size: int, epsilon: float, facts: ModelFacts
) -> Hyperparameters:
    """The numbers of both phases, which share the batch. Raises FieldError as `require_fitting` does, and for numbers
    of a teacher that is not trained."""
    shared.require_fitting(request, declared_size)
    numbers = shared.resolved(request, WRITER if task in CAUSAL_LM else CLASSIFIER, declared_size)
    if options.teacher != "train":
        for field in ("teacher_steps", "teacher_learning_rate"):
            if getattr(request, field) != "auto":
                raise FieldError(f"hyperparameters.{field}", f"{field} is for a teacher that this job trains")
        return Hyperparameters(**numbers)
    kind = "writer" if task in CAUSAL_LM else "classifier"
    if request.optimizer == "sgd" and request.teacher_learning_rate == "auto":
        raise FieldError(
            "hyperparameters.teacher_learning_rate", "sgd needs a teacher_learning_rate: the default is for Adam"
        )
    steps, rate = request.teacher_steps, request.teacher_learning_rate
    return Hyperparameters(
        **numbers,
        teacher_steps=_TEACHER_STEPS[kind] if steps == "auto" else steps,
        teacher_learning_rate=_TEACHER_RATES[options.teacher_trains, kind] if rate == "auto" else rate,
    )


def phases(options: Options, hyperparameters: Hyperparameters, *, declared_size: int) -> tuple[Phase, ...]:
    """The student's phase, in which all its weights train; before it that of a teacher that is trained."""
    student = shared.phase(hyperparameters, name=STUDENT, trains="full", declared_size=declared_size)
    if options.teacher != "train":
        return (student,)
    first = {"steps": hyperparameters.teacher_steps, "learning_rate": hyperparameters.teacher_learning_rate}
    trains = options.teacher_trains
    return (shared.phase(hyperparameters, name=TEACHER, trains=trains, declared_size=declared_size, **first), student)


def trainable(options: Options, facts: ModelFacts, *, labels: int, task: TaskKind) -> int:
    """Trainable values: the student's weights, and what trains in the teacher."""
    values = full.trainable(full.Options(), options.student(facts), labels=labels, task=task)
    if options.teacher == "train":
        teacher, default = _teacher(options)
        values += teacher.trainable(default, facts, labels=labels, task=task)
    return values


def memory(options: Options, facts: ModelFacts, *, max_length: int, labels: int, task: TaskKind) -> int:
    """Bytes that training needs beside the process itself: both models, and what training takes of one of them in the
    phase that needs most. Beside the student's the teacher computes, one layer at a time, and of a language model the
    scores of a whole micro-batch are there twice more: the teacher's, and the gradient by the student's. A mask has one
    byte for each of the student's entries."""
    student = options.student(facts)
    at_work = sizes.of_tokens(sizes.layer(facts, max_length=max_length), max_length=max_length)
    scores = 0 if labels else 2 * sizes.of_tokens(facts.vocab_size, max_length=max_length)
    needs = full.memory(full.Options(), student, max_length=max_length, labels=labels, task=task)
    needs += 4 * facts.parameters + at_work + scores
    if options.teacher == "train":
        teacher, default = _teacher(options)
        alone = teacher.memory(default, facts, max_length=max_length, labels=labels, task=task)
        needs = max(needs, alone + 4 * student.parameters)
    return needs + (0 if options.student_sparsity is None else student.parameters)


def _teacher(options: Options) -> tuple[Method, StrictModel]:
    """The method by which a teacher is trained here, with its default options."""
    method = get_method(options.teacher_trains)
    return method, method.Options()
