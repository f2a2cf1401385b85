"""Who sees and uses which budgets of a tenant. Stewards and administrators all of them, analysts those granted to their
key or its project; what is not visible is told apart from nothing by no answer."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

import sqlalchemy as sa

from domain.kit.ids import new_id
from domain.kit.refusals import Conflict, Invalid, NotFound
from domain.kit.tables import api_key, file, job, job_file, release, silo
from dpcore.terms import accounting
from dpcore.terms.methods import method_names
from ledger import grants
from ledger.budgets import Balance, as_balance
from ledger.errors import AlreadyGranted
from ledger.grants import GrantTerms
from ledger.tables import budget, budget_grant

# Made once: an alias copies every column of its table.
_budget, _use, _of = budget.alias(), job_file.alias(), release.alias()
_silo, _member = silo.alias(), job.alias()


@dataclass(frozen=True)
class Viewer:
    """The key that asks. Everything it may see or touch is within its tenant, and within its grants."""

    key_id: str
    tenant_id: str
    scopes: frozenset[str]
    project: str | None = None

    def may(self, scope: str) -> bool:
        """The scope itself, or admin, which includes all."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True)
class HeldGrant:
    """What one grant allows and holds; `account` is its sub-limit as a budget of its own, None where it has none."""

    id: str
    account: Balance | None
    approval_above: float | None
    share: Decimal | None = None
    """Of the budget's cap at its main order, where the sub-limit is one."""
    models: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    most_steps: int | None = None

    def share_left(self, held: Balance) -> float | None:
        """What the sub-limit has left as a part of its budget's cap at the main order, rounded down, so that a job of
        at most this share fits; the budget may have less. None without a sub-limit."""
        if self.account is None or not held.readable:
            return None
        place = held.filter.main
        cap, own = held.cap[place], self.account
        if cap <= 0:
            return 0.0
        whole = Fraction(own.cap[place], cap) if self.share is None else Fraction(self.share)
        left = floor((whole - Fraction(own.used[place], cap)) * accounting.SHARE_DIGITS)
        return max(0, left) / accounting.SHARE_DIGITS


def visible_budgets(viewer: Viewer) -> sa.Select[Any]:
    """Ids of the budgets whose files and jobs the viewer sees and may use."""
    own = sa.select(_budget.c.id).where(_budget.c.tenant_id == viewer.tenant_id)
    return own if viewer.may("steward") else own.where(_budget.c.id.in_(_granted(viewer)))


def readable_budgets(viewer: Viewer) -> sa.Select[Any]:
    """The budgets whose balance the viewer may read: all for an auditor, otherwise those it may use."""
    own = sa.select(budget).where(budget.c.tenant_id == viewer.tenant_id)
    return own if viewer.may("auditor") else own.where(budget.c.id.in_(visible_budgets(viewer)))


def sees_job(viewer: Viewer, job_id: sa.Column[str]) -> sa.ColumnElement[bool]:
    """Whether a job uses no budget of the viewer's tenant but visible ones; a federated job by its silos."""
    if viewer.may("steward"):
        return sa.true()
    not_visible = _use.c.budget_id.not_in(visible_budgets(viewer))
    hidden = sa.select(_use.c.job_id).where(_use.c.job_id == job_id, not_visible)
    hidden_silo = (
        sa.select(_silo.c.job_id)
        .join(_member, sa.and_(_member.c.id == _silo.c.job_id, _member.c.tenant_id == viewer.tenant_id))
        .join(_use, _use.c.job_id == _silo.c.job_id)
        .where(_silo.c.parent_id == job_id, not_visible)
    )
    return ~sa.or_(hidden.correlate(job_id.table).exists(), hidden_silo.correlate(job_id.table).exists())


def sees_file(viewer: Viewer) -> sa.ColumnElement[bool]:
    """Whether a row of `file` is public to the tenant, under a visible budget, or the result of a visible job."""
    if viewer.may("steward"):
        return sa.true()
    of_hidden_job = sa.select(_of.c.id).where(_of.c.file_id == file.c.id, ~sees_job(viewer, _of.c.job_id))
    return sa.and_(
        sa.or_(file.c.budget_id.is_(None), file.c.budget_id.in_(visible_budgets(viewer))),
        ~of_hidden_job.correlate(file).exists(),
    )


def of_budget(viewer: Viewer, budget_id: str) -> sa.Select[Any]:
    """The grants of a budget that the viewer may read: an analyst sees those that let it in. The budget is readable."""
    found = sa.select(budget_grant).where(budget_grant.c.budget_id == budget_id)
    if viewer.may("steward") or viewer.may("auditor"):
        return found
    return found.where(_grantee(viewer), _alive())


def used_by(connection: sa.Connection, viewer: Viewer, held: Balance) -> HeldGrant | None:
    """The grant that a job of the viewer's would be charged to; None for a steward, who needs none. Raises NotFound."""
    if viewer.may("steward"):
        return None
    # The database chooses in the same way when the job is submitted.
    chosen = sa.func.ledger.grant_of(held.id, viewer.key_id, viewer.project)
    row = connection.execute(sa.select(budget_grant).where(budget_grant.c.id == chosen)).one_or_none()
    if row is None:
        raise NotFound("budget")
    return held_grant(row, held)


def held_grant(row: sa.Row[Any], held: Balance) -> HeldGrant:
    """A row of ledger.budget_grant, with the budget that it is of."""
    return HeldGrant(
        id=row.id,
        account=_account(row, held),
        approval_above=None if row.approval_above is None else float(row.approval_above),
        share=row.share,
        models=None if row.models is None else tuple(row.models),
        methods=None if row.methods is None else tuple(row.methods),
        most_steps=row.most_steps,
    )


def _account(row: sa.Row[Any], held: Balance) -> Balance | None:
    """A grant's sub-limit in the shape of a balance, at its budget's delta and weights; None where it has none.

    One by share has room at the main order alone, of the budget's limit as it is now; its epsilon is about that of one
    job of the whole share."""
    if row.cap is None or not held.readable:
        return None
    if row.share is None:
        epsilon, cap = float(row.epsilon), tuple(row.cap)
    else:
        cap = accounting.share_caps(Fraction(row.share), held.cap, held.filter.main)
        epsilon = accounting.epsilon_at_share(float(row.share), held.cap, held.delta, held.filter)
    return replace(
        held,
        id=row.id,
        epsilon=epsilon,
        cap=cap,
        spent=tuple(row.spent),
        reserved=tuple(int(x) for x in row.reserved),
        frozen_reason=None,
    )


def give(
    connection: sa.Connection,
    viewer: Viewer,
    budget_id: str,
    *,
    key: str | None,
    project: str | None,
    terms: GrantTerms,
    reason: str | None,
    models: Collection[str],
) -> sa.Row[Any]:
    """Let one key, or all keys of one project, use a budget; the caller is a steward and commits.

    models: names that there are. Raises NotFound, Invalid, with the smallest epsilon that works where it is too small,
    or Conflict where there is a grant already; one that has ended makes way.
    """
    held = as_balance(_require_budget(connection, viewer, budget_id))
    if (key is None) == (project is None):
        raise Invalid(
            "a grant is for one key or for one project: send one of them", code="invalid_request", param="key"
        )
    _require_grantee(connection, viewer, key, project)
    if terms.epsilon is not None:
        _require_sensible(float(terms.epsilon), held)
    if terms.share is not None and held.cap[held.filter.main] <= 0:
        raise Invalid(
            "the budget's limit leaves its main order nothing to share: send epsilon",
            code="invalid_request",
            param="share",
        )
    if terms.expires_at is not None and terms.expires_at <= datetime.now(UTC):
        raise Invalid("a grant ends in the future", code="invalid_request", param="expires_at")
    _require_known("models", terms.models or (), models)
    _require_known("methods", terms.methods or (), method_names())
    made = new_id("grant")
    try:
        with connection.begin_nested():
            _make_way(connection, viewer, budget_id, key, project)
            grants.give(
                connection,
                budget_id,
                grant_id=made,
                key=key,
                project=project,
                terms=terms,
                by=viewer.key_id,
                reason=reason,
            )
    except AlreadyGranted as error:
        raise Conflict(
            "there is a grant for it already; revoke that one first", code="already_granted", param="key"
        ) from error
    return connection.execute(sa.select(budget_grant).where(budget_grant.c.id == made)).one()


def revoke(connection: sa.Connection, viewer: Viewer, budget_id: str, grant_id: str) -> sa.Row[Any]:
    """End a grant for jobs to come; running ones go on. One that is revoked stays so. Raises NotFound."""
    _require_budget(connection, viewer, budget_id)
    wanted = of_budget(viewer, budget_id).where(budget_grant.c.id == grant_id)
    row = connection.execute(wanted).one_or_none()
    if row is None:
        raise NotFound("grant")
    if row.revoked_at is None:
        grants.revoke(connection, budget_id, grant_id, viewer.key_id)
    return connection.execute(wanted).one()


def _require_grantee(connection: sa.Connection, viewer: Viewer, key: str | None, project: str | None) -> None:
    """Raises NotFound for a key that is not the tenant's, and Invalid for a project that none of its keys has: a grant
    to a misspelt one lets nobody in."""
    wanted = api_key.c.id == key if key is not None else api_key.c.project == project
    known = sa.select(api_key.c.id).where(wanted, api_key.c.tenant_id == viewer.tenant_id).limit(1)
    if connection.execute(known).one_or_none() is not None:
        return
    if key is not None:
        raise NotFound("key", "key")
    raise Invalid(
        f"no key has the project {project}: make a key with it first, or look at the projects that there are "
        "(GET /v1/keys, tacit keys list)",
        code="unknown_project",
        param="project",
    )


def _require_known(field: str, named: Collection[str], known: Collection[str]) -> None:
    """Raises Invalid for a name that is none of those that there are."""
    for name in named:
        if name not in known:
            raise Invalid(
                f"{field}: there is no {name}; there are: {', '.join(known)}", code="invalid_request", param=field
            )


def _make_way(connection: sa.Connection, viewer: Viewer, budget_id: str, key: str | None, project: str | None) -> None:
    """Revoke what has ended of the same key or project: one may have one grant of a budget."""
    same = budget_grant.c.key_id == key if key is not None else budget_grant.c.project == project
    ended = sa.select(budget_grant.c.id).where(budget_grant.c.budget_id == budget_id, same, ~_alive())
    for (id,) in connection.execute(ended.where(budget_grant.c.revoked_at.is_(None))):
        grants.revoke(connection, budget_id, id, viewer.key_id, "it had ended")


def _require_budget(connection: sa.Connection, viewer: Viewer, budget_id: str) -> sa.Row[Any]:
    row = connection.execute(readable_budgets(viewer).where(budget.c.id == budget_id)).one_or_none()
    if row is None:
        raise NotFound("budget")
    return row


def _require_sensible(epsilon: float, held: Balance) -> None:
    if epsilon > held.epsilon:
        raise Invalid(
            f"the budget's own limit is {held.epsilon:g}; leave epsilon out to grant all of it",
            code="invalid_request",
            param="epsilon",
        )
    # Two thousandths up: at the very least of it only a job that does nothing would fit.
    least = ceil(accounting.epsilon_alone(held.filter.nothing, held.delta, held.filter) * 1000 + 1) / 1000
    if epsilon < least:
        raise Invalid(
            f"epsilon {epsilon:g} is too small at delta {held.delta:g}: the smallest that works is {least:g}",
            code="epsilon_too_small",
            param="epsilon",
            smallest_epsilon=least,
        )


def _granted(viewer: Viewer) -> sa.Select[Any]:
    return sa.select(budget_grant.c.budget_id).where(_grantee(viewer), _alive())


def _alive() -> sa.ColumnElement[bool]:
    """Whether a grant still lets anybody in: it is neither revoked nor over."""
    over = sa.func.coalesce(budget_grant.c.expires_at <= sa.func.now(), sa.false())
    return sa.and_(budget_grant.c.revoked_at.is_(None), ~over)


def _grantee(viewer: Viewer) -> sa.ColumnElement[bool]:
    own = budget_grant.c.key_id == viewer.key_id
    return own if viewer.project is None else sa.or_(own, budget_grant.c.project == viewer.project)
