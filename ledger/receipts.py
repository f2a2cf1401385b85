"""Receipts: what a client keeps to show later that a charge was there, checked offline."""

from typing import Literal

import sqlalchemy as sa
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict

from ledger.canonical import entry_hash, packed
from ledger.tables import entry

FORMAT: Literal["tacit.receipt.v1"] = "tacit.receipt.v1"


class Receipt(BaseModel):
    """One entry of a budget's chain with the service's Ed25519 signature; hashes, keys and signature in hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tacit.receipt.v1"] = FORMAT
    budget: str
    seq: int
    prev_hash: str
    fields: tuple[str, ...]
    """The canonical text of the entry, in ledger.entry_fields' order."""
    hash: str
    public_key: str
    signature: str


class BadReceipt(ValueError):
    """The receipt does not hold together, or was not signed by the key it should be."""


def issue(connection: sa.Connection, key: Ed25519PrivateKey, budget_id: str, seq: int) -> Receipt:
    """The receipt of an entry that exists. Raises sqlalchemy.exc.NoResultFound."""
    row = connection.execute(
        sa.select(
            entry.c.prev_hash,
            entry.c.hash,
            sa.literal_column("ledger.entry_fields(entry.*)", sa.ARRAY(sa.Text)).label("fields"),
        ).where(entry.c.budget_id == budget_id, entry.c.seq == seq)
    ).one()
    return Receipt(
        budget=budget_id,
        seq=seq,
        prev_hash=row.prev_hash.hex(),
        fields=tuple(row.fields),
        hash=row.hash.hex(),
        public_key=key.public_key().public_bytes_raw().hex(),
        signature=sign(key, budget_id, seq, row.hash.hex()),
    )


def sign(key: Ed25519PrivateKey, budget_id: str, seq: int, hash_hex: str) -> str:
    """The service's word (hexadecimal) that entry `seq` of the budget has this hash."""
    return key.sign(_signed(budget_id, seq, hash_hex)).hex()


def check(receipt: Receipt, public_key: str) -> None:
    """Raises BadReceipt unless the entry hashes to what `public_key` (hexadecimal) signed."""
    if receipt.public_key != public_key:
        raise BadReceipt(f"signed by another key: {receipt.public_key}")
    if list(receipt.fields[1:3]) != [receipt.budget, str(receipt.seq)]:
        raise BadReceipt("the entry is not the one that the receipt names")
    try:
        if entry_hash(bytes.fromhex(receipt.prev_hash), receipt.fields).hex() != receipt.hash:
            raise BadReceipt("the entry does not hash to what was signed")
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        signer.verify(bytes.fromhex(receipt.signature), _signed(receipt.budget, receipt.seq, receipt.hash))
    except InvalidSignature:
        raise BadReceipt("the signature does not hold") from None
    except BadReceipt:
        raise
    except ValueError as error:
        raise BadReceipt(f"not hexadecimal or of the wrong length: {error}") from None


def _signed(budget_id: str, seq: int, hash_hex: str) -> bytes:
    return packed([FORMAT, budget_id, str(seq), hash_hex])
