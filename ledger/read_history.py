"""Reading a budget's history from the database, whatever its rows hold."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BIT, array

from dpcore.terms import accounting
from dpcore.terms.accounting import Curve
from ledger.canonical import entry_seal
from ledger.history import SAYINGS, Account, Booking, Counts, EntryRow, History, Pass, Permits, Stage, Violation, Work
from ledger.reading import columns, curve, exact, flag, orders, whole
from ledger.tables import authorisation, budget, budget_grant, entry, phase, population, reservation, work
from ledger.tables import curve as curves

_job = sa.table("job", sa.column("id"), sa.column("tenant_id"))
_file = sa.table("file", sa.column("id"), sa.column("budget_id"))
_job_file = sa.table("job_file", sa.column("job_id"), sa.column("file_id"), sa.column("budget_id"))
_fingerprint = sa.table("fingerprint", *(sa.column(name) for name in ("tenant_id", "kind", "mac", "budget_id")))


def read(connection: sa.Connection, budget_id: str) -> History | None:
    """None when the budget is gone."""
    rows = connection.execute(sa.select(*columns(budget)).where(budget.c.id == budget_id)).all()
    if not rows:
        return None
    problems: list[Violation] = [] if len(rows) == 1 else [(None, "there is more than one budget with this id")]
    account = _account(rows[0])
    if not account.orders:
        problems.append((None, "the orders cannot be read"))
    return History(
        account=account,
        lines=_lines(connection, account, problems),
        bookings=_bookings(connection, account, problems),
        passes=_passes(connection, account, problems),
        curves={
            r.id: (_at_orders(account, r.orders, r.step_cost), flag(r.indivisible))
            for r in connection.execute(sa.select(*columns(curves)))
        },
        jobs_without_reservation=_jobs_without_reservation(connection, account),
        fingerprints=_fingerprints(connection, account),
        populations={
            r.kind: (r.marks, r.sums)
            for r in connection.execute(sa.select(*columns(population)).where(population.c.budget_id == budget_id))
        },
        problems=problems,
    )


def _account(r: sa.Row[Any]) -> Account:
    known = orders(r.orders)
    return Account(
        id=r.id,
        tenant_id=r.tenant_id,
        orders=known,
        epsilon=exact(r.epsilon),
        epsilon_opened=exact(r.epsilon_opened),
        epsilon_claim=exact(r.epsilon_claim),
        delta=exact(r.delta),
        weight_numerators=curve(r.weight_numerators, len(known)),
        weight_denominator=whole(r.weight_denominator),
        cap=curve(r.cap, len(known)),
        spent=curve(r.spent, len(known)),
        reserved=curve(r.reserved, len(known)),
        reference=r.reference,
        frozen_reason=r.frozen_reason,
        approval_above=r.approval_above,
        queue_days=r.queue_days,
        require_intended_use=flag(r.require_intended_use),
        head_seq=whole(r.head_seq),
        head_hash=r.head_hash,
        never_changes=(
            *_version(r),
            *(r.id, r.tenant_id, r.epsilon_opened, r.delta, r.unit, r.max_records_per_user or ""),
            *(r.relation, r.weight_numerators, r.weight_denominator),
        ),
    )


def _version(r: sa.Row[Any]) -> tuple[str | None, ...]:
    """What a chain begins with, as ledger.genesis has it."""
    if exact(r.held_out) != 0:
        return "tacit.budget.v3", r.orders, r.held_out
    return ("tacit.budget.v1",) if orders(r.orders) == accounting.FIRST_ORDERS else ("tacit.budget.v2", r.orders)


def _at_orders(account: Account, known: str | None, step_cost: str | None) -> Curve | None:
    """A mechanism's curve at the budget's orders, if it is proven for all of them."""
    proven = orders(known)
    costs = dict(zip(proven, curve(step_cost, len(proven)) or (), strict=False))
    return tuple(costs[a] for a in account.orders) if costs.keys() >= set(account.orders) else None


def _lines(connection: sa.Connection, account: Account, problems: list[Violation]) -> list[EntryRow]:
    hashed_at: sa.ColumnElement[str] = sa.literal_column(
        """to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    )
    said = [entry.c.detail[key].astext.label(f"said_{key}") for key in SAYINGS]
    found = []
    for r in connection.execute(
        sa.select(*columns(entry), hashed_at.label("hashed_at"), *said)
        .where(entry.c.budget_id == account.id)
        .order_by(entry.c.seq)
    ):
        seq = whole(r.seq)
        if seq is None:
            problems.append((None, "an entry has no number"))
            continue
        spent, reserved = (curve(text, len(account.orders)) for text in (r.spent_change, r.reserved_change))
        if spent is None or reserved is None:
            problems.append((seq, "the amounts of the entry cannot be read"))
        found.append(
            EntryRow(
                seq=seq,
                kind=r.kind,
                reservation_id=r.reservation_id,
                outcome=r.outcome,
                fence=whole(r.fence),
                spent_change=spent or account.nothing,
                reserved_change=reserved or account.nothing,
                at=_time(r.at),
                prev_hash=r.prev_hash,
                hash=r.hash,
                fields=_fields(r),
                detail=r.detail,
                said={key: r._mapping[f"said_{key}"] for key in SAYINGS},
            )
        )
    return found


def _fields(r: Any) -> Sequence[str | None]:
    """ledger.entry_fields in Python."""
    detail = () if r.detail is None else (r.detail,)
    format, fence, at = "tacit.entry.v2" if detail else "tacit.entry.v1", r.fence or "", r.hashed_at
    if r.salt is not None and at is not None:
        format, fence, at = "tacit.entry.v3", entry_seal(r.salt, fence, at), f"{at[: -len(':00.000000Z')]}Z"
    return (
        *(format, r.budget_id, r.seq, r.kind, r.reservation_id or "", r.outcome or "", fence),
        *(r.spent_change, r.reserved_change, r.actor, at, *detail),
    )


def _bookings(connection: sa.Connection, account: Account, problems: list[Violation]) -> dict[str, Booking]:
    stages, permits, works = _stages(connection, account), _permits(connection, account), _works(connection, account)
    has_job = sa.exists().where(_job.c.id == reservation.c.job_id, _job.c.tenant_id == account.tenant_id)
    named = [_job_file.c[key] == reservation.c[key] for key in ("job_id", "file_id", "budget_id")]
    has_file = sa.exists().where(*named, _file.c.id == _job_file.c.file_id, _file.c.budget_id == _job_file.c.budget_id)
    found: dict[str, Booking] = {}
    for r in connection.execute(
        sa.select(*columns(reservation), has_job.label("has_job"), has_file.label("has_file")).where(
            reservation.c.budget_id == account.id
        )
    ):
        if r.id in found:
            problems.append((None, f"there is more than one reservation {r.id}"))
        found[r.id] = Booking(
            id=r.id,
            state=r.state,
            grant_id=r.grant_id,
            waits=flag(r.waits),
            expires_at=_time(r.expires_at),
            starts_by=_time(r.starts_by),
            has_job=r.has_job,
            has_file=r.has_file,
            stages=stages[r.id],
            permits=permits[r.id],
            work=works.get(r.job_id),
        )
    return found


def _stages(connection: sa.Connection, account: Account) -> dict[str, list[Stage]]:
    ours = sa.select(reservation.c.id).where(reservation.c.budget_id == account.id)
    found: dict[str, list[Stage]] = defaultdict(list)
    for r in connection.execute(
        sa.select(*columns(phase)).where(phase.c.reservation_id.in_(ours)).order_by(phase.c.ordinal)
    ):
        found[r.reservation_id].append(
            Stage(
                ordinal=whole(r.ordinal),
                sample_rate=r.sample_rate,
                noise_multiplier=r.noise_multiplier,
                steps_max=whole(r.steps_max),
                steps_authorised=whole(r.steps_authorised),
                step_cost=curve(r.step_cost, len(account.orders)),
                reserved=curve(r.reserved, len(account.orders)),
                curve_id=r.curve_id,
                indivisible=flag(r.indivisible),
            )
        )
    return found


def _permits(connection: sa.Connection, account: Account) -> dict[str, list[Permits]]:
    ours = sa.select(reservation.c.id).where(reservation.c.budget_id == account.id)
    of = authorisation.c
    numbers = (of.ordinal, sa.func.sum(of.steps), sa.func.min(of.fence), sa.func.max(of.fence))
    found: dict[str, list[Permits]] = defaultdict(list)
    for id, *texts in connection.execute(
        sa.select(of.reservation_id, *(sa.cast(number, sa.Text) for number in numbers))
        .where(of.reservation_id.in_(ours))
        .group_by(of.reservation_id, of.ordinal)
    ):
        found[id].append(Permits(*map(whole, texts)))
    return found


def _works(connection: sa.Connection, account: Account) -> dict[str, Work]:
    ours = sa.select(reservation.c.job_id).where(reservation.c.budget_id == account.id)
    live = sa.func.coalesce(work.c.lease_until > sa.func.clock_timestamp(), sa.false())
    return {
        r.job_id: Work(whole(r.fence), _time(r.lease_until), r.live)
        for r in connection.execute(sa.select(*columns(work), live.label("live")).where(work.c.job_id.in_(ours)))
    }


def _passes(connection: sa.Connection, account: Account, problems: list[Violation]) -> dict[str, Pass]:
    found: dict[str, Pass] = {}
    for r in connection.execute(sa.select(*columns(budget_grant)).where(budget_grant.c.budget_id == account.id)):
        if r.id in found:
            problems.append((None, f"there is more than one grant {r.id}"))
        found[r.id] = Pass(
            id=r.id,
            key=r.key_id,
            project=r.project,
            epsilon=r.epsilon,
            share=r.share,
            approval_above=r.approval_above,
            expires_at=_time(r.expires_at),
            models=r.models,
            methods=r.methods,
            most_steps=r.most_steps,
            by=r.created_by,
            capped=r.cap is not None,
            cap=curve(r.cap, len(account.orders)),
            spent=curve(r.spent, len(account.orders)),
            reserved=curve(r.reserved, len(account.orders)),
            revoked=r.revoked_at is not None,
        )
    return found


def _jobs_without_reservation(connection: sa.Connection, account: Account) -> Sequence[str | None]:
    booked = [reservation.c[key] == _job_file.c[key] for key in ("job_id", "budget_id")]
    ours = sa.select(_job_file.c.job_id).where(_job_file.c.budget_id == account.id, ~sa.exists().where(*booked))
    return connection.execute(ours.order_by(_job_file.c.job_id)).scalars().all()


def _fingerprints(connection: sa.Connection, account: Account) -> Counts:
    """Counted again, as ledger.count_population counts."""
    text = sa.literal("x").op("||")(sa.func.encode(sa.func.sha512(_fingerprint.c.mac), "hex"))
    ours = (_fingerprint.c.tenant_id == account.tenant_id, _fingerprint.c.budget_id == account.id)
    each = sa.select(_fingerprint.c.kind, sa.cast(text, BIT(512)).label("bits")).where(*ours).offset(0).subquery()
    parts = [sa.cast(sa.func.substring(each.c.bits, at, 64), sa.BigInteger) for at in range(1, 512, 64)]
    sums = array([sa.func.sum(part) for part in parts])
    rows = connection.execute(
        sa.select(each.c.kind, *(sa.cast(c, sa.Text) for c in (sa.func.count(), sums))).group_by(each.c.kind)
    )
    return {kind: (marks, sums) for kind, marks, sums in rows}


def _time(seconds: float | None) -> float:
    return math.nan if seconds is None else seconds
