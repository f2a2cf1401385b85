"""The statement of one job, from the ledger, the releases and what its worker wrote down."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from domain.access.budgets import guarantee
from domain.access.grants import Viewer
from domain.federated.invitations import METHOD as FEDERATED
from domain.kit.refusals import Conflict
from domain.statements import books, files, words
from domain.statements.known import JobBook, look
from domain.statements.models import (
    JobStatement,
    StatedAccount,
    StatedAudit,
    StatedClaim,
    StatedDates,
    StatedDecision,
    StatedDomain,
    StatedOdds,
    StatedPhase,
    StatedPurpose,
    StatedQuality,
    StatedRelease,
    StatedStanding,
    StatedVersions,
)
from domain.statements.points import points
from domain.storage.blobs import Store
from dpcore.terms import odds

_Z = 1.96
"""Deviations of a confidence interval of 95 %."""


def statement(connection: sa.Connection, viewer: Viewer, store: Store, job_id: str) -> JobStatement:
    """Of a job that the viewer may see, as it stands now. Raises NotFound, and Conflict where rows cannot be read: a
    statement would be made up."""
    try:
        return _stated(connection, viewer, look(connection, viewer, store, job_id))
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, sa.exc.NoResultFound) as error:
        raise unreadable("job") from error


def unreadable(what: str) -> Conflict:
    """Why there is no statement."""
    return Conflict(
        f"no statement can be made: rows of this {what} in the database cannot be read. Tell the operator (tacit "
        "ledger verify)",
        code="statement_unreadable",
    )


def _stated(connection: sa.Connection, viewer: Viewer, book: JobBook) -> JobStatement:
    row, held, booked = book.row, book.held, book.booked
    claim, standing = _claim(book), _standing(book)
    account = _account(connection, book)
    own, whole = _own_odds(book, claim), _budget_odds(book, account.within)
    quality = _quality(row)
    versions, known = _versions(book), _domain(connection, book)
    audited = _audit(book)
    sampled = any(one.kind == "synthetic" for one in book.results)
    return JobStatement(
        issued_at=books.minute(datetime.now(UTC)),
        job=row.id,
        tenant=row.tenant_id,
        reservation=booked.reservation,
        repriced=booked.repriced,
        summary=_summary(standing, claim, own, account),
        standing=standing,
        claim=claim,
        unit=words.unit_of(held.unit, words.RELATION[book.account.relation], held.max_records_per_user),
        phases=_phases(book),
        odds=own,
        budget_odds=whole,
        audit=audited,
        releases=_releases(book),
        quality=quality,
        synthetic=words.synthetic(row.synthetic is not None, sampled, standing.released),
        domain=known,
        purpose=_purpose(viewer, book),
        account=account,
        versions=versions,
        dates=_dates(book),
        entries=[books.entry_line(one) for one in booked.entries],
        limits=list(words.LIMITS),
        trust=list(words.TRUST),
        handling=list(words.HANDLING),
        points=points(
            quality=quality is not None,
            by_group=quality is not None and quality.by_group is not None,
            published=known.size_published is not None,
            versions=versions.made_with is not None,
            sampled=sampled,
            odds=own is not None,
            audited=audited is not None,
        ),
    )


def _audit(book: JobBook) -> StatedAudit | None:
    found = book.report.get("audit")
    if not isinstance(found, Mapping):
        return None
    kept = {name: found.get(name) for name in StatedAudit.model_fields if name != "sentence"}
    bounds = [one for one in (found["direct"], found["gaussian"], found["fitted"]) if one is not None]
    sentence = words.audited(found["canaries"], found["confidence"], found["claim"], max(bounds))
    return StatedAudit.model_validate(kept | {"sentence": sentence})


def _summary(standing: StatedStanding, claim: StatedClaim, own: StatedOdds | None, account: StatedAccount) -> list[str]:
    found = [standing.sentence, claim.sentence]
    if own is not None:
        found.append(own.sentence)
    if account.frozen:
        found.append(f"The budget is frozen now, and admits nothing: {account.frozen_reason}.")
    if not account.within:
        found.append(account.sentence)
    return found


def _standing(book: JobBook) -> StatedStanding:
    row, begun = book.row, book.booked.begun
    released = any(one.kind == "adapter" for one in book.results)
    part = row.method["type"] == FEDERATED and row.silo_job is None
    if row.status == "succeeded" and part:
        said = "The job took part in a federated job, whose result is released there; what it sent was noised first."
    elif row.status == "succeeded":
        said = "The job has succeeded, and its result is released."
    elif row.status == "failed" and begun:
        said = (
            "The job failed after its first step. All that it reserved is charged, because a failure is something that "
            "the data did; nothing was released but that it failed."
        )
    elif row.status == "failed":
        said = "The job failed before its first step: nothing was charged, and nothing was released."
    elif row.status == "cancelled":
        how = {"rejected": "A steward rejected the job.", "expired": "The job's time ran out."}
        paid = "the steps that were authorised are charged" if begun else "nothing was charged"
        said = f"{how.get(row.status_detail, 'The job was cancelled.')} No result was released; {paid}."
    elif row.status_detail in ("paused", "pausing"):
        paid = "The steps that were authorised so far are charged" if begun else "Nothing is charged so far"
        said = f"The job is paused. {paid}, the rest stays reserved, and nothing is released."
    elif row.status == "running":
        said = "The job is running: steps are charged as they are authorised, and nothing is released yet."
    else:
        waits = " It waits for a steward's approval." if row.status_detail == "waiting_for_approval" else ""
        said = f"The job has not begun: its price is reserved, nothing is charged and nothing released.{waits}"
    return StatedStanding(status=row.status, detail=row.status_detail, released=released, sentence=said)


def _claim(book: JobBook) -> StatedClaim:
    held, booked, row = book.held, book.booked, book.row
    epsilon = books.epsilon_of(booked.cost, held)
    released = row.status == "succeeded"
    if booked.settled == "failed" and booked.begun:
        basis = "all steps that were reserved, since the job failed after its first"
    else:
        basis = "the steps that were authorised" + ("" if booked.settled else " so far")
    if epsilon is None:
        said = "What was charged is more than any order can hold: no epsilon can be stated for this job."
    elif not any(booked.cost):
        said = "Nothing was charged, so that nothing that was seen of this job depends on the data."
    else:
        what = "What this job released" if released else "What could be seen of this job, which released no result,"
        said = words.promise(epsilon, held.delta, held.unit, what)
        said += " This is of this job alone: what all jobs on the same budget may release together stands below."
    return StatedClaim(
        epsilon=epsilon,
        epsilon_reserved=books.epsilon_of(booked.reserved, held),
        epsilon_by_losses=_by_losses(book) if released else None,
        delta=held.delta,
        share=held.share_of(booked.cost),
        variant=words.VARIANT,
        relation=words.RELATION[book.account.relation],
        cost=list(booked.cost),
        charged_for=basis,
        accountant=words.ACCOUNTANT,
        sentence=said,
        caution=words.caution(epsilon),
    )


def _by_losses(book: JobBook) -> float | None:
    found = (book.report.get("privacy") or {}).get("epsilon_pld_this_job_alone")
    return float(found) if isinstance(found, int | float) else None


def _own_odds(book: JobBook, claim: StatedClaim) -> StatedOdds | None:
    """As the worker computed them when it published; None of a job that released nothing, or of an earlier version."""
    found = book.report.get("odds_this_job_alone")
    if not isinstance(found, dict) or claim.epsilon is None:
        return None
    points = [(float(innocent), float(share)) for innocent, share in found["found"]]
    held = book.held
    return books.stated_odds(
        points,
        float(found["best_accuracy"]),
        claim.epsilon,
        held.delta,
        books.OF_LOSSES,
        "what this job released",
        held.unit,
    )


def _budget_odds(book: JobBook, within: bool) -> StatedOdds | None:
    held = book.held
    if not within:
        return None
    found = odds.of_filter(book.claim, held.delta, held.filter)
    what = "everything that this budget may ever release"
    return books.odds_of(found, book.claim, held.delta, books.OF_FILTER, what, held.unit)


def _phases(book: JobBook) -> list[StatedPhase]:
    return [
        StatedPhase(
            name=planned.name,
            trains="nothing" if planned.measures else planned.trains,
            mechanism=planned.mechanism.words,
            noise_multiplier=paid.noise_multiplier,
            sample_rate=paid.sample_rate,
            steps_planned=paid.steps_max,
            steps_authorised=paid.steps_authorised,
            steps_charged=paid.steps_charged,
            clipping=planned.clipping,
            clip_norm=planned.clip_norm,
            expected_batch=planned.expected_batch,
            sensitivity=words.SENSITIVITY,
            step_cost=list(paid.step_cost),
            epsilon=books.epsilon_of(paid.cost, book.held),
        )
        for planned, paid in zip(book.program.phases, book.booked.phases, strict=True)
    ]


def _releases(book: JobBook) -> list[StatedRelease]:
    told = book.report.get("adapter")
    return [
        StatedRelease(
            kind=one.kind,
            file=one.id,
            filename=one.filename,
            sha256=one.sha256,
            bytes=one.bytes,
            at=books.minute(one.released_at),
            deleted=one.deleted_at is not None,
            contents=_contents(told, one.sha256) if one.kind == "adapter" else None,
        )
        for one in book.results
    ]


def _contents(told: Any, sha256: str) -> dict[str, str] | None:
    """What the worker wrote down of the archive, if it is of this one."""
    return dict(told["files"]) if isinstance(told, dict) and told["sha256"] == sha256 else None


def _quality(row: sa.Row[Any]) -> StatedQuality | None:
    found = row.quality
    if found is None:
        return None
    value, error, metric = float(found["value"]), found.get("standard_error"), str(found["metric"])
    interval = None
    if error is not None:
        most = 1.0 if metric == "accuracy" else float("inf")
        interval = (max(0.0, value - _Z * error), min(most, value + _Z * error))
    private = found.get("source") == "private"
    return StatedQuality(
        metric=metric,
        value=value,
        evaluated=found.get("evaluated"),
        standard_error=error,
        interval=interval,
        baseline=found.get("baseline"),
        source="a charged and noised measurement on units that no job trains on"
        if private
        else f"the public evaluation file {found.get('file')}, of which nothing private has a part",
        by_group=_by_group(found.get("per_class")),
    )


def _by_group(found: Any) -> str | None:
    """By the labels of a public file."""
    if not found:
        return None
    parts = [
        f"{label}: {one['records']} records, right {'unknown' if one['right'] is None else format(one['right'], '.3f')}"
        for label, one in list(found.items())[:50]
    ]
    return "; ".join(parts)


def _domain(connection: sa.Connection, book: JobBook) -> StatedDomain:
    source, held = book.source, book.held
    if source is None:
        return StatedDomain(
            file=None,
            task=None,
            labels=None,
            labels_published=None,
            declared_size=None,
            size_published=None,
            max_length=None,
            resolution=None,
            held_out=held.held_out,
            sentence=f"The training file: {words.NOT_RECORDED}.",
        )
    of = files.published(connection, source.id)
    return StatedDomain(
        file=source.id,
        task=source.task,
        labels=source.labels,
        labels_published=None if source.labels is None else files.was("labels", of),
        declared_size=source.declared_size,
        size_published=files.was("declared_size", of),
        max_length=None if files.of_pictures(source) else source.max_length,
        resolution=source.max_length if files.of_pictures(source) else None,
        held_out=held.held_out,
        sentence=files.in_words(source, of, held.unit),
    )


def _purpose(viewer: Viewer, book: JobBook) -> StatedPurpose:
    row = book.row
    known = viewer.may("steward") or viewer.key_id == row.created_by  # as the job itself is shown
    decision = row.decision
    if decision is None:
        said = "Nobody decided on this job: it was below what the budget asks approval for."
        if row.status_detail == "waiting_for_approval":
            said = "The job waits for a steward to decide."
    else:
        said = f"A steward {decision['decision']} the job before any worker began."
    return StatedPurpose(
        asked_by=row.submitter if known else None,
        intended_use=row.intended_use,
        suffix=row.suffix,
        metadata=row.metadata,
        approval=None if decision is None else decided(decision),
        sentence=said,
    )


def decided(decision: Mapping[str, Any]) -> StatedDecision:
    """A decision as domain.jobs.reading has it."""
    return StatedDecision(
        decision=decision["decision"],
        by=decision["name"] or decision["id"],
        reason=decision["reason"],
        at=books.minute(decision["at"]),
    )


def _account(connection: sa.Connection, book: JobBook) -> StatedAccount:
    held, claim = book.held, book.claim
    own = [one.seq for one in book.booked.entries]
    within = books.within(held, claim)
    return StatedAccount(
        budget=held.id,
        epsilon=held.epsilon,
        epsilon_claim=claim,
        delta=held.delta,
        filter=books.filter_of(held),
        before=books.at_entry(connection, held, min(own) - 1),
        after=books.at_entry(connection, held, max(own)),
        frozen=held.frozen_reason is not None,
        frozen_reason=held.frozen_reason,
        within=within,
        sentence=guarantee(claim, held) if within else past(claim),
    )


def past(claim: float) -> str:
    """Of a budget that a correction or a new price took past its limit."""
    return (
        f"What is charged to the budget is past its limit of {claim:g}: the promise for all jobs together does not "
        "hold any more, and the budget is frozen."
    )


def _versions(book: JobBook) -> StatedVersions:
    made, row = book.report.get("versions"), book.row
    return StatedVersions(
        made_with={str(name): str(which) for name, which in made.items()} if isinstance(made, dict) else None,
        stated_with=books.stated_with(),
        base_model=row.model,
        base_model_sha256=row.model_revision or book.report.get("base_model_sha256"),
        base_model_source=book.report.get("base_model_source"),
        method=row.method["type"],
    )


def _dates(book: JobBook) -> StatedDates:
    at = {one.kind: one.at for one in book.booked.entries}
    released = [one.released_at for one in book.results]
    return StatedDates(
        submitted=books.minute(book.row.created_at),
        charged=books.minute(at["reserve"]),
        settled=books.minute(at["settle"]) if "settle" in at else None,
        released=books.minute(min(released)) if released else None,
    )
