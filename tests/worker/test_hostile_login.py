"""What a stolen password of the API's login puts before a worker is refused for nothing, and no row of it is read."""

import secrets
from typing import Any

import pytest
import sqlalchemy as sa

from domain.kit.ids import new_id
from domain.kit.settings import WorkerSettings
from domain.kit.tables import data_key, file, tenant
from domain.storage.blobs import put_bytes
from tests.worker import tiny
from tests.worker.service import DECLARED, MAX_LENGTH, Service
from tests.worker.test_attempt import failure
from worker import training as module
from worker.attempt import attempt

ATTACKS = [
    *((attack, which) for attack in ("a random binding", "no binding", "another's key") for which in ("train", "eval")),
    ("another tenant's", "eval"),  # as training file the ledger refuses it
]


def rogue(service: Service, private: bool, **chosen: Any) -> str:
    """A row of `file` that names rows which no row names yet, as those of an upload under way."""
    id = new_id("file", "-")
    values = {"id": id, "tenant_id": "tenant_a", "filename": "f", "sha256": "00", "status": "processed"}
    values |= {"task": "classification", "labels": list(tiny.LABELS), "max_length": MAX_LENGTH}
    values |= {"purpose": "fine-tune", "budget_id": "budget_a"} if private else {"purpose": "evals"}
    values |= {"declared_size": DECLARED, "binding": secrets.token_bytes(32)}
    blob = put_bytes(service.store, f"files/{id}/rows.parquet", b"rows").name
    with service.api.begin() as c:
        c.execute(file.insert().values(**values | {"blob": blob} | chosen))
    return id


def another_key(service: Service, id: str) -> None:
    """The wrapped key of one file in the place of another's."""
    with service.api.begin() as c:
        mine, theirs = (
            c.execute(sa.select(file.c.blob).where(file.c.id == f)).scalar_one()
            for f in (id, service.add_file(*tiny.rows(10, seed=5), private=True))
        )
        key = c.execute(sa.select(data_key).where(data_key.c.blob == theirs)).one()
        c.execute(sa.delete(data_key).where(data_key.c.blob == mine))
        c.execute(data_key.insert().values(blob=mine, wrapped=key.wrapped, master=key.master))


@pytest.mark.parametrize(("attack", "which"), ATTACKS)
def test_a_file_that_is_not_tied_to_its_rows_is_not_read(
    service: Service,
    engine: sa.Engine,
    settings: WorkerSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    attack: str,
    which: str,
) -> None:
    chosen = {"a random binding": {}, "no binding": {"binding": None, "status": "uploaded"}}
    if attack == "another's key":
        another_key(service, getattr(service, f"{which}_file"))
    elif attack == "another tenant's":
        with service.api.begin() as c:
            c.execute(tenant.insert().values(id="tenant_b", name="b"))
        service.eval_file = rogue(service, private=False, tenant_id="tenant_b")
    else:
        setattr(service, f"{which}_file", rogue(service, which == "train", **chosen[attack]))
    read: list[object] = []
    monkeypatch.setattr(module, "read_rows", read.append)
    id = service.submit(hint=False)
    attempt(engine, settings, id)
    code = "not_trainable" if attack == "another tenant's" else "file_binding_broken"
    assert failure(service, id)["code"] == code
    assert service.authorised(id) == 0
    assert not any(service.settlement(id).spent_change)
    assert read == []
    assert ("ALARM" in caplog.text) == (code == "file_binding_broken")
