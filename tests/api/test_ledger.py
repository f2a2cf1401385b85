"""The ledger over HTTP: verified, receipted, witnessed, frozen and lowered, each by those who may."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from cli.main import app as command
from domain.keeping import keeper
from domain.kit.settings import secret_bytes
from ledger import receipts, witness
from tests.api.conftest import JOBS, World, job_body


def public_key(world: World) -> str:
    return world.get("/v1/ledger/keys").json()["signing_key"]


def test_a_jobs_receipts_are_checked_without_the_service(world: World, tmp_path: Path) -> None:
    job = world.submit(world.private_file()["id"])
    world.post(f"{JOBS}/{job['id']}/cancel")
    answer = world.get(f"{JOBS}/{job['id']}/receipts").json()
    kinds = [receipts.Receipt.model_validate(r).fields[3] for r in answer]
    assert kinds == ["reserve", "settle"]
    assert (answer[0]["hash"], answer[0]["signature"]) == (job["receipt"]["hash"], job["receipt"]["signature"])
    kept = tmp_path / "receipt.json"
    kept.write_text(json.dumps(answer))
    check = ["ledger", "check-receipt", str(kept), "--public-key"]
    assert CliRunner().invoke(command, [*check, public_key(world)]).exit_code == 0
    assert CliRunner().invoke(command, [*check, "00" * 32]).exit_code == 1
    kept.write_text(kept.read_text().replace("cancelled", "succeeded"))
    assert CliRunner().invoke(command, [*check, public_key(world)]).exit_code == 1


def test_verification_names_what_does_not_hold(world: World) -> None:
    budget = world.private_file()["budget"]
    path = f"/v1/budgets/{budget}/verify"
    assert world.post(path, scope="auditor").json()["ok"] is True
    assert world.post(path, scope="analyst").status_code == 403
    assert world.post(path, scope="auditor", tenant="two").status_code == 404
    with world.engine("superuser").begin() as connection:
        connection.execute(sa.text("SET session_replication_role = replica"))
        connection.execute(
            sa.text("UPDATE ledger.entry SET actor = 'nobody' WHERE budget_id = :b AND seq = 1"), {"b": budget}
        )
    answer = world.post(path, scope="auditor").json()
    assert answer["ok"] is False
    assert answer["problems"] == [{"seq": 1, "what": "the entry does not hash to its hash: it was edited"}]
    keeper.verify_all(world.engine("api"), None)
    held = world.get(f"/v1/budgets/{budget}").json()
    assert held["frozen"] is True
    assert held["frozen_reason"].startswith("verification failed")


def test_a_steward_freezes_and_lowers_but_does_not_raise(world: World) -> None:
    file = world.private_file()
    path = f"/v1/budgets/{file['budget']}"
    body = {"epsilon": 4, "reason": "stricter"}
    assert world.post(f"{path}/limit", body, scope="analyst").status_code == 403
    assert world.post(f"{path}/limit", body, scope="steward").json()["epsilon"] == 4
    raised = world.post(f"{path}/limit", {"epsilon": 5, "reason": "looser"}, scope="steward")
    assert (raised.status_code, raised.json()["error"]["code"]) == (403, "limit_only_falls")
    refused = world.post(JOBS, job_body(file["id"], 5.0))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "privacy_budget_exceeded")
    assert world.get(path).json()["guarantee"].startswith("Everything that all jobs on this budget ever release is")
    frozen = world.post(f"{path}/freeze", {"reason": "a complaint"}, scope="steward").json()
    assert (frozen["frozen"], frozen["frozen_reason"]) == (True, "a complaint")
    assert world.post(JOBS, job_body(file["id"], 1.0)).status_code == 403
    assert world.post(f"{path}/freeze", {"reason": ""}, scope="steward").status_code == 400
    kinds = [e["kind"] for e in world.get(f"{path}/entries", "auditor").json()["data"]]
    assert kinds == ["open", "records", "grant", "limit", "freeze"]


def test_an_estimate_says_how_many_such_jobs_fit_and_what_this_one_takes_now(world: World) -> None:
    file = world.private_file()
    first = world.post(f"{JOBS}/estimate", job_body(file["id"], 2.0)).json()
    world.submit(file["id"], 2.0)
    second = world.post(f"{JOBS}/estimate", job_body(file["id"], 2.0)).json()
    assert first["jobs_that_fit"] == second["jobs_that_fit"] + 1 > 4
    assert second["price_now"] < first["price_now"] == pytest.approx(2.0, abs=0.01)
    for _ in range(second["jobs_that_fit"]):
        world.submit(file["id"], 2.0)
    assert world.post(JOBS, job_body(file["id"], 2.0)).status_code == 403


def test_the_witness_sees_every_charge_and_a_ledger_behind_it_is_frozen_at_start(world: World) -> None:
    job = world.submit(world.private_file()["id"])
    key = Ed25519PrivateKey.from_private_bytes(secret_bytes(world.settings.signing_key))
    assert world.settings.witness is not None
    receipt = job["receipt"]
    charged = witness.Head(receipt["budget"], receipt["seq"], receipt["hash"])
    assert witness.sealed(key, charged) in world.settings.witness.read_bytes()
    with world.settings.witness.open("ab") as file:
        file.write(witness.sealed(key, witness.Head(receipt["budget"], receipt["seq"] + 2, "ab" * 32)))
    with TestClient(create_app(world.settings)):
        pass
    held = world.get(f"/v1/budgets/{receipt['budget']}").json()
    assert "an old backup was restored" in held["frozen_reason"]
