"""Statements and evidence, from the service to files."""

import shutil
import tempfile
import zipfile
from pathlib import Path

import typer

from cli import output
from cli.client import ApiError, Client
from cli.fetching import fetch_checked


def show(client: Client, path: str, html: bool, out: Path | None) -> None:
    """A statement on standard output, or in a file."""
    with client.stream(f"{path}?format={'html' if html else 'json'}") as response:
        text = response.read().decode()
    if out is None:
        typer.echo(text)
        return
    out.write_text(text, encoding="utf-8")
    output.console.print(f"Wrote {out}.", markup=False)


def take(client: Client, path: str, target: Path, adapter: str | None) -> dict[str, object]:
    """Evidence in a new folder, and the adapter beside it where its path is given. Nothing appears unless all of it
    arrived unchanged. Raises ApiError."""
    if target.exists():
        raise ApiError(f"{target} exists.", fix="name a new folder with -o")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tacit-", dir=target.parent) as scratch:
        archive, unpacked = Path(scratch) / "evidence.zip", Path(scratch) / "evidence"
        digest = fetch_checked(client, path, archive)
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(unpacked)
        if adapter is not None:
            fetch_checked(client, adapter, unpacked / "adapter.zip")
        shutil.move(unpacked, target)
    return {"folder": str(target), "sha256": digest, "files": sorted(path.name for path in target.iterdir())}
