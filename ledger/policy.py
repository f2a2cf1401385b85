"""Decisions about a budget, each an entry in its chain: freezing, limits, corrections, re-pricing, overlap.

Lowering and freezing are open to the services; everything that could give back room needs the admin login, and the
database holds that. Decisions of the admin are signed with the policy key, which no service has.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.canonical import packed
from ledger.errors import translated
from ledger.tables import budget, entry

SIGNED_KINDS = ("thaw", "correction", "reprice")
"""Always signed; a limit is signed when it rises."""


def freeze(connection: sa.Connection, budget_id: str, reason: str, witness: str | None = None) -> None:
    """Nothing is reserved or authorised any more, until an admin thaws the budget.

    witness: what a witness saw and the chain lacks; the thaw then accepts the chain without it.
    """
    _post(connection, budget_id, "freeze", {"reason": reason} | ({} if witness is None else {"witness": witness}))


def lower_limit(connection: sa.Connection, budget_id: str, epsilon: Decimal, reason: str) -> None:
    """Restrict later jobs; freezes the budget when what is spent and reserved is past the new limit already."""
    _post(connection, budget_id, "limit", {"epsilon": str(epsilon), "reason": reason})


def raise_limit(
    connection: sa.Connection, key: Ed25519PrivateKey, budget_id: str, epsilon: Decimal, reason: str
) -> None:
    """A new, higher limit: from now on the guarantee speaks of this epsilon, over all history. Admin login."""
    _post_signed(connection, key, budget_id, "limit", {"epsilon": str(epsilon), "reason": reason})


def thaw(connection: sa.Connection, key: Ed25519PrivateKey, budget_id: str, reason: str) -> None:
    """End a freeze; refused while the budget is past its limit. Admin login."""
    _post_signed(connection, key, budget_id, "thaw", {"reason": reason})


def correct(
    connection: sa.Connection, key: Ed25519PrivateKey, budget_id: str, more: Sequence[int], reason: str
) -> None:
    """Add to what is spent, in ledger units per order; freezes the budget when that is past its limit. Admin login."""
    _post_signed(connection, key, budget_id, "correction", {"reason": reason}, spent_change=list(more))


def reprice(connection: sa.Connection, key: Ed25519PrivateKey, budget_id: str, reason: str) -> None:
    """Price the whole history again with the database's present pricing function. Admin login."""
    _post_signed(connection, key, budget_id, "reprice", {"reason": reason})


def record_overlap(connection: sa.Connection, budget_id: str, file_id: str, other: str, reason: str) -> None:
    """The steward's word that records shared with another budget are of different people."""
    _post(connection, budget_id, "overlap", {"file": file_id, "other_budget": other, "reason": reason})


def signature_holds(budget_id: str, seq: int, kind: str, detail: Mapping[str, object], public_key: str) -> bool:
    """Whether a decision was signed by the policy key (hexadecimal). Only texts can have been signed."""
    said = {k: v for k, v in detail.items() if isinstance(v, str)}
    unsigned = {k: v for k, v in said.items() if k not in ("signer", "signature")}
    try:
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        signer.verify(bytes.fromhex(said.get("signature", "")), _signed(budget_id, seq, kind, unsigned))
    except (InvalidSignature, ValueError):
        return False
    return len(said) == len(detail) and said.get("signer") == public_key


def _post_signed(
    connection: sa.Connection,
    key: Ed25519PrivateKey,
    budget_id: str,
    kind: str,
    detail: dict[str, str],
    **values: object,
) -> None:
    # The lock keeps the sequence number that the signature covers.
    head = connection.execute(
        sa.select(budget.c.head_seq).where(budget.c.id == budget_id).with_for_update(key_share=True)
    ).scalar_one()
    signature = key.sign(_signed(budget_id, head + 1, kind, detail)).hex()
    signer = key.public_key().public_bytes_raw().hex()
    _post(connection, budget_id, kind, {**detail, "signer": signer, "signature": signature}, **values)


def _post(connection: sa.Connection, budget_id: str, kind: str, detail: dict[str, str], **values: object) -> None:
    with translated():
        connection.execute(entry.insert().values(budget_id=budget_id, kind=kind, detail=detail, **values))


def _signed(budget_id: str, seq: int, kind: str, detail: Mapping[str, str]) -> bytes:
    return packed(["tacit.policy.v1", budget_id, str(seq), kind, *(x for k in sorted(detail) for x in (k, detail[k]))])
