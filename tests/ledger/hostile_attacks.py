"""Transactions that are more than one odd value: what a thief of a service's password would try."""

from tests.ledger.hostile_recipes import NEW, entry
from tests.ledger.hostile_stage import as_json, budget_row, insert, job_row, reserved

_NEW = reserved("a", "new")
_CHARGE = _NEW[5]
_RUNNING = "('resv_a_running', 0, 1, 5)"
_AUTHORISE = "INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES"
_SETTLE = insert("ledger.entry", entry("settle", None, "resv_a_running", "succeeded") | {"fence": "1"})
_PHASE = "INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max) VALUES"


def _of_another(job_tenant: str, file: str, budget: str) -> list[str]:
    return [
        insert("public.job", job_row(job_tenant, NEW, f"key_{job_tenant}")),
        f"INSERT INTO public.job_file (job_id, file_id, budget_id) VALUES ('{NEW}', '{file}', '{budget}')",
        f"INSERT INTO ledger.work (job_id) VALUES ('{NEW}')",
        f"INSERT INTO ledger.reservation (id, job_id, file_id, budget_id) VALUES ('resv_a_new', '{NEW}', '{file}', '{budget}')",
        f"{_PHASE} ('resv_a_new', 0, 0.01, 2, 40)",
        f"INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES ('{budget}', 'reserve', 'resv_a_new')",
    ]


def _taught(teacher: str) -> list[str]:
    """A job that would learn from this one."""
    return [insert("public.job", job_row("a", NEW, "key_a") | {"teacher_job": f"'{teacher}'"}), *_NEW[1:6]]


def _decision(kind: str, detail: dict[str, str], reservation: str | None = None) -> str:
    return insert("ledger.entry", entry(kind, detail | {"reason": "r", "by": "key_a"}, reservation))


def _released(file: str, *before: str) -> list[str]:
    return [
        _SETTLE,
        *before,
        f"INSERT INTO public.release (id, job_id, file_id, kind, fence) VALUES ('release_new', 'job_a_running', '{file}', 'adapter', 1)",
    ]


ATTACKS: list[tuple[str, str, list[str]]] = [
    ("tacit_api", "a job of one tenant pays with the budget of another", _of_another("a", "file_b", "budget_b")),
    ("tacit_api", "a file of one budget is charged to another", _of_another("a", "file_a", "budget_a_spare")),
    *(
        ("tacit_api", f"a job learns from {whose}", _taught(teacher))
        for whose, teacher in (
            ("a job of another budget", "job_b_done"),
            ("a job that has released nothing", "job_a_running"),
            ("itself", NEW),
        )
    ),
    ("tacit_api", "a job without its reservation", _NEW[:2]),
    ("tacit_api", "a job without its charge", _NEW[:5]),
    ("tacit_api", "a charge before its phases", [*_NEW[:4], _CHARGE, _NEW[4]]),
    ("tacit_api", "a phase after the charge", [*_NEW[:6], f"{_PHASE} ('resv_a_new', 1, 1, 0.3, 9)"]),
    (
        "tacit_api",
        "a phase after the charge, in one statement",
        [
            *_NEW[:4],
            f"WITH p AS ({_NEW[4]}), c AS ({_CHARGE} RETURNING 1), q AS ({_PHASE} ('resv_a_new', 1, 1, 0.3, 9)) SELECT * FROM c",
        ],
    ),
    ("tacit_api", "a charge without work on its job", [*_NEW[:2], *_NEW[3:6]]),
    ("tacit_api", "phases that are numbered from 1", [*_NEW[:4], f"{_PHASE} ('resv_a_new', 1, 0.01, 2, 40)", _CHARGE]),
    (
        "tacit_api",
        "a loss of a budget that is there",
        ["INSERT INTO ledger.lost_budget (budget_id, seq, hash) VALUES ('budget_b', 5, sha256('h'))"],
    ),
    ("tacit_api", "two charges at once", [*_NEW[:5], f"{_CHARGE}, ('budget_a', 'reserve', 'resv_a_new')"]),
    ("tacit_api", "two charges, the second dropped", [*_NEW[:6], f"{_CHARGE} ON CONFLICT DO NOTHING"]),
    (
        "tacit_api",
        "two openings, the second dropped",
        [insert("ledger.entry", entry("open")) + " ON CONFLICT DO NOTHING"],
    ),
    (
        "tacit_api",
        "two settlements at once",
        [
            "INSERT INTO ledger.entry (budget_id, kind, reservation_id, outcome) VALUES"
            " ('budget_a', 'settle', 'resv_a_queued', 'cancelled'), ('budget_a', 'settle', 'resv_a_queued', 'cancelled')"
        ],
    ),
    (
        "tacit_api",
        "a settlement over a live lease",
        [insert("ledger.entry", entry("settle", None, "resv_a_running", "cancelled"))],
    ),
    ("tacit_api", "deferred for ever", ["SET CONSTRAINTS ALL DEFERRED", *_NEW[:5], "SET CONSTRAINTS ALL DEFERRED"]),
    (
        "tacit_api",
        "a stop is taken back",
        ["UPDATE ledger.work SET stop_requested = true", "UPDATE ledger.work SET stop_requested = false"],
    ),
    (
        "tacit_api",
        "a reference job that never fits",
        [
            insert(
                "ledger.budget",
                budget_row("budget_new", "a")
                | {
                    "epsilon": "5.5",
                    "reference": as_json({"sample_rate": 1, "steps": 10_000_000, "noise_multiplier": None}),
                },
            ),
        ],
    ),
    ("tacit_api", "a limit is raised", [_decision("limit", {"epsilon": "9"})]),
    (
        "tacit_api",
        "a limit is raised by a hair",
        [_decision("limit", {"epsilon": "8.0000000000000000000000000000001"})],
    ),
    (
        "tacit_api",
        "an approval of one's own job",
        [
            insert("ledger.entry", entry("approve", {"by": "analyst_a"}, "resv_a_waiting")),
        ],
    ),
    (
        "tacit_api",
        "an approval by another tenant's steward",
        [
            insert("ledger.entry", entry("approve", {"by": "key_b"}, "resv_a_waiting")),
        ],
    ),
    (
        "tacit_api",
        "an approval under another budget",
        [
            insert("ledger.entry", entry("approve", {"by": "key_b"}, "resv_a_waiting") | {"budget_id": "'budget_b'"}),
        ],
    ),
    ("tacit_api", "a thaw", [_decision("thaw", {})]),
    ("tacit_api", "a correction", [_decision("correction", {})]),
    ("tacit_api", "a new price", [_decision("reprice", {})]),
    ("tacit_worker", "more steps than were reserved", [f"{_AUTHORISE} ('resv_a_running', 0, 1, 31)"]),
    (
        "tacit_worker",
        "more steps than were reserved, in two rows",
        [f"{_AUTHORISE} {_RUNNING}, ('resv_a_running', 0, 1, 26)"],
    ),
    ("tacit_worker", "steps that are dropped", [f"{_AUTHORISE} {_RUNNING}, {_RUNNING} ON CONFLICT DO NOTHING"]),
    ("tacit_worker", "steps after the end", [_SETTLE, f"{_AUTHORISE} {_RUNNING}"]),
    (
        "tacit_worker",
        "steps and the end in one statement",
        [f"WITH s AS ({_SETTLE} RETURNING 1), a AS ({_AUTHORISE} {_RUNNING}) SELECT * FROM s"],
    ),
    (
        "tacit_worker",
        "the end and steps in one statement",
        [f"WITH a AS ({_AUTHORISE} {_RUNNING} RETURNING 1), s AS ({_SETTLE}) SELECT * FROM a"],
    ),
    ("tacit_worker", "steps of a job of another fence", [f"{_AUTHORISE} ('resv_b_running', 0, 2, 1)"]),
    (
        "tacit_worker",
        "steps of a job that waits",
        [
            "UPDATE ledger.work SET fence = 1, owner = 'w', lease_until = clock_timestamp() + interval '1 minute' WHERE job_id = 'job_a_waiting'",
            f"{_AUTHORISE} ('resv_a_waiting', 0, 1, 1)",
        ],
    ),
    ("tacit_worker", "a fence that jumps", ["UPDATE ledger.work SET fence = fence + 2 WHERE job_id = 'job_a_queued'"]),
    (
        "tacit_worker",
        "a lease is let go, then the job is cancelled",
        [
            "UPDATE ledger.work SET lease_until = clock_timestamp() WHERE job_id = 'job_a_running'",
            insert("ledger.entry", entry("settle", None, "resv_a_running", "cancelled")),
        ],
    ),
    (
        "tacit_worker",
        "a checkpoint of another tenant's job",
        [
            "INSERT INTO public.checkpoint (job_id, fence, step, blob)"
            " VALUES ('job_a_running', 1, 11, 'jobs/job_b_running/checkpoints/1-10.safetensors')"
        ],
    ),
    ("tacit_worker", "the training file passes for the adapter", _released("file_a")),
    ("tacit_worker", "a public file passes for the adapter", _released("eval_a")),
    ("tacit_worker", "another tenant's result passes for the adapter", _released("result_b")),
    ("tacit_worker", "another tenant's rows pass for the adapter", _released("file_b")),
    (
        "tacit_worker",
        "a result that was never checked",
        _released(
            "file_new",
            "INSERT INTO public.file (id, tenant_id, purpose, filename) VALUES ('file_new', 'tenant_a', 'fine-tune-results', 'f')",
        ),
    ),
    ("tacit_worker", "an adapter without a settlement", _released("result_a")[1:]),
    *(
        ("tacit_worker", f"a worker decides: {kind}", [_decision(kind, detail, reservation)])
        for kind, detail, reservation in (
            ("freeze", {}, None),
            ("limit", {"epsilon": "1"}, None),
            ("overlap", {"other_budget": "budget_a_spare"}, None),
            ("grant", {"grant": "grant_new", "key": "analyst_a"}, None),
            ("revoke", {"grant": "grant_a"}, None),
            ("rules", {"queue_days": "1"}, None),
            ("records", {}, None),
            ("approve", {}, "resv_a_waiting"),
            ("reserve", {}, "resv_a_queued"),
            ("thaw", {}, None),
        )
    ),
    (
        "tacit_api",
        "a block that fails after a decision",
        [
            "BEGIN",
            "SAVEPOINT s",
            _decision("limit", {"epsilon": "7"}),
            "ROLLBACK TO SAVEPOINT s",
            _decision("limit", {"epsilon": "7.5"}),
            "COMMIT",
        ],
    ),
    *(
        (login, f"{what}", [statement])
        for login in ("tacit_api", "tacit_worker")
        for what, statement in (
            ("a table of one's own", "CREATE TEMPORARY TABLE budget (id text)"),
            ("a domain of one's own", "CREATE DOMAIN pg_temp.text AS pg_catalog.text"),
            ("a function of one's own", "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql RETURN 1"),
            (
                "an operator of one's own",
                "CREATE OPERATOR public.<= (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = numeric_ge)",
            ),
            ("another role", "SET ROLE tacit_owner"),
            ("another user", "SET SESSION AUTHORIZATION tacit_admin"),
            ("no triggers", "SET session_replication_role = replica"),
            ("a trigger's end", "ALTER TABLE ledger.entry DISABLE TRIGGER post"),
            ("an empty table", "TRUNCATE ledger.entry"),
            ("a sequence set", "SELECT setval('ledger.authorisation_seq_seq', 1)"),
            ("the balance", "UPDATE ledger.budget SET spent = reserved"),
            ("a program", "COPY ledger.entry TO PROGRAM 'cat'"),
            ("a rule", "CREATE RULE r AS ON INSERT TO ledger.entry DO INSTEAD NOTHING"),
            ("a look under a snapshot", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; " + _decision("freeze", {})),
        )
    ),
]
