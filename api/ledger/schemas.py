"""Verification, receipts and decisions as they go over the wire."""

from typing import Literal

from pydantic import BaseModel, Field

from api.fields import Body, Epsilon, Reason


class LedgerProblem(BaseModel):
    """Something in a budget's history that does not hold."""

    seq: int | None = Field(description="of the entry where it shows, if it shows at one")
    what: str


class Verification(BaseModel):
    """A budget's whole history checked against its balance: chain, sequence, prices, limits, signatures."""

    object: Literal["budget.verification"] = "budget.verification"
    budget: str
    ok: bool
    problems: list[LedgerProblem]
    seq: int = Field(description="entries that were checked")
    hash: str


class Freeze(Body):
    """Why nothing more may be reserved or authorised."""

    reason: Reason


class LowerLimit(Body):
    """A lower limit for later jobs."""

    epsilon: Epsilon
    reason: Reason


class Keys(BaseModel):
    """Ed25519 public keys in hexadecimal. Keep the first to check receipts and evidence without this service."""

    object: Literal["ledger.keys"] = "ledger.keys"
    signing_key: str
    earlier_signing_keys: list[str] = Field(description="that it had before: what they signed still holds")
    policy_key: str | None
