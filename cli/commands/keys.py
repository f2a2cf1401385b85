"""`tacit keys`: who may do what."""

from typing import Annotated, Any

import typer

from cli import options, output
from cli.client import connect

app = options.group("API keys and their scopes: steward, analyst, auditor, admin.")
COLUMNS = ["id", "name", "scopes", "project", "prefix", "created_at", "expires_at", "revoked_at", "previous_until"]


@app.command()
@options.explained
def create(
    name: str,
    scope: Annotated[list[str], typer.Option(help="steward, analyst, auditor or admin; repeat for several.")],
    project: Annotated[str | None, typer.Option(help="Whose grants the key has beside its own.")] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1)] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Make a key. It is shown once.

    ```text
    tacit keys create notebook --scope analyst --project cardiology --expires-in-days 30
    ```
    """
    body: dict[str, Any] = {"name": name, "scopes": scope}
    if project is not None:
        body["project"] = project
    if expires_in_days is not None:
        body["expires_in_days"] = expires_in_days
    output.show(connect(url, key).post("/v1/keys", body), as_json)


@app.command("list")
@options.explained
def list_keys(
    limit: options.Most = 100, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Keys, without their secrets."""
    output.show_list(connect(url, key).pages("/v1/keys", limit), COLUMNS, as_json)


@app.command()
@options.explained
def rotate(
    key_id: str,
    overlap_hours: Annotated[int, typer.Option(min=0, help="How long the secret before works on; 0: not at all.")] = 24,
    yes: options.Yes = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Give a key a new secret, shown once; its id, scopes and grants stay.

    ```text
    tacit keys rotate key_... --overlap-hours 2
    ```
    """
    if overlap_hours == 0:
        options.sure(f"Make the secret that {key_id} has now useless at once?", yes)
    body = {"overlap_hours": overlap_hours}
    output.show(connect(url, key).post(f"/v1/keys/{key_id}/rotate", body), as_json)


@app.command()
@options.explained
def revoke(
    key_id: str,
    yes: options.Yes = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Make a key useless, at once and for good."""
    options.sure(f"Make {key_id} useless for good?", yes)
    output.show(connect(url, key).delete(f"/v1/keys/{key_id}"), as_json)
