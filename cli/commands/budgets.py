"""`tacit budgets`: the accounts of protected populations."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import options, output, statements
from cli.client import connect

app = options.group("Privacy budgets: what a population may lose at most, and what it has.")
COLUMNS = ["id", "name", "share_spent", "share_reserved", "share_left", "epsilon", "epsilon_left", "delta", "unit"]
COLUMNS += ["frozen"]
ENTRY_COLUMNS = ["seq", "kind", "job", "outcome", "epsilon_after", "actor", "at", "hash"]


@app.command()
@options.explained
def create(
    name: str,
    epsilon: Annotated[float, typer.Option(help="The most that all jobs together may cost. Never raised by itself.")],
    delta: Annotated[float, typer.Option(help="Below 1 / the largest declared size of the budget's files.")] = 1e-5,
    unit: Annotated[str, typer.Option(help="Who is protected: `record` or `user`.")] = "record",
    max_records_per_user: Annotated[int | None, typer.Option(help="Needed with unit `user`.")] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Share of the units that no job trains on, 0.01 to 0.5; it never changes.")
    ] = None,
    sample_rate: Annotated[float | None, typer.Option(help="Of the job that the budget should suit best.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of the job that the budget should suit best.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Open a budget. It can never be deleted or refilled.

    ```text
    tacit budgets create patients-2026 --epsilon 8 --delta 1e-6
    ```
    """
    body: dict[str, Any] = {"name": name, "epsilon": epsilon, "delta": delta, "unit": unit}
    if max_records_per_user is not None:
        body["max_records_per_user"] = max_records_per_user
    if held_out is not None:
        body["held_out"] = held_out
    if (sample_rate is None) != (steps is None):
        options.fail("--sample-rate and --steps describe one job: give both or neither")
    if sample_rate is not None:
        body["reference"] = {"sample_rate": sample_rate, "steps": steps}
    output.show(connect(url, key).post("/v1/budgets", body), as_json)


@app.command("list")
@options.explained
def list_budgets(
    limit: options.Most = 100, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Budgets, with what is spent, held by running jobs, and left."""
    output.show_list(connect(url, key).pages("/v1/budgets", limit), COLUMNS, as_json)


@app.command()
@options.explained
def show(budget: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """One budget."""
    output.show(connect(url, key).get(f"/v1/budgets/{budget}"), as_json)


@app.command()
@options.explained
def rename(
    budget: str, name: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Steward: give a budget another name.

    ```text
    tacit budgets rename budget_... "patients of 2026"
    ```
    """
    output.show(connect(url, key).post(f"/v1/budgets/{budget}/rename", {"name": name}), as_json)


@app.command()
@options.explained
def rules(
    budget: str,
    reason: Annotated[str, typer.Option(help="Kept in the ledger.")],
    approval_above: Annotated[float | None, typer.Option(help="A job that costs more waits for a steward.")] = None,
    no_approval: Annotated[bool, typer.Option("--no-approval", help="No job waits for a steward any more.")] = False,
    queue_days: Annotated[
        int | None, typer.Option(min=1, max=30, help="A job that has not started by then is cancelled.")
    ] = None,
    require_intended_use: Annotated[
        bool | None,
        typer.Option(
            "--require-intended-use/--no-intended-use", help="Whether a job must say what it is for, or need not."
        ),
    ] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward: which jobs need approval, what they must say, and how long they may wait. The rest stays as it was.

    ```text
    tacit budgets rules budget_... --approval-above 2 --reason "large jobs are discussed first"
    tacit budgets rules budget_... --require-intended-use --queue-days 3 --reason "asked for by the data council"
    tacit budgets rules budget_... --no-approval --no-intended-use --reason "the pilot is over"
    ```
    """
    if no_approval and approval_above is not None:
        options.fail("--approval-above and --no-approval say the opposite: give one of them")
    given = {
        "approval_above": approval_above,
        "queue_days": queue_days,
        "require_intended_use": require_intended_use,
    }
    body: dict[str, Any] = {name: value for name, value in given.items() if value is not None} | {"reason": reason}
    if no_approval:
        body["approval_above"] = None
    output.show(connect(url, key).post(f"/v1/budgets/{budget}/rules", body), as_json)


@app.command()
@options.explained
def statement(
    budget: str,
    html: Annotated[bool, typer.Option("--html", help="One page, for a browser or paper, in place of JSON.")] = False,
    out: Annotated[Path | None, typer.Option("--output", "-o", help="Write it here.")] = None,
    url: options.Url = None,
    key: options.Key = None,
) -> None:
    """Steward, auditor: all that was ever released about a budget's people, in order, the decisions, and what is left.

    ```text
    tacit budgets statement budget-... --html -o dossier.html
    ```
    """
    statements.show(connect(url, key), f"/v1/budgets/{budget}/statement", html, out)


@app.command()
@options.explained
def evidence(
    budget: str,
    folder: Annotated[Path | None, typer.Option("--output", "-o", help="A new folder. Default: its id.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward, auditor: a budget's statement with its whole ledger, signed: `tacit verify-release` checks it offline.

    ```text
    tacit budgets evidence budget-... -o dossier
    ```
    """
    target = folder or Path(budget)
    output.show(statements.take(connect(url, key), f"/v1/budgets/{budget}/evidence", target, None), as_json)


@app.command()
@options.explained
def entries(
    budget: str,
    limit: options.Most = 100,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """The ledger: every change of the budget, each line sealed by the hash of the one before."""
    output.show_list(connect(url, key).pages(f"/v1/budgets/{budget}/entries", limit), ENTRY_COLUMNS, as_json)
