"""`tacit up` and `tacit down`: the embedded stack."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cli.embedded import lock
from cli.embedded.errors import StackError
from cli.options import fail

DataOption = Annotated[Path, typer.Option("--data", help="Folder of the database, queue, files and secrets.")]
LONGEST_STOP = 180.0  # seconds


def up(
    data: DataOption = Path("tacit-data"),
    host: Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    workers: Annotated[
        int, typer.Option(min=1, max=32, help="Jobs at a time. A federated job wants one for each silo, and one more.")
    ] = 1,
) -> None:
    """Start everything on this machine: database, broker, a worker and the API. Ctrl-C stops it in order.

    The first start makes the data folder and prints the first admin key, once. Starting again on the same folder
    loses nothing, also after a crash.

    ```text
    tacit up
    tacit up --data /srv/tacit --host 0.0.0.0 --port 9000
    ```
    """
    from cli.embedded.stack import Stack, key_file

    console = Console(highlight=False, soft_wrap=True)
    data = data.absolute()
    stack = Stack(data, host, port, lambda text: console.print(escape(text)), workers)

    def ready(first_key: str | None) -> None:
        console.print(f"[bold]Tacit runs on {stack.url}[/bold]   (data and logs in {escape(str(data))})")
        console.print(f"Dashboard: {stack.url}/dashboard   (log in with an API key)")
        if first_key is not None:
            console.print(f"First admin key, shown once: [bold]{first_key}[/bold]")
            console.print(f"It is also kept in {escape(str(key_file(data)))}, so that commands run here need no key.")
        console.print("Try in another terminal: tacit models    Stop with Ctrl-C.")

    try:
        stack.run(ready)
    except StackError as error:
        fail(str(error))


def down(data: DataOption = Path("tacit-data")) -> None:
    """Stop the stack of a data folder, also what a killed `tacit up` left running.

    ```text
    tacit down --data /srv/tacit
    ```
    """
    data = data.absolute()
    console = Console(highlight=False, soft_wrap=True)
    if not data.is_dir():
        fail(f"There is no folder {data}. Name the one that `tacit up` was started with: --data")
    pid = lock.holder(data)
    if pid is None:
        try:
            left = _stop_left_over(data)
        except StackError as error:
            fail(str(error))
        console.print(f"Stopped what was left: {', '.join(left)}." if left else "Nothing was running.")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + LONGEST_STOP
    while lock.holder(data) is not None:
        if time.monotonic() > deadline:
            fail(f"`tacit up` (pid {pid}) has not stopped after {LONGEST_STOP:.0f} s: kill -9 {pid}")
        time.sleep(0.1)
    console.print("Stopped.")


def _stop_left_over(data: Path) -> list[str]:
    from cli.embedded.stack import end_orphans, stop_servers

    with lock.hold(data):
        end_orphans(data, lambda text: None)
        return stop_servers(data)
