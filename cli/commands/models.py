"""`tacit models`: what can be fine-tuned, fetching it once, and how fast it trains here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli import options, output
from cli.client import ApiError, connect
from cli.embedded.errors import StackError

app = typer.Typer(rich_markup_mode="markdown")
COLUMNS = ["id", "tasks", "methods", "max_length", "parameters", "source", "revision"]
BROKEN = ["id", "source", "unavailable_because"]
TRIED = ["model", "method", "task", "trains", "because"]
REFUSED = ["model", "method", "task", "because"]
SPEEDS = ["model", "method", "options", "task", "tokens_per_second", "peak_bytes", "device", "measured_at"]


@app.callback(invoke_without_command=True)
@options.explained
def models(
    context: typer.Context, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """The base models that jobs may name: an allow-list, set by the operator in TACIT_MODELS.

    ```text
    tacit models
    TACIT_MODELS='{"gpt2": "hub:openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e"}' tacit models pull gpt2
    tacit models check
    tacit models profile
    ```

    A model whose files cannot be used is listed with the reason, and so is a method that a worker tried on a model and
    that cannot train it. Neither is in the way of any other.
    """
    if context.invoked_subcommand is not None:
        return
    known = connect(url, key).get("/v1/models")["data"]
    if as_json:
        output.show_list(known, COLUMNS, as_json)
        return
    output.show_list([model for model in known if model["available"]], COLUMNS, as_json)
    if broken := [model for model in known if not model["available"]]:
        output.console.print("\nThese cannot be used:")
        output.show_list(broken, BROKEN, as_json)
    if refused := [{"model": model["id"], **one} for model in known for one in model["refused"]]:
        output.console.print("\nMethods that were tried and cannot train a model:")
        output.show_list(refused, REFUSED, as_json)
    measured = [
        {"model": model["id"], **one, "options": ", ".join(f"{k}={v}" for k, v in (one.get("options") or {}).items())}
        for model in known
        for one in model.get("profile") or []
    ]
    if measured:
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
    from domain.kit.settings import HubModel, ModelSettings
    from domain.models import hub

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
def make(
    folder: Annotated[Path, typer.Argument(help="Where the model goes: a folder that is not there yet, or empty.")],
    text: Annotated[
        list[Path],
        typer.Option(help="Public text: a .txt file, each line a text, or .jsonl with a `text` in each; repeatable."),
    ],
    vocabulary: Annotated[int, typer.Option(min=300, max=100_000, help="Tokens, the bytes among them.")] = 10_000,
    width: Annotated[int, typer.Option(min=8, max=4096, help="Numbers of a vector.")] = 160,
    layers: Annotated[int, typer.Option(min=1, max=96)] = 4,
    heads: Annotated[int, typer.Option(min=1, max=64, help="Of attention; they divide the width.")] = 4,
    positions: Annotated[int, typer.Option(min=8, max=8192, help="Tokens that it reads at once.")] = 256,
    steps: Annotated[
        int, typer.Option(min=0, help="Of plain training on the text; some tenths of a second each.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Operator: make a small language model out of public text, for jobs over users (federated-lm).

    Its tokenizer, its weights and the counts of its words see nothing but this text: never name a private file here,
    since what comes out of it is public.

    ```text
    tacit models make ./small --text novels.jsonl
    TACIT_MODELS='{"small": "./small"}' tacit up
    ```
    """
    from cli.small_writer import Shape, make_writer

    texts = [one for file in text for one in _texts_of(file)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        shape = Shape(vocabulary=vocabulary, width=width, layers=layers, heads=heads, positions=positions)
        with Progress(*columns, console=output.console, disable=not output.console.is_terminal) as bar:
            shown = bar.add_task("training", total=steps)
            weights = make_writer(
                texts, folder, shape, steps=steps, seed=seed, told=lambda step: bar.update(shown, completed=step)
            )
    except (ValueError, OSError) as error:
        options.fail(str(error))
    output.console.print(f"{folder}: {weights:,} weights, {vocabulary:,} tokens", markup=False)


def _texts_of(file: Path) -> list[str]:
    """Lines, or the `text` of each line of JSON."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if file.suffix == ".jsonl":
            return [str(json.loads(line)["text"]) for line in lines]
    except (OSError, ValueError, LookupError, TypeError) as error:
        options.fail(f"{file} cannot be read as public text: {type(error).__name__}")
    return lines


@app.command()
@options.explained
def profile(
    data: Annotated[Path, typer.Option(help="Data folder of `tacit up`.")] = Path("tacit-data"),
    again: Annotated[bool, typer.Option("--again", help="Measure also what has been measured before.")] = False,
) -> None:
    """Operator: measure how fast each model trains on this machine, and in how much memory, on made-up tokens.

    Estimates show `seconds` from then on. A worker does the same by itself once it has been idle for a minute.
    """
    command = [sys.executable, "-P", "-m", "worker", "profile", *(["--again"] if again else [])]
    if subprocess.run(command, env=_worker_environment(data), check=False).returncode:
        raise ApiError("Measuring failed; the reason is above.")


@app.command()
@options.explained
def check(
    name: Annotated[str | None, typer.Argument(help="A name in TACIT_MODELS. Default: all.")] = None,
    data: Annotated[Path, typer.Option(help="Data folder of `tacit up`.")] = Path("tacit-data"),
    as_json: options.Json = False,
) -> None:
    """Operator: try which methods train which models here: a tiny step on made-up tokens, some seconds each.

    ```text
    tacit models check
    tacit models check gpt2
    ```

    What fails is listed with its reason from then on, here and in /v1/models, and jobs that ask for it with its default
    options are refused before they cost anything; what works is offered again. A worker does the same by itself once
    it has been idle for a minute. Run it again after a new release of torch, transformers or peft.
    """
    command = [sys.executable, "-P", "-m", "worker", "check", *([] if name is None else ["--model", name])]
    with subprocess.Popen(command, env=_worker_environment(data), stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None  # it is a pipe
        lines = (json.loads(line) for line in worker.stdout)
        found = list(_watched(next(lines, []), lines))
    if worker.returncode:
        raise ApiError("Trying the models failed; the reason is above.")
    if name is not None and not found:
        raise StackError(f"TACIT_MODELS has no model that can be used called {name!r}")
    output.show_list(found, TRIED, as_json)


def _watched(wanted: Sequence[dict[str, Any]], results: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each try with its result, while a bar says what is being tried."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.console, disable=not output.console.is_terminal, transient=True) as bar:
        shown = bar.add_task("", total=len(wanted))
        for number, (one, result) in enumerate(zip(wanted, results, strict=False)):
            following = wanted[min(number + 1, len(wanted) - 1)]
            bar.update(shown, completed=number + 1, description="{model}, {method}, {task}".format(**following))
            yield one | result


def _worker_environment(data: Path) -> dict[str, str]:
    """A worker's own in a deployment, or that of the embedded stack's."""
    from cli.embedded import stack

    if "TACIT_DATABASE_URL" in os.environ or "TACIT_DATABASE_URL_FILE" in os.environ:
        return dict(os.environ)
    return stack.worker_environment(data.absolute())
