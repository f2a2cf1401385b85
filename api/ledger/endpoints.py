"""The ledger for those who check it: verification, receipts, freezing and lowering."""

import sqlalchemy as sa
from fastapi import APIRouter

from api.auth import AnyKey, Steward, StewardOrAnalyst, StewardOrAuditor
from api.budgets.schemas import Budget, budget_of, exact
from api.deps import Service, Transaction
from api.errors import HttpError
from api.fields import Id
from api.ledger.schemas import Freeze, Keys, LedgerProblem, LowerLimit, Verification
from domain.access import budgets
from domain.jobs import reading
from domain.keeping import keeper
from ledger import policy
from ledger.receipts import Receipt, issue
from ledger.tables import entry, reservation

router = APIRouter(prefix="/v1", tags=["ledger"])


@router.post("/budgets/{budget_id}/verify")
def verify(budget_id: Id, caller: StewardOrAuditor, service: Service, connection: Transaction) -> Verification:
    """Replay the budget's whole history: every hash, sequence number, price, limit and sum."""
    row = budgets.require(connection, caller, budget_id)
    problems = keeper.verify(service.engine, budget_id, service.settings.policy_key)
    return Verification(
        budget=budget_id,
        ok=not problems,
        problems=[LedgerProblem(seq=p.seq, what=p.what) for p in problems],
        seq=row.head_seq,
        hash=row.head_hash.hex(),
    )


@router.post("/budgets/{budget_id}/freeze")
def freeze(budget_id: Id, body: Freeze, caller: Steward, connection: Transaction) -> Budget:
    """Nothing more is reserved or authorised, until the operator thaws the budget. Running jobs stop at their next
    chunk and go on after the thaw."""
    row = budgets.require(connection, caller, budget_id)
    if row.frozen_reason is None:
        policy.freeze(connection, budget_id, body.reason)
    return budget_of(budgets.require(connection, caller, budget_id))


@router.post("/budgets/{budget_id}/limit")
def limit(budget_id: Id, body: LowerLimit, caller: Steward, connection: Transaction) -> Budget:
    """Lower the limit for later jobs; a budget that is past the new one is frozen."""
    row = budgets.require(connection, caller, budget_id)
    if exact(body.epsilon) > row.epsilon:
        raise HttpError(
            403,
            "limit_only_falls",
            f"the limit is {float(row.epsilon):g}; only the operator raises one (`tacit ledger raise`), and the "
            "guarantee is then the higher one over all history",
            param="epsilon",
        )
    policy.lower_limit(connection, budget_id, exact(body.epsilon), body.reason)
    return budget_of(budgets.require(connection, caller, budget_id))


@router.get("/budgets/{budget_id}/entries/{seq}/receipt")
def entry_receipt(
    budget_id: Id, seq: int, caller: StewardOrAuditor, service: Service, connection: Transaction
) -> Receipt:
    """The receipt of one entry: its canonical text, its hash, and the service's signature."""
    row = budgets.require(connection, caller, budget_id)
    if not 1 <= seq <= row.head_seq:
        raise HttpError(404, "not_found", f"the budget's ledger has the entries 1 to {row.head_seq}", param="seq")
    return issue(connection, service.signer, budget_id, seq)


@router.get("/fine_tuning/jobs/{job_id}/receipts")
def job_receipts(job_id: Id, caller: StewardOrAnalyst, service: Service, connection: Transaction) -> list[Receipt]:
    """The receipts of a job's charge and of its settlement, to be kept and checked without this service. Of a federated
    job: those of its own tenant's silo."""
    row = reading.require(connection, caller, job_id)
    charged = connection.execute(
        sa.select(entry.c.budget_id, entry.c.seq)
        .join(reservation, reservation.c.id == entry.c.reservation_id)
        .where(reservation.c.job_id == (row.silo_job or row.id))
        .order_by(entry.c.budget_id, entry.c.seq)
    ).all()
    return [issue(connection, service.signer, row.budget_id, row.seq) for row in charged]


@router.get("/ledger/keys")
def keys(caller: AnyKey, service: Service) -> Keys:
    """The keys that receipts and decisions are signed with."""
    public = service.signer.public_key().public_bytes_raw().hex()
    settings = service.settings
    return Keys(signing_key=public, earlier_signing_keys=list(settings.earlier_keys), policy_key=settings.policy_key)
