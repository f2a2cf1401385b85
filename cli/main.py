"""The `tacit` command: the stack on one machine, the client of any Tacit service, and the demo."""

from importlib.metadata import version
from typing import Annotated

import typer

from cli import demo, doctor, local, logs, migrate, output, trial, verify_release
from cli.commands import (
    adapters,
    audit,
    budgets,
    files,
    grants,
    invitations,
    jobs,
    keys,
    ledger,
    models,
    privacy_audit,
    status,
    tenants,
    webhooks,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        output.console.print(f"tacit {version('tacit')}", markup=False)
        raise typer.Exit


@app.callback()
def main(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Private fine-tuning jobs with a budget ledger that cannot be overspent."""


app.command("up")(local.up)
app.command("down")(local.down)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("logs")(logs.logs)
app.command("demo")(demo.demo)
app.command("try")(trial.try_)
app.add_typer(budgets.app, name="budgets")
app.add_typer(grants.app, name="grants")
app.add_typer(files.app, name="files")
app.add_typer(jobs.app, name="jobs")
app.add_typer(invitations.app, name="invitations")
app.add_typer(adapters.app, name="adapters")
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(tenants.app, name="tenants")
app.add_typer(ledger.app, name="ledger")
app.add_typer(models.app, name="models")
app.command("audit")(audit.audit)
app.command("privacy-audit")(privacy_audit.privacy_audit)
app.command("verify-release")(verify_release.verify_release)
app.command("migrate")(migrate.migrate)
