"""Two tenants with everything that a row can point at, and a way back to that state after each attempt.

Ids are fixed and say whose and what they are: `job_a_running`, `budget_b`. The way back is a copy of every table beside
it: what an attempt changed is the difference, and only that is put back.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from tests.conftest import Database
from tests.ledger.hostile_duties import Duties

TENANTS = ("a", "b")
LOGINS = ("tacit_api", "tacit_worker")
ORDERS, WEIGHTS, WHOLE = "{2,3,4,8}", "{1,1,7,1}", "10"
"""Few orders, so that a verification is fast."""

PLAN = {
    "sample_rate": 0.01,
    "noise_multiplier": 2.0,
    "steps": 40,
    "clip_norm": 1.0,
    "expected_batch": 20,
    "method": "lora",
    "learning_rate": 1e-3,
    "max_length": 64,
}
METHOD = {"type": "lora", "lora": {"r": 4, "hyperparameters": {"steps": 40, "batch_size": 20, "learning_rate": 1e-3}}}
REFERENCE = {"sample_rate": 0.01, "steps": 40, "noise_multiplier": 2.0}


def quoted(text: str) -> str:
    """As an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def as_json(value: Any) -> str:
    """A JSON value as an SQL literal."""
    return quoted(json.dumps(value))


def job_row(tenant: str, id: str, key: str, status: str = "queued") -> dict[str, str]:
    """What the API inserts, as SQL expressions."""
    privacy = {"budget": f"budget_{tenant}", "unit": "record", "epsilon": 1.0, "delta": 1e-5, "noise_multiplier": 2.0}
    privacy |= {"sample_rate": 0.01, "steps_planned": 40, "budget_left_before": 8.0, "budget_left_after": 7.0}
    return {
        "id": quoted(id),
        "tenant_id": quoted(f"tenant_{tenant}"),
        "created_by": quoted(key),
        "model": "'minilm-l6'",
        "model_revision": "'r'",
        "teacher_job": "NULL",
        "silo_job": "NULL",
        "validation_file": quoted(f"eval_{tenant}"),
        "method": as_json(METHOD),
        "plan": as_json(PLAN),
        "privacy": as_json(privacy | {"guarantee": "words"}),
        "seed": "0",
        "suffix": "'s'",
        "metadata": as_json({"note": "x"}),
        "intended_use": "'a pilot'",
        "synthetic": as_json({"records": 10}),
        "audit": "true",
        "status": quoted(status),
        "status_detail": "NULL",
    }


def insert(table: str, row: Mapping[str, str]) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(row.values())})"


def reserved(tenant: str, name: str, key: str | None = None, steps: int = 40) -> list[str]:
    """A job with its reservation and its charge, as the API submits one."""
    job, resv = f"job_{tenant}_{name}", f"resv_{tenant}_{name}"
    budget, file = f"budget_{tenant}", f"file_{tenant}"
    return [
        insert("public.job", job_row(tenant, job, key or f"key_{tenant}")),
        f"INSERT INTO public.job_file (job_id, file_id, budget_id) VALUES ('{job}', '{file}', '{budget}')",
        f"INSERT INTO ledger.work (job_id) VALUES ('{job}')",
        f"INSERT INTO ledger.reservation (id, job_id, file_id, budget_id) VALUES ('{resv}', '{job}', '{file}', '{budget}')",
        f"INSERT INTO ledger.phase (reservation_id, ordinal, sample_rate, noise_multiplier, steps_max) VALUES ('{resv}', 0, 0.01, 2, {steps})",
        f"INSERT INTO ledger.entry (budget_id, kind, reservation_id) VALUES ('{budget}', 'reserve', '{resv}')",
        f"INSERT INTO public.job_event (job_id, level, type, name, message) VALUES ('{job}', 'info', 'message', 'job.queued', 'Queued.')",
    ]


def federated(tenant: str, parent: str, child: str) -> list[str]:
    """A job over silos, and its one silo: the tenant's own, with a reservation that the parent has not."""
    job = f"job_{tenant}_{parent}"
    silo = {"job_id": quoted(f"job_{tenant}_{child}"), "parent_id": quoted(job), "name": "'silo-0'"}
    return [
        *reserved(tenant, child),
        insert("public.job", job_row(tenant, job, f"key_{tenant}")),
        f"INSERT INTO ledger.work (job_id) VALUES ('{job}')",
        insert("public.silo", silo | {"declared_size": "1000"}),
    ]


def invitation_row(id: str, tenant: str, guest: str) -> dict[str, str]:
    row = {"id": quoted(id), "tenant_id": quoted(f"tenant_{tenant}"), "created_by": quoted(f"key_{tenant}")}
    row |= {"file_id": quoted(f"file_{tenant}"), "guest": quoted(f"tenant_{guest}"), "asked": as_json({"share": 0.1})}
    return row | {"note": "'n'", "expires_at": "now() + interval '7 days'"}


def hook_row(id: str, tenant: str) -> dict[str, str]:
    wants = dict.fromkeys(("job_ended", "approval_wanted", "budget_low", "budget_frozen"), "true")
    row = {"id": quoted(id), "tenant_id": quoted(f"tenant_{tenant}"), "created_by": quoted(f"key_{tenant}")}
    row |= {
        "url": "'https://hooks.example/'",
        "description": "'d'",
        "low_below": "0.1",
        "salt": "decode('000102030405060708090a0b0c0d0e0f', 'hex')",
    }
    return row | wants


def delivery_row(id: str, hook: str, subject: str) -> dict[str, str]:
    row = {"id": quoted(id), "webhook_id": quoted(hook), "event": "'job.ended'", "subject": quoted(subject)}
    return row | {"outcome": "'succeeded'", "at": "date_trunc('minute', now())"}


def round_row(job: str, number: int) -> dict[str, str]:
    row = {"job_id": quoted(job), "number": str(number), "fence": "1", "sha256": quoted("0a" * 32)}
    return row | {"blob": quoted(f"exchange/{job}/{number}"), "closes_at": "now() + interval '1 hour'"}


def file_row(id: str, tenant: str, purpose: str) -> dict[str, str]:
    """A checked file as the API inserts one."""
    row = {"id": quoted(id), "tenant_id": quoted(f"tenant_{tenant}"), "purpose": quoted(purpose), "filename": "'f.csv'"}
    row |= {"task": "'classification'", "bytes": "10", "sha256": quoted("00" * 32), "status": "'processed'"}
    row |= {"labels": "'{a,b}'", "max_length": "64", "columns": "'{}'", "blob": quoted(f"files/{id}/rows.parquet")}
    row |= {"binding": f"sha256('{id}')", "declared_size": "1000"}
    return row | ({"budget_id": quoted(f"budget_{tenant}")} if purpose == "fine-tune" else {"budget_id": "NULL"})


def key_row(id: str, tenant: str, scopes: str, project: str | None = None) -> dict[str, str]:
    row = {"id": quoted(id), "tenant_id": quoted(f"tenant_{tenant}"), "name": "'k'", "prefix": "'tacit_'"}
    row |= {"mac": f"sha256('{id}')", "scopes": quoted(scopes), "seal": f"sha256('seal {id}')", "expires_at": "NULL"}
    return row | {"project": "NULL" if project is None else quoted(project)}


def budget_row(id: str, tenant: str) -> dict[str, str]:
    row = {
        "id": quoted(id),
        "tenant_id": quoted(f"tenant_{tenant}"),
        "name": "'notes'",
        "epsilon": "8",
        "delta": "0.00001",
    }
    row |= {"unit": "'record'", "max_records_per_user": "NULL", "reference": as_json(REFERENCE)}
    return row | {"orders": quoted(ORDERS), "weight_numerators": quoted(WEIGHTS), "weight_denominator": WHOLE}


def _claimed(job: str) -> str:
    return f"UPDATE ledger.work SET fence = 1, owner = 'w', lease_until = clock_timestamp() + interval '9 minutes' WHERE job_id = '{job}'"


def settled_in(t: str) -> list[tuple[str, list[str]]]:
    """A tenant's whole life: who says what, in order, one transaction each."""
    budget, key, job = f"budget_{t}", f"key_{t}", f"job_{t}"
    grant = {"grant": f"grant_{t}", "project": "lab", "epsilon": "6", "by": key}
    api = [
        f"INSERT INTO public.tenant (id, name) VALUES ('tenant_{t}', 'hospital {t}')",
        insert("public.api_key", key_row(key, t, "{steward}")),
        insert("public.api_key", key_row(f"analyst_{t}", t, "{analyst}", "lab")),
        insert("ledger.budget", budget_row(budget, t)),
        insert("ledger.budget", budget_row(f"{budget}_spare", t)),
        insert("public.file", file_row(f"file_{t}", t, "fine-tune")),
        insert("public.file", file_row(f"eval_{t}", t, "evals")),
        f"INSERT INTO public.data_key (blob, wrapped, master) VALUES ('files/file_{t}/rows.parquet', sha256('w'), 'm')",
        f"INSERT INTO public.fingerprint (tenant_id, kind, mac, budget_id) VALUES ('tenant_{t}', 'record', sha256('{t}'), '{budget}')",
        f"INSERT INTO ledger.entry (budget_id, kind, detail) VALUES ('{budget}', 'grant', {as_json(grant)})",
        f"INSERT INTO public.idempotency (tenant_id, key, request_digest, response) VALUES ('tenant_{t}', '{key}:1', sha256('d'), {as_json({'job': job + '_done'})})",
        f"INSERT INTO public.audit (id, tenant_id, key_id, action, target, status, request_id) VALUES ('audit_{t}', 'tenant_{t}', '{key}', 'POST /v1/budgets', 'x', 201, 'r')",
        *reserved(t, "queued"),
        *reserved(t, "running", f"analyst_{t}"),
        *reserved(t, "done", f"analyst_{t}"),
        *federated(t, "between", "silo"),
        *federated(t, "round", "part"),
        insert("public.invitation", invitation_row(f"invitation_{t}", t, "b" if t == "a" else "a")),
        insert("public.webhook", hook_row(f"hook_{t}", t)),
        insert("public.webhook_delivery", delivery_row(f"msg_{t}", f"hook_{t}", f"{job}_running")),
        f"INSERT INTO public.webhook_budget (webhook_id, budget_id, seq, low, frozen) VALUES ('hook_{t}', '{budget}', 1, false, false)",
        f"INSERT INTO ledger.entry (budget_id, kind, detail) VALUES ('{budget}', 'rules', {as_json({'approval_above': '0.01', 'queue_days': '7', 'by': key, 'reason': 'r'})})",
        *reserved(t, "waiting", f"analyst_{t}"),
        f"INSERT INTO ledger.entry (budget_id, kind, detail) VALUES ('{budget}', 'rules', {as_json({'queue_days': '7', 'by': key, 'reason': 'r'})})",
    ]
    result = {
        "id": f"'result_{t}'",
        "tenant_id": f"'tenant_{t}'",
        "purpose": "'fine-tune-results'",
        "filename": "'a.zip'",
    }
    result |= {
        "sha256": "'00'",
        "status": "'processed'",
        "blob": f"'jobs/{job}_done/results/1/a.zip'",
        "binding": "sha256('r')",
    }
    worker = [
        _claimed(f"{job}_running"),
        _claimed(f"{job}_done"),
        *(_claimed(f"{job}_{name}") for name in ("between", "silo", "round", "part")),
        f"INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES ('resv_{t}_running', 0, 1, 10)",
        f"INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES ('resv_{t}_done', 0, 1, 40)",
        f"INSERT INTO public.checkpoint (job_id, fence, step, blob) VALUES ('{job}_running', 1, 10, 'jobs/{job}_running/checkpoints/1-10.safetensors')",
        f"UPDATE public.job SET status = 'running', started_at = now() WHERE id IN ('{job}_running', '{job}_done')",
    ]
    rounds = [
        f"INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES ('resv_{t}_silo', 0, 1, 10)",
        f"INSERT INTO ledger.authorisation (reservation_id, ordinal, fence, steps) VALUES ('resv_{t}_part', 0, 1, 10)",
        insert("public.federated_round", round_row(f"{job}_between", 0)),
        insert("public.federated_round", round_row(f"{job}_round", 0)),
        f"INSERT INTO public.silo_round (job_id, number, fence, steps) VALUES ('{job}_part', 0, 1, 5)",
        f"UPDATE public.federated_round SET fence = 1, came = '[]' WHERE job_id = '{job}_between'",
    ]
    end = [
        f"INSERT INTO ledger.entry (budget_id, kind, reservation_id, outcome, fence) VALUES ('{budget}', 'settle', 'resv_{t}_done', 'succeeded', 1)",
        insert("public.file", result),
        f"INSERT INTO public.release (id, job_id, file_id, kind, fence) VALUES ('release_{t}', '{job}_done', 'result_{t}', 'adapter', 1)",
        f"UPDATE public.job SET status = 'succeeded', finished_at = now() WHERE id = '{job}_done'",
        "INSERT INTO public.model_profile (model, revision, method, task, device, max_length, tokens_per_second, peak_bytes)"
        " VALUES ('minilm-l6', 'r', 'lora', 'classification', 'cpu', 64, 1000, 1000)",
        "INSERT INTO public.model_trial (model, revision, method, task, versions)"
        " VALUES ('minilm-l6', 'r', 'lora', 'classification', 'torch 2')",
    ]
    return [("tacit_api", api), ("tacit_worker", worker), ("tacit_worker", rounds), ("tacit_worker", end)]


@dataclass(frozen=True)
class Change:
    """A row that is there now and was not, or the other way round."""

    table: str
    gone: bool
    row: dict[str, Any]


@dataclass
class Stage:
    """The logins' connections, and the superuser's, who remembers how everything was."""

    database: Database
    folder: Path
    """For blobs."""
    logins: dict[str, psycopg.Connection[Any]] = field(init=False)
    root: psycopg.Connection[Any] = field(init=False)
    api: sa.Connection = field(init=False)
    """As service code reads."""
    duties: Duties = field(init=False)
    tables: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.logins = {login: _connected(self.url(login)) for login in LOGINS}
        self.root = _connected(_plain(self.database.superuser_url))
        self.root.execute("SET search_path = ''")  # names are told in full
        engine = sa.create_engine(self.database.api_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        self.api = engine.connect()
        self.duties = Duties(self.database, self.folder)
        self._curve()
        for tenant in TENANTS:
            for login, statements in settled_in(tenant):
                self.logins[login].execute("; ".join(statements).encode())
        self.logins["tacit_api"].execute("INSERT INTO public.keeper_watch (duty, finished_at) VALUES ('turn', now())")
        self.logins["tacit_api"].execute(
            "INSERT INTO public.question (file_id, tenant_id, upload, found) VALUES ('file_asked', 'tenant_a', '{}', '{}')"
        )
        # Nobody began it in time: it is for the services to end.
        self.root.execute("UPDATE ledger.reservation SET starts_by = created_at WHERE id = 'resv_a_queued'")
        self._remember()

    def url(self, login: str) -> str:
        """As libpq takes it."""
        return _plain({"tacit_api": self.database.api_url, "tacit_worker": self.database.worker_url}[login])

    def _curve(self) -> None:
        """A mechanism that the administrator has proven, for phases that name one."""
        self.root.execute(
            "INSERT INTO ledger.curve (id, description, proof, step_cost, orders, indivisible)"
            f" VALUES ('curve_test', 'd', 'p', '{{10,20,30,40}}', '{ORDERS}', false)"
        )

    def _remember(self) -> None:
        self.tables = [row[0] for row in self.root.execute(_TABLES).fetchall()]
        # No trigger and no foreign key, to put things back; and no look at what the statements cost.
        self.root.execute("SET session_replication_role = replica; SET jit = off; CREATE SCHEMA before")
        for table in self.tables:
            self.root.execute(f"CREATE TABLE {_copy(table)} AS TABLE {table}".encode())
        parts = [part for table in self.tables for part in _difference(table, self._columns(table))]
        self.root.execute(b"PREPARE difference AS " + " UNION ALL ".join(parts).encode())

    def close(self) -> None:
        for connection in (*self.logins.values(), self.root):
            connection.close()
        self.api.close()
        self.duties.close()

    def changes(self) -> list[Change]:
        """Against the remembered state."""
        return [Change(*row) for row in self.root.execute("EXECUTE difference").fetchall()]

    def put_back(self, changes: Sequence[Change]) -> None:
        """The tables that changed, as they were."""
        statements = []
        for table in {change.table for change in changes}:
            columns = ", ".join(self._columns(table))
            statements.append(f"DELETE FROM {table}")
            statements.append(
                f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {_copy(table)}"
            )
        if statements:
            self.root.execute("; ".join(statements).encode())

    def keep_leases(self) -> None:
        """Leases end while attempts go on: given anew, in the memory too."""
        kept = _copy("ledger.work")
        until = "clock_timestamp() + interval '9 minutes'"
        self.root.execute(f"UPDATE {kept} SET lease_until = {until} WHERE fence = 1".encode())
        told = f"UPDATE ledger.work w SET lease_until = k.lease_until FROM {kept} AS k WHERE k.job_id = w.job_id"
        self.root.execute(told.encode())

    def _columns(self, table: str) -> dict[str, str]:
        found = self.root.execute(
            "SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [table],
        )
        return dict(found.fetchall())


def _plain(url: str) -> str:
    return url.replace("+psycopg", "")


def _connected(url: str) -> psycopg.Connection[Any]:
    # Statements differ all the time: nothing is prepared. Several in one text are one transaction.
    return psycopg.connect(url, autocommit=True, prepare_threshold=None)


_TABLES = """
SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'r'
  AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace) AND c.relname <> 'alembic_version' ORDER BY 1"""


def _copy(table: str) -> str:
    return f'before."{table}"'


def _difference(table: str, columns: Mapping[str, str]) -> Iterator[str]:
    # JSON as text: Python cannot read all that a login might store.
    shown = ", ".join(f"{name}::text AS {name}" if type_ == "jsonb" else name for name, type_ in columns.items())
    for gone, here, there in ((False, table, _copy(table)), (True, _copy(table), table)):
        rows = f"SELECT {shown} FROM {here} EXCEPT SELECT {shown} FROM {there}"
        yield f"SELECT '{table}' AS t, {gone} AS gone, to_jsonb(r) FROM ({rows}) AS r"
