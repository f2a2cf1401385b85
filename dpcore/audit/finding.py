"""What an audit found, and the audits by name."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from dpcore.audit import (
    canaries,
    differences,
    direct,
    federated_round,
    fitted,
    gaussian,
    membership,
    single_steps,
    two_worlds,
)
from dpcore.audit.guesses import Scored
from dpcore.audit.subject import ReadySubject, Subject

Audit = Literal["canaries", "round", "membership", "differences", "steps"]
"""canaries: in one run, read from its iterates. round: the same of a silo's message. membership: by the released
weights alone. differences: of steps, for noise drawn twice. steps: single ones, for draws and divisors."""
AUDITS: tuple[Audit, ...] = get_args(Audit)

_Scores = Callable[[Subject, Path, int], tuple[Scored, ReadySubject]]
_ONE_RUN: Mapping[str, _Scores] = {
    "round": federated_round.scores,
    "membership": membership.scores,
    "differences": differences.scores,
}
STEPS_FOR_A_CANARY = 4
"""Single steps in each world for a canary that was asked for: they cost less."""


@dataclass(frozen=True)
class AuditFinding:
    """Bounds on epsilon at `delta` from below, all of which hold together with `confidence`; None where what a bound
    supposes does not hold. `claim`: what the run's own numbers promise."""

    audit: Audit
    subject: str
    asked: float
    """Epsilon by the ledger's rule: the claim is never above it."""
    claim: float
    direct: float
    gaussian: float | None
    fitted: float | None
    canaries: int
    accuracy: float | None
    """Of guesses on all canaries: about a half says nothing."""
    delta: float
    confidence: float
    seconds: float

    @property
    def above(self) -> bool:
        """Whether some bound lies above the claim: a fault was found."""
        return max(self.direct, self.gaussian or 0.0, self.fitted or 0.0) > self.claim

    @property
    def key(self) -> tuple[str, str, float, float, int]:
        """What was measured, by which it is known again."""
        return self.audit, self.subject, self.asked, self.confidence, self.canaries

    def line(self) -> dict[str, Any]:
        """As a file has it."""
        return asdict(self) | {"above": self.above}

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> "AuditFinding":
        """Of such a line. Raises TypeError for another."""
        return cls(**{name: value for name, value in line.items() if name != "above"})


def find(
    audit: Audit,
    subject: Subject,
    folder: Path,
    count: int,
    confidence: float,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> AuditFinding:
    """Audit the subject on the model in a folder with so many canaries. Raises ValueError where the parts of the
    subject do not go together, NotTrainable, and whatever a run raises. should_stop: of canaries alone, which then
    raise Stopped."""
    began, significance = time.monotonic(), 1 - confidence
    if audit == "steps":
        worlds = single_steps.outputs(subject, folder, STEPS_FOR_A_CANARY * count)
        found = two_worlds.bound(worlds.without, worlds.within, single_steps.DELTA, significance)
        bounds: tuple[float, float | None, float | None] = found, None, None
        claim, delta, accuracy = worlds.claim, single_steps.DELTA, None
    else:
        scores = partial(canaries.scores, should_stop=should_stop) if audit == "canaries" else _ONE_RUN[audit]
        scored, ready = scores(subject, folder, count)
        bounds = bounds_of(audit, scored, ready, significance)
        claim, delta, accuracy = ready.claim, subject.delta, scored.accuracy
    return AuditFinding(
        audit=audit,
        subject=subject.name,
        asked=subject.epsilon,
        claim=claim,
        direct=bounds[0],
        gaussian=bounds[1],
        fitted=bounds[2],
        canaries=count,
        accuracy=accuracy,
        delta=delta,
        confidence=confidence,
        seconds=round(time.monotonic() - began, 1),
    )


def bounds_of(
    audit: Audit, scored: Scored, ready: ReadySubject, significance: float
) -> tuple[float, float | None, float | None]:
    """The direct bound; the Gaussian one, where every step is on the whole file and so is Gaussian; the fitted one,
    where scores are projections of such steps too. They share the significance."""
    delta, barest = ready.subject.delta, all(p.mechanism.sample_rate == 1 for p in ready.program.phases)
    each = significance / (1 + barest + (barest and audit != "membership"))
    plain = direct.best(scored, delta, each, only_in=audit == "differences")
    if not barest:
        return plain, None, None
    by_guesses = gaussian.epsilon_of(gaussian.best(scored, each), delta)
    if audit == "membership":
        return plain, by_guesses, None
    return plain, by_guesses, gaussian.epsilon_of(fitted.bound(scored, each), delta)
