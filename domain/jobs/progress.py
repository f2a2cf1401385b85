"""When a job should be done, from public values alone: its plan, the steps already shown, what workers measured."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any

import sqlalchemy as sa

from domain.jobs.life import PAUSING
from domain.models.allow_list import BaseModelFacts
from domain.models.profiles import Measurements, Profile, known, of_pair, seconds
from dpcore.terms.facts import ModelFacts
from dpcore.terms.program import Program
from dpcore.terms.teachers import named_student


def estimated_finishes(
    connection: sa.Connection, models: Mapping[str, BaseModelFacts], rows: Sequence[sa.Row[Any]]
) -> dict[str, int]:
    """Unix seconds by job id, whole minutes, for those rows of `of_tenant` that run and whose model, method
    and task a worker has measured."""
    found: dict[str, Measurements] = {}
    finishes = {}
    for row in rows:
        if row.status != "running" or row.status_detail == PAUSING or row.model not in models:
            continue
        try:
            program = Program.model_validate(row.plan)
            student = named_student(program)
            names = [row.model] if student is None else [row.model, student]
            found |= {name: known(connection, models[name]) for name in names if name not in found}
            beside = None if student is None else found[student]
            if profiles := of_pair(program, row.task, found[row.model], beside):
                facts = models[row.model].facts
                finishes[row.id] = _finish(program, row.steps_by_phase, profiles, facts, datetime.now(UTC))
        except (TypeError, ValueError, OverflowError, KeyError):
            continue  # no worker runs such a plan, or the student's model is not there now
    return finishes


def _finish(
    program: Program, authorised: Sequence[int], profiles: Sequence[Profile], facts: ModelFacts, now: datetime
) -> int:
    """The chunk that was authorised last counts as not begun, so that the estimate is rather late than early."""
    done = [int(steps) for steps in authorised]
    at = max((place for place, steps in enumerate(done) if steps), default=0)
    done[at] = max(0, done[at] - program.chunk)
    return ceil((now.timestamp() + seconds(program, profiles, facts, done)) / 60) * 60
