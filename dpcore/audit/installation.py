"""What an installation can train, as a list of audits: every method on every kind of task that it takes, of records and
of users, and what looks at draws, divisors, noise, rounds and memberships beside it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import get_args

from dpcore.audit.federated_round import METHOD as FEDERATED
from dpcore.audit.finding import Audit
from dpcore.audit.subject import Subject
from dpcore.terms.methods import DEFAULT_METHOD, method_names
from dpcore.terms.program import Unit
from dpcore.terms.tasks import KINDS, TaskKind

UNITS: tuple[Unit, ...] = get_args(Unit)
STEPS_OF_A_JOB = 20
"""Of the job whose memberships are guessed."""
EPSILON_OF_DIFFERENCES = 1.0
"""A difference of steps tells by guesses alone, whose bound is small."""


@dataclass(frozen=True)
class PlannedAudit:
    """An audit to be made."""

    audit: Audit
    subject: Subject

    @property
    def name(self) -> str:
        """Of the line."""
        return f"{self.audit}/{self.subject.name}"

    @property
    def model(self) -> dict[str, int]:
        """The shape of its little model, which is smaller where the same weights are asked thousands of times."""
        return {"wide": 16, "layers": 1} if self.audit == "steps" else {}


def tasks() -> tuple[TaskKind, ...]:
    """Kinds of task that this package can train and that a little model can be made for."""
    return tuple(k for k, told in KINDS.items() if not told.of_pictures and find_spec(f"dpcore.tasks.{k}") is not None)


def planned(subject: Subject, audit: Audit) -> PlannedAudit:
    """An audit with what it needs of its subject."""
    changes = {
        "canaries": {},
        "round": {"method": FEDERATED, "steps": 1},
        "membership": {"steps": STEPS_OF_A_JOB},
        "differences": {"sample_rate": 0.5, "epsilon": min(subject.epsilon, EPSILON_OF_DIFFERENCES)},
        "steps": {"task": "classification", "unit": "record"},
    }[audit]
    return PlannedAudit(audit, replace(subject, **changes))  # type: ignore[arg-type]


def everything(epsilon: float, *, delta: float = 1e-5) -> Iterator[PlannedAudit]:
    """All audits of this installation."""
    usual = Subject(method=DEFAULT_METHOD, epsilon=epsilon, delta=delta)
    for audit in ("round", "membership", "differences", "steps"):
        yield planned(usual, audit)
    for method in method_names():
        for task in tasks():
            for unit in UNITS:
                yield planned(replace(usual, method=method, task=task, unit=unit), "canaries")


def short() -> PlannedAudit:
    """One that takes seconds."""
    return planned(Subject(), "canaries")
