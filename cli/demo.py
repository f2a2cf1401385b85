"""`tacit demo`: one private fine-tuning job from raw rows to a refused second one, told step by step."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli import columns, demo_data, demo_pictures, options, output
from cli.client import ApiError, Client
from cli.commands import adapters, jobs
from cli.demo_stack import Watch, running
from cli.embedded.errors import StackError
from dpcore.terms.kind import LABEL, TEXT
from dpcore.terms.methods import method_names
from dpcore.terms.presets import PRESETS, UNNAMED
from dpcore.terms.tasks import DEFAULT_KIND, KINDS, TaskKind, get_kind, told_by

ROWS, EVALUATED = 6000, 600  # of the made-up data
STEPS, BATCH = 40, 256
LEARNT = 0.15  # how far above chance the made-up task must be learnt
LIKELIER = 0.7  # a language model must go below this part of its perplexity
LEDGER = ["seq", "kind", "outcome", "epsilon_after", "at", "hash"]
CAUSAL = "causal-lm"
MADE_UP = (DEFAULT_KIND, "text", "image")  # kinds that there are made-up rows for
STOCK = Path(__file__).with_name("demo_predict.py")
console = output.console


@dataclass(frozen=True)
class DemoTask:
    """What is learnt, and the numbers asked for; None is left to the service."""

    train: Path
    evaluation: Path
    kind: TaskKind
    columns: dict[str, str]
    """Of the files: the service's name for each, and theirs."""
    labels: str | None
    epsilon: float
    delta: float
    max_length: int | None
    model: str
    method: str
    steps: int | None
    batch_size: int | None
    learning_rate: float | None


@options.explained
@options.sharing(columns.named())
def demo(
    named: columns.Named,
    data: Annotated[Path | None, typer.Option(help="Keep everything in this folder, or use the stack on it.")] = None,
    train: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Private rows of your own.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", exists=True, dir_okay=False, help="Public rows of your own to measure on.")
    ] = None,
    task: Annotated[
        str,
        typer.Option(help=f"{', '.join(KINDS)}; or {CAUSAL}: what a language model learns from the columns named."),
    ] = DEFAULT_KIND,
    label: Annotated[str, typer.Option(help="The column with the label.")] = LABEL,
    max_length: Annotated[int | None, typer.Option(min=4, help="Tokens of a record; the rest is cut.")] = None,
    epsilon: Annotated[float, typer.Option(help="The budget, and the price of the one job that fills it.")] = 8.0,
    delta: Annotated[float, typer.Option(help="Below 1 / the number of rows.")] = 1e-5,
    model: Annotated[
        str | None,
        typer.Option(
            help="The base model: a name, a folder, or NAME=FOLDER for the demo's own stack. Default: minilm-l6, for "
            f"{CAUSAL} small-writer, for pictures small-seer."
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help=f"What is trained: {', '.join(method_names())}; or a preset: {', '.join(PRESETS)}.")
    ] = "lora",
    steps: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
    federated: Annotated[
        bool, typer.Option("--federated", help="Two tenants and three files: one job that no one of them sees whole.")
    ] = False,
) -> None:
    """One private fine-tuning job, end to end, on a stack of its own: made-up rows, or yours.

    ```text
    tacit demo
    tacit demo --federated
    tacit demo --task causal-lm
    tacit demo --task image
    tacit demo --train train.tsv --eval dev.tsv --text sentence --epsilon 8 --json figures.json
    tacit demo --task causal-lm --train e2e.csv --eval dev.csv --prompt mr --completion ref --model gpt2=/models/gpt2
    ```
    """
    kind, names = _kind(task, {**named, LABEL: label})
    if kind not in MADE_UP and train is None:
        options.fail("there are no made-up rows for this task; give your own: --train and --eval")
    model = _model(model, kind)
    if (train is None) != (evaluation is None):
        options.fail("--train and --eval go together: private rows to learn from, public rows to measure on")
    if get_kind(kind).of_pictures and any(own is not None and own.suffix != ".zip" for own in (train, evaluation)):
        options.fail("pictures of your own are zips with a folder for each class: --train a.zip --eval b.zip")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the stack is stopped and its data removed
    with tempfile.TemporaryDirectory(prefix="tacit-demo-") as name:
        scratch = Path(name)
        scratch.chmod(0o711)  # Postgres may run as another user, who must pass here
        if federated:
            from cli.demo_federated import federated_demo

            figures = federated_demo((data or scratch / "data").absolute(), scratch)
            if json_file is not None:
                json_file.write_text(json.dumps(figures, indent=1) + "\n")
            return
        if train is None or evaluation is None:
            train, evaluation = _make_data(scratch, kind)
            made_labels = demo_pictures.LABELS if get_kind(kind).of_pictures else demo_data.LABELS
            labels: str | None = ",".join(made_labels) if LABEL in names else None
            steps, batch_size, made_up = steps or STEPS, batch_size or BATCH, True
        else:
            labels, made_up = "publish" if LABEL in names else None, False
        wanted = DemoTask(
            train,
            evaluation,
            kind,
            names,
            labels,
            epsilon,
            delta,
            max_length,
            model,
            method,
            steps,
            batch_size,
            learning_rate,
        )
        figures = _run(wanted, (data or scratch / "data").absolute(), scratch)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")
    # The made-up job's few steps were chosen for LoRA.
    if made_up and method == "lora" and not _learnt(figures):
        options.fail("the model has not learnt the task")


def _learnt(figures: dict[str, Any]) -> bool:
    if "perplexity" in figures:
        return bool(figures["perplexity"] < LIKELIER * figures["perplexity_untrained"])
    return bool(figures["accuracy"] >= LEARNT + max(figures["majority"], figures["accuracy_untrained"]))


def _kind(task: str, names: columns.Named) -> tuple[TaskKind, dict[str, str]]:
    """The service's task and its columns; a causal LM's follows from the columns that were named."""
    if task == CAUSAL:
        task = told_by([name for name, theirs in names.items() if theirs])
        if get_kind(task).labelled:
            task = next(name for name, kind in KINDS.items() if kind.causal_lm and kind.columns == (TEXT,))
    if task not in KINDS:
        options.fail(f"--task {task!r} is none of {CAUSAL}, {', '.join(KINDS)}")
    return task, {name: names[name] or name for name in get_kind(task).fields}


def _model(model: str | None, kind: TaskKind) -> str:
    """The name of a model; a folder joins the allow-list of the demo's own stack under one."""
    if model is None:
        from domain.models.allow_list import built_in

        return built_in(kind)
    name, _, folder = model.rpartition("=")
    if not (Path(folder) / "config.json").is_file():
        if name or Path(folder).is_dir():
            options.fail(f"--model: {folder} holds no model: it has no config.json")
        return model
    name = name or re.sub("[^A-Za-z0-9_-]", "-", Path(folder).resolve().name)
    known = json.loads(os.environ.get("TACIT_MODELS", "{}"))
    os.environ["TACIT_MODELS"] = json.dumps(known | {name: str(Path(folder).resolve())})
    return name


def _make_data(scratch: Path, kind: TaskKind) -> tuple[Path, Path]:
    if get_kind(kind).of_pictures:
        return _make_pictures(scratch)
    rows = demo_data.notes(ROWS + EVALUATED)
    train, evaluation = scratch / "notes.csv", scratch / "evaluation.csv"
    demo_data.write(train, rows[:ROWS])
    demo_data.write(evaluation, rows[ROWS:])
    console.rule("The data")
    writes = get_kind(kind).causal_lm
    asked = "What does such a note sound like?" if writes else "Is someone getting better or worse?"
    console.print(f"{ROWS} made-up notes of patients, each with a name. {asked}")
    for note, answer in rows[:3]:
        console.print(f"  [italic]{escape(note)}[/italic]" + ("" if writes else f"  → {answer}"))
    told = (
        "An untrained model has read novels, and no note."
        if writes
        else "What is said about the knee or the back tells; an untrained model can only guess."
    )
    console.print(
        f"{told}\n"
        f"{EVALUATED} other notes are the public evaluation set. No patient in the {ROWS} may be exposed by the model."
    )
    return train, evaluation


def _make_pictures(scratch: Path) -> tuple[Path, Path]:
    console.rule("The data")
    rows, evaluated = demo_pictures.ROWS, demo_pictures.EVALUATED
    train, evaluation = demo_pictures.write(scratch)
    console.print(
        f"{rows} made-up pictures of stained cells: which are {', '.join(demo_pictures.LABELS)}?\n"
        f"The base model has seen drawings of circles and stars, and no cell. {evaluated} other pictures are the\n"
        f"public evaluation set. Nobody whose cells are among the {rows} may be exposed by the model."
    )
    return train, evaluation


def _run(task: DemoTask, data: Path, scratch: Path) -> dict[str, Any]:
    watch = Watch()
    console.rule("The service")
    with running(data, scratch) as (url, admin_key):
        watch.lap("start")
        console.print(
            f"Postgres, Redis, one worker and the API run on {url}. The API's login cannot change a balance;\n"
            "the worker cannot take a step that the ledger has not charged."
        )
        steward = Client(url, admin_key)
        budget, private, public = _steward(steward, task)
        watch.lap("upload")
        key = steward.post("/v1/keys", {"name": "demo analyst", "scopes": ["analyst"]})
        steward.post(f"/v1/budgets/{budget['id']}/grants", {"key": key["id"]})
        analyst = Client(url, key["key"])
        job = _analyst(analyst, task, private, public, watch)
        adapter = scratch / "adapter"
        _download(analyst, job["id"], adapter)
        watch.lap("download")
        measured = measured_alone(task, private, adapter, scratch)
        watch.lap("predict")
        refusal = _refused(analyst, task, private["id"])
        _ledger(steward, budget["id"])
        if data.parent != scratch:
            kept = data / "demo-adapter"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(adapter, kept)
            console.print(f"The adapter is in {escape(str(kept))}.")
    watch.lap("stop")
    privacy = job.get("privacy") or {}
    hyperparameters = job.get("hyperparameters") or {}
    figures = {
        **measured,
        "budget_epsilon": task.epsilon,
        "epsilon": privacy.get("epsilon"),
        "delta": privacy.get("delta"),
        "sigma": privacy.get("noise_multiplier"),
        "q": privacy.get("sample_rate"),
        "steps": privacy.get("steps_planned"),
        "expected_batch": hyperparameters.get("batch_size"),
        "learning_rate": hyperparameters.get("learning_rate"),
        "rows": private.get("declared_size"),
        "model": task.model,
        "method": task.method,
        "task": task.kind,
        "refused": refusal.code,
        "seconds": watch.total(),
        "stages": watch.stages,
        "version": version("tacit"),
    }
    _summary(figures)
    return figures


def _steward(steward: Client, task: DemoTask) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Open a budget and put the files under it. Returns the budget, the private and the public file."""
    console.rule("The steward opens a budget and uploads the rows")
    pictures = get_kind(task.kind).of_pictures
    rows = demo_pictures.count(task.train) if pictures else sum(1 for _ in _records(task, task.train))
    budget = steward.post(
        "/v1/budgets",
        {
            "name": f"demo {task.train.name}",
            "epsilon": task.epsilon,
            "delta": task.delta,
            "reference": _reference(task, rows),
        },
    )
    console.print(
        f"Budget {budget['id']}: epsilon {task.epsilon:g}, delta {task.delta:g}, over all jobs that will ever run.\n"
        f"Whether one row is in the file or not changes the chance of anything that analysts can see by at most a\n"
        f"factor e^epsilon, but for delta. The database refuses every job that would break this promise."
    )
    shape = {"task": task.kind}
    if task.train.suffix.lower() != ".zip":
        shape |= {f"columns[{name}]": theirs for name, theirs in task.columns.items()}
    if task.max_length is not None:
        shape["resolution" if pictures else "max_length"] = str(task.max_length)
    form = {"purpose": "fine-tune", "budget": budget["id"], "declared_size": "count"}
    private = steward.upload("/v1/files", task.train, form | shape | ({"labels": task.labels} if task.labels else {}))
    labels = {"labels": json.dumps(private["labels"])} if task.labels else {}
    public = steward.upload("/v1/files", task.evaluation, {"purpose": "evals"} | shape | labels)
    asked = public["question"]
    if asked is not None:  # sentences of one making: only the steward can say that nobody is in both
        said = {"answer": "publish", "reason": "the evaluation set is public, and of nobody in the private file"}
        public = steward.post(f"/v1/files/{public['id']}/answer", said)
    seen = f" and its labels, {', '.join(private['labels'])}" if task.labels else ""
    console.print(
        f"Private file {private['id']}: every line checked in a process of its own.\n"
        f"An analyst sees its size, {private['declared_size']}{seen}.\n"
        f"Public evaluation set {public['id']}."
    )
    if asked is not None:
        console.print(
            f"Of its rows {asked['budgets'][0]['records']} resemble private ones: until the steward said that they\n"
            "may be public, nobody else saw the file."
        )
    return budget, private, public


def _analyst(
    analyst: Client, task: DemoTask, private: dict[str, Any], public: dict[str, Any], watch: Watch
) -> dict[str, Any]:
    """Ask the price, submit, and wait. Returns the finished job."""
    console.rule("The analyst asks for the price: free, and no row is looked at")
    request = _request(task, private["id"]) | {"validation_file": public["id"]}
    estimate = analyst.post(f"{jobs.PATH}/estimate", request)
    privacy = estimate["privacy"]
    output.show(
        {
            "noise": f"{privacy['noise_multiplier']:.4g} times the most that one row can say",
            "sample rate": f"{privacy['sample_rate']:.4g}, a row's chance to be in a step",
            "steps": privacy["steps_planned"],
            "price": f"epsilon {privacy['epsilon']:.4g}",
            "left of the budget afterwards": f"epsilon {privacy['budget_left_after']:.4g}",
            "fits": estimate.get("fits"),
        },
        as_json=False,
    )
    watch.lap("estimate")
    console.rule("The analyst submits the job")
    console.print(
        "Its full price is held in the ledger before it starts. Each step draws rows at random, clips what each row\n"
        "says to the same length, adds noise of known size, and is charged before the noise is drawn."
    )
    job = jobs.follow(analyst, analyst.post(jobs.PATH, request), quiet=False)
    watch.lap("train")
    if job["status"] != "succeeded":
        error = job.get("error") or {}
        raise ApiError(f"The job ended as {job['status']}: {error.get('message')}", code=error.get("code"))
    if guarantee := (job.get("privacy") or {}).get("guarantee"):
        console.print(escape(str(guarantee)), soft_wrap=False)
    return job


def _download(analyst: Client, job: str, adapter: Path) -> None:
    console.rule("The analyst takes the adapter home")
    digest = adapters.fetch(analyst, job, adapter)
    console.print(f"Checked: sha256 {digest}")
    console.print("Files: " + ", ".join(sorted(path.name for path in adapter.iterdir())))


def measured_alone(task: DemoTask, private: dict[str, Any], adapter: Path, scratch: Path) -> dict[str, Any]:
    """Measure in a process that has only stock libraries."""
    console.print("Loaded by stock libraries, in a process that imports nothing of Tacit:")
    base, labels = _base_model(task.model).folder, private["labels"] or []
    max_length = int(private.get("max_length") or 128)
    kind = get_kind(task.kind)
    about = {"labels": labels, "max_length": max_length, "causal": kind.causal_lm, "texts": kind.texts}
    about |= {"pictures": kind.of_pictures}
    rows = scratch / "evaluation.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for row in _measured_rows(task, base, max_length, scratch):
            file.write(json.dumps(row) + "\n")
    command = [sys.executable, "-I", str(STOCK), str(base), str(adapter), str(rows), json.dumps(about)]
    waiting = (SpinnerColumn(), TextColumn("measuring"), TimeElapsedColumn())
    with Progress(*waiting, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task("")
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise StackError(f"The adapter does not load:\n{done.stderr.strip()}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if foreign := measured.pop("tacit_modules"):
        raise StackError(f"The process for stock libraries imported {', '.join(foreign)}.")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for shown, name in (
        ("always the most frequent label", "majority"),
        ("the untrained model", "accuracy_untrained"),
        ("[bold]the private adapter[/bold]", "accuracy"),
    ):
        if name in measured:
            table.add_row(shown, f"{measured[name]:.1%} right of {measured['evaluated']}")
    for shown, name in (
        ("the untrained model", "perplexity_untrained"),
        ("[bold]the private adapter[/bold]", "perplexity"),
    ):
        if name in measured:
            table.add_row(shown, f"perplexity {measured[name]:.4g} over {measured['evaluated']} tokens")
    console.print(table)
    return measured


def _measured_rows(task: DemoTask, base: Path, max_length: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """Public rows as the process for stock libraries takes them."""
    kind = get_kind(task.kind)
    if kind.of_pictures:
        yield from demo_pictures.unpack(task.evaluation, scratch / "pictures")
    elif kind.causal_lm:
        yield from _tokens(task, base, max_length)
    else:
        yield from _records(task, task.evaluation)


def _tokens(task: DemoTask, base: Path, max_length: int) -> Iterator[dict[str, Any]]:
    """Public rows as a model reads them: tokens, and which of them are to be predicted."""
    from dpcore.models import load_tokenizer
    from dpcore.tasks import make_task
    from dpcore.tasks.records import Records

    rows = list(_records(task, task.evaluation))
    columns = {name: [row[name] for row in rows] for name in task.columns}
    records = make_task(task.kind, load_tokenizer(base), max_length=max_length).encode(columns, [])
    assert isinstance(records, Records)
    for start, end in zip(records.offsets[:-1], records.offsets[1:], strict=True):
        yield {"ids": records.tokens[start:end].tolist(), "targets": records.marks[start:end].tolist()}


def _refused(analyst: Client, task: DemoTask, private: str) -> ApiError:
    """Ask for the same once more: the answer is the finished job, and there is nothing left to spend."""
    console.rule("The analyst asks for a second job")
    request = _request(task, private)
    finished = _refusal(analyst, request, 409)
    console.print(f"[bold]The same job has finished[/bold] ({finished.status}): {escape(finished.message)}")
    error = _refusal(analyst, request | {"allow_duplicate": True}, 403)
    console.print(f"To insist is [bold]refused[/bold] ({error.status}): {escape(str(error))}")
    console.print("Whoever asks, and in whatever words: the budget is spent, and nothing refills it.")
    return error


def _refusal(analyst: Client, request: dict[str, Any], status: int) -> ApiError:
    try:
        job = analyst.post(jobs.PATH, request)
    except ApiError as error:
        if error.status != status:
            raise
        return error
    raise ApiError(f"Job {job['id']} was accepted although the budget is spent.")


def _ledger(steward: Client, budget: str) -> None:
    console.rule("The ledger")
    output.show_list(steward.pages(f"/v1/budgets/{budget}/entries", 100), LEDGER, as_json=False)
    console.print("Every line is sealed by the hash of the line before; nobody's login can change or remove one.")


def _summary(figures: dict[str, Any]) -> None:
    console.rule("What happened")
    output.show({name: value for name, value in figures.items() if name != "stages"}, as_json=False)
    console.print(
        "The model learnt what the rows have in common, and provably next to nothing about any one of them: what left\n"
        "the service are noised steps, each paid for in the ledger, and things computed from those."
    )


def _request(task: DemoTask, private: str) -> dict[str, Any]:
    asked = {"steps": task.steps, "batch_size": task.batch_size, "learning_rate": task.learning_rate}
    method, options = (UNNAMED, {"preset": task.method}) if task.method in PRESETS else (task.method, {})
    return jobs.request(task.model, private, None, method, options, asked, task.epsilon)


def _reference(task: DemoTask, rows: int) -> dict[str, Any]:
    """The public job that the budget is made for: this one."""
    from domain.access.reference import reference_job

    default = reference_job(rows, task.epsilon, _base_model(task.model).facts, task.kind)
    rate = default.sample_rate if task.batch_size is None else min(1.0, task.batch_size / rows)
    return {"sample_rate": rate, "steps": task.steps or default.steps}


def _base_model(name: str) -> Any:
    """Where the base model lies and its public facts: the allow-list that the embedded stack has too."""
    from domain.kit.settings import ModelSettings, from_environment
    from domain.models.allow_list import base_models

    known = base_models(from_environment(ModelSettings))
    if name not in known.usable:
        why = known.unusable[name].because if name in known.unusable else f"there are: {', '.join(known.usable)}"
        raise StackError(f"There is no base model {name!r} that can be used; {why}.")
    return known.usable[name]


def _records(task: DemoTask, path: Path) -> Iterator[dict[str, str]]:
    """The rows of a file as the service reads them, by the service's names."""
    from domain.ingest.formats import SUFFIXES, records
    from domain.ingest.problems import Problems

    if path.suffix.lower() not in SUFFIXES:
        raise StackError(f"{path} must end in one of {', '.join(SUFFIXES)}")
    with path.open("rb") as source:
        for record in records(source, SUFFIXES[path.suffix.lower()], tuple(task.columns.values()), Problems()):
            values = (v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in record.values)
            yield {
                name: value.strip() if name == LABEL else value
                for name, value in zip(task.columns, values, strict=True)
            }
