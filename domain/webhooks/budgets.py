"""How a budget stands, as far as webhooks tell of it."""

from typing import Any

import sqlalchemy as sa

from ledger.budgets import UnreadableBudget, as_balance


def stand(row: sa.Row[Any], low_below: float) -> dict[str, Any]:
    """Whether less than a part of it is left, and whether it is frozen; a row that is no budget is not told to be low.

    row: of `ledger.budget`.
    """
    try:
        low = as_balance(row).share_left < low_below
    except UnreadableBudget:
        low = False
    return {"seq": row.head_seq, "low": low, "frozen": row.frozen_reason is not None}
