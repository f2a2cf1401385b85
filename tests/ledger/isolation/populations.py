"""What sessions do to populations, files and budgets as such, each in one transaction."""

import sqlalchemy as sa

from ledger import losses
from tests.ledger.isolation.acts import act
from tests.ledger.isolation.sessions import Act, Names, sql


def bind(budget: str, *records: int) -> Act:
    rows = ", ".join(f"(decode(repeat('{r:02x}', 32), 'hex'))" for r in records)
    put = (
        f"INSERT INTO fingerprint (tenant_id, kind, mac, budget_id) SELECT :tenant, 'record', m.mac, :budget_{budget}"
        f" FROM (VALUES {rows}) AS m (mac) ON CONFLICT DO NOTHING"
    )
    return sql(f"bind {', '.join(map(str, records))} to {budget}", "api", put)


def bind_as_the_service(budget: str, *records: int) -> Act:
    """In chunks, in the order of the file, under the tenant's lock."""
    chunks = [bind(budget, record) for record in records]

    def run(c: sa.Connection, names: Names) -> None:
        c.execute(sa.select(sa.func.ledger.lock_population(names["tenant"])))
        for chunk in chunks:
            chunk.run(c, names)

    return act(f"bind {', then '.join(map(str, records))} to {budget} under the lock", "api", run)


def bind_and_seal(budget: str, *records: int) -> Act:
    """What waits for the commit comes at once, so that the budget is locked before it."""
    name = f"bind {', '.join(map(str, records))} to {budget} and seal at once"
    now = sql("seal", "api", "SET CONSTRAINTS ALL IMMEDIATE")
    return act(name, "api", lambda c, n: (bind(budget, *records).run(c, n), now.run(c, n)))


def file(name: str, budget: str = "a") -> Act:
    """Checked, as the API inserts it; sealed in the budget's chain when that commits."""
    return sql(
        "put a file",
        "api",
        "INSERT INTO file (id, tenant_id, purpose, filename, bytes, sha256, status, blob, binding, budget_id, declared_size,"
        f" max_length) VALUES (:{name}, :tenant, 'fine-tune', 'f', 1, 's', 'processed', :{name},"
        f" decode(repeat('00', 32), 'hex'), :budget_{budget}, 10, 8)",
    )


def file_that_binds(name: str, budget: str, *records: int) -> Act:
    """As an upload: the records, then the file, in one transaction."""
    return act(
        f"put a file that binds {', '.join(map(str, records))} to {budget}",
        "api",
        lambda c, n: (bind(budget, *records).run(c, n), file(name, budget).run(c, n)),
    )


def open_budget(name: str = "budget_c") -> Act:
    return sql(
        "open",
        "api",
        "INSERT INTO ledger.budget (id, tenant_id, name, epsilon, delta, unit, reference, weight_numerators, weight_denominator)"
        f" SELECT :{name}, tenant_id, name, epsilon, delta, unit, reference, weight_numerators, weight_denominator"
        " FROM ledger.budget WHERE id = :budget_a",
    )


ASK = sql(
    "ask", "api", "INSERT INTO question (file_id, tenant_id, upload, found) VALUES (:file_q, :tenant, '{}', '{}')"
)


def answer(said: str) -> Act:
    return sql(
        f"answer {said}",
        "api",
        f"UPDATE question SET answer = '{said}', answered_by = :steward, reason = 'r' WHERE file_id = :file_q",
    )


def key(of: str) -> Act:
    """There is one in each database, so that none is added."""
    return sql(f"key {of}", "api", f"INSERT INTO fingerprint_key (mark) VALUES (sha256('{of}'))")


LOSE = sql(
    "note a loss",
    "api",
    "INSERT INTO ledger.lost_budget (budget_id, seq, hash) VALUES (:lost, 1, decode(repeat('00', 32), 'hex'))",
)
ACCEPT = act("accept the loss", "admin", lambda c, n: losses.accept(c, n["lost"], "r"))
BARE_ACCEPT = sql(
    "accept without looking", "admin", "UPDATE ledger.lost_budget SET accepted_reason = 'again' WHERE budget_id = :lost"
)
