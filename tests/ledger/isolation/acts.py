"""What sessions do to the ledger, each in one transaction: as the services do it, or as whoever has a password could."""

from collections.abc import Callable
from decimal import Decimal

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.kit import tables
from ledger import grants, policy, work
from ledger.errors import AlreadySettled
from ledger.grants import GrantTerms
from ledger.reserve import Charge, Priced, reserve, settle
from tests.ledger.isolation.sessions import Act, Login, Names, sql

STEPS = 100
EDGE = 10_000
"""Steps of a job that fits into a budget of 8 once and no second time."""
HALF = Decimal(4)
"""A limit that such a job does not fit into."""
QUARTER = Decimal("0.25")
"""A share that a sixth of such a job fits into once and no second time."""
POLICY = Ed25519PrivateKey.generate()


def act(name: str, login: Login, run: Callable[[sa.Connection, Names], object]) -> Act:
    """An act through the package's own functions. None of them answers more than its client may learn."""
    return Act(name, login, run)


# Reserving and settling.


def submission(
    job: str = "job",
    steps: int = STEPS,
    *,
    by: str = "steward",
    budgets: str = "a",
    indivisible: bool = False,
    teacher: str | None = None,
) -> Act:
    """As the API submits: one transaction of several statements, over budgets in this order."""

    def run(c: sa.Connection, names: Names) -> object:
        tenant = {"tenant_id": names["tenant"], "created_by": names[by], "model": "m", "seed": 0}
        tenant |= {} if teacher is None else {"teacher_job": names[teacher]}
        c.execute(tables.job.insert().values(id=names[job], **tenant, method={}, plan={}, privacy={}))
        for b in budgets:
            place = {"file_id": names[f"file_{b}"], "budget_id": names[f"budget_{b}"]}
            c.execute(tables.job_file.insert().values(job_id=names[job], **place))
        phases = [Priced(0.01, 1.0, steps, indivisible)]
        charges = [Charge(names[f"{job}_{b}"], names[f"file_{b}"], names[f"budget_{b}"], phases) for b in budgets]
        return len(reserve(c, names[job], charges))

    words = [
        f"reserve {steps} steps" + (f" of {budgets}" if len(budgets) > 1 else ""),
        "" if by == "steward" else f"as {by}",
        "" if teacher is None else f"taught by {teacher}",
    ]
    return act(" ".join(w for w in words if w), "api", run)


def settlement(outcome: str = "succeeded", job: str = "job", *, fence: int | None = 1, budget: str = "a") -> Act:
    """The bare entry, so that the database's answer shows."""
    worker: Login = "worker" if fence is not None else "api"
    named = "budget_id, kind, reservation_id, outcome" + (", fence" if fence is not None else "")
    values = f":budget_{budget}, 'settle', :{job}_{budget}, '{outcome}'" + (f", {fence}" if fence is not None else "")
    how = f"under fence {fence}" if fence is not None else "without a fence"
    return sql(f"settle as {outcome} {how}", worker, f"INSERT INTO ledger.entry ({named}) VALUES ({values})")


def _settled(c: sa.Connection, names: Names) -> int:
    try:
        return len(settle(c, names["job"], "cancelled", 1))
    except AlreadySettled:  # as if there had been nothing to settle; the transaction is at its end
        return 0


SETTLE_ALL = act("settle every budget of the job", "worker", _settled)


def authorisation(steps: int = 10, job: str = "job", *, fence: int = 1, budget: str = "a") -> Act:
    statement = "INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps)"
    values = f" VALUES (:{job}_{budget}, 0, {fence}, {steps})"
    return sql(f"authorise {steps} steps", "worker", statement + values)


AUTHORISE_ALL = act(
    "authorise 10 steps of every budget", "worker", lambda c, n: work.authorise(c, work.Lease(n["job"], 1), 0, 10)
)


# The fence.


def _claimed(c: sa.Connection, names: Names, job: str) -> str:
    lease = work.claim(c, names[job], "w", 60)
    return "nothing" if lease is None else f"fence {lease.fence}"


def claim(job: str = "job") -> Act:
    return act("claim", "worker", lambda c, n: _claimed(c, n, job))


BARE_CLAIM = sql(
    "claim without looking",
    "worker",
    "UPDATE ledger.work SET fence = fence + 1, owner = 'x', lease_until = clock_timestamp() + interval '1 minute'"
    " WHERE job_id = :job",
)
_LAPSE = "UPDATE ledger.work SET lease_until = clock_timestamp() WHERE job_id = :job"
LAPSE = sql("let the lease run out", "worker", _LAPSE)


def _taken_over(c: sa.Connection, names: Names) -> str:
    LAPSE.run(c, names)
    return _claimed(c, names, "job")


TAKE_OVER = act("claim after the lease ran out", "worker", _taken_over)
RENEW = act("renew", "worker", lambda c, n: work.renew(c, work.Lease(n["job"], 1), 60))
DROP = act("give the lease back", "worker", lambda c, n: work.drop(c, work.Lease(n["job"], 1)))
EXCUSE = act("let go for a pause", "worker", lambda c, n: work.excuse(c, work.Lease(n["job"], 1)))
PAUSE = act("pause", "api", lambda c, n: work.pause(c, n["job"]))
RESUME = act("resume", "api", lambda c, n: work.resume(c, n["job"]))
STOP = act("ask to stop", "api", lambda c, n: work.request_stop(c, n["job"]))
CHECKPOINT = sql(
    "checkpoint",
    "worker",
    "INSERT INTO checkpoint (job_id, fence, step, blob) VALUES (:job, 1, 10, 'jobs/' || :job || '/checkpoints/b')",
)


def release(name: str, job: str = "job") -> Act:
    return sql(
        "release",
        "worker",
        "INSERT INTO file (id, tenant_id, purpose, filename, bytes, sha256, status, blob, binding)"
        f" VALUES (:{name}, :tenant, 'fine-tune-results', 'f', 1, 's', 'processed', :{name}, decode(repeat('00', 32), 'hex'))",
        f"INSERT INTO release (id, job_id, file_id, kind, fence) VALUES (:{name}, :{job}, :{name}, 'adapter', 1)",
    )


# Decisions about a budget.

FREEZE = act("freeze", "api", lambda c, n: policy.freeze(c, n["budget_a"], "r"))
THAW = act("thaw", "admin", lambda c, n: policy.thaw(c, POLICY, n["budget_a"], "r"))
REPRICE = act("reprice", "admin", lambda c, n: policy.reprice(c, POLICY, n["budget_a"], "r"))
RECORDS = sql(
    "records",
    "api",
    """INSERT INTO ledger.entry (budget_id, kind, detail) VALUES (:budget_a, 'records', '{"reason": "r"}')""",
)


def lower(epsilon: Decimal = HALF) -> Act:
    return act(f"lower to {epsilon}", "api", lambda c, n: policy.lower_limit(c, n["budget_a"], epsilon, "r"))


def raise_(epsilon: int = 16) -> Act:
    run = lambda c, n: policy.raise_limit(c, POLICY, n["budget_a"], Decimal(epsilon), "r")  # noqa: E731
    return act(f"raise to {epsilon}", "admin", run)


def correct(nats: int = 7) -> Act:
    return act(
        f"correct by {nats}", "admin", lambda c, n: policy.correct(c, POLICY, n["budget_a"], [nats * 10**12] * 12, "r")
    )


def overlap(budget: str, other: str) -> Act:
    return act(
        f"different people in {budget} and {other}",
        "api",
        lambda c, n: policy.record_overlap(c, n[f"budget_{budget}"], n["file"], n[f"budget_{other}"], "r"),
    )


# Rights.


def give(
    name: str = "grant",
    *,
    key: str | None = "analyst",
    epsilon: Decimal | None = None,
    share: Decimal | None = None,
    by: str = "steward",
) -> Act:
    def run(c: sa.Connection, n: Names) -> None:
        who = {"key": None if key is None else n[key], "project": "lab" if key is None else None}
        terms = GrantTerms(epsilon=epsilon, share=share)
        grants.give(c, n["budget_a"], grant_id=n[name], **who, terms=terms, by=n[by])

    words = f"grant to the {'project' if key is None else 'key'}"
    return act(words if by == "steward" else f"{words} by {by}", "api", run)


def revoke(name: str = "grant", by: str = "steward") -> Act:
    return act("revoke the grant", "api", lambda c, n: grants.revoke(c, n["budget_a"], n[name], n[by]))


def rules(above: str | None = "0.000001", days: int = 1, by: str = "steward", budget: str = "a") -> Act:
    limit = None if above is None else Decimal(above)
    return act(
        f"rules: wait above {above}, {days} days",
        "api",
        lambda c, n: grants.set_rules(
            c, n[f"budget_{budget}"], approval_above=limit, queue_days=days, by=n[by], reason="r"
        ),
    )


def approve(by: str = "second") -> Act:
    return sql(
        f"approve by {by}",
        "api",
        "INSERT INTO ledger.entry (budget_id, kind, reservation_id, detail)"
        f" VALUES (:budget_a, 'approve', :job_a, jsonb_build_object('by', CAST(:{by} AS text)))",
    )


def revoke_key(key: str = "second") -> Act:
    return sql(
        f"revoke the key of {key}", "api", f"UPDATE api_key SET revoked_at = clock_timestamp() WHERE id = :{key}"
    )


def rotate_key(secret: str, key: str = "second") -> Act:
    change = f"UPDATE api_key SET mac = convert_to(:{secret}, 'UTF8'), seal = NULL WHERE id = :{key}"
    return sql(f"rotate the key of {key}", "api", change)


# Rows that change once.

RESTORE_FILE = sql("restore the file", "api", "UPDATE file SET deleted_at = NULL WHERE id = :file_a")
DELETE_FILE = sql("delete the file", "api", "UPDATE file SET deleted_at = clock_timestamp() WHERE id = :file_a")
FINISH = sql("finish the job", "worker", "UPDATE job SET status = 'succeeded' WHERE id = :job")
CANCEL = sql("cancel the job", "api", "UPDATE job SET status = 'cancelled' WHERE id = :job")


def _cheap(c: sa.Connection, _: Names) -> None:
    """From here on a step costs half, as if the pricing function had been wrong."""
    for statement in (
        "SET LOCAL ROLE tacit_owner",
        "ALTER FUNCTION ledger.poisson_gaussian_curve(float8, float8, int[]) RENAME TO true_curve",
        "CREATE FUNCTION ledger.poisson_gaussian_curve(s float8, q float8, o int[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE"
        " RETURN (SELECT array_agg(c / 2 ORDER BY i) FROM unnest(ledger.true_curve(s, q, o)) WITH ORDINALITY AS u (c, i))",
        "GRANT EXECUTE ON FUNCTION ledger.poisson_gaussian_curve(float8, float8, int[]) TO tacit_api, tacit_worker",
    ):
        c.exec_driver_sql(statement)


def _dear(c: sa.Connection, _: Names) -> None:
    c.exec_driver_sql("DROP FUNCTION ledger.poisson_gaussian_curve(float8, float8, int[])")
    c.exec_driver_sql("ALTER FUNCTION ledger.true_curve(float8, float8, int[]) RENAME TO poisson_gaussian_curve")


def at_half_price(*acts: Act) -> list[Act]:
    return [act("half price", "root", _cheap), *acts, act("true price", "root", _dear)]


# A submission, statement by statement.

_PARTS = {
    "job": "INSERT INTO job (id, tenant_id, created_by, model, method, plan, privacy, seed)"
    " VALUES (:job, :tenant, :steward, 'm', '{}', '{}', '{}', 0)",
    "job_file": "INSERT INTO job_file (job_id, file_id, budget_id) VALUES (:job, :file_a, :budget_a)",
    "work": "INSERT INTO ledger.work (job_id) VALUES (:job)",
    "reservation": "INSERT INTO ledger.reservation (id, job_id, file_id, budget_id) VALUES (:job_a, :job, :file_a, :budget_a)",
    "phase": "INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max)"
    f" VALUES (:job_a, 0, 0.01, 1.0, {STEPS})",
    "entry": "INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES (:budget_a, 'reserve', :job_a)",
}
RESERVING = ("reservation", "phase", "entry")
SUBMITTING = ("job", "job_file", "work", *RESERVING)


def parts(name: str, *of: str) -> Act:
    return sql(name, "api", *(_PARTS[part] for part in of))


SECOND_PHASE = sql(
    "add a phase",
    "api",
    "INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max) VALUES (:job_a, 1, 0.01, 1.0, 9)",
)
ALSO_B = sql(
    "reserve of budget b for the same job",
    "api",
    "INSERT INTO job_file (job_id, file_id, budget_id) VALUES (:job, :file_b, :budget_b)",
    "INSERT INTO ledger.reservation (id, job_id, file_id, budget_id) VALUES (:job_b, :job, :file_b, :budget_b)",
    "INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max) VALUES (:job_b, 0, 0.01, 1.0, 9)",
    "INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES (:budget_b, 'reserve', :job_b)",
)
APPROVE_B = sql(
    "approve by second",
    "api",
    "INSERT INTO ledger.entry (budget_id, kind, reservation_id, detail)"
    " VALUES (:budget_b, 'approve', :job_b, jsonb_build_object('by', CAST(:second AS text)))",
)
REGRANT = act(
    "revoke the grant and give another",
    "api",
    lambda c, n: (revoke().run(c, n), give("grant2").run(c, n)),
)
