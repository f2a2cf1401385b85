"""The rows of a world as they can be compared with those of another, and whether they pay for what was authorised."""

import json
from typing import Any

import sqlalchemy as sa

from dpcore.terms import accounting

Rows = dict[str, list[dict[str, Any]]]
"""By table."""


def read(connection: sa.Connection, world: str) -> Rows:
    rows: Rows = {table: [] for table in _BY}
    for table, row in connection.execute(_ROWS, {"world": f"{world}-%"}):
        rows[table].append(row)
    return rows


def text(rows: Rows, world: str) -> str:
    """Without the world's prefix and without what tells of the run alone; a line for each row."""
    shown = [f"{table} {_plain(row)}" for table, found in rows.items() for row in found]
    return "\n".join(sorted(shown)).replace(f"{world}-", "")


def unpaid(rows: Rows) -> list[str]:
    """Budgets that do not cover each authorised step of their open and settled jobs at its price, from the rows alone."""
    found = []
    of = {r["id"]: r for r in rows["ledger.reservation"]}
    steps: dict[tuple[str, int], int] = {}
    for a in rows["ledger.authorisation"]:
        place = a["reservation_id"], a["ordinal"]
        steps[place] = steps.get(place, 0) + a["steps"]
    for b in rows["ledger.budget"]:
        due = {"reserved": [0] * len(b["orders"]), "settled": [0] * len(b["orders"])}
        for p in rows["ledger.phase"]:
            reservation = of[p["reservation_id"]]
            if reservation["budget_id"] == b["id"]:
                taken = steps.get((p["reservation_id"], p["ordinal"]), 0)
                taken = max(taken, p["steps_max"]) if p["indivisible"] and taken else taken
                sums = due[reservation["state"]]
                sums[:] = [s + c for s, c in zip(sums, accounting.cost(tuple(p["step_cost"]), taken), strict=True)]
        most = accounting.SATURATION
        for spent, reserved, settled, open_ in zip(
            b["spent"], b["reserved"], due["settled"], due["reserved"], strict=True
        ):
            if spent < min(settled, most) or spent + reserved < min(settled + open_, most):
                found.append(f"{b['id']}: {spent} spent and {reserved} reserved for {settled} settled and {open_} open")
                break
    return found


def _plain(row: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in sorted(row.items()) if k not in _FLEETING})


_FLEETING = {
    "hash",
    "prev_hash",
    "head_hash",
    "salt",
    "at",
    "created_at",
    "noticed_at",
    "expires_at",
    "opened_at",
    "closes_at",
    "begun_at",
}
"""Columns that tell of the run, not of what was decided: times, and hashes over times and ids, which verification checks."""
_SHOWN = {
    "ledger.work": "'lease_until', lease_until > clock_timestamp(), 'paused_at', paused_at IS NOT NULL",
    "ledger.reservation": "'starts_by', extract(day FROM starts_by - created_at + interval '1 hour')",
    "ledger.budget_grant": "'revoked_at', revoked_at IS NOT NULL",
    "ledger.authorisation": "'seq', 0",
    "ledger.entry": "'detail', detail - 'signature' - 'signer' - 'digest',"
    " 'seals_what_is_there', detail ->> 'digest' = ledger.records_digest(budget_id)",
    "ledger.lost_budget": "'accepted_at', accepted_at IS NOT NULL",
    "public.file": "'deleted_at', deleted_at IS NOT NULL",
    "public.question": "'answered_at', answered_at IS NOT NULL",
    "public.invitation": "'accepted_at', accepted_at IS NOT NULL, 'withdrawn_at', withdrawn_at IS NOT NULL",
    "public.federated_round": "'closed_at', closed_at IS NOT NULL",
    "public.silo_round": "'sent_at', sent_at IS NOT NULL",
    "public.api_key": "'revoked_at', revoked_at IS NOT NULL, 'mac', convert_from(mac, 'UTF8')",
}
"""What is compared in place of a column that no two runs share."""
_BY = {
    "ledger.budget": "id",
    "ledger.budget_grant": "id",
    "ledger.reservation": "id",
    "ledger.phase": "reservation_id",
    "ledger.work": "job_id",
    "ledger.authorisation": "reservation_id",
    "ledger.entry": "budget_id",
    "ledger.population": "budget_id",
    "ledger.lost_budget": "budget_id",
    "public.file": "id",
    "public.job": "id",
    "public.job_file": "job_id",
    "public.release": "id",
    "public.checkpoint": "job_id",
    "public.fingerprint": "tenant_id",
    "public.question": "file_id",
    "public.api_key": "id",
    "public.data_key": "blob",
    "public.invitation": "id",
    "public.silo": "job_id",
    "public.federated_round": "job_id",
    "public.silo_round": "job_id",
}
"""Tables whose rows are compared, by the column that names the world."""
_ROWS = sa.text(
    " UNION ALL ".join(
        f"SELECT '{table}', to_jsonb(t) || jsonb_build_object({_SHOWN.get(table, '')}) FROM {table} AS t WHERE {column} LIKE :world"
        for table, column in _BY.items()
    )
)
