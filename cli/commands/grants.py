"""`tacit grants`: who may use a budget, and how much of it."""

from typing import Annotated, Any

import typer

from cli import options, output
from cli.client import connect

app = options.group("Which analysts may use a budget: one without a grant does not even see it.")
COLUMNS = [
    *("id", "key", "project", "epsilon", "epsilon_spent", "epsilon_reserved", "epsilon_left", "approval_above"),
    *("created_at", "revoked_at"),
]


@app.command()
@options.explained
def add(
    budget: str,
    to_key: Annotated[str | None, typer.Option(help="The id of an analyst's key: tacit keys list.")] = None,
    project: Annotated[str | None, typer.Option(help="Every key of this project.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="A limit of its own within the budget's.")] = None,
    approval_above: Annotated[
        float | None, typer.Option(help="A job that costs more waits for a steward: tacit jobs approve.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Kept in the ledger.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward: let a key or a project use a budget.

    ```text
    tacit grants add budget_... --project cardiology --epsilon 2
    tacit grants add budget_... --to-key key_... --approval-above 1
    ```
    """
    if (to_key is None) == (project is None):
        options.fail("a grant is for one key or one project: give --to-key ID or --project NAME")
    values = {
        "key": to_key,
        "project": project,
        "epsilon": epsilon,
        "approval_above": approval_above,
        "reason": reason,
    }
    body: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    output.show(connect(url, key).post(f"/v1/budgets/{budget}/grants", body), as_json)


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
