"""Whether the database still has the triggers, constraints, functions and rights that this revision counts on.

A service that finds otherwise refuses to admit: a ledger without its triggers is a table of numbers.
"""

import hashlib
import json
from importlib import resources

import sqlalchemy as sa

from dpcore.spec import accounting

MANIFEST = "manifest.json"
"""What a database at this revision has; `read_manifest` of a freshly migrated one."""

_TRIGGERS = """
SELECT c.relnamespace::regnamespace || '.' || c.relname || '.' || t.tgname,
       concat_ws(' ', t.tgfoid::regproc, t.tgtype, t.tgenabled, t.tgdeferrable, t.tginitdeferred)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
"""
_CONSTRAINTS = """
SELECT c.relnamespace::regnamespace || '.' || c.relname || '.' || k.conname,
       concat_ws(' ', pg_get_constraintdef(k.oid), k.convalidated)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE k.contype IN ('c', 'f', 'p', 'u') AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
"""
# Bodies in SQL-standard form are stored parsed and printed differently by different servers: they are asked for values.
_FUNCTIONS = """
SELECT p.oid::regprocedure::text,
       concat_ws(' ', encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex'), p.prosecdef)
FROM pg_proc p WHERE p.pronamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
"""
_RIGHTS = """
SELECT concat_ws(' ', r.login, t.privilege, c.relnamespace::regnamespace || '.' || c.relname || '.' || a.attname), ''
FROM (VALUES ('tacit_api'), ('tacit_worker')) AS r (login), (VALUES ('INSERT'), ('UPDATE')) AS t (privilege),
     pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind = 'r' AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
  AND has_column_privilege(r.login, c.oid, a.attnum, t.privilege)
UNION ALL
SELECT concat_ws(' ', r.login, t.privilege, c.relnamespace::regnamespace || '.' || c.relname), ''
FROM (VALUES ('tacit_api'), ('tacit_worker')) AS r (login),
     (VALUES ('DELETE'), ('TRUNCATE'), ('TRIGGER')) AS t (privilege), pg_class c
WHERE c.relkind = 'r' AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
  AND has_table_privilege(r.login, c.oid, t.privilege)
"""
_VALUES = """
SELECT ledger.poisson_gaussian_curve(1.1, 0.01)::text
    || ledger.caps(8, 0.00001, '{3,3,77,3,3,3,3,3,3,3,3,3}', 110)::text
    || ledger.fits('{1,5}', '{2,2}', '{0,3}')::text || ledger.fits('{1,5}', '{2,2}', '{0,4}')::text
    || ledger.times('{3,9007199254740992}', 2)::text || ledger.plus('{3,9007199254740992}', '{1,1}')::text
    || ledger.orders()::text || ledger.packed('a', 'bc')::text
"""


class TamperedDatabase(RuntimeError):
    """The database lacks something that the ledger's promise rests on, or has something that undoes it."""


def read_manifest(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """What the database has: triggers, constraints, functions, the service logins' rights, and sample values."""
    sections = {"triggers": _TRIGGERS, "constraints": _CONSTRAINTS, "functions": _FUNCTIONS, "rights": _RIGHTS}
    manifest = {name: {k: str(v) for k, v in connection.exec_driver_sql(q)} for name, q in sections.items()}
    values = connection.exec_driver_sql(_VALUES).scalar_one()
    return {**manifest, "values": {"samples": hashlib.sha256(str(values).encode()).hexdigest()}}


def require_intact(connection: sa.Connection) -> None:
    """Raises TamperedDatabase naming what is missing, changed or new."""
    expected = json.loads(resources.files("ledger").joinpath(MANIFEST).read_text())
    actual = read_manifest(connection)
    wrong = []
    for section, wanted in expected.items():
        found = actual[section]
        wrong += [f"{section}: {name} is missing" for name in sorted(wanted.keys() - found.keys())]
        wrong += [f"{section}: {name} is not ours" for name in sorted(found.keys() - wanted.keys())]
        wrong += [f"{section}: {n} has changed" for n in sorted(wanted.keys() & found.keys()) if wanted[n] != found[n]]
    priced = connection.execute(sa.select(sa.func.ledger.poisson_gaussian_curve(0.9, 0.02))).scalar_one()
    if not all(p <= o for p, o in zip(priced, accounting.curve(0.9, 0.02), strict=True)):
        wrong.append("values: the price of a step is not what this release computes")
    if wrong:
        raise TamperedDatabase(
            "the database is not as this release's migrations leave it; nothing is admitted until it is: "
            + "; ".join(wrong[:10])
        )
