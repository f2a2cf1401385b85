"""`tacit webhooks`: who is told of jobs and budgets, elsewhere."""

from typing import Annotated, Any

import typer

from cli import options, output
from cli.client import connect

app = options.group("Webhooks: addresses that are told of jobs that end, approvals wanted, and budgets.")
COLUMNS = ["id", "url", "events", "waiting", "given_up", "last_success_at", "last_failure_at", "last_failure"]
EVENTS = ["job.ended", "approval.wanted", "budget.low", "budget.frozen"]


@app.command()
@options.explained
def add(
    address: Annotated[str, typer.Argument(help="https, of a host that the operator allows (TACIT_WEBHOOK_HOSTS).")],
    event: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(EVENTS)}; repeat for several. Default: all.")
    ] = None,
    low_below: Annotated[float | None, typer.Option(help="budget.low: less than this share is left.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward: tell an address of what happens from now on. The secret that messages are signed with is shown once.

    ```text
    tacit webhooks add https://hooks.example/tacit
    tacit webhooks add https://hooks.example/tacit --event budget.low --low-below 0.2
    ```
    """
    body: dict[str, Any] = {"url": address, "events": event or EVENTS}
    if low_below is not None:
        body["low_below"] = low_below
    if description is not None:
        body["description"] = description
    output.show(connect(url, key).post("/v1/webhooks", body), as_json)


@app.command("list")
@options.explained
def list_webhooks(url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """Webhooks, without their secrets, and how the last attempts went."""
    output.show_list(connect(url, key).get("/v1/webhooks")["data"], COLUMNS, as_json)


@app.command()
@options.explained
def remove(
    webhook_id: str,
    yes: options.Yes = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Tell an address nothing more, what waits included."""
    options.sure(f"Remove {webhook_id}, and what waits to be told?", yes)
    output.show(connect(url, key).delete(f"/v1/webhooks/{webhook_id}"), as_json)
