"""What a login may set for its own session must not change what the ledger decides."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from ledger.verify import verify_budget
from tests.ledger.hostile_stage import Stage, quoted, settled_in

NAMED: list[tuple[str, str]] = [
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("standard_conforming_strings", "off"),
    ("extra_float_digits", "-15"),
    ("TimeZone", "AAA-160BBB+160,M1.1.0,M12.1.0"),  # a day of 13 days and more
    ("TimeZone", "AAA+160BBB-160,M1.1.0,M12.1.0"),
    ("TimeZone", "Pacific/Kiritimati"),
    ("DateStyle", "German, DMY"),
    ("DateStyle", "SQL, MDY"),
    ("IntervalStyle", "sql_standard"),
    ("bytea_output", "escape"),
    ("search_path", "nothing"),
    ("search_path", "pg_temp, public, ledger"),
    ("row_security", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    ("plan_cache_mode", "force_custom_plan"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_isolation", "repeatable read"),
    ("client_encoding", "SQL_ASCII"),
    ("client_encoding", "LATIN1"),
]
"""Tried in every run; the others that the server knows in the whole one."""


@dataclass(frozen=True)
class Life:
    """What became of a tenant whose session had the setting. refused: by what error; None: all was taken."""

    setting: str
    refused: str | None
    numbers: Any
    findings: list[object]


def every_setting(stage: Stage) -> Iterator[tuple[str, str]]:
    """Each setting that any login may change, at its extremes."""
    rows = stage.root.execute(
        "SELECT name, vartype, setting, min_val, max_val, enumvals FROM pg_settings WHERE context = 'user' ORDER BY name"
    )
    for name, kind, now, least, most, words in rows.fetchall():
        if kind == "bool":
            yield name, "off" if now == "on" else "on"
        elif kind == "enum":
            yield from ((name, word) for word in words if word != now)
        elif kind in ("integer", "real"):
            yield from ((name, value) for value in (least, most) if value != now)
        else:
            yield name, ""


def live(stage: Stage, setting: tuple[str, str], tenant: str) -> Life:
    """A tenant's life with the setting in the sessions of both logins; what it has, as the default session reads it."""
    name, value = setting
    refused = None
    try:
        sessions = {
            login: psycopg.connect(stage.url(login), autocommit=True, prepare_threshold=None) for login in stage.logins
        }
        try:
            for session in sessions.values():
                session.execute(f"SET {name} = {value if value and name == 'search_path' else quoted(value)}".encode())
            for login, statements in settled_in(tenant):
                sessions[login].execute("; ".join(statements).encode())
        finally:
            for session in sessions.values():
                session.close()
    except psycopg.Error as error:
        refused = f"{error.sqlstate} {str(error)[:100]}"
    ids = stage.root.execute("SELECT id FROM ledger.budget WHERE tenant_id = %s", [f"tenant_{tenant}"]).fetchall()
    findings: list[object] = [finding for (budget,) in ids for finding in verify_budget(stage.api, budget)]
    numbers = stage.root.execute(_NUMBERS, {"budget": f"budget_{tenant}"}).fetchall()
    return Life(f"{name} = {value!r}", refused, numbers, findings)


_NUMBERS = """
SELECT b.orders::text, b.weight_numerators::text, b.cap::text, b.spent::text, b.reserved::text, b.head_seq, b.frozen_reason,
  (SELECT string_agg(concat_ws(' ', p.step_cost::text, p.reserved::text, p.steps_authorised, p.noise_multiplier, p.sample_rate,
     r.state, r.waits, r.expires_at - r.created_at > '29 days', r.expires_at - r.created_at < '31 days',
     r.starts_by - r.created_at > '6 days', r.starts_by - r.created_at < '8 days'), '; ' ORDER BY r.id)
   FROM ledger.reservation r JOIN ledger.phase p ON p.reservation_id = r.id WHERE r.budget_id = b.id),
  (SELECT string_agg(concat_ws(' ', g.cap::text, g.spent::text, g.reserved::text, g.epsilon), '; ') FROM ledger.budget_grant g
   WHERE g.budget_id = b.id),
  (SELECT string_agg(concat_ws(' ', e.kind, e.spent_change::text, e.reserved_change::text, e.actor, e.at > now() - interval '1 hour'),
     '; ' ORDER BY e.seq) FROM ledger.entry e WHERE e.budget_id = b.id)
FROM ledger.budget b WHERE b.id = %(budget)s"""
