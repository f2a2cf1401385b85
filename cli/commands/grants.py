"""`tacit grants`: who may use a budget, and how much of it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from cli import options, output
from cli.client import connect

app = options.group("Which analysts may use a budget: one without a grant does not even see it.")
COLUMNS = [
    *("id", "key", "project", "share", "share_left", "epsilon", "epsilon_spent", "epsilon_reserved", "epsilon_left"),
    *("approval_above", "models", "methods", "most_steps", "created_at", "expires_at", "revoked_at"),
]


@app.command()
@options.explained
def add(
    budget: str,
    to_key: Annotated[str | None, typer.Option(help="The id of an analyst's key: tacit keys list.")] = None,
    project: Annotated[str | None, typer.Option(help="Every key of this project.")] = None,
    share: Annotated[
        float | None, typer.Option(help="What part of the budget its jobs may take together, such as 0.25.")
    ] = None,
    epsilon: Annotated[float | None, typer.Option(help="In place of a share: the epsilon of all its jobs.")] = None,
    approval_above: Annotated[
        float | None, typer.Option(help="A job that costs more waits for a steward: tacit jobs approve.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="The last day, such as 2030-06-30, or the moment: 2030-06-30T12:00; UTC.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="For this base model alone; repeatable.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="For this method alone; repeatable.")] = None,
    most_steps: Annotated[int | None, typer.Option(min=1, help="The most steps of a job.")] = None,
    reason: Annotated[str | None, typer.Option(help="Kept in the ledger.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward: let a key or a project use a budget.

    ```text
    tacit grants add budget_... --project cardiology --share 0.25 --until 2030-06-30
    tacit grants add budget_... --project cardiology --epsilon 2 --method lora --method bitfit --most-steps 500
    tacit grants add budget_... --to-key key_... --approval-above 1
    ```
    """
    if (to_key is None) == (project is None):
        options.fail("a grant is for one key or one project: give --to-key ID or --project NAME")
    values = {
        "key": to_key,
        "project": project,
        "epsilon": epsilon,
        "share": share,
        "approval_above": approval_above,
        "expires_at": None if until is None else _end(until),
        "models": model,
        "methods": method,
        "most_steps": most_steps,
        "reason": reason,
    }
    body: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    output.show(connect(url, key).post(f"/v1/budgets/{budget}/grants", body), as_json)


def _end(until: str) -> int:
    """Unix seconds: of the moment, or of the end of the day."""
    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        options.fail(f"--until {until}: a day such as 2030-06-30, or a moment such as 2030-06-30T12:00")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int((moment + timedelta(days=1 if len(until) == len("2030-06-30") else 0)).timestamp())


@app.command("list")
@options.explained
def list_grants(
    budget: str,
    limit: options.Most = 100,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """The grants of a budget, with what each has used."""
    output.show_list(connect(url, key).pages(f"/v1/budgets/{budget}/grants", limit), COLUMNS, as_json)


@app.command()
@options.explained
def revoke(
    budget: str,
    grant: str,
    yes: options.Yes = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward: end a grant. Jobs under way go on."""
    options.sure(f"End the grant {grant}?", yes)
    output.show(connect(url, key).delete(f"/v1/budgets/{budget}/grants/{grant}"), as_json)
