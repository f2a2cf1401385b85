"""`tacit verify-release`: honest evidence holds offline, whatever was changed in it does not."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from cli.main import app as command
from domain.kit.settings import secret_bytes
from domain.statements import checking, evidence, places
from ledger.canonical import entry_hash
from tests.api.conftest import JOBS, World
from tests.api.test_statements import WORDS, archive, ended, written_down

pytestmark = pytest.mark.usefixtures("quick_checks")
ROOT = Path(__file__).parents[2]
Files = dict[str, bytes]


@dataclass
class Taken:
    """Evidence of a job with its adapter, that of another job on the same budget, and the key that signed both."""

    files: Files
    other: Files
    dossier: Files
    key: Ed25519PrivateKey

    @property
    def public(self) -> str:
        return self.key.public_key().public_bytes_raw().hex()


def unzipped(data: bytes) -> Files:
    with zipfile.ZipFile(BytesIO(data)) as found:
        return {name: found.read(name) for name in found.namelist()}


@pytest.fixture(scope="module")
def taken(world: World, quick_checks: None) -> Taken:
    training = world.private_file()
    jobs = [world.submit(training["id"], 2.0 - i, **WORDS) for i in range(2)]
    world.submit(training["id"], 0.5)
    with world.engine("worker").connect() as at_work:
        for job in jobs:
            ended(world, at_work, job, report=written_down(job))
    one, other = (unzipped(world.get(f"{JOBS}/{job['id']}/evidence").content) for job in jobs)
    dossier = unzipped(world.get(f"/v1/budgets/{training['budget']}/evidence", "auditor").content)
    key = Ed25519PrivateKey.from_private_bytes(secret_bytes(world.settings.signing_key)[:32])
    return Taken({**one, evidence.ADAPTER: archive()}, other, dossier, key)


def lay(files: Files, folder: Path) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def checked(files: Files, folder: Path, keys: list[str] | None) -> checking.EvidenceVerdict:
    return checking.check(places.open_evidence(lay(files, folder)), keys)


def test_honest_evidence_holds(taken: Taken, tmp_path: Path) -> None:
    for number, files in enumerate((taken.files, taken.other, taken.dossier)):
        for keys in ([taken.public], None):
            verdict = checked(files, tmp_path / f"{number}{keys is None}", keys)
            assert verdict.holds, verdict.sentence
            assert verdict.sentence.startswith("Holds: ")
            assert any("not who signed it" in note for note in verdict.notes) is (keys is None)
    as_zip = tmp_path / "evidence.zip"
    as_zip.write_bytes(evidence.zipped(taken.files))
    verdict = checking.check(places.open_evidence(as_zip), [taken.public])
    assert verdict.holds
    assert "the adapter is the one that was released" in verdict.sentence
    assert "not looked at" in checked(taken.other, tmp_path / "bare", [taken.public]).sentence


def test_the_adapter_is_known_unpacked_and_elsewhere(taken: Taken, tmp_path: Path) -> None:
    bare = {name: data for name, data in taken.files.items() if name != evidence.ADAPTER}
    unpacked = {f"{evidence.UNPACKED}/{name}": data for name, data in unzipped(archive()).items()}
    assert checked({**bare, **unpacked}, tmp_path / "whole", [taken.public]).holds
    swapped = {**unpacked, f"{evidence.UNPACKED}/adapter_model.safetensors": b"others"}
    assert not checked({**bare, **swapped}, tmp_path / "swapped", [taken.public]).holds
    more = {**unpacked, f"{evidence.UNPACKED}/more.bin": b"more"}
    assert not checked({**bare, **more}, tmp_path / "more", [taken.public]).holds
    for data, holds in ((archive(), True), (b"another", False)):
        (tmp_path / "elsewhere.zip").write_bytes(data)
        folder = lay(bare, tmp_path / f"bare-{holds}")
        found = checking.check(places.open_evidence(folder), [taken.public], tmp_path / "elsewhere.zip")
        assert found.holds is holds


def without_the_service(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process that has no setting, no database and, where the system lets us, no network."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TACIT_")}
    call = [sys.executable, "-m", "cli", "verify-release", *arguments]
    alone = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True).returncode == 0:
        call = [*alone, *call]
    path = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(call, cwd=folder, env=environment | path, capture_output=True, text=True, timeout=300)


def test_the_command_checks_offline(taken: Taken, tmp_path: Path) -> None:
    folder = lay(taken.files, tmp_path / "evidence")
    (tmp_path / "keys.json").write_text(json.dumps({"signing_key": taken.public, "earlier_signing_keys": []}))
    ran = without_the_service(tmp_path, "evidence", "--key", "keys.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Holds: ")
    (folder / evidence.PAGE).write_bytes(taken.files[evidence.PAGE].replace(b"differentially private", b"private"))
    ran = without_the_service(tmp_path, "evidence", "--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["sentence"] == "Does not hold: statement.html is not the one that was signed."


def test_without_a_key_it_says_that_only_integrity_is_shown(taken: Taken, tmp_path: Path) -> None:
    """A forger signs with a key of his own: that is found by whoever has the service's."""
    forged = signed_again(taken.files, Ed25519PrivateKey.generate())
    lay(forged, tmp_path / "forged")
    (tmp_path / "key").write_text(taken.public + "\n")
    ran = CliRunner().invoke(command, ["verify-release", str(tmp_path / "forged")])
    assert ran.exit_code == 0
    assert "not who signed it" in ran.stdout
    ran = CliRunner().invoke(command, ["verify-release", str(tmp_path / "forged"), "--key", str(tmp_path / "key")])
    assert ran.exit_code == 1
    assert "signed by another key" in ran.stdout
    (tmp_path / "key").write_text("not a key")
    ran = CliRunner().invoke(command, ["verify-release", str(tmp_path / "forged"), "--key", str(tmp_path / "key")])
    assert ran.exit_code == 1
    assert "holds no public key" in ran.stdout


def test_what_an_earlier_key_signed_holds_after_a_rotation(world: World, taken: Taken, tmp_path: Path) -> None:
    """The service starts with its new key on the old witness, and publishes the old key beside the new one."""
    fresh = {"signing_key": type(world.settings.signing_key)("5b" * 32), "earlier_signing_keys": taken.public}
    with TestClient(create_app(world.settings.model_copy(update=fresh))) as client:
        headers = {"Authorization": f"Bearer {world.keys['one']['analyst']}"}
        keys = client.get("/v1/ledger/keys", headers=headers).json()
        assert keys["earlier_signing_keys"] == [taken.public]
        assert keys["signing_key"] != taken.public
        job = json.loads(taken.files[evidence.STATEMENT])["job"]
        new = unzipped(client.get(f"{JOBS}/{job}/evidence", headers=headers).content)
    known = checking.read_keys(json.dumps(keys))
    assert checked(taken.files, tmp_path / "old", known).holds
    assert checked(new, tmp_path / "new", known).holds
    assert not checked(new, tmp_path / "unknown", [taken.public]).holds


# What is changed and found, with and without the service's key.


def signed_again(files: Files, key: Ed25519PrivateKey) -> Files:
    """As whoever has this key would sign it, receipts included."""
    from ledger.receipts import Receipt, sign

    kept = []
    for raw in json.loads(files[evidence.RECEIPTS]):
        public = key.public_key().public_bytes_raw().hex()
        mark = sign(key, raw["budget"], raw["seq"], raw["hash"])
        kept.append(Receipt.model_validate(raw | {"public_key": public, "signature": mark}).model_dump())
    found = {**files, evidence.RECEIPTS: (json.dumps(kept, indent=1) + "\n").encode()}
    seal = json.loads(files[evidence.SIGNATURE])
    digests = {name: hashlib.sha256(found[name]).hexdigest() for name in seal["files"] if name in found}
    statement = json.loads(found[evidence.STATEMENT])
    about = f"job {statement['job']}" if "job" in statement else f"budget {statement['budget']}"
    covered = evidence.signed(about, statement["issued_at"], seal["adapter"], digests)
    seal |= {"about": about, "issued_at": statement["issued_at"], "files": digests}
    seal |= {"public_key": key.public_key().public_bytes_raw().hex(), "signature": key.sign(covered).hex()}
    return {**found, evidence.SIGNATURE: json.dumps(seal).encode()}


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Taken], Files]:
    def act(taken: Taken) -> Files:
        said = json.loads(taken.files[name])
        changed = change(said)
        return {**taken.files, name: json.dumps(said if changed is None else changed).encode()}

    return act


def stated(*path: Any, value: Any) -> Callable[[Taken], Files]:
    """The statement with another value at a place."""

    def change(said: Any) -> None:
        place = said
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value(place[path[-1]]) if callable(value) else value

    return edited(evidence.STATEMENT, change)


def flipped(name: str, where: float) -> Callable[[Taken], Files]:
    def act(taken: Taken) -> Files:
        data = bytearray(taken.files[name])
        data[int(where * (len(data) - 1))] ^= 1
        return {**taken.files, name: bytes(data)}

    return act


def left_out(name: str) -> Callable[[Taken], Files]:
    return lambda taken: {n: data for n, data in taken.files.items() if n != name}


def of_the_other(name: str) -> Callable[[Taken], Files]:
    return lambda taken: {**taken.files, name: taken.other[name]}


def sealed(**changes: Any) -> Callable[[Taken], Files]:
    return edited(evidence.SIGNATURE, lambda seal: {**seal, **{k: v(seal) for k, v in changes.items()}})


def entries(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Taken], Files]:
    return edited(evidence.ENTRIES, lambda said: change(said["entries"]))


def rewritten(lines: list[dict[str, Any]]) -> None:
    """A settlement that charged less, with a hash that fits."""
    line = next(one for one in lines if one["fields"] and one["fields"][3] == "settle")
    line["fields"][7] = "{" + ",".join("1" for _ in line["fields"][7].split(",")) + "}"
    line["hash"] = entry_hash(bytes.fromhex(line["prev_hash"]), line["fields"]).hex()


BYTES: dict[str, Callable[[Taken], Files]] = {
    **{
        f"a bit of {name} at {at}": flipped(name, at)
        for name in (
            evidence.STATEMENT,
            evidence.PAGE,
            evidence.ENTRIES,
            evidence.RECEIPTS,
            evidence.REGISTRY,
            evidence.ADAPTER,
        )
        for at in (0.0, 0.5, 1.0)
    },
    **{
        f"{name} is gone": left_out(name)
        for name in (
            evidence.STATEMENT,
            evidence.PAGE,
            evidence.ENTRIES,
            evidence.RECEIPTS,
            evidence.REGISTRY,
            evidence.SIGNATURE,
        )
    },
    **{
        f"{name} of another job": of_the_other(name)
        for name in (evidence.STATEMENT, evidence.PAGE, evidence.ENTRIES, evidence.RECEIPTS, evidence.SIGNATURE)
    },
    "a smaller epsilon": stated("claim", "epsilon", value=0.5),
    "more noise": stated("phases", 0, "noise_multiplier", value=9.0),
    "another sha256 of the adapter": stated("releases", 0, "sha256", value="0" * 64),
    "another purpose": stated("purpose", "intended_use", value="something else"),
    "another page": lambda taken: {**taken.files, evidence.PAGE: b"<p>private</p>"},
    "another adapter": lambda taken: {**taken.files, evidence.ADAPTER: b"another"},
    "a file more": lambda taken: {**taken.files, "more.txt": b"read this instead"},
    "the signature is cut": sealed(signature=lambda seal: seal["signature"][:-2]),
    "the signature is empty": sealed(signature=lambda seal: ""),
    "the signature is another": sealed(signature=lambda seal: "00" * 64),
    "the signature is no number": sealed(signature=lambda seal: "zz" * 64),
    "it is about another job": sealed(about=lambda seal: "job ftjob-other"),
    "it was issued at another time": sealed(issued_at=lambda seal: "2020-01-01T00:00Z"),
    "another key": sealed(public_key=lambda seal: "11" * 32),
    "no key": sealed(public_key=lambda seal: ""),
    "a file is not signed": sealed(files=lambda seal: {k: v for k, v in seal["files"].items() if k != evidence.PAGE}),
    "no adapter is signed": sealed(adapter=lambda seal: None),
    "an entry is removed": entries(lambda lines: lines.pop(1) and None),
    "entries change places": entries(lambda lines: lines.reverse()),
    "an entry is replaced": entries(rewritten),
    "the statement is no statement": edited(evidence.STATEMENT, lambda said: {"format": "another"}),
    "the statement is not JSON": lambda taken: {**taken.files, evidence.STATEMENT: b"{"},
}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("what", BYTES)
def test_whatever_is_changed_is_found(taken: Taken, tmp_path: Path, what: str) -> None:
    """Whoever has no key of the service."""
    for keys in ([taken.public], None):
        verdict = checked(BYTES[what](taken), tmp_path / f"{keys is None}", keys)
        assert not verdict.holds, what
        assert verdict.sentence.startswith("Does not hold: ")


def receipts(change: Callable[[list[Any]], Any]) -> Callable[[Taken], Files]:
    return edited(evidence.RECEIPTS, change)


def together(*changes: Callable[[Taken], Files]) -> Callable[[Taken], Files]:
    def act(taken: Taken) -> Files:
        for change in changes:
            taken = Taken(change(taken), taken.other, taken.dossier, taken.key)
        return taken.files

    return act


MEANT: dict[str, Callable[[Taken], Files]] = {
    "a smaller epsilon": stated("claim", "epsilon", value=0.5),
    "no epsilon": stated("claim", "epsilon", value=None),
    "a smaller cost": stated("claim", "cost", value=lambda cost: [1 for _ in cost]),
    "a smaller delta": stated("claim", "delta", value=1e-9),
    "less noise than the price is of": stated("phases", 0, "noise_multiplier", value=0.6),
    "no noise": stated("phases", 0, "noise_multiplier", value=0.0),
    "more steps than there are": stated("phases", 0, "steps_planned", value=10**15),
    "a larger rate": stated("phases", 0, "sample_rate", value=0.5),
    "more steps than were charged": stated("phases", 0, "steps_authorised", value=400),
    "charged for fewer steps": stated("phases", 0, "steps_charged", value=1),
    "cheaper steps": stated("phases", 0, "step_cost", value=lambda cost: [1 for _ in cost]),
    "other weights": stated("account", "filter", "weights", value=lambda weights: ["1/2" for _ in weights]),
    "odds that are too good": stated("odds", "curve", 8, "found", value=0.0101),
    "a guess that is too bad": stated("odds", "best_accuracy", value=0.5),
    "odds off their own curve": stated("odds", "found_at_one_percent", value=0.0101),
    "the budget's odds too good": stated(
        "budget_odds", "curve", value=lambda curve: [point | {"found": point["innocent"]} for point in curve]
    ),
    "another reservation": stated("reservation", value="reservation_other"),
    "another budget": stated("account", "budget", value="budget-other"),
    "an entry is not named": stated("entries", value=lambda lines: lines[:-1]),
    "an entry of another hash": stated("entries", 0, "hash", value="ab" * 32),
    "the adapter is not released": stated("releases", value=lambda made: made[1:]),
    "receipts of another job": of_the_other(evidence.RECEIPTS),
    "entries of another job": of_the_other(evidence.ENTRIES),
    "statement of another job": of_the_other(evidence.STATEMENT),
    "no receipt": receipts(lambda kept: []),
    "a receipt less": receipts(lambda kept: kept[:1]),
    "receipts change places": receipts(lambda kept: kept[::-1]),
    "an entry is removed": entries(lambda lines: lines.pop(1) and None),
    "entries change places": entries(lambda lines: lines.reverse()),
    "an entry comes twice": entries(lambda lines: lines.insert(1, lines[1])),
    "an entry is replaced": entries(rewritten),
    "own entries are hidden": entries(
        lambda lines: [one.update(prev_hash=None, fields=None) for one in lines] and None
    ),
    "an entry half shown": entries(lambda lines: [one.update(prev_hash=None) for one in lines] and None),
    "an unknown field": stated("claim", value=lambda claim: claim | {"strong": True}),
}


@pytest.mark.sampled(14)
@pytest.mark.parametrize("what", MEANT)
def test_what_does_not_fit_together_is_found_though_the_service_signed_it(
    taken: Taken, tmp_path: Path, what: str
) -> None:
    """A fault of the service, or a stolen key: the parts must say the same, and the numbers must come out again."""
    changed = signed_again(MEANT[what](taken), taken.key)
    verdict = checked(changed, tmp_path / "changed", [taken.public])
    assert not verdict.holds, what
    assert "Does not hold: " in verdict.sentence
    assert "the signature does not hold" not in verdict.sentence


DOSSIER: dict[str, Callable[[dict[str, Any]], Any]] = {
    "less spent": lambda said: said.update(spent=[1 for _ in said["spent"]]),
    "less reserved": lambda said: said.update(reserved=[0 for _ in said["reserved"]]),
    "larger caps": lambda said: said.update(cap=[2**52 for _ in said["cap"]]),
    "a smaller epsilon used": lambda said: said.update(epsilon_used=0.1),
    "past its limit": lambda said: said.update(within=False),
    "another head": lambda said: said["head"].update(hash="ab" * 32),
    "a job's epsilon": lambda said: said["jobs"][0].update(epsilon=0.1),
    "better odds": lambda said: said["odds"].update(best_accuracy=0.5),
}


@pytest.mark.parametrize("what", DOSSIER)
def test_a_dossiers_numbers_must_come_out_of_its_ledger(taken: Taken, tmp_path: Path, what: str) -> None:
    said = json.loads(taken.dossier[evidence.STATEMENT])
    DOSSIER[what](said)
    files = {**taken.dossier, evidence.STATEMENT: json.dumps(said).encode()}
    verdict = checked(signed_again(files, taken.key), tmp_path / "changed", [taken.public])
    assert not verdict.holds
    assert checked(signed_again(taken.dossier, taken.key), tmp_path / "whole", [taken.public]).holds


def test_a_dossier_without_one_of_its_entries_is_found(taken: Taken, tmp_path: Path) -> None:
    chain = json.loads(taken.dossier[evidence.ENTRIES])
    for place in range(len(chain["entries"])):
        lines = chain["entries"][:place] + chain["entries"][place + 1 :]
        files = {**taken.dossier, evidence.ENTRIES: json.dumps(chain | {"entries": lines}).encode()}
        assert not checked(signed_again(files, taken.key), tmp_path / f"{place}", [taken.public]).holds


def test_evidence_of_a_job_that_released_nothing_holds(world: World, tmp_path: Path) -> None:
    file = world.private_file()
    job = world.submit(file["id"], 1.0)
    waiting = unzipped(world.get(f"{JOBS}/{job['id']}/evidence").content)
    world.post(f"{JOBS}/{job['id']}/cancel")
    ended_since = unzipped(world.get(f"{JOBS}/{job['id']}/evidence").content)
    for number, files in enumerate((waiting, ended_since)):
        verdict = checked(files, tmp_path / f"{number}", None)
        assert verdict.holds, verdict.sentence
        assert "no adapter was released" in verdict.sentence
        assert evidence.REGISTRY not in files


def test_evidence_after_a_new_price_holds(world: World, tmp_path: Path) -> None:
    """Its costs are at today's prices, and no longer those of the settlement."""
    from ledger import policy

    file = world.private_file()
    job = world.submit(file["id"], 1.0)
    with world.engine("worker").connect() as at_work:
        ended(world, at_work, job, report=written_down(job))
    with world.engine("admin").begin() as connection:
        policy.reprice(connection, Ed25519PrivateKey.generate(), file["budget"], "a new accountant")
    files = unzipped(world.get(f"{JOBS}/{job['id']}/evidence").content)
    assert json.loads(files[evidence.STATEMENT])["repriced"] is True
    assert checked(files, tmp_path / "repriced", None).holds


def test_what_is_no_evidence_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no ZIP")
    for path in ("empty", "text"):
        ran = CliRunner().invoke(command, ["verify-release", str(tmp_path / path)])
        assert ran.exit_code == 1
        assert "Does not hold: " in ran.stdout


def test_the_client_takes_evidence_and_checks_it(world: World, address: str, tmp_path: Path) -> None:
    training = world.private_file()
    job = world.submit(training["id"], 1.0)
    with world.engine("worker").connect() as at_work:
        ended(world, at_work, job, report=written_down(job))
    steward = ["--url", address, "--key", world.keys["one"]["steward"]]
    run = CliRunner().invoke
    folder = str(tmp_path / "evidence")
    assert run(command, ["jobs", "evidence", job["id"], "-o", folder, "--adapter", *steward]).exit_code == 0
    keys = run(command, ["ledger", "keys", "--json", *steward]).stdout
    (tmp_path / "keys.json").write_text(keys)
    checked_by = run(command, ["verify-release", folder, "--key", str(tmp_path / "keys.json")])
    assert (checked_by.exit_code, "is the one that was released" in checked_by.stdout) == (0, True)
    page = tmp_path / "page.html"
    assert run(command, ["jobs", "statement", job["id"], "--html", "-o", str(page), *steward]).exit_code == 0
    assert page.read_text().startswith("<!doctype html>")
    said = run(command, ["budgets", "statement", training["budget"], *steward])
    assert json.loads(said.stdout)["format"] == "tacit.statement.budget.v1"
    assert run(command, ["budgets", "evidence", training["budget"], "-o", folder + "-all", *steward]).exit_code == 0
    assert run(command, ["verify-release", folder + "-all"]).exit_code == 0
