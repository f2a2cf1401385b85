"""`tacit jobs`: plan, submit, watch and stop fine-tuning jobs."""

import json
import time
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli import options, output
from cli.client import Client, connect

app = options.group("Private fine-tuning jobs.")
PATH = "/v1/fine_tuning/jobs"
COLUMNS = [
    "id",
    "status",
    "model",
    "method.type",
    "training_file",
    "privacy.epsilon",
    "progress.fraction",
    "created_at",
]
EVENT_COLUMNS = ["created_at", "level", "message"]
ENDED = ("succeeded", "failed", "cancelled")
POLL = 1.0  # seconds

Model = Annotated[str, typer.Option(help="A base model: tacit models")]
TrainingFile = Annotated[str, typer.Option("--file", help="The private file to learn from.")]
ValidationFile = Annotated[str | None, typer.Option(help="A public file to measure on.")]
Method = Annotated[str, typer.Option(help="What is trained, such as lora; `supervised` is the default method.")]
Option = Annotated[list[str] | None, typer.Option("--option", help="A method's own option, such as r=8; repeatable.")]
Epsilon = Annotated[float | None, typer.Option(help="What this job alone may cost.")]
Steps = Annotated[int | None, typer.Option(min=1)]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Records in a batch, on average.")]
LearningRate = Annotated[float | None, typer.Option()]


@app.command()
@options.explained
def estimate(
    training_file: TrainingFile,
    model: Model = "minilm-l6",
    validation_file: ValidationFile = None,
    method: Method = "supervised",
    option: Option = None,
    epsilon: Epsilon = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """What a job would cost and need. Free: nothing is charged, and no row is looked at.

    ```text
    tacit jobs estimate --file file-... --epsilon 3
    ```
    """
    hyperparameters = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    body = request(model, training_file, validation_file, method, pairs(option), hyperparameters, epsilon)
    output.show(connect(url, key).post(f"{PATH}/estimate", body), as_json)


@app.command()
@options.explained
def create(
    training_file: TrainingFile,
    model: Model = "minilm-l6",
    validation_file: ValidationFile = None,
    method: Method = "supervised",
    option: Option = None,
    epsilon: Epsilon = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    suffix: Annotated[str | None, typer.Option(help="A name for the result.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="A note such as team=blue; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial adapter; never of noise or sampling.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show progress.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Submit a job. Its price is held in the ledger at once; a job that does not fit is refused.

    ```text
    tacit jobs create --file file-... --epsilon 3 --watch
    tacit jobs create --file file-... --method lora --option r=8 --steps 200 --batch-size 512 --epsilon 3
    ```
    """
    hyperparameters = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    body = request(model, training_file, validation_file, method, pairs(option), hyperparameters, epsilon)
    notes = {name: str(value) for name, value in pairs(metadata).items()}
    rest = {"suffix": suffix, "metadata": notes or None, "seed": seed}
    body |= {name: value for name, value in rest.items() if value is not None}
    client = connect(url, key)
    job = client.post(PATH, body)
    if watch:
        job = follow(client, job, quiet=as_json)
    output.show(job, as_json)
    if watch and job["status"] != "succeeded":
        raise typer.Exit(1)


@app.command()
@options.explained
def watch(job: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """Show a job's progress until it ends. Exit code 1 unless it succeeds."""
    client = connect(url, key)
    ended = follow(client, client.get(f"{PATH}/{job}"), quiet=as_json)
    output.show(ended, as_json)
    if ended["status"] != "succeeded":
        raise typer.Exit(1)


@app.command("list")
@options.explained
def list_jobs(
    limit: options.Limit = 20, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """Jobs, newest first."""
    output.show_list(connect(url, key).pages(PATH, limit), COLUMNS, as_json)


@app.command()
@options.explained
def show(job: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """One job, with its privacy statement."""
    output.show(connect(url, key).get(f"{PATH}/{job}"), as_json)


@app.command()
@options.explained
def cancel(job: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """Stop a job. Steps that it was allowed stay charged; the rest goes back to the budget."""
    output.show(connect(url, key).post(f"{PATH}/{job}/cancel"), as_json)


@app.command()
@options.explained
def events(
    job: str,
    limit: options.Limit = 100,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """What has happened to a job."""
    output.show_list(connect(url, key).pages(f"{PATH}/{job}/events", limit), EVENT_COLUMNS, as_json)


def request(
    model: str,
    training_file: str,
    validation_file: str | None,
    method: str,
    method_options: dict[str, Any],
    hyperparameters: dict[str, Any],
    epsilon: float | None,
) -> dict[str, Any]:
    """A job as the service takes it; what is None is left to the service."""
    given = {name: value for name, value in hyperparameters.items() if value is not None}
    inner = method_options | ({"hyperparameters": given} if given else {})
    body: dict[str, Any] = {"model": model, "training_file": training_file}
    body["method"] = {"type": method} | ({method: inner} if inner else {})
    if validation_file is not None:
        body["validation_file"] = validation_file
    if epsilon is not None:
        body["privacy"] = {"epsilon": epsilon}
    return body


def pairs(given: list[str] | None) -> dict[str, Any]:
    """name=value options; a value that reads as JSON is taken as such, so that r=8 is a number."""
    taken: dict[str, Any] = {}
    for pair in given or []:
        name, sign, value = pair.partition("=")
        if not sign:
            options.fail(f"{pair!r} is not of the form name=value")
        try:
            taken[name] = json.loads(value)
        except ValueError:
            taken[name] = value
    return taken


def follow(client: Client, job: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Poll until the job ends, with a progress bar, or lines where the output is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[steps]}"), TimeElapsedColumn())
    with Progress(*columns, console=output.console, disable=quiet or not output.console.is_terminal) as bar:
        shown = bar.add_task(job["status"], total=1.0, steps="")
        said = ""
        while job["status"] not in ENDED:
            time.sleep(POLL)
            job = client.get(f"{PATH}/{job['id']}")
            progress = job.get("progress") or {}
            steps = f"{progress.get('step', 0)} of {progress['total_steps']} steps" if "total_steps" in progress else ""
            description = job.get("status_detail") or job["status"]
            bar.update(shown, completed=progress.get("fraction") or 0.0, description=description, steps=steps)
            if bar.disable and not quiet and said != (said := f"{description}: {steps}"):
                output.console.print(said)
    return job
