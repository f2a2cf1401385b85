"""What is known of a job before anything is put in words: its row, its budget, its charges, and what its worker wrote
down."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from obstore.exceptions import NotFoundError

from domain.access.grants import Viewer
from domain.files.binding import open_file
from domain.jobs import reading
from domain.kit.tables import file, release
from domain.statements import books
from domain.storage.blobs import Store
from dpcore.terms.program import Program
from ledger.budgets import Balance, as_balance
from ledger.tables import budget

LARGEST_REPORT = 2**24
"""Bytes of a report that is read."""


@dataclass(frozen=True)
class JobBook:
    """What is known of a job before anything is put in words."""

    row: sa.Row[Any]
    """Of domain.jobs.reading."""
    account: sa.Row[Any]
    """Of ledger.budget."""
    held: Balance
    booked: books.Booked
    program: Program
    """What it runs: the very numbers that the ledger priced."""
    source: sa.Row[Any] | None
    """Its training file, of `file`."""
    results: Sequence[sa.Row[Any]]
    """What it released, of `release` and `file`."""
    report: Mapping[str, Any]
    """What its worker wrote down; empty where there is nothing, or it is gone."""

    @property
    def unit(self) -> str:
        return self.held.unit

    @property
    def claim(self) -> float:
        """The highest limit that the budget ever had."""
        return float(self.account.epsilon_claim)


def look(connection: sa.Connection, viewer: Viewer, store: Store, job_id: str) -> JobBook:
    """Raises NotFound, and what rows that cannot be read raise."""
    row = reading.require(connection, viewer, job_id)
    booked = books.booked(connection, row.silo_job or row.id)
    account = connection.execute(sa.select(budget).where(budget.c.id == booked.budget)).one()
    program = Program.model_validate(row.plan)
    _require_priced(program, booked)
    results = connection.execute(
        sa.select(release.c.kind, release.c.created_at.label("released_at"), file)
        .join(file, file.c.id == release.c.file_id)
        .where(release.c.job_id == row.id, file.c.tenant_id == viewer.tenant_id)
        .order_by(release.c.kind)
    ).all()
    source = connection.execute(sa.select(file).where(file.c.id == row.training_file)).one_or_none()
    return JobBook(
        row=row,
        account=account,
        held=as_balance(account),
        booked=booked,
        program=program,
        source=source,
        results=results,
        report=_report(connection, store, results),
    )


def _require_priced(program: Program, booked: books.Booked) -> None:
    """Raises ValueError where the plan's noise, rates and steps are not those that were priced."""
    planned = [(p.mechanism.sample_rate, p.mechanism.noise_multiplier, p.steps) for p in program.phases]
    if planned != [(p.sample_rate, p.noise_multiplier, p.steps_max) for p in booked.phases]:
        raise ValueError("the plan is not what was priced")


def _report(connection: sa.Connection, store: Store, results: Sequence[sa.Row[Any]]) -> Mapping[str, Any]:
    """What the worker wrote down; empty without a report that can be read. Raises BrokenBinding for one that is not the
    service's own."""
    row = next((one for one in results if one.kind == "report" and one.deleted_at is None), None)
    if row is None or row.bytes > LARGEST_REPORT:
        return {}
    try:
        blob = open_file(connection, store, row)
        found = json.loads(b"".join(blob.read(0, blob.size)))
    except (FileNotFoundError, NotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
