"""Receipts hold offline."""

import re

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import receipts, work
from ledger.canonical import entry_seal
from ledger.reserve import settle
from ledger.verify import verify_budget
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


def test_the_receipt_of_a_settlement_tells_neither_how_many_attempts_there_were_nor_its_second(world: World) -> None:
    """Whoever submitted the job keeps it, and may learn neither; the hash covers both all the same."""
    made = world.budget()
    job, _ = world.submit([(world.file(made), made, [REFERENCE_JOB])])
    for _ in range(3):
        with world.worker.begin() as c:
            lease = work.claim(c, job, "w", 60)
            assert lease is not None
            work.drop(c, lease)
    with world.worker.begin() as c:
        lease = work.claim(c, job, "w", 60)
        assert lease is not None
        assert lease.fence == 4
        (posted,) = settle(c, job, "failed", fence=lease.fence)
    at = """to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    with world.api.connect() as c:
        receipt = receipts.issue(c, KEY, made, posted.seq)
        kept = f"FROM ledger.entry WHERE budget_id = '{made}' AND seq = {posted.seq}"
        salt, exact = c.execute(sa.text(f"SELECT encode(salt, 'hex'), {at} {kept}")).one()
        assert verify_budget(c, made) == []
    receipts.check(receipt, PUBLIC)
    format, seal, minute = (receipt.fields[place] for place in (0, 6, 10))
    assert (format, seal) == ("tacit.entry.v3", entry_seal(salt, "4", exact))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ", minute)
    assert exact.startswith(minute[:-1])
    assert salt not in receipt.model_dump_json()
