"""Teachers that a job does not train itself: how a method's options name one, and what must go with the student."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import get_method
from dpcore.terms.program import Program


@dataclass(frozen=True)
class PublicTeacher:
    """A public model of the allow-list, used as it is: it costs nothing."""

    model: str


@dataclass(frozen=True)
class ReleasedTeacher:
    """What an earlier job of the same budget released: it was paid for then."""

    job: str


Teacher = PublicTeacher | ReleasedTeacher


@runtime_checkable
class Taught(Protocol):
    """Options that may name a teacher, or a student."""

    @property
    def student_model(self) -> str | None:
        """Another model as student; None where it is made of the base model."""

    @property
    def taught_by(self) -> Teacher | None:
        """None where the job trains its own, or takes its base model."""

    def student(self, facts: ModelFacts) -> ModelFacts:
        """The student, by the facts of the base model, which have those of another student's model in them."""


def student_model(options: object) -> str | None:
    """The other model that a method's options name as student."""
    return options.student_model if isinstance(options, Taught) else None


def named(program: Program) -> Teacher | None:
    """The teacher that a program's options name."""
    options = get_method(program.method).Options.model_validate(program.options)
    return options.taught_by if isinstance(options, Taught) else None


def teacher_job(program: Program) -> str | None:
    """The job whose result teaches, where a program names one."""
    teacher = named(program)
    return teacher.job if isinstance(teacher, ReleasedTeacher) else None


def named_student(program: Program) -> str | None:
    """The other model that a program's options name as student."""
    return student_model(get_method(program.method).Options.model_validate(program.options))


def require_larger(field: str, teacher: ModelFacts, student: ModelFacts) -> None:
    """Raises FieldError for a student that has more weights than its teacher."""
    if student.parameters > teacher.parameters:
        raise FieldError(
            field,
            f"{field}: the student, of {student.parameters:,} weights, would be larger than its teacher, of "
            f"{teacher.parameters:,}; keep fewer layers, or take a larger teacher",
        )
