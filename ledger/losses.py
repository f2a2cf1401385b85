"""Budgets that a restore of the database has lost."""

import sqlalchemy as sa

from ledger.tables import lost_budget


def accept(connection: sa.Connection, budget_id: str, reason: str) -> None:
    """Go on without a lost budget: whoever was in it counts as new. Admin login.

    Raises sqlalchemy.exc.NoResultFound where none of that id is waiting.
    """
    waiting = sa.update(lost_budget).where(lost_budget.c.budget_id == budget_id, lost_budget.c.accepted_at.is_(None))
    connection.execute(waiting.values(accepted_reason=reason).returning(lost_budget.c.budget_id)).one()
