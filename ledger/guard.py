"""Whether the database still has the triggers, constraints, functions and rights that this revision counts on.

A service that finds otherwise refuses to admit: a ledger without its triggers is a table of numbers.
"""

import hashlib
import json
from functools import lru_cache
from importlib import resources

import sqlalchemy as sa

from dpcore.terms import accounting

MANIFEST = "manifest.json"
"""What a database at this revision has; `read_manifest` of a freshly migrated one."""

SECTIONS = ("tables", "columns", "indexes", "triggers", "constraints", "functions", "rights", "settings", "curves")
"""What is read of the catalogue: a query each in ledger/catalogue, of names and what belongs to them."""


class TamperedDatabase(RuntimeError):
    """The database lacks something that the ledger's promise rests on, or has something that undoes it."""


def read_manifest(connection: sa.Connection) -> dict[str, dict[str, str]]:
    """What the database has, by section, and what its functions answer. Any login may ask."""
    # So that every name is printed in full, whatever path waits for the login.
    connection.exec_driver_sql("SET LOCAL search_path = pg_catalog; SET LOCAL extra_float_digits = 1")
    manifest = {name: {k: str(v) for k, v in connection.execute(_query(name))} for name in SECTIONS}
    values = connection.execute(_query("values")).scalar_one()
    connection.exec_driver_sql("SET LOCAL search_path TO DEFAULT; SET LOCAL extra_float_digits TO DEFAULT")
    return {**manifest, "values": {"samples": hashlib.sha256(str(values).encode()).hexdigest()}}


@lru_cache
def _query(name: str) -> sa.TextClause:
    return sa.text(resources.files("ledger").joinpath("catalogue", f"{name}.sql").read_text())


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
    orders = accounting.BASE_ORDERS
    priced = connection.execute(
        sa.select(sa.func.ledger.poisson_gaussian_curve(0.9, 0.02, sa.cast(orders, sa.ARRAY(sa.Integer))))
    ).scalar_one()
    if not all(p <= o for p, o in zip(priced, accounting.curve(0.9, 0.02, orders), strict=True)):
        wrong.append("values: the price of a step is not what this release computes")
    if wrong:
        raise TamperedDatabase(
            "the database is not as this release's migrations leave it; nothing is admitted until it is: "
            + "; ".join(wrong[:10])
        )
