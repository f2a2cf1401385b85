"""`tacit models`: what can be fine-tuned, fetching it once, and how fast it trains here."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import options, output
from cli.client import ApiError, connect
from cli.embedded.errors import StackError

app = typer.Typer(rich_markup_mode="markdown")
COLUMNS = ["id", "tasks", "methods", "max_length", "parameters", "source", "revision"]
SPEEDS = ["model", "method", "task", "tokens_per_second", "peak_bytes", "device", "measured_at"]


@app.callback(invoke_without_command=True)
@options.explained
def models(
    context: typer.Context, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """The base models that jobs may name: an allow-list, set by the operator in TACIT_MODELS.

    ```text
    tacit models
    TACIT_MODELS='{"gpt2": "hub:openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e"}' tacit models pull gpt2
    tacit models profile
    ```
    """
    if context.invoked_subcommand is not None:
        return
    known = connect(url, key).get("/v1/models")["data"]
    output.show_list(known, COLUMNS, as_json)
    measured = [{"model": model["id"], **one} for model in known for one in model.get("profile") or []]
    if measured and not as_json:
        output.console.print("\nMeasured on this installation:")
        output.show_list(measured, SPEEDS, as_json)


@app.command()
@options.explained
def pull(
    name: Annotated[str | None, typer.Argument(help="A name in TACIT_MODELS. Default: all of the hub.")] = None,
) -> None:
    """Operator: fetch models of the Hugging Face hub into the local cache, once: weights as safetensors, configuration
    and tokenizer, never code.

    TACIT_MODELS names each as `hub:owner/name@revision`, the revision being a commit's 40 hexadecimal digits. Jobs
    run from the cache (HF_HOME) and fetch nothing.
    """
    from domain import hub
    from domain.settings import HubModel, ModelSettings

    models = options.settings(ModelSettings).models
    if name is not None and not isinstance(models.get(name), HubModel):
        raise StackError(f"TACIT_MODELS has no model of the hub called {name!r}")
    for called, source in models.items():
        if isinstance(source, HubModel) and name in (None, called):
            try:
                folder = hub.download(source)
            except (OSError, ValueError) as error:
                raise StackError(str(error)) from None
            output.console.print(f"{called}: {source} is in {folder}", markup=False)


@app.command()
@options.explained
def profile(
    data: Annotated[Path, typer.Option(help="Data folder of `tacit up`.")] = Path("tacit-data"),
    again: Annotated[bool, typer.Option("--again", help="Measure also what has been measured before.")] = False,
) -> None:
    """Operator: measure how fast each model trains on this machine, and in how much memory, on made-up tokens.

    Estimates show `seconds` from then on. A worker does the same by itself once it has been idle for a minute.
    """
    from cli.embedded import stack

    if "TACIT_DATABASE_URL" in os.environ or "TACIT_DATABASE_URL_FILE" in os.environ:
        environment = dict(os.environ)  # a worker's own, in a deployment
    else:
        environment = stack.worker_environment(data.absolute())
    command = [sys.executable, "-P", "-m", "worker", "profile", *(["--again"] if again else [])]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise ApiError("Measuring failed; the reason is above.")
