"""`tacit logs`: what the processes of the embedded stack say."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from cli.local import DataOption
from cli.options import fail

SERVICES = ("api", "worker", "postgres", "redis")
PAUSE = 0.2  # seconds between two looks


def logs(
    service: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(SERVICES)}. Default: all.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option(min=0, help="Of each, from the end.")] = 20,
    data: DataOption = Path("tacit-data"),
) -> None:
    """Show the logs of `tacit up`: API and worker write a JSON object a line.

    ```text
    tacit logs --follow
    tacit logs api --lines 1000
    ```
    """
    wanted = tuple(service or SERVICES)
    if unknown := set(wanted) - set(SERVICES):
        fail(f"no service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    if not (data / "logs").is_dir():
        fail(f"{data} holds no logs. Name the folder that `tacit up` was started with: --data")
    followed = [LogTail(name, data / "logs" / f"{name}.log") for name in wanted]
    for each in followed:
        for line in each.last(lines):
            typer.echo(line)
    while follow:
        for each in followed:
            for line in each.new():
                typer.echo(line)
        time.sleep(PAUSE)


class LogTail:
    """One log that grows, is put aside and begun anew."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._file: IO[bytes] | None = None
        self._rest = b""

    def last(self, lines: int) -> list[str]:
        """The last whole lines; `new` goes on after them."""
        whole = list(self.new())
        return whole[-lines:] if lines else []

    def new(self) -> Iterator[str]:
        """Whole lines that were written since."""
        if self._file is None and self._path.exists():
            self._file = self._path.open("rb")
        if self._file is None:
            return
        yield from self._read(self._file)
        if self._replaced(self._file):
            self._file.close()
            self._file, self._rest = None, b""

    def _read(self, file: IO[bytes]) -> Iterator[str]:
        for piece in iter(lambda: file.read(2**16), b""):
            *whole, self._rest = (self._rest + piece).split(b"\n")
            yield from (f"{self._name:8} | {line.decode(errors='replace')}" for line in whole)

    def _replaced(self, file: IO[bytes]) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return True
        return now.st_ino != os.fstat(file.fileno()).st_ino or now.st_size < file.tell()
