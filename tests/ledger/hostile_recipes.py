"""For each table that a service login may write: rows that are valid, and rows of the stage to change or delete.

A table or a column without a recipe fails the matrix, so that a new one cannot be forgotten.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.ledger.hostile_stage import (
    as_json,
    budget_row,
    delivery_row,
    file_row,
    hook_row,
    insert,
    invitation_row,
    job_row,
    key_row,
    quoted,
    reserved,
    round_row,
)
from tests.ledger.hostile_values import Value

Columns = Mapping[str, str]
"""SQL expressions by column."""


def _nothing(_: Columns) -> list[str]:
    return []


@dataclass(frozen=True)
class Row:
    """A valid row. before, after: what else its transaction says, of the row as it is tried."""

    name: str
    columns: Columns
    before: Callable[[Columns], list[str]] = _nothing
    after: Callable[[Columns], list[str]] = _nothing


@dataclass(frozen=True)
class Victim:
    """A row of the stage, and a valid value for each column that may be changed."""

    where: str
    columns: Columns = field(default_factory=dict)


def _always(*statements: str) -> Callable[[Columns], list[str]]:
    return lambda _: list(statements)


NEW = "job_a_new"
_JOB, _FILE, _WORK, _RESERVATION, _PHASE, _CHARGE, _ = reserved("a", "new")


def _uses(file: str, budget: str, job: str = quoted(NEW)) -> str:
    return f"INSERT INTO public.job_file (job_id, file_id, budget_id) VALUES ({job}, {file}, {budget})"


def _charged(resv: str, budget: str) -> list[str]:
    phase = "INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max)"
    return [
        f"{phase} VALUES ({resv}, 0, 0.01, 2, 40)",
        f"INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES ({budget}, 'reserve', {resv})",
    ]


def _reserved(job: str) -> list[str]:
    """A job's files, work, reservation and charge, for whoever it is the job of."""
    resv = "INSERT INTO ledger.reservation (id, job_id, file_id, budget_id)"
    return [
        _uses("'file_a'", "'budget_a'", job),
        f"INSERT INTO ledger.work (job_id) VALUES ({job})",
        f"{resv} VALUES ('resv_a_new', {job}, 'file_a', 'budget_a')",
        *_charged("'resv_a_new'", "'budget_a'"),
    ]


def entry(kind: str, detail: Any = None, reservation: str | None = None, outcome: str | None = None) -> dict[str, str]:
    """An entry of budget_a."""
    return {
        "budget_id": "'budget_a'",
        "kind": quoted(kind),
        "reservation_id": "NULL" if reservation is None else quoted(reservation),
        "outcome": "NULL" if outcome is None else quoted(outcome),
        "detail": "NULL" if detail is None else as_json(detail),
    }


_GRANT = {"grant": "grant_new", "epsilon": "5", "approval_above": "0.5", "by": "key_a", "reason": "r"}
_SHARE = {k: v for k, v in _GRANT.items() if k != "epsilon"} | {"share": "0.5", "expires_at": "4000000000"}
_SHARE |= {"models": '["minilm-l6"]', "methods": '["lora", "bitfit"]', "most_steps": "500"}
_DECISIONS: dict[str, dict[str, str]] = {
    "freeze": {"reason": "r", "witness": "w"},
    "limit": {"epsilon": "7", "reason": "r"},
    "overlap": {"file": "file_a", "other_budget": "budget_a_spare", "reason": "r"},
    "revoke": {"grant": "grant_a", "by": "key_a", "reason": "r"},
    "rules": {
        **{"approval_above": "0.5", "queue_days": "3", "require_intended_use": "true"},
        **{"by": "key_a", "reason": "r"},
    },
    "records": {"records": "3"},
}
_ENTRIES = [
    Row("reserve", entry("reserve", None, "resv_a_new"), _always(_JOB, _FILE, _WORK, _RESERVATION, _PHASE)),
    Row("settle", entry("settle", {"by": "key_a", "reason": "r"}, "resv_a_queued", "cancelled")),
    Row("settle as failed", entry("settle", None, "resv_a_queued", "failed")),
    Row("approve", entry("approve", {"by": "key_a", "reason": "r"}, "resv_a_waiting")),
    Row("grant to a key", entry("grant", _GRANT | {"key": "analyst_a"})),
    Row("grant to a project", entry("grant", _GRANT | {"project": "ward"})),
    Row("grant by share", entry("grant", _SHARE | {"project": "ward"})),
    *(Row(kind, entry(kind, detail)) for kind, detail in _DECISIONS.items()),
]
_WORKER_ENTRIES = [
    Row("settle", entry("settle", None, "resv_a_running", "succeeded") | {"fence": "1"}),
    Row("settle without a lease", entry("settle", None, "resv_a_queued", "cancelled") | {"fence": "NULL"}),
]

_BUDGET = budget_row("budget_new", "a")
_PHASE_ROW = {"reservation_id": "'resv_a_new'", "ordinal": "0", "sample_rate": "0.01", "noise_multiplier": "2"}
_PHASE_ROW |= {"steps_max": "40", "curve_id": "NULL", "indivisible": "false"}
_TO_PHASE, _FROM_PHASE = _always(_JOB, _FILE, _WORK, _RESERVATION), _always(_CHARGE)
_RESERVATION_ROW = {"id": "'resv_a_new'", "job_id": quoted(NEW), "file_id": "'file_a'", "budget_id": "'budget_a'"}
_RESERVATION_ROW |= {"expires_at": "now() + interval '1 day'", "starts_by": "now() + interval '1 hour'"}
_EVENT = {"job_id": "'job_a_running'", "level": "'info'", "type": "'metrics'", "name": "'steps.authorised'"}
_EVENT |= {"message": "'Step 1 of 40'", "data": as_json({"step": 1, "total_steps": 40})}
_KEY = {"blob": "'files/new/rows.parquet'", "wrapped": r"'\x00'", "master": "'m'"}
_RESULT = {"id": "'result_new'", "tenant_id": "'tenant_a'", "purpose": "'fine-tune-results'", "filename": "'a.zip'"}
_RESULT |= {"bytes": "10", "sha256": quoted("00" * 32), "status": "'processed'", "binding": "sha256('r')"}
_RESULT |= {"blob": "'jobs/job_a_running/results/1/a.zip'"}
_SUCCEEDED = insert("ledger.entry", _WORKER_ENTRIES[0].columns)

_SILO = {"job_id": quoted(NEW), "parent_id": "'job_a_between'", "name": "'silo-1'", "invitation_id": "NULL"}
_SILO |= {"declared_size": "1000"}
_ACCEPTED = "UPDATE public.invitation SET accepted_by = 'key_b', job_id = 'job_b_new' WHERE id = 'invitation_a' AND job_id IS NULL"

REPORT = {"read": 1, "kept": 1, "repeated": 0, "conflicts": {"texts": 0, "records": 0}, "dropped_by_user_bound": 0}
REPORT |= {"max_length": 128, "longer_than_max_length": 0, "classes": {"no": {"read": 1, "kept": 1}}}
REPORT |= {"length": dict.fromkeys(("min", "median", "p90", "p99", "max"), 1), "unused_columns": [], "questions": []}

INSERTS: dict[tuple[str, str], list[Row]] = {
    ("tacit_api", "ledger.budget"): [
        Row("of records", _BUDGET),
        Row("of users", _BUDGET | {"unit": "'user'", "max_records_per_user": "3", "held_out": "0.1"}),
    ],
    ("tacit_api", "ledger.entry"): _ENTRIES,
    ("tacit_api", "ledger.lost_budget"): [
        Row("lost", {"budget_id": "'budget_gone'", "hash": "sha256('h')", "seq": "5"}),
    ],
    ("tacit_api", "ledger.phase"): [
        Row("gaussian", _PHASE_ROW, _TO_PHASE, _FROM_PHASE),
        Row("whole", _PHASE_ROW | {"indivisible": "true"}, _TO_PHASE, _FROM_PHASE),
        Row(
            "proven",
            _PHASE_ROW | {"curve_id": "'curve_test'", "sample_rate": "NULL", "noise_multiplier": "NULL"},
            _TO_PHASE,
            _FROM_PHASE,
        ),
    ],
    ("tacit_api", "ledger.reservation"): [
        Row(
            "of a job",
            _RESERVATION_ROW,
            lambda row: [_JOB, _WORK, _uses(row["file_id"], row["budget_id"])],
            lambda row: _charged(row["id"], row["budget_id"]),
        ),
    ],
    ("tacit_api", "ledger.work"): [Row("of a job", {"job_id": quoted(NEW)}, _always(_JOB))],
    ("tacit_api", "public.api_key"): [
        Row("of an analyst", key_row("key_new", "a", "{analyst,auditor}", "lab") | {"expires_at": "now()"}),
    ],
    ("tacit_api", "public.audit"): [
        Row(
            "a request",
            {
                "id": "'audit_new'",
                "tenant_id": "'tenant_a'",
                "key_id": "'key_a'",
                "action": "'POST /v1/budgets'",
                "target": "'budget_a'",
                "status": "201",
                "request_id": "'r'",
            },
        )
    ],
    ("tacit_api", "public.data_key"): [Row("of a blob", _KEY)],
    ("tacit_api", "public.file"): [
        Row("private", file_row("file_new", "a", "fine-tune")),
        Row("public", file_row("file_new", "a", "evals")),
        Row("unchecked", file_row("file_new", "a", "evals") | {"status": "'uploaded'", "binding": "NULL"}),
        Row("a text", file_row("file_new", "a", "evals") | {"task": "'text'", "labels": "NULL"}),
    ],
    ("tacit_api", "public.fingerprint"): [
        Row(
            "of a record",
            {"tenant_id": "'tenant_a'", "kind": "'record'", "mac": "sha256('n')", "budget_id": "'budget_a'"},
        ),
    ],
    ("tacit_api", "public.fingerprint_key"): [Row("the mark", {"mark": "sha256('mark')"})],
    ("tacit_api", "public.idempotency"): [
        Row(
            "a request",
            {
                "tenant_id": "'tenant_a'",
                "key": "'key_a:2'",
                "request_digest": r"'\x00'",
                "response": as_json({"job": "job_a_done"}),
            },
        )
    ],
    ("tacit_api", "public.invitation"): [Row("to a guest", invitation_row("invitation_new", "a", "b"))],
    ("tacit_api", "public.job"): [
        Row("submitted", job_row("a", NEW, "key_a"), _nothing, lambda row: _reserved(row["id"])),
        Row("bare", job_row("a", NEW, "analyst_a")),
    ],
    ("tacit_api", "public.job_event"): [Row("an event", _EVENT)],
    ("tacit_api", "public.job_file"): [
        Row(
            "of a job",
            {"job_id": quoted(NEW), "file_id": "'file_a'", "budget_id": "'budget_a'"},
            _always(_JOB, _WORK),
            lambda row: [
                "INSERT INTO ledger.reservation (id, job_id, file_id, budget_id)"
                f" VALUES ('resv_a_new', {row['job_id']}, {row['file_id']}, {row['budget_id']})",
                *_charged("'resv_a_new'", row["budget_id"]),
            ],
        )
    ],
    ("tacit_api", "public.keeper_watch"): [
        Row("a note", {"duty": "'verification'", "finished_at": "now()", "detail": as_json({"findings": 0})}),
    ],
    ("tacit_api", "public.identity"): [
        Row(
            "read again",
            {
                "file_id": "'file_a'",
                "key_mark": "sha256('k')",
                "made": "'again'",
                "elsewhere": "0",
                "users": "true",
            },
        )
    ],
    ("tacit_api", "public.public_record"): [
        Row("of a public file", {"tenant_id": "'tenant_a'", "mac": "sha256('p')", "file_id": "'eval_a'"}),
    ],
    ("tacit_api", "public.question"): [
        Row(
            "about an upload",
            {
                "file_id": "'file_new'",
                "tenant_id": "'tenant_a'",
                "upload": as_json({"upload": {}}),
                "found": as_json({"budgets": {}}),
            },
        )
    ],
    ("tacit_api", "public.silo"): [
        Row("of the own tenant", _SILO, _always(*reserved("a", "new"))),
        Row(
            "of a guest",
            _SILO | {"job_id": "'job_b_new'", "invitation_id": "'invitation_a'"},
            _always(*reserved("b", "new"), _ACCEPTED),
        ),
    ],
    ("tacit_api", "public.sketch"): [
        Row(
            "of a file",
            {
                "tenant_id": "'tenant_a'",
                "file_id": "'file_a'",
                "budget_id": "'budget_a'",
                "packed": "sha256('sketch')",
            },
        )
    ],
    ("tacit_api", "public.tenant"): [Row("a tenant", {"id": "'tenant_new'", "name": "'n'"})],
    ("tacit_api", "public.upload_report"): [Row("of a file", {"file_id": "'file_a'", "report": as_json(REPORT)})],
    ("tacit_api", "public.webhook"): [Row("of a steward", hook_row("hook_new", "a"))],
    ("tacit_api", "public.webhook_budget"): [
        Row(
            "how one stood",
            {"webhook_id": "'hook_a'", "budget_id": "'budget_a_spare'", "seq": "1", "low": "true", "frozen": "false"},
        ),
    ],
    ("tacit_api", "public.webhook_delivery"): [
        Row("a job's end", delivery_row("msg_new", "hook_a", "job_a_done")),
        Row(
            "of a budget", delivery_row("msg_new", "hook_a", "budget_a") | {"event": "'budget.low'", "outcome": "NULL"}
        ),
    ],
    ("tacit_worker", "ledger.authorisation"): [
        Row("of a chunk", {"reservation_id": "'resv_a_running'", "ordinal": "0", "fence": "1", "steps": "5"}),
    ],
    ("tacit_worker", "ledger.entry"): _WORKER_ENTRIES,
    ("tacit_worker", "public.checkpoint"): [
        Row(
            "of a chunk",
            {
                "job_id": "'job_a_running'",
                "fence": "1",
                "step": "12",
                "blob": "'jobs/job_a_running/checkpoints/1-12.safetensors'",
            },
        ),
    ],
    ("tacit_worker", "public.data_key"): [Row("of a blob", _KEY)],
    ("tacit_worker", "public.job_audit"): [
        Row("of its own job", {"job_id": "'job_a_running'", "fence": "1", "finding": as_json({"claim": 1.0})}),
    ],
    ("tacit_worker", "public.federated_round"): [
        Row("the next", round_row("job_a_between", 1)),
        Row("behind masks", round_row("job_a_between", 1) | {"silos": as_json(["silo-0"])}),
    ],
    ("tacit_worker", "public.file"): [Row("a result", _RESULT)],
    ("tacit_worker", "public.job_event"): [Row("an event", _EVENT)],
    ("tacit_worker", "public.model_profile"): [
        Row(
            "measured",
            {
                "model": "'minilm-l6'",
                "revision": "'r'",
                "method": "'lora'",
                "task": "'classification'",
                "device": "'cpu'",
                "max_length": "64",
                "tokens_per_second": "900",
                "peak_bytes": "1000",
                "device_bytes": "2000",
                "options": as_json({"r": 16}),
            },
        )
    ],
    ("tacit_worker", "public.model_trial"): [
        Row(
            "refused",
            {
                "model": "'minilm-l6'",
                "revision": "'r'",
                "method": "'lora'",
                "task": "'classification'",
                "refusal": "'no per-example gradient'",
                "versions": "'torch 2'",
            },
        )
    ],
    ("tacit_worker", "public.release"): [
        Row(
            "an adapter",
            {
                "id": "'release_new'",
                "job_id": "'job_a_running'",
                "file_id": "'result_new'",
                "kind": "'adapter'",
                "fence": "1",
            },
            _always(_SUCCEEDED, insert("public.file", _RESULT)),
        )
    ],
    ("tacit_worker", "public.silo_round"): [
        Row("begun", {"job_id": "'job_a_silo'", "number": "0", "fence": "1", "steps": "5"}),
    ],
}

_JOB_COLUMNS = {
    "status": "'running'",
    "status_detail": "NULL",
    "error": as_json({"code": "c", "message": "m", "param": None}),
}
_JOB_COLUMNS |= {"finished_at": "now()", "hinted_at": "now()"}
_JOBS = [f"id = 'job_a_{name}'" for name in ("queued", "running", "done")]
_WORKED = {"excused_fence": "1", "fence": "1", "lease_until": "clock_timestamp()", "owner": "'w'", "seconds": "1"}

UPDATES: dict[tuple[str, str], list[Victim]] = {
    ("tacit_api", "ledger.budget"): [Victim("id = 'budget_a'", {"name": "'another'"})],
    ("tacit_api", "ledger.work"): [
        Victim(f"job_id = 'job_a_{name}'", {"paused_at": "clock_timestamp()", "stop_requested": "true"})
        for name in ("queued", "running", "done")
    ],
    ("tacit_api", "public.api_key"): [
        Victim(
            "id = 'key_b'",
            {
                "mac": "sha256('m')",
                "prefix": "'p'",
                "previous_mac": "NULL",
                "previous_until": "NULL",
                "revoked_at": "now()",
                "seal": "sha256('s')",
            },
        )
    ],
    ("tacit_api", "public.file"): [
        Victim(f"id = '{name}'", {"deleted_at": "now()"}) for name in ("file_a", "eval_a", "result_a")
    ],
    ("tacit_api", "public.invitation"): [
        Victim(
            "id = 'invitation_a'", {"accepted_by": "'key_b'", "job_id": "'job_b_queued'", "withdrawn_by": "'key_a'"}
        ),
    ],
    ("tacit_api", "public.job"): [Victim(where, _JOB_COLUMNS) for where in _JOBS],
    ("tacit_api", "public.keeper_watch"): [
        Victim("duty = 'turn'", {"detail": as_json({"failing": {}}), "finished_at": "now()"})
    ],
    ("tacit_api", "public.question"): [
        Victim("file_id = 'file_asked'", {"answer": "'publish'", "answered_by": "'key_a'", "reason": "'r'"}),
    ],
    ("tacit_api", "public.webhook"): [
        Victim(
            "id = 'hook_a'",
            {
                "looked_at": "now()",
                "last_success_at": "now()",
                "last_failure_at": "now()",
                "last_failure": "'it answered 500'",
            },
        )
    ],
    ("tacit_api", "public.webhook_budget"): [
        Victim("webhook_id = 'hook_a'", {"seq": "2", "low": "true", "frozen": "true"})
    ],
    ("tacit_api", "public.webhook_delivery"): [
        Victim(
            "id = 'msg_a'",
            {"attempts": "1", "due_at": "now()", "leased_until": "now()", "delivered_at": "now()"},
        ),
        Victim("id = 'msg_a'", {"attempts": "1", "given_up_at": "now()"}),
    ],
    ("tacit_worker", "ledger.work"): [
        Victim("job_id = 'job_a_running'", _WORKED),
        Victim("job_id = 'job_a_done'", _WORKED),
        Victim("job_id = 'job_a_queued'", _WORKED),
        Victim("job_id = 'job_a_waiting'", _WORKED),
    ],
    ("tacit_worker", "public.federated_round"): [
        *(
            Victim(f"job_id = 'job_a_{name}'", {"came": as_json(["silo-0"]), "fence": "1"})
            for name in ("round", "between")
        ),
        Victim("job_id = 'job_a_round'", {"agreed": as_json({"silo-0": "0b" * 32}), "fence": "1"}),
    ],
    ("tacit_worker", "public.job"): [Victim(where, _JOB_COLUMNS | {"started_at": "now()"}) for where in _JOBS],
    ("tacit_worker", "public.silo"): [
        Victim("job_id = 'job_a_part'", {"mask_keys": quoted("0b" * 64), "mask_fence": "1"}),
    ],
    ("tacit_worker", "public.silo_round"): [
        Victim(
            "job_id = 'job_a_part'",
            {"blob": "'exchange/job_a_round/0/silo-0'", "sent_fence": "1", "sha256": quoted("0b" * 32)},
        ),
        Victim("job_id = 'job_a_part'", {"signature": quoted("0b" * 64), "sent_fence": "1"}),
        Victim("job_id = 'job_a_part'", {"opening": as_json({"own": "0b"}), "sent_fence": "1"}),
    ],
}
"""A victim's valid values need not all be accepted: a finished job stays finished."""

DELETES: dict[tuple[str, str], list[str]] = {
    ("tacit_api", "public.data_key"): ["true", "blob LIKE 'files/file_b%'"],
    ("tacit_api", "public.idempotency"): ["true", "tenant_id = 'tenant_b'"],
    ("tacit_api", "public.job_event"): ["true", "job_id = 'job_b_running'"],
    ("tacit_api", "public.webhook"): ["true", "id = 'hook_b'"],
    ("tacit_api", "public.webhook_delivery"): ["true", "webhook_id = 'hook_b'"],
    ("tacit_worker", "public.checkpoint"): ["true", "job_id = 'job_b_running'"],
    ("tacit_worker", "public.data_key"): ["true", "blob LIKE 'files/file_b%'"],
}

_WORDS: dict[tuple[str, str], str] = {
    (
        "ledger.entry",
        "kind",
    ): "open reserve settle freeze thaw limit correction reprice overlap grant revoke rules approve records",
    ("ledger.entry", "outcome"): "succeeded cancelled failed",
    ("ledger.budget", "unit"): "record user",
    ("ledger.phase", "curve_id"): "curve_test",
    ("public.file", "purpose"): "fine-tune evals fine-tune-results",
    ("public.file", "status"): "uploaded processed error",
    ("public.file", "task"): "classification pair completion chat text",
    ("public.fingerprint", "kind"): "record user",
    ("public.identity", "made"): "upload again",
    ("public.question", "answer"): "same_population different_population publish withdrawn",
    ("public.job", "status"): "validating_files queued running succeeded failed cancelled",
    ("public.job", "status_detail"): "waiting_for_approval paused pausing cancelling rejected expired",
    ("public.job_event", "level"): "info warn error",
    ("public.job_event", "type"): "message metrics",
    ("public.job_event", "name"): "job.noted job.failed",
    ("public.keeper_watch", "duty"): "turn verification",
    ("public.model_profile", "task"): "classification pair completion chat text",
    ("public.model_trial", "task"): "classification pair completion chat text",
    ("public.release", "kind"): "adapter report synthetic synthetic_card",
    ("public.webhook_delivery", "event"): "job.ended approval.wanted budget.low budget.frozen",
    ("public.webhook_delivery", "outcome"): "succeeded failed cancelled",
}


def words(table: str, column: str) -> list[Value]:
    """Besides what its type says: the words that a column knows."""
    return [Value(f"the word {word}", quoted(word)) for word in _WORDS.get((table, column), "").split()]
