"""`tacit invitations`: other tenants' files in a federated job, each under its own tenant's budget."""

from typing import Annotated, Any

import typer

from cli import options, output
from cli.client import connect
from cli.commands.jobs import pairs, show_job

app = options.group(
    "Federated jobs: ask other tenants to take part with a file of their own, and answer those who ask you."
)
PATH = "/v1/invitations"
METHOD = "federated-lora"
COLUMNS = ["id", "direction", "status", "tenant", "guest", "model", "task", "job", "federated_job", "expires_at"]


@app.command()
@options.explained
def create(
    guest: Annotated[str, typer.Argument(help="The tenant to ask: `organization_id` of its jobs.")],
    training_file: Annotated[
        str, typer.Option("--file", help="Your own private file: its task and labels are asked for.")
    ],
    model: Annotated[str, typer.Option(help="A base model: `tacit models` lists them.")] = "minilm-l6",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="Of federated-lora, such as rounds=50 or local_steps=2; repeatable."),
    ] = None,
    hyperparameter: Annotated[
        list[str] | None,
        typer.Option("--hyperparameter", help="A number of training, such as batch_size=256; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial adapter, the same for all silos.")] = None,
    note: Annotated[str | None, typer.Option(help="To the guest's steward.")] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=90, help="Within which it may be accepted. Default: 14.")
    ] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Ask a tenant to take part in a federated job. Free: nothing is reserved, and nobody says whether it exists.

    Send one to each guest, wait until they are accepted, then submit the job with the same options:

    ```text
    tacit invitations create tenant_b --file file-... --option rounds=50 --note "the study of May"
    tacit invitations list
    tacit jobs create --file file-... --share 0.2 --method federated-lora \\
      --option rounds=50 --option 'silos=["inv-..."]'
    ```
    """
    inner = pairs(option)
    if numbers := pairs(hyperparameter):
        inner["hyperparameters"] = numbers
    body: dict[str, Any] = {"guest": guest, "model": model, "training_file": training_file}
    body["method"] = {"type": METHOD} | ({METHOD: inner} if inner else {})
    rest = {"seed": seed, "note": note, "days": days}
    body |= {name: value for name, value in rest.items() if value is not None}
    output.show(connect(url, key).post(PATH, body), as_json)


@app.command("list")
@options.explained
def list_invitations(
    limit: options.Most = 100, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Invitations that you sent and, for stewards, those that you received, newest first.

    open: may be accepted. accepted: the guest has reserved its part. used: a job has begun with it. ended: the guest's
    part ended before that. withdrawn: by either side.
    """
    output.show_list(connect(url, key).pages(PATH, limit), COLUMNS, as_json)


@app.command()
@options.explained
def show(invitation: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """One invitation: what the job would do with a file of the guest's."""
    output.show(connect(url, key).get(f"{PATH}/{invitation}"), as_json)


def _terms(
    training_file: Annotated[str, typer.Option("--file", help="Your private file: same task, labels and unit.")],
    share: options.ShareOption = None,
    epsilon: Annotated[float | None, typer.Option(help="In place of a share: what it alone may cost.")] = None,
    queue_days: Annotated[
        int | None, typer.Option(min=1, max=30, help="Cancel it, at no cost, if no round has begun by then.")
    ] = None,
    intended_use: Annotated[
        str | None, typer.Option(help="What you take part for: your budget may want to know.")
    ] = None,
) -> dict[str, Any]:
    """What an estimate and an acceptance have in common, as a request."""
    if (share is None) == (epsilon is None):
        options.fail("say what taking part may cost: give --share or --epsilon")
    price = {"share": share} if epsilon is None else {"epsilon": epsilon}
    rest = {"queue_days": queue_days, "intended_use": intended_use}
    given = {name: value for name, value in rest.items() if value is not None}
    return {"training_file": training_file, "privacy": price} | given


@app.command()
@options.explained
@options.sharing(_terms)
def estimate(
    body: dict[str, Any],
    invitation: str,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward of the guest: what taking part would cost. Free, and told to nobody else.

    ```text
    tacit invitations estimate inv-... --file file-... --share 0.25
    ```
    """
    show_job(connect(url, key).post(f"{PATH}/{invitation}/estimate", body), as_json)


@app.command()
@options.explained
@options.sharing(_terms)
def accept(
    body: dict[str, Any],
    invitation: str,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward of the guest: take part. The price is held in your own budget at once; it comes back if no job begins.

    The host is told that you accepted, and nothing of your file's budget but that it was enough.

    ```text
    tacit invitations accept inv-... --file file-... --share 0.25
    ```
    """
    output.show(connect(url, key).post(f"{PATH}/{invitation}/accept", body), as_json)


@app.command()
@options.explained
def withdraw(
    invitation: str,
    yes: options.Yes = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Either side, at any time. Before the job begins everything goes back; then the silo leaves it, and steps that it
    was allowed stay charged."""
    options.sure(f"Withdraw {invitation} for good? A job that has begun goes on without this silo, or ends.", yes)
    output.show(connect(url, key).post(f"{PATH}/{invitation}/withdraw"), as_json)
