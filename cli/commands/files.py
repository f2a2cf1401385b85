"""`tacit files`: private datasets and public evaluation sets."""

from pathlib import Path
from typing import Annotated

import typer

from cli import columns, options, output, upload_report
from cli.client import connect
from dpcore.terms.tasks import KINDS

app = options.group("Datasets: private ones that belong to a budget, and public ones.")
_KINDS = ", ".join(f"{name} ({', '.join(kind.fields)})" for name, kind in KINDS.items())
COLUMNS = ["id", "filename", "purpose", "task", "status", "budget", "declared_size", "created_at"]


@app.command()
@options.explained
@options.sharing(columns.named())
def upload(
    named: columns.Named,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    budget: Annotated[str | None, typer.Option(help="The budget that the rows belong to, for ever.")] = None,
    public: Annotated[bool, typer.Option("--public", help="A public evaluation set, without protection.")] = False,
    epsilon: Annotated[float | None, typer.Option(help="Open a budget with the file instead of naming one.")] = None,
    delta: Annotated[float | None, typer.Option(help="Of the budget opened with the file.")] = None,
    unit: Annotated[str | None, typer.Option(help="Of the budget opened with the file: `record` or `user`.")] = None,
    max_records_per_user: Annotated[int | None, typer.Option(help="Of the budget opened with the file.")] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Of the budget opened with the file: share of the units that no job trains on.")
    ] = None,
    declared_size: Annotated[
        str | None, typer.Option(help="The public size, at least the number of units; `count` publishes the number.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="The public labels, with commas; `publish` publishes those in the file.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a record; the rest is cut.")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Of pictures: pixels of the shorter side; larger ones are scaled down.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help=f"What the rows are for: {_KINDS}. Default: what the columns named here tell."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The column with the label, if not `label`.")] = None,
    user_column: Annotated[str | None, typer.Option(help="The column with the user's id, where there is one.")] = None,
    quotes: Annotated[
        str | None,
        typer.Option(
            help="What the quotes of a TSV file are: `text`, or `marks` that a program put around fields. "
            "Default: what they look like."
        ),
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(
            help="Whose the records are that another budget holds, or that resemble its own: `same_population` "
            "(the file goes there) or `different_population`."
        ),
    ] = None,
    overlap_reason: Annotated[str | None, typer.Option(help="Why they are other people; kept in the ledger.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Upload JSONL, CSV, TSV, Parquet or a zip of pictures. It is checked line by line; problems are reported by line.

    What was kept, what repeats, how many texts came with two labels and what looks odd is told to you alone; later with
    `tacit files report ID`.

    ```text
    tacit files upload notes.jsonl --budget budget-... --declared-size count --labels no,yes
    tacit files upload notes.tsv --epsilon 8 --declared-size count --text sentence --label class --labels publish
    tacit files upload e2e.csv --epsilon 8 --declared-size 50000 --prompt mr --completion ref
    tacit files upload dialogues.jsonl --epsilon 8 --declared-size 9000 --task chat
    tacit files upload dev.tsv --public
    tacit files upload scans.zip --epsilon 8 --declared-size 4000 --labels clear,cloudy --resolution 224
    tacit files upload scans.parquet --public --task image --resolution 224
    ```
    """
    if public and (budget or epsilon is not None):
        options.fail("--public means that the rows need no protection: leave out --budget and --epsilon")
    if not public and (budget is None) == (epsilon is None):
        options.fail("a private file belongs to one budget: give --budget ID, or --epsilon to open one, or --public")
    values = {
        "purpose": "evals" if public else "fine-tune",
        "budget": budget,
        "privacy_budget[epsilon]": epsilon,
        "privacy_budget[delta]": delta,
        "privacy_budget[unit]": unit,
        "privacy_budget[max_records_per_user]": max_records_per_user,
        "privacy_budget[held_out]": held_out,
        "declared_size": declared_size,
        "labels": labels,
        "max_length": max_length,
        "resolution": resolution,
        "task": task,
        **{f"columns[{name}]": theirs for name, theirs in named.items()},
        "columns[label]": label,
        "columns[user]": user_column,
        "quotes": quotes,
        "overlap": overlap,
        "overlap_reason": overlap_reason,
    }
    form = {name: str(value) for name, value in values.items() if value is not None}
    made = dict(connect(url, key).upload("/v1/files", file, form))
    if as_json:
        return output.print_json(made)
    report = made.pop("report", None)
    output.show(made, as_json)
    if report is not None:
        output.console.print("")
        upload_report.show_short(report)


@app.command()
@options.explained
def questions(url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """The files that wait for your answer: whose their records are, or whether they may be public."""
    found = connect(url, key).get("/v1/files/questions")["data"]
    if as_json or not found:
        output.show_list(found, ["id", "filename", "message"], as_json)
    for one in () if as_json else found:
        output.console.print(f"{one['id']} ({one['filename']})", markup=False)
        output.console.print(f"  {one['message']}.", markup=False)


@app.command()
@options.explained
def answer(
    file: str,
    said: Annotated[str, typer.Argument(metavar="ANSWER", help="same_population, different_population or publish.")],
    reason: Annotated[str | None, typer.Option(help="Why; needed for all but same_population.")] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Answer the question about a file that waits. `tacit files delete` withdraws it.

    ```text
    tacit files answer file-... same_population
    tacit files answer file-... different_population --reason "another hospital's patients, one letter template"
    ```
    """
    body = {"answer": said} | ({} if reason is None else {"reason": reason})
    output.show(connect(url, key).post(f"/v1/files/{file}/answer", body), as_json)


@app.command("list")
@options.explained
def list_files(
    limit: options.Most = 100, url: options.Url = None, key: options.Key = None, as_json: options.Json = False
) -> None:
    """The files that you may see."""
    output.show_list(connect(url, key).pages("/v1/files", limit), COLUMNS, as_json)


@app.command()
@options.explained
def show(file: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """One file."""
    output.show(connect(url, key).get(f"/v1/files/{file}"), as_json)


@app.command()
@options.explained
def report(file: str, url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """What the check of an upload found that is no problem. For stewards: it counts private rows.

    Records kept, repeated, in conflict (one text, two labels) and too long; by class and by length; columns that were
    not used; and questions:

    - person_column: a column looks like a person, while the budget protects single records: to somebody with 20 records
      20 times the epsilon is promised. A budget of `--unit user --max-records-per-user N`, with `--user-column NAME`,
      protects people. Records stay with their first budget: freeze that one (`tacit ledger freeze`), and upload again
      with `--overlap different_population` and the reason.
    - odd_class: a class is called like a column (a header in the middle of joined files) or like no value (`NULL`).
    - single_record: a class has one picture.
    - empty_class: folders of a zip that would be classes hold no picture.
    - conflicting_labels: one text has two labels. One record of a text is kept.
    - many_repeated: more than one record in a hundred is the same as an earlier one.
    - unused_text: a column holds texts, or is known to (`input`, `tools`), and is not used.

    ```text
    tacit files report file-...
    tacit files report file-... --json
    ```
    """
    found = connect(url, key).get(f"/v1/files/{file}/report")
    if as_json:
        return output.print_json(found)
    upload_report.show_whole(found)


@app.command()
@options.explained
def delete(
    file: str,
    yes: options.Yes = False,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Delete a file's rows. What its budget has spent stays spent."""
    options.sure(f"Delete the rows of {file} for good?", yes)
    output.show(connect(url, key).delete(f"/v1/files/{file}"), as_json)
