"""Teachers that a job does not train itself: how a method's options name one, and what must go with the student."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts


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
    """Options that may name a teacher."""

    @property
    def taught_by(self) -> Teacher | None:
        """None where the job trains its own, or takes its base model."""

    def student(self, facts: ModelFacts) -> ModelFacts:
        """The student made of a base model with these facts."""


def require_larger(field: str, teacher: ModelFacts, student: ModelFacts) -> None:
    """Raises FieldError for a student that has more weights than its teacher."""
    if student.parameters > teacher.parameters:
        raise FieldError(
            field,
            f"{field}: the student, of {student.parameters:,} weights, would be larger than its teacher, of "
            f"{teacher.parameters:,}; keep fewer layers, or take a larger teacher",
        )
