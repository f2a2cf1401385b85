"""Receipts hold offline."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import receipts
from tests.ledger.worlds import REFERENCE_JOB, World

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw().hex()


def a_receipt(world: World) -> receipts.Receipt:
    made = world.budget()
    _, (receipt,) = world.submit([(world.file(made), made, [REFERENCE_JOB])])
    with world.api.connect() as c:
        return receipts.issue(c, KEY, receipt.budget_id, receipt.seq)


def test_a_receipt_is_checked_without_the_service(world: World) -> None:
    receipt = receipts.Receipt.model_validate_json(a_receipt(world).model_dump_json())
    receipts.check(receipt, PUBLIC)


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 7},
        {"budget": "budget_other"},
        {"hash": "00" * 32},
        {"prev_hash": "00" * 32},
        {"signature": "00" * 64},
        {"signature": "no hex"},
        {"fields": ("tacit.entry.v1",)},
        {"public_key": Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()},
    ],
)
def test_a_changed_receipt_does_not_hold(world: World, change: dict[str, object]) -> None:
    with pytest.raises(receipts.BadReceipt):
        receipts.check(a_receipt(world).model_copy(update=change), PUBLIC)
