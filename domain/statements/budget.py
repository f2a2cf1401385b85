"""The dossier of a budget: all releases about its people in order, the decisions, and what is left."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from domain.access import budgets
from domain.access.budgets import guarantee
from domain.access.grants import Viewer
from domain.federated.invitations import METHOD as FEDERATED
from domain.kit.tables import api_key, file, job, release
from domain.statements import books, files, words
from domain.statements.job import past, unreadable
from domain.statements.models import (
    BudgetStatement,
    DossierDecision,
    DossierFile,
    DossierJob,
    ReleasedResult,
    StatedDecision,
    StatedOdds,
)
from dpcore.terms import odds
from ledger.budgets import Balance, as_balance
from ledger.tables import entry, reservation

_OF_JOBS = ("reserve", "settle", "approve", "records", "open")
"""Kinds of entries that are no decision about the budget itself."""


def statement(connection: sa.Connection, viewer: Viewer, budget_id: str) -> BudgetStatement:
    """Of a budget that the viewer, a steward or an auditor, may read. Raises NotFound, and Conflict where rows cannot
    be read."""
    account = budgets.require(connection, viewer, budget_id)
    try:
        return _stated(connection, account)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, sa.exc.NoResultFound) as error:
        raise unreadable("budget") from error


def _stated(connection: sa.Connection, account: sa.Row[Any]) -> BudgetStatement:
    held, claim = as_balance(account), float(account.epsilon_claim)
    within = books.within(held, claim)
    names = _names(connection, account.tenant_id)
    jobs = _jobs(connection, held, names)
    found = _odds(held, claim) if within else None
    head = connection.execute(
        sa.select(entry).where(entry.c.budget_id == held.id, entry.c.seq == account.head_seq)
    ).one()
    return BudgetStatement(
        issued_at=books.minute(datetime.now(UTC)),
        budget=held.id,
        name=account.name,
        tenant=account.tenant_id,
        opened=books.minute(account.created_at),
        summary=_summary(held, claim, within, jobs, found),
        epsilon=held.epsilon,
        epsilon_claim=claim,
        delta=held.delta,
        filter=books.filter_of(held),
        unit=words.unit_of(held.unit, words.RELATION[account.relation], held.max_records_per_user),
        cap=list(held.cap),
        spent=list(held.spent),
        reserved=list(held.reserved),
        share_used=held.share_of(held.used),
        share_left=held.share_left,
        epsilon_used=books.epsilon_of(held.used, held),
        frozen=held.frozen_reason is not None,
        frozen_reason=held.frozen_reason,
        within=within,
        odds=found,
        jobs=jobs,
        decisions=_decisions(connection, held.id, names),
        files=_files(connection, held.id),
        head=books.entry_line(head),
        stated_with=books.stated_with(),
        limits=list(words.LIMITS),
        trust=list(words.TRUST),
        handling=list(words.HANDLING),
    )


def _summary(held: Balance, claim: float, within: bool, jobs: list[DossierJob], found: StatedOdds | None) -> list[str]:
    released = sum(bool(one.releases) for one in jobs)
    charged = sum(any(one.cost) for one in jobs)
    said = [
        guarantee(claim, held) if within else past(claim),
        f"Jobs that used this budget: {len(jobs)}; of these charged for steps: {charged}; with a released result: "
        f"{released}.",
    ]
    if found is not None:
        said.append(found.sentence)
    if held.frozen_reason is not None:
        said.append(f"The budget is frozen now, and admits nothing: {held.frozen_reason}.")
    return said


def _odds(held: Balance, claim: float) -> StatedOdds:
    found = odds.of_filter(claim, held.delta, held.filter)
    what = "everything that this budget may ever release"
    return books.odds_of(found, claim, held.delta, books.OF_FILTER, what, held.unit)


def _names(connection: sa.Connection, tenant: str) -> dict[str, str]:
    """What the tenant's keys are called, by id."""
    rows = connection.execute(sa.select(api_key.c.id, api_key.c.name).where(api_key.c.tenant_id == tenant))
    return {row.id: row.name for row in rows}


def _jobs(connection: sa.Connection, held: Balance, names: Mapping[str, str]) -> list[DossierJob]:
    """In the order in which they were charged."""
    rows = connection.execute(
        sa.select(job, entry.c.seq)
        .join(reservation, reservation.c.job_id == job.c.id)
        .join(entry, sa.and_(entry.c.reservation_id == reservation.c.id, entry.c.kind == "reserve"))
        .where(reservation.c.budget_id == held.id)
        .order_by(entry.c.seq)
    ).all()
    # The result of a federated job is that of the job whose silo this is.
    shown = sa.func.coalesce(job.c.silo_job, job.c.id)
    results: dict[str, list[ReleasedResult]] = {}
    for one in connection.execute(
        sa.select(shown.label("of"), release.c.kind, release.c.created_at, file.c.id, file.c.sha256, file.c.deleted_at)
        .select_from(release)
        .join(job, job.c.id == release.c.job_id)
        .join(file, file.c.id == release.c.file_id)
        .join(reservation, reservation.c.job_id == shown)
        .where(reservation.c.budget_id == held.id)
        .order_by(release.c.kind)
    ):
        made = ReleasedResult(
            kind=one.kind,
            file=one.id,
            sha256=one.sha256,
            at=books.minute(one.created_at),
            deleted=one.deleted_at is not None,
        )
        results.setdefault(one.of, []).append(made)
    booked = books.all_booked(connection, held.id)
    return [_job(held, booked[row.id], row, names, results.get(row.id, [])) for row in rows]


def _job(
    held: Balance,
    booked: books.Booked,
    row: sa.Row[Any],
    names: Mapping[str, str],
    results: list[ReleasedResult],
) -> DossierJob:
    at = {one.kind: one for one in booked.entries}
    return DossierJob(
        job=row.id,
        status=row.status,
        model=row.model,
        method=row.method["type"],
        intended_use=row.intended_use,
        asked_by=names.get(row.created_by),
        approval=_approval(at, names),
        charged_at=books.minute(at["reserve"].at),
        settled_at=books.minute(at["settle"].at) if "settle" in at else None,
        cost=list(booked.cost),
        share=held.share_of(booked.cost),
        epsilon=books.epsilon_of(booked.cost, held),
        held=booked.settled is None,
        part=row.method["type"] == FEDERATED,
        releases=results,
    )


def _approval(at: Mapping[str, sa.Row[Any]], names: Mapping[str, str]) -> StatedDecision | None:
    """Who approved a job or, by settling it, rejected it."""
    for kind, what in (("approve", "approved"), ("settle", "rejected")):
        said = (at[kind].detail or {}) if kind in at else {}
        if "by" in said:
            return StatedDecision(
                decision=what,
                by=names.get(said["by"], said["by"]),
                reason=said.get("reason"),
                at=books.minute(at[kind].at),
            )
    return None


def _decisions(connection: sa.Connection, budget_id: str, names: Mapping[str, str]) -> list[DossierDecision]:
    """All entries that are no job's, in their order."""
    rows = connection.execute(
        sa.select(entry).where(entry.c.budget_id == budget_id, entry.c.kind.not_in(_OF_JOBS)).order_by(entry.c.seq)
    )
    return [
        DossierDecision(
            seq=row.seq,
            kind=row.kind,
            at=books.minute(row.at),
            by=names.get((row.detail or {}).get("by", ""), row.actor),
            said={str(name): str(text) for name, text in (row.detail or {}).items() if name != "by"},
        )
        for row in rows
    ]


def _files(connection: sa.Connection, budget_id: str) -> list[DossierFile]:
    """All that it ever had, the first first."""
    rows = connection.execute(
        sa.select(file).where(file.c.budget_id == budget_id).order_by(file.c.created_at, file.c.id)
    ).all()
    of = {row.id: files.published(connection, row.id) for row in rows}
    return [
        DossierFile(
            file=row.id,
            task=row.task,
            declared_size=row.declared_size,
            size_published=files.was("declared_size", of[row.id]),
            labels=row.labels,
            labels_published=None if row.labels is None else files.was("labels", of[row.id]),
            uploaded=books.minute(row.created_at),
            deleted=row.deleted_at is not None,
        )
        for row in rows
    ]
