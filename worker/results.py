"""What a finished job leaves: the adapter as one ZIP, and the report that says what it cost."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from domain.jobs.releases import Result
from domain.kit.tables import file, job, job_event, job_file
from domain.models.allow_list import BaseModelFacts
from domain.storage.blobs import Store, put_bytes
from dpcore.export import About, PrivacyClaim, write_card
from dpcore.methods import get_trainer
from dpcore.terms import accounting, odds
from ledger.budgets import balance
from ledger.tables import phase, reservation
from ledger.work import Lease
from worker.about import made_with
from worker.assignment import Assignment
from worker.auditing import finding_of
from worker.build import Built

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP can hold


def store_adapter(store: Store, lease: Lease, assignment: Assignment, built: Built, report: dict[str, Any]) -> Result:
    """What the method exports, with a card that says what it cost, zipped, under this attempt's fence. The report is
    told its sha256, and that of each file in it, and where the hub has its base."""
    program, (repository, commit) = assignment.program, _published(built.base.source)
    about = About(
        base_model=built.base.name,
        base_model_sha256=built.base.revision,
        method=program.method,
        task=assignment.task,
        labels=assignment.labels,
        max_length=program.max_length,
        repository=repository,
        commit=commit,
    )
    privacy = PrivacyClaim(
        epsilon=report["privacy"]["epsilon_charged"],
        **{name: report["privacy"][name] for name in ("delta", "unit", "relation", "mechanism", "guarantee")},
        declared_size=report["declared_size"],
    )
    with TemporaryDirectory(prefix="tacit-adapter-") as folder:
        get_trainer(program.method).export(built.model, folder, about, tokenizer=built.tokenizer)
        write_card(folder, built.base.folder, privacy)
        data = zipped(Path(folder))
    made = keep(store, lease, "adapter", "adapter.zip", data)
    report["base_model_source"] = built.base.source if repository else None
    report["adapter"] = {"sha256": made.sha256, "bytes": made.bytes, "files": contents(data)}
    return made


def store_report(store: Store, lease: Lease, report: dict[str, Any]) -> Result:
    """privacy_report.json under this attempt's fence."""
    data = json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n"
    return keep(store, lease, "report", "privacy_report.json", data)


def privacy_report(
    connection: sa.Connection, assignment: Assignment, base: BaseModelFacts, metrics: dict[str, Any]
) -> dict[str, Any]:
    """What was promised, what was charged, and what both mean. Everything in it is public. base: of what leaves."""
    program = assignment.program
    rows = connection.execute(
        sa.select(phase.c.steps_authorised, phase.c.steps_max, phase.c.step_cost)
        .join(reservation, reservation.c.id == phase.c.reservation_id)
        .where(reservation.c.job_id == assignment.accounted)
        .order_by(phase.c.ordinal)
    ).all()
    declared_size = connection.scalar(
        sa.select(file.c.declared_size)
        .join(job_file, job_file.c.file_id == file.c.id)
        .where(job_file.c.job_id == assignment.accounted)
    )
    asked = connection.scalar(sa.select(job.c.intended_use).where(job.c.id == assignment.accounted))
    # As the owner of the job was told; null where nobody had to agree.
    approved = sa.select(job_event.c.data).where(
        job_event.c.job_id == assignment.accounted, job_event.c.name == "job.approved"
    )
    approval = connection.execute(approved.limit(1)).scalar_one_or_none()
    budget = balance(connection, assignment.budget_id)
    costs = [accounting.cost(tuple(row.step_cost), row.steps_authorised) for row in rows]
    charged = accounting.total(costs)
    epsilon = budget.epsilon_of(charged)
    ran = tuple(
        accounting.Part(p.mechanism.sample_rate, row.steps_authorised, p.mechanism.noise_multiplier)
        for p, row in zip(program.phases, rows, strict=True)
    )
    losses = accounting.losses(ran)
    trade_off = odds.of_losses(losses)
    return {
        "job": assignment.job_id,
        "intended_use": asked,
        "approval": approval,
        "base_model": base.name,
        "base_model_sha256": base.revision,
        "task": assignment.task,
        "labels": list(assignment.labels),
        "declared_size": declared_size,
        "privacy": {
            "budget": assignment.budget_id,
            "unit": program.unit,
            "relation": program.relation,
            "epsilon": assignment.privacy.get("epsilon"),
            "epsilon_charged": epsilon,
            "share_charged": accounting.share_up(charged, budget.cap, budget.filter),
            # Either bounds this job alone; a distribution cut at its ends can be the looser.
            "epsilon_pld_this_job_alone": min(epsilon, accounting.epsilon_of_losses(losses, budget.delta)),
            "delta": budget.delta,
            "mechanism": "; then ".join(dict.fromkeys(p.mechanism.words for p in program.phases)),
            "noise_multiplier": min(p.mechanism.noise_multiplier for p in program.training),
            "sample_rate": max(p.mechanism.sample_rate for p in program.training),
            "steps_reserved": sum(row.steps_max for row in rows),
            "steps_authorised": sum(row.steps_authorised for row in rows),
            "phases": [
                {
                    "name": p.name,
                    "trains": "nothing" if p.measures else p.trains,
                    "mechanism": p.mechanism.words,
                    "noise_multiplier": p.mechanism.noise_multiplier,
                    "sample_rate": p.mechanism.sample_rate,
                    "steps_reserved": row.steps_max,
                    "steps_authorised": row.steps_authorised,
                    "epsilon_alone": budget.epsilon_of(cost),
                }
                for p, row, cost in zip(program.phases, rows, costs, strict=True)
            ],
            "guarantee": guarantee(epsilon, budget.delta, program.unit),
        },
        "odds_this_job_alone": {"found": odds.curve(trade_off), "best_accuracy": trade_off.best_accuracy()},
        "program": program.model_dump(mode="json"),
        "metrics": metrics,
        "audit": finding_of(connection, assignment.job_id),
        "versions": made_with(),
    }


def guarantee(epsilon: float, delta: float, unit: str) -> str:
    """The promise in plain words. epsilon: of this job alone, rounded up to three decimals."""
    shown = -(-epsilon * 1000 // 1) / 1000
    return (
        f"This adapter is ({shown:g}, {delta:g})-differentially private with respect to adding or removing one {unit}: "
        f"whoever has it, and whatever else they know, it says almost the same whether or not any one {unit} was in "
        f"the training data. Whatever they conclude is at most exp({shown:g}) times as likely with the {unit} as "
        f"without it, except with probability of about {delta:g}. This is the cost of this job alone; the budget "
        "bounds all jobs on the same data together."
    )


def _published(source: str) -> tuple[str, str] | tuple[None, None]:
    """Repository and commit of a model that came from the hub."""
    if not source.startswith("hub:"):
        return None, None
    repository, _, commit = source.removeprefix("hub:").partition("@")
    return repository, commit


def zipped(folder: Path) -> bytes:
    """A folder's files as a ZIP that depends on their names and bytes alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def contents(archive: bytes) -> dict[str, str]:
    """The sha256 (hex) of each file in a ZIP."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: hashlib.sha256(opened.read(name)).hexdigest() for name in opened.namelist()}


def keep(store: Store, lease: Lease, kind: str, filename: str, data: bytes) -> Result:
    """Bytes of a result under this attempt's fence; nobody sees them before they are released."""
    stored = put_bytes(store, f"{store.home}jobs/{lease.job_id}/results/{lease.fence}/{filename}", data)
    return Result(kind, filename, len(data), hashlib.sha256(data).hexdigest(), stored)
