"""`tacit adapters`: take the result home."""

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from cli import options, output
from cli.client import ApiError, Client, connect
from cli.fetching import fetch_checked

app = options.group("The trained weights.")


@app.callback()
def group() -> None:
    """The trained weights."""


@app.command()
@options.explained
def download(
    job: str,
    folder: Annotated[Path | None, typer.Option("--output", "-o", help="A new folder. Default: the job's id.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Download a job's adapter, check its sha256 and unpack it. Stock PEFT loads the folder.

    ```text
    tacit adapters download ftjob-... -o my-adapter
    ```
    """
    target = folder or Path(job)
    digest = fetch(connect(url, key), job, target)
    files = sorted(path.name for path in target.iterdir())
    output.show({"folder": str(target), "sha256": digest, "files": files}, as_json)


def fetch(client: Client, job: str, target: Path) -> str:
    """Unpack the adapter to the new folder `target` and return the checked sha256 of the archive.

    Nothing appears at `target` unless all of it arrived unchanged.
    """
    if target.exists():
        raise ApiError(f"{target} exists.", fix="name a new folder with -o")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tacit-", dir=target.parent) as scratch:
        archive, unpacked = Path(scratch) / "adapter.zip", Path(scratch) / "adapter"
        digest = fetch_checked(client, f"/v1/fine_tuning/jobs/{job}/adapter", archive)
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(unpacked)
        shutil.move(unpacked, target)
    return digest
