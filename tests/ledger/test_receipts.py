"""Receipts hold offline; the witness notices a restored backup."""

import subprocess
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import receipts, witness
from ledger.guard import require_intact
from ledger.reserve import Phase, settle
from ledger.tables import budget
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


def test_the_witness_is_signed_and_forgives_only_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "heads.jsonl"
    assert witness.read(path, KEY.public_key()) == {}
    witness.append(path, KEY, [witness.Head("b", 1, "aa"), witness.Head("b", 2, "bb")])
    witness.append(path, KEY, [witness.Head("c", 1, "cc")])
    with path.open("a") as f:
        f.write('{"budget": "b", "se')
    assert {h.seq for h in witness.read(path, KEY.public_key()).values()} == {1, 2}
    path.write_text(path.read_text().replace('"seq": 2', '"seq": 1'))
    with pytest.raises(witness.BrokenWitness):
        witness.read(path, KEY.public_key())


def test_a_restored_old_dump_stands_behind_its_witness(world: World, tmp_path: Path) -> None:
    from cli.embedded import postgres

    made = world.budget()
    file = world.file(made)
    world.submit([(file, made, [Phase(0.01, 1.0, 10)])])
    path = tmp_path / "heads.jsonl"
    programs = postgres.programs()
    binaries = programs[max(programs)]
    url = world.database.superuser_url.replace("+psycopg", "")
    dump = subprocess.run([binaries / "pg_dump", "--format=custom", url], check=True, capture_output=True).stdout
    job, _ = world.submit([(file, made, [Phase(0.01, 1.0, 10)])])
    with world.api.begin() as c:
        settle(c, job, "cancelled")
    with world.api.connect() as c:
        witness.append(path, KEY, witness.heads(c, {}))
        assert witness.behind(c, witness.read(path, KEY.public_key())) == {}

    restored = f"restored_{made[-8:]}"
    with world.admin.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.exec_driver_sql(f"CREATE DATABASE {restored}")
    target = url.replace(f"/{world.database.name}?", f"/{restored}?")
    subprocess.run([binaries / "pg_restore", "--dbname", target], input=dump, check=True, capture_output=True)
    engine = sa.create_engine(target.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    with engine.begin() as c:
        require_intact(c)  # a restored database has its guards
        seen = witness.read(path, KEY.public_key())
        reasons = witness.behind(c, seen)
        assert list(reasons) == [made]
        assert "an old backup was restored" in reasons[made]
        witness.freeze_behind(c, seen)
        frozen = c.execute(sa.select(budget.c.frozen_reason).where(budget.c.id == made)).scalar_one()
        assert frozen == reasons[made]
    engine.dispose()
    with world.admin.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.exec_driver_sql(f"DROP DATABASE {restored}")
