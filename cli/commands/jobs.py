"""`tacit jobs`: plan, submit, watch and stop fine-tuning jobs."""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli import advice, options, output, statements
from cli import synthetic as sampling
from cli.client import ApiError, Client, connect
from cli.fetching import fetch_checked
from domain.kit import share_words
from dpcore.terms.methods import method_names
from dpcore.terms.presets import DEFAULT_PRESET, PRESET_HELP, UNNAMED, Preset

app = options.group("Private fine-tuning jobs.")
PATH = "/v1/fine_tuning/jobs"
COLUMNS = [
    "id",
    "status",
    "status_detail",
    "model",
    "method.type",
    "training_file",
    "privacy.share",
    "privacy.epsilon",
    "quality.value",
    "progress.fraction",
    "created_at",
]
WAITING_COLUMNS = ["id", "submitted_by.name", "intended_use", "privacy.share", "privacy.epsilon", "method.type"]
WAITING_COLUMNS += ["training_file", "created_at"]
SILO_COLUMNS = ["name", "own", "tenant", "state", "declared_size", "rounds_sent", "rounds_missed", "job"]
PHASE_COLUMNS = ["phase", "trains", "mechanism", "sigma", "rate", "steps", "share", "epsilon"]
COMPARED = ["id", "accuracy", "perplexity", "+-", "baseline", "share", "epsilon", "method", "model"]
EVENT_COLUMNS = ["created_at", "level", "message"]
ENDED = ("succeeded", "failed", "cancelled")
POLL = 1.0  # seconds


def request(
    model: str,
    training_file: str,
    validation_file: str | None,
    method: str,
    method_options: dict[str, Any],
    hyperparameters: dict[str, Any],
    epsilon: float | None,
    share: float | None = None,
    synthetic: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A job as the service takes it; what is None is left to the service."""
    given = {name: value for name, value in hyperparameters.items() if value is not None}
    inner = method_options | ({"hyperparameters": given} if given else {})
    body: dict[str, Any] = {"model": model, "training_file": training_file}
    body["method"] = {"type": method} | ({method: inner} if inner else {})
    if validation_file is not None:
        body["validation_file"] = validation_file
    price = {"epsilon": epsilon, "share": share}
    if named := {name: value for name, value in price.items() if value is not None}:
        body["privacy"] = named
    if synthetic is not None:
        body["synthetic"] = synthetic
    return body


def _requested(
    training_file: Annotated[str, typer.Option("--file", help="The private file to learn from.")],
    model: Annotated[str, typer.Option(help="A base model: `tacit models` lists them.")] = "minilm-l6",
    validation_file: Annotated[str | None, typer.Option(help="A public file to measure on.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help=f"What is trained: {', '.join(method_names())}; `{UNNAMED}` leaves it, with its numbers, to a preset."
        ),
    ] = UNNAMED,
    preset: Annotated[Preset | None, typer.Option(help=f"{PRESET_HELP}. Default: {DEFAULT_PRESET}.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="A method's own option, such as r=8 or full_steps=20; repeatable."),
    ] = None,
    share: options.ShareOption = None,
    measure: options.MeasureOption = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="In place of a share: what this job alone may cost. Neither: all of a budget that no job has used yet."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="More steps, more noise in each.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Units in a batch, on average.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Falls linearly to zero.")] = None,
    hyperparameter: Annotated[
        list[str] | None,
        typer.Option(
            "--hyperparameter",
            help="A number of training without an option of its own, such as clipping=adaptive, or of a method alone, "
            "such as directions=16 of zo; repeatable.",
        ),
    ] = None,
    synthetic: sampling.SyntheticRecords = None,
    synthetic_prompts: sampling.SyntheticPromptsFile = None,
    synthetic_option: sampling.SyntheticSetting = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Let the worker audit this training on made-up records before it reads a row: minutes, no charge.",
        ),
    ] = False,
) -> dict[str, Any]:
    """The options that an estimate and a job have in common, as a request."""
    named = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    hyperparameters = {name: value for name, value in named.items() if value is not None} | pairs(hyperparameter)
    asked = sampling.asked(synthetic, synthetic_prompts, pairs(synthetic_option))
    own = pairs(option)
    if preset is not None:
        if method != UNNAMED:
            raise typer.BadParameter("a preset chooses the method: name --preset or --method, not both")
        own["preset"] = preset
    body = request(model, training_file, validation_file, method, own, hyperparameters, epsilon, share, asked)
    body |= {} if measure is None else {"measure": {"share": measure}}
    return body | ({"audit": True} if audit else {})


@app.command()
@options.explained
@options.sharing(_requested)
def estimate(
    body: dict[str, Any],
    population: Annotated[
        int | None,
        typer.Option(
            help="federated-lm: what the same rounds would cost with so many users. Imagined, and no promise."
        ),
    ] = None,
    cohort: Annotated[int | None, typer.Option(help="Of whom so many are drawn in a round, on average.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """What a job would cost and need. Free: nothing is charged, and no row is looked at.

    Whether it fits the budget, the noise, what would be left; and, once a worker has measured the model, at most how
    many seconds it trains.

    ```text
    tacit jobs estimate --file file-... --share 25%
    tacit jobs estimate --file file-... --share 25% --preset fast
    tacit jobs estimate --file file-... --share 0.25 --method bitfit --option full_steps=20 --steps 300
    tacit jobs estimate --file file-... --epsilon 3 --method zo --hyperparameter directions=16
    ```
    """
    given = {name: value for name, value in (("population", population), ("cohort", cohort)) if value is not None}
    query = f"?{urlencode(given)}" if given else ""
    show_job(connect(url, key).post(f"{PATH}/estimate{query}", body), as_json)


@app.command()
@options.explained
@options.sharing(_requested)
def create(
    body: dict[str, Any],
    suffix: Annotated[str | None, typer.Option(help="A name for the result.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="A note such as team=blue; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the initial adapter; never of noise or sampling.")] = None,
    allow_duplicate: Annotated[
        bool,
        typer.Option(
            "--allow-duplicate", help="Pay again although the same job has finished, or was submitted a moment ago."
        ),
    ] = False,
    queue_days: Annotated[
        int | None, typer.Option(min=1, max=30, help="Cancel it, at no cost, if it has not started by then.")
    ] = None,
    intended_use: Annotated[
        str | None, typer.Option(help="What the result is for: a budget may want to know, and a steward reads it.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show progress.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Submit a job. Its price is held in the ledger at once; a job that does not fit is refused.

    The same request as a job that has finished is refused too, with that job's id: its adapter is there for nothing.
    The same request again within five minutes is the same job.

    ```text
    tacit jobs create --file file-... --share 25% --watch
    tacit jobs create --file file-... --method lora --option r=8 --steps 200 --batch-size 512 --share 0.25
    tacit jobs create --file file-... --share 0.1 --intended-use "triage of incoming letters, ward 3"
    tacit jobs create --file file-... --epsilon 3
    tacit jobs create --file file-... --share 0.25 --measure 0.02
    tacit jobs create --file file-... --share 0.2 --method federated-lora --option 'silos=["inv-..."]'
    ```

    A job on a language model can sample text from what it releases. All that steers it is public and kept with the job;
    nothing more is charged, and the file's card says what it is and is not (`tacit jobs results`):

    ```text
    tacit jobs create --file file-... --model small-writer --share 25% --synthetic 1000
    tacit jobs create --file file-... --model small-writer --share 0.25 --synthetic 1000 \
      --synthetic-prompts prompts.txt --synthetic-option top_p=0.95 --synthetic-option max_new_tokens=40
    ```

    A federated job learns from accepted invitations beside the file: `tacit invitations --help`.
    """
    notes = {name: str(value) for name, value in pairs(metadata).items()}
    rest = {"suffix": suffix, "metadata": notes or None, "seed": seed, "queue_days": queue_days}
    rest |= {"intended_use": intended_use}
    rest |= {"allow_duplicate": allow_duplicate or None}
    body |= {name: value for name, value in rest.items() if value is not None}
    client = connect(url, key)
    try:
        job = client.post(PATH, body)
    except ApiError as error:
        if error.status is None:  # nobody knows whether the service has it
            error.fix = "run this again: what was submitted is not submitted twice, for five minutes"
        raise
    if client.replayed:
        options.note("This was submitted a moment ago, and is that job. For another one: --allow-duplicate.")
    if watch:
        job = follow(client, job, quiet=as_json)
    show_job(job, as_json)
    if watch and job["status"] != "succeeded":
        raise typer.Exit(1)


@app.command()
@options.explained
def watch(job: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """Show a job's progress until it ends. Exit code 1 unless it succeeds."""
    client = connect(url, key)
    ended = follow(client, client.get(f"{PATH}/{job}"), quiet=as_json)
    show_job(ended, as_json)
    if ended["status"] != "succeeded":
        raise typer.Exit(1)


@app.command("list")
@options.explained
def list_jobs(
    limit: options.Most = 20,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that wait for a steward's approval.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Jobs, newest first."""
    wanted = {"status_detail": "waiting_for_approval"} if waiting else {}
    columns = WAITING_COLUMNS if waiting else COLUMNS
    output.show_list(connect(url, key).pages(PATH, limit, **wanted), columns, as_json)


@app.command()
@options.explained
def show(job: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """One job, with its privacy statement, its phases with what each costs, and its silos and rounds where it is
    federated."""
    show_job(connect(url, key).get(f"{PATH}/{job}"), as_json)


@app.command()
@options.explained
def results(
    job: str,
    folder: Annotated[Path | None, typer.Option("--output", "-o", help="A folder. Default: the job's id.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Download all that a job released, each file checked by its sha256: the adapter as a ZIP, the privacy report, and
    sampled text with its card where the job was asked for it. `tacit adapters download` unpacks the adapter.

    ```text
    tacit jobs results ftjob-... -o my-results
    ```
    """
    client, target = connect(url, key), folder or Path(job)
    found = client.get(f"{PATH}/{job}")
    if not found["result_files"]:
        raise ApiError(f"{job} has released nothing: it is {found['status']}.", fix=f"tacit jobs watch {job}")
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for id in found["result_files"]:
        name = Path(client.get(f"/v1/files/{id}")["filename"]).name
        if (target / name).exists():
            raise ApiError(f"{target / name} exists.", fix="name another folder with -o")
        rows.append({"file": str(target / name), "sha256": _download(client, id, target / name), "id": id})
    output.show_list(rows, ["file", "sha256", "id"], as_json)


@app.command()
@options.explained
def statement(
    job: str,
    html: Annotated[bool, typer.Option("--html", help="One page, for a browser or paper, in place of JSON.")] = False,
    out: Annotated[Path | None, typer.Option("--output", "-o", help="Write it here.")] = None,
    url: options.Url = None,
    key: options.Key = None,
) -> None:
    """What is claimed of a job, for people who must answer for it: the promise in words, numbers and odds, what was
    released, who asked and agreed, and what is not covered.

    ```text
    tacit jobs statement ftjob-...
    tacit jobs statement ftjob-... --html -o statement.html
    ```
    """
    statements.show(connect(url, key), f"{PATH}/{job}/statement", html, out)


@app.command()
@options.explained
def evidence(
    job: str,
    folder: Annotated[Path | None, typer.Option("--output", "-o", help="A new folder. Default: the job's id.")] = None,
    with_adapter: Annotated[bool, typer.Option("--adapter", help="The adapter too, as it was released.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Download a job's statement with all that it rests on, signed: `tacit verify-release` checks it offline.

    ```text
    tacit jobs evidence ftjob-... -o evidence
    ```
    """
    target = folder or Path(job)
    client = connect(url, key)
    adapter = f"{PATH}/{job}/adapter" if with_adapter else None
    output.show(statements.take(client, f"{PATH}/{job}/evidence", target, adapter), as_json)


def _download(client: Client, id: str, target: Path) -> str:
    """Nothing appears at `target` unless all of it arrived unchanged."""
    with tempfile.TemporaryDirectory(prefix=".tacit-", dir=target.parent) as scratch:
        part = Path(scratch) / target.name
        digest = fetch_checked(client, f"/v1/files/{id}/content", part)
        part.replace(target)
    return digest


@app.command()
@options.explained
def compare(
    file: Annotated[str, typer.Argument(help="A private file: the jobs that learnt from it.")],
    limit: options.Most = 100,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """The jobs of a file side by side, the best first: quality against the share of the budget that it cost.

    Figures are of public evaluation files, or private measurements on what the budget holds out. Those of different
    ones do not compare.

    ```text
    tacit jobs compare file-...
    ```
    """
    found = connect(url, key).pages(PATH, limit)
    made = [job for job in found if job["training_file"] == file and job.get("quality")]
    made.sort(key=lambda job: job["quality"]["value"] * (-1 if job["quality"]["metric"] == "accuracy" else 1))
    if not made and not as_json:
        output.console.print(
            "No job of this file has a quality yet: it takes a --validation-file, a public one, or --measure."
        )
        return
    output.show_list([_side_by_side(job) for job in made], COMPARED, as_json)


def _side_by_side(job: dict[str, Any]) -> dict[str, Any]:
    """What a job reached, for what, and with which numbers."""
    quality, privacy, method = job["quality"], job["privacy"], job["method"]["type"]
    error = quality["standard_error"]
    return {
        "id": job["id"],
        quality["metric"]: round(quality["value"], 4),
        "+-": None if error is None else round(error, 4),
        "baseline": None if quality["baseline"] is None else round(quality["baseline"], 4),
        "share": privacy["share"],
        "epsilon": privacy["epsilon"],
        "method": method,
        "model": job["model"],
        "numbers": job["method"][method]["hyperparameters"],
        "evaluated on": quality["file"] or "held-out units",
    }


@app.command()
@options.explained
def cancel(
    job: str,
    yes: options.Yes = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Stop a job. Steps that it was allowed stay charged; the rest goes back to the budget."""
    options.sure(f"Stop {job} for good? Steps that it was allowed stay charged.", yes)
    output.show(connect(url, key).post(f"{PATH}/{job}/cancel"), as_json)


@app.command()
@options.explained
def pause(job: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """Hold a job: its worker keeps a checkpoint and lets go. What it reserved stays reserved, for 7 days at most."""
    output.show(connect(url, key).post(f"{PATH}/{job}/pause"), as_json)


@app.command()
@options.explained
def resume(job: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """Let a paused job go on from its checkpoint."""
    output.show(connect(url, key).post(f"{PATH}/{job}/resume"), as_json)


@app.command()
@options.explained
def approve(
    job: str,
    reason: Annotated[str | None, typer.Option(help="Kept in the ledger.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward: let a job run that waits for approval. Not with the key that submitted it.

    ```text
    tacit jobs list --waiting
    tacit jobs approve ftjob-... --reason "agreed on 3 May"
    ```
    """
    body = {} if reason is None else {"reason": reason}
    output.show(connect(url, key).post(f"{PATH}/{job}/approve", body), as_json)


@app.command()
@options.explained
def reject(
    job: str,
    reason: Annotated[str, typer.Option(help="Shown to whoever submitted it.")],
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Steward: refuse a job that waits for approval. Its price goes back to the budget."""
    output.show(connect(url, key).post(f"{PATH}/{job}/reject", {"reason": reason}), as_json)


@app.command()
@options.explained
def events(
    job: str,
    limit: options.Most = 100,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """What has happened to a job."""
    output.show_list(connect(url, key).pages(f"{PATH}/{job}/events", limit), EVENT_COLUMNS, as_json)


def show_job(job: dict[str, Any], as_json: bool) -> None:
    """A job or an estimate; for people its phases and silos stand in tables below the rest."""
    privacy, silos = job.get("privacy") or {}, job.get("silos")
    phases = privacy.get("phases")
    if as_json or not phases:
        return output.show(job, as_json)
    rest = {name: value for name, value in job.items() if name not in ("silos", "advice")}
    if said := _in_plain_words(job):
        output.console.print(said)
    output.show(rest | {"privacy": {name: value for name, value in privacy.items() if name != "phases"}}, as_json)
    output.console.print("\nPhases, in order; shares add up, epsilons do not:")
    output.show_list([_in_short(phase) for phase in phases], PHASE_COLUMNS, as_json)
    if guesses := job.get("advice"):
        output.console.print(f"\n{advice.in_words(guesses)}")
        output.show_list(guesses["by_share"], advice.COLUMNS, as_json)
    if silos:
        output.console.print("\nSilos; the price above is your own one's:")
        output.show_list(silos, SILO_COLUMNS, as_json)


def _in_plain_words(job: dict[str, Any]) -> str:
    """What the job takes of its budget, and how many like it fit; nothing of one that no main order admits."""
    privacy = job["privacy"]
    share, main = privacy.get("share"), privacy.get("main_order")
    if share is None:
        return ""
    if not job.get("fits", True):
        left = share_words.percent(share_words.down(privacy.get("share_left_before") or 0))
        largest = share_words.percent(share_words.down(job["largest_share"]))
        taken = share_words.percent(share_words.up(share))
        return f"This job would take {taken} of the budget and does not fit: {left} is left, and {largest} would fit."
    if not main:
        return "The budget's main order has no room for this job; another order admits it, outside the shares."
    like = f"; {share_words.like_it(job['jobs_that_fit'])}" if "jobs_that_fit" in job else ""
    return f"This job takes {share_words.in_words(share)}{like}."


def _in_short(phase: dict[str, Any]) -> dict[str, Any]:
    """A phase in a line of 80 characters."""
    names = {"name": "phase", "noise_multiplier": "sigma", "sample_rate": "rate"}
    done = {"steps": f"{phase['steps_authorised']} of {phase['steps']}"}
    return {names.get(name, name): value for name, value in phase.items()} | done


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
