"""What the ledger refuses, as exceptions. The database decides; this only names its answer."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa


class LedgerError(Exception):
    """The database refused a ledger statement; the transaction must be rolled back."""


class BudgetExceeded(LedgerError):
    """No order has room for what was asked (SQLSTATE 23514, constraint never_overspent)."""


class GrantExceeded(LedgerError):
    """The budget may have room, but the sub-limit of the grant has not (SQLSTATE 23514, grant_never_overspent)."""


class StepsExhausted(LedgerError):
    """More steps than the reservation holds (SQLSTATE 23514, never_more_steps_than_reserved)."""


class StaleFence(LedgerError):
    """Somebody else works on the job, or the lease has run out (TC001)."""


class StopRequested(LedgerError):
    """The job was asked to stop; nothing more is authorised (TC002)."""


class BudgetFrozen(LedgerError):
    """The budget is frozen; nothing is reserved or authorised (TC003)."""


class AlreadySettled(LedgerError):
    """The reservation is settled; nothing more is authorised or settled (TC004)."""


class ReservationExpired(LedgerError):
    """The reservation is past its age; nothing more is authorised (TC005)."""


class NotGranted(LedgerError):
    """The submitting key has no grant of the budget, or no longer (TC007)."""


class WaitsForApproval(LedgerError):
    """A steward has to approve the job before anybody works on it (TC008)."""


class NotWaiting(LedgerError):
    """The job does not wait for a steward (TC009)."""


class PauseRequested(LedgerError):
    """The job is paused: nobody claims it and nothing more is authorised (TC010)."""


class LedgerIncomplete(LedgerError):
    """The witness saw a budget that the database has lost: nobody is taken in until the operator accepts it (TC012)."""


class RoundClosed(LedgerError):
    """The round is over; a silo's message comes too late for it (TC013)."""


class GrantEnded(LedgerError):
    """The grant that pays for the job has ended; the job is approved no more (TC014)."""


class IntendedUseMissing(LedgerError):
    """The budget wants to know what a job is for, and this one does not say (TC015)."""


class AlreadyGranted(LedgerError):
    """The key or the project has a grant of the budget (one_grant_of_a_key, one_grant_of_a_project)."""


_BY_STATE: dict[str, type[LedgerError]] = {
    "TC001": StaleFence,
    "TC002": StopRequested,
    "TC003": BudgetFrozen,
    "TC004": AlreadySettled,
    "TC005": ReservationExpired,
    "TC007": NotGranted,
    "TC008": WaitsForApproval,
    "TC009": NotWaiting,
    "TC010": PauseRequested,
    "TC012": LedgerIncomplete,
    "TC013": RoundClosed,
    "TC014": GrantEnded,
    "TC015": IntendedUseMissing,
}
_BY_CONSTRAINT: dict[str, type[LedgerError]] = {
    "never_overspent": BudgetExceeded,
    "grant_never_overspent": GrantExceeded,
    "one_grant_of_a_key": AlreadyGranted,
    "one_grant_of_a_project": AlreadyGranted,
    "never_more_steps_than_reserved": StepsExhausted,
    "one_settlement": AlreadySettled,
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn the database's refusals into LedgerErrors; anything else passes through."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        cause = error.orig
        if not isinstance(cause, psycopg.Error):
            raise
        kind = _BY_STATE.get(cause.sqlstate or "") or _BY_CONSTRAINT.get(cause.diag.constraint_name or "")
        if kind is None:
            raise
        raise kind(cause.diag.message_primary or str(kind.__doc__)) from error
