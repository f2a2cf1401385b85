"""`tacit doctor`: what is wrong, and how to fix it."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cli import options, output
from cli.local import DataOption

COLOURS = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


@options.explained
def doctor(
    data: DataOption = Path("tacit-data"),
    host: Annotated[str, typer.Option(help="Where `tacit up` would listen.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Where `tacit up` would listen. Default: the running stack's, or 8000."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Operator: look at this machine and at what the service needs, and say what is wrong and how to fix it.

    Looks at the stack that runs on --data; elsewhere at what the TACIT_ variables of the API name (in compose:
    `docker compose exec api tacit doctor`). Nothing is changed. Exit code 1 when something is wrong.
    """
    from cli import checks
    from cli.embedded import postgres, stack
    from domain.kit.settings import ApiSettings

    data = data.absolute()
    embedded = postgres.live(data / "postgres") is not None
    deployed = not embedded and {"TACIT_DATABASE_URL", "TACIT_DATABASE_URL_FILE"} & os.environ.keys()
    found = [] if deployed else list(checks.of_machine(data, host, port, embedded))
    if embedded:
        os.environ.update(stack.api_environment(data))
        found += checks.of_service(options.settings(ApiSettings), stack.admin_url(data))
    elif deployed:
        found += checks.of_service(options.settings(ApiSettings), os.environ.get("TACIT_ADMIN_DATABASE_URL"))
    else:
        found.append(checks.CheckResult("stack", "warning", f"nothing runs on {data}", f"tacit up --data {data}"))
    if as_json:
        output.print_json([asdict(one) for one in found])
    else:
        console = Console(highlight=False, soft_wrap=True)
        for one in found:
            console.print(f"[{COLOURS[one.word]}]{one.word:8}[/]{one.check:10} {escape(one.what)}")
            if one.fix and one.word != "ok":
                console.print(f"{'':19}fix: {escape(one.fix)}")
    if any(one.word == "wrong" for one in found):
        raise typer.Exit(1)
