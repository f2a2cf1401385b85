"""`tacit demo --federated`: two tenants, three private files, three budgets, one adapter."""

import json
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from cli import demo_data, options, output
from cli.client import ApiError, Client
from cli.commands import adapters, jobs
from cli.demo import DemoTask, measured_alone
from cli.demo_stack import Watch, running
from dpcore.terms.tasks import DEFAULT_KIND

ROWS, EVALUATED = 1500, 600
"""Made-up notes of each file, and public ones."""
EPSILON, DELTA = 8.0, 1e-5
ROUNDS, BATCH = 15, 250
LEARNT = 0.15  # how far above chance the made-up task must be learnt
WORKERS = 4  # one for each silo, and one for the job itself
METHOD = "federated-lora"
MODEL = "minilm-l6"
GUEST = "demo-clinic"
console = output.console


def federated_demo(data: Path, scratch: Path) -> dict[str, Any]:
    """From raw rows to an adapter and three ledgers, told step by step; answers the figures."""
    watch = Watch()
    paths = _make_data(scratch)
    console.rule("The service")
    with running(data, scratch, WORKERS) as (url, admin_key):
        watch.lap("start")
        host, guest = Client(url, admin_key), Client(url, _guest_key(data, scratch))
        console.print(f"Two tenants share the service on {url}: a hospital and a clinic, each with rows of its own.")
        console.rule("Each steward opens budgets and uploads rows")
        own = _private(host, paths[0], "hospital")
        theirs = [_private(guest, path, f"clinic {number}") for number, path in enumerate(paths[1:3], start=1)]
        public = _public(host, paths[3], own["labels"])
        _not_theirs(host, theirs[0]["id"])
        watch.lap("upload")
        invited = [_invited(host, guest, own, file) for file in theirs]
        watch.lap("invite")
        job = _job(host, own, public, invited)
        watch.lap("train")
        _told(host, guest, job)
        adapter = scratch / "adapter"
        console.rule("The hospital takes the adapter home")
        console.print(f"Checked: sha256 {adapters.fetch(host, job['id'], adapter)}")
        measured = measured_alone(_task(paths), own, adapter, scratch)
        watch.lap("predict")
    watch.lap("stop")
    figures = {
        **measured,
        "method": METHOD,
        "silos": 3,
        "rounds": ROUNDS,
        "rows": [ROWS] * 3,
        "epsilon": EPSILON,
        "delta": DELTA,
        "seconds": watch.total(),
        "stages": watch.stages,
    }
    console.rule("What happened")
    output.show({name: value for name, value in figures.items() if name != "stages"}, as_json=False)
    console.print(
        "What left a silo were changes of the adapter's weights, clipped for each row and noised by the silo itself,\n"
        "each paid for on its own budget before it was made. The hospital's ledger says nothing of the clinic's."
    )
    if measured["accuracy"] < LEARNT + max(measured["majority"], measured["accuracy_untrained"]):
        options.fail("the model has not learnt the task")
    return figures


def _make_data(scratch: Path) -> list[Path]:
    """Three private files and a public one, of notes that are nobody's twice."""
    rows = demo_data.notes(3 * ROWS + EVALUATED)
    paths = [scratch / f"notes-{number}.csv" for number in (1, 2, 3)] + [scratch / "evaluation.csv"]
    for number, path in enumerate(paths):
        demo_data.write(path, rows[number * ROWS : number * ROWS + (ROWS if number < 3 else EVALUATED)])
    console.rule("The data")
    console.print(f"{ROWS} made-up notes of patients in each of three files: one of a hospital, two of a clinic.")
    return paths


def _task(paths: list[Path]) -> DemoTask:
    columns = {"text": "text", "label": "label"}
    names = ",".join(demo_data.LABELS)
    numbers = {"steps": None, "batch_size": BATCH, "learning_rate": None}
    return DemoTask(
        train=paths[0],
        evaluation=paths[3],
        kind=DEFAULT_KIND,
        columns=columns,
        labels=names,
        epsilon=EPSILON,
        delta=DELTA,
        max_length=None,
        model=MODEL,
        method=METHOD,
        **numbers,
    )


def _guest_key(data: Path, scratch: Path) -> str:
    """Of another tenant, which the operator makes."""
    from cli.embedded import secrets, stack
    from domain.access.bootstrap import create_tenant

    found: list[str] = []
    create_tenant(stack.admin_url(data), GUEST, bytes.fromhex(secrets.load(data).key_pepper), found.append)
    return found[0]


def _private(steward: Client, path: Path, name: str) -> dict[str, Any]:
    budget = steward.post(
        "/v1/budgets",
        {
            "name": f"demo {name}",
            "epsilon": EPSILON,
            "delta": DELTA,
            "reference": {"sample_rate": BATCH / ROWS, "steps": ROUNDS},
        },
    )
    form = {"purpose": "fine-tune", "budget": budget["id"], "declared_size": "count"}
    file: dict[str, Any] = steward.upload("/v1/files", path, form | {"labels": ",".join(demo_data.LABELS)})
    if file["question"] is not None:  # notes of one making: only a steward can say that nobody is in two files
        said = {"answer": "different_population", "reason": "made-up notes of other patients"}
        file = steward.post(f"/v1/files/{file['id']}/answer", said)
    console.print(f"{name}: budget {budget['id']} of epsilon {EPSILON:g}, file {file['id']}.")
    return file


def _public(steward: Client, path: Path, labels: list[str]) -> dict[str, Any]:
    file: dict[str, Any] = steward.upload("/v1/files", path, {"purpose": "evals", "labels": json.dumps(labels)})
    if file["question"] is not None:
        said = {"answer": "publish", "reason": "the evaluation set is public, and of nobody in the private file"}
        file = steward.post(f"/v1/files/{file['id']}/answer", said)
    return file


def _not_theirs(host: Client, file: str) -> None:
    try:
        host.get(f"/v1/files/{file}")
    except ApiError as error:
        console.print(f"To the hospital the clinic's file does not exist ({error.status}).")
        return
    raise ApiError(f"File {file} is another tenant's and was shown.")


def _invited(host: Client, guest: Client, own: dict[str, Any], file: dict[str, Any]) -> str:
    """An invitation, looked at and accepted by the guest's steward with all of the file's budget."""
    console.rule("The hospital invites, the clinic accepts")
    asked = {
        "guest": f"tenant_{GUEST}",
        "model": MODEL,
        "training_file": own["id"],
        "method": _method(),
        "note": "to learn together whether patients get better",
    }
    invitation = host.post("/v1/invitations", asked)
    terms = {"training_file": file["id"], "privacy": {"epsilon": EPSILON}}
    privacy = guest.post(f"/v1/invitations/{invitation['id']}/estimate", terms)["privacy"]
    console.print(
        f"{invitation['id']}: the clinic's steward sees what is asked, and that it would take a share of "
        f"{privacy['share']:.3g} of the file's budget."
    )
    accepted = guest.post(f"/v1/invitations/{invitation['id']}/accept", terms)
    console.print(f"Accepted: {accepted['job']} holds that share in the clinic's own ledger until the job begins.")
    return str(invitation["id"])


def _method(**more: Any) -> dict[str, Any]:
    chosen = {"rounds": ROUNDS, "round_seconds": 1.0, "hyperparameters": {"batch_size": BATCH}}
    return {"type": METHOD, METHOD: chosen | more}


def _job(host: Client, own: dict[str, Any], public: dict[str, Any], invited: list[str]) -> dict[str, Any]:
    console.rule("The hospital submits the job")
    request = {
        "model": MODEL,
        "training_file": own["id"],
        "validation_file": public["id"],
        "method": _method(silos=invited),
        "privacy": {"epsilon": EPSILON},
    }
    job: dict[str, Any] = jobs.follow(host, host.post(jobs.PATH, request), quiet=False)
    if job["status"] != "succeeded":
        error = job.get("error") or {}
        raise ApiError(f"The job ended as {job['status']}: {error.get('message')}", code=error.get("code"))
    return job


def _told(host: Client, guest: Client, job: dict[str, Any]) -> None:
    console.rule("What each of them sees")
    table = Table("silo", "declared size", "rounds sent", box=None, padding=(0, 2))
    for silo in job["silos"]:
        table.add_row(silo["name"], str(silo["declared_size"]), str(silo["rounds_sent"]))
    console.print(table)
    for name, client in (("hospital", host), ("clinic", guest)):
        for budget in client.pages("/v1/budgets", 100):
            left = f"share left {budget['share_left']:.3g}" if "share_left" in budget else ""
            console.print(f"{name}: {escape(str(budget['name']))} {left}")
