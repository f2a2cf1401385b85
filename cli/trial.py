"""`tacit try`: what an adapter says about the rows of a file, on this machine and without the service."""

import csv
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli import columns, options, output, pictures, scoring
from cli.embedded.errors import StackError
from dpcore.terms.tasks import KINDS, get_kind

if TYPE_CHECKING:
    from dpcore.export import About

AT_ONCE = 64  # rows between two moves of the progress bar
SHOWN = 20  # rows of a table


@options.explained
@options.sharing(columns.named(dict.fromkeys(name for kind in KINDS.values() for name in kind.asked)))
def try_(
    named: columns.Named,
    adapter: Annotated[Path, typer.Argument(exists=True, help="A downloaded adapter: its ZIP or its folder.")],
    file: Annotated[
        Path,
        typer.Argument(exists=True, help="Rows as CSV, TSV, JSONL or Parquet; pictures as a folder, zip or Parquet."),
    ],
    base: Annotated[
        str | None,
        typer.Option(help="The base model: its folder or its name. Default: as the adapter says."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", dir_okay=False, help="Write the answers here: .csv or .jsonl.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="The column with the right labels, to score answers by. Default: `label`, if it is there."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of a completion.")] = 64,
) -> None:
    """Run rows through an adapter: labels with their probabilities, or completions.

    Rows that say their label are scored: what was expected and whether the answer is right stand beside it, and the
    accuracy with its standard error is printed at the end. Completions are not scored.

    Pictures are known by the names of their files; where they lie in folders, a folder's name is the label of its
    pictures. Everything happens on this machine; the service is not asked.

    ```text
    tacit adapters download ftjob-... -o my-adapter
    tacit try my-adapter rows.csv
    tacit try adapter.zip prompts.jsonl --base /models/gpt2 -o answers.jsonl
    tacit try my-adapter new-scans/ --base /models/vit -o answers.csv
    ```
    """
    if out is not None and out.suffix not in (".csv", ".jsonl"):
        options.fail(f"{out}: the answers are written as .csv or .jsonl")
    with _folder(adapter) as folder:
        about = _about(folder)
        kind = get_kind(about.task)
        names = {name: named[name] or name for name in kind.asked}
        found: list[pictures.NamedPicture] = []
        lines: list[int] = []
        if kind.of_pictures:
            (column,) = names.values()
            found = pictures.pictures(file, column, label)
            rows, known = pictures.rows(found)
        else:
            lines, rows = _rows(file, names)
            known = None
        if label is not None and not about.labels:
            options.fail("the answers of this adapter are completions, which are not scored: leave --label out")
        if about.labels and not kind.of_pictures:
            known = scoring.labels(file, label, lines)
        answers = list(_shown(_answers(folder, about, base, rows, max_new_tokens), len(rows)))
    if known is not None:
        answers = scoring.scored(answers, known)
    if found:
        answers, rows = pictures.told(found, answers), [{} for _ in found]
    if out is None:
        _print(rows, answers)
    else:
        _write(out, answers)
        output.console.print(f"Wrote {len(answers)} answers to {out}.", markup=False)
    if known is not None:
        typer.echo(scoring.summary(answers, about.labels), err=True)  # beside the answers, not among them


@contextmanager
def _folder(adapter: Path) -> Iterator[Path]:
    if adapter.is_dir():
        yield adapter
        return
    with tempfile.TemporaryDirectory(prefix="tacit-try-") as scratch:
        try:
            with zipfile.ZipFile(adapter) as archive:
                archive.extractall(scratch)
        except zipfile.BadZipFile:
            raise StackError(f"{adapter} is neither a folder nor a ZIP.") from None
        yield Path(scratch)


def _about(folder: Path) -> "About":
    from dpcore.export import read_about

    try:
        return read_about(folder)
    except (OSError, ValueError, KeyError, TypeError):
        raise StackError(f"{folder} is no adapter of this service: it has no usable tacit.json.") from None


def _rows(file: Path, names: Mapping[str, str]) -> tuple[list[int], list[dict[str, str]]]:
    """The line and the columns of each row, read as the service reads them; a chat as JSON text."""
    from domain.ingest.formats import SUFFIXES, records
    from domain.ingest.problems import Problems

    if file.is_dir() or file.suffix.lower() not in SUFFIXES:
        raise StackError(f"{file} must end in one of {', '.join(SUFFIXES)}")
    problems, lines, rows = Problems(), [], []
    with file.open("rb") as source:
        for record in records(source, SUFFIXES[file.suffix.lower()], tuple(names.values()), problems):
            values = (v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in record.values)
            rows.append(dict(zip(names, values, strict=True)))
            lines.append(record.line)
    if problems.listed:
        worst = problems.listed[0]
        if worst.code == "missing_column":
            fix = ", ".join(f"--{name.replace('_', '-')}" for name in names)
            wanted = " and ".join(f"'{name}'" for name in names.values())
            raise StackError(f"{file} has no column {wanted} for this adapter.\n  fix: name other columns with {fix}")
        place = "" if worst.line is None else f" line {worst.line}:"
        raise StackError(f"{file}:{place} {worst.message}")
    if not rows:
        raise StackError(f"{file} has no rows.")
    return lines, rows


def _answers(
    folder: Path, about: "About", base: str | None, rows: Sequence[Mapping[str, str]], max_new_tokens: int
) -> Iterator[dict[str, Any]]:
    from cli import predict

    model = predict.load(folder, _base_folder(folder, about, base))
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        if about.labels:
            for shares in predict.probabilities(model, some):
                chances = dict(zip(about.labels, shares, strict=True))
                yield {"label": max(chances, key=chances.__getitem__), "probabilities": chances}
        else:
            for row in some:
                yield {"completion": predict.completion(model, row, max_new_tokens)}


def _base_folder(folder: Path, about: "About", base: str | None) -> Path:
    """Where the base model lies, as it was named or as the adapter names it; a whole model needs none."""
    from domain.kit.settings import ModelSettings
    from domain.models.allow_list import base_models, describe

    if (folder / "config.json").is_file():
        return folder
    try:
        if base is not None and Path(base).is_dir():
            found = describe(base, Path(base))
        else:
            known = base_models(options.settings(ModelSettings)).usable
            # The service that made it may call the same weights by another name.
            same = next((model for model in known.values() if model.revision == about.base_model_sha256), None)
            chosen = (same or known.get(about.base_model)) if base is None else known.get(base)
            if chosen is None:
                raise StackError(
                    f"There is no base model {base or about.base_model!r} here; there are: {', '.join(known)}.\n"
                    f"  fix: --base with the folder of {_called(about)}, or its name in TACIT_MODELS"
                )
            found = chosen
    except (OSError, ValueError) as error:
        raise StackError(str(error)) from None
    if found.revision != about.base_model_sha256:
        raise StackError(
            f"{found.folder} is not the base model of this adapter: its weights have sha256 {found.revision[:16]}..., "
            f"those of {about.base_model} {about.base_model_sha256[:16]}...\n"
            f"  fix: --base with the folder of {_called(about)}"
        )
    return found.folder


def _called(about: "About") -> str:
    """The base model as somebody would look for it."""
    return f"{about.repository} at commit {about.commit} of the hub" if about.repository else about.base_model


def _shown(answers: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.console, disable=not output.console.is_terminal, transient=True) as bar:
        shown = bar.add_task("rows", total=total)
        for answer in answers:
            yield answer
            bar.advance(shown)


def _print(rows: Sequence[Mapping[str, str]], answers: Sequence[dict[str, Any]]) -> None:
    if not output.console.is_terminal:
        for answer in answers:
            typer.echo(json.dumps(answer, ensure_ascii=False))
        return
    table = [{**row, **_flat(answer)} for row, answer in zip(rows, answers, strict=True)]
    output.show_list(table[:SHOWN], list(table[0]), as_json=False)
    if len(table) > SHOWN:
        output.console.print(f"... and {len(table) - SHOWN} more: -o answers.csv writes all of them.")


def _write(out: Path, answers: Sequence[dict[str, Any]]) -> None:
    with out.open("w", newline="", encoding="utf-8") as file:
        if out.suffix == ".jsonl":
            file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
            return
        writer = csv.DictWriter(file, list(_flat(answers[0])))
        writer.writeheader()
        writer.writerows(_flat(answer) for answer in answers)


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    """One column for each label's probability."""
    chances = {f"p({label})": round(share, 4) for label, share in answer.get("probabilities", {}).items()}
    return {name: value for name, value in answer.items() if name != "probabilities"} | chances
