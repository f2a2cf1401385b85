"""What the check of an upload found, as people read it."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from cli.output import console

UploadFacts = Mapping[str, Any]


def show_short(report: UploadFacts) -> None:
    """What was kept, and what to look at again."""
    console.print(f"[bold]{report['kept']:,} of {report['read']:,} records kept[/]")
    for line in _left_out(report):
        console.print(f"  {line}")
    if report["unused_columns"]:
        console.print(f"  not used: {escape(', '.join(report['unused_columns']))}")
    _ask(report)


def show_whole(report: UploadFacts) -> None:
    """All of it."""
    show_short(report)
    if report["length"] is not None:
        length = ", ".join(f"{name} {words:,}" for name, words in report["length"].items())
        console.print(f"\n[bold]Words of a record[/]: {length}")
    if (pictures := report.get("pictures")) is not None:
        sides = ", ".join(f"{name} {pictures[name]:,}" for name in ("smallest", "median", "largest"))
        console.print(f"\n[bold]Shorter side of a picture, in pixels[/]: {sides}")
        console.print(f"{pictures['scaled_down']:,} were scaled down to {pictures['resolution']:,}")
    if report["classes"]:
        table = Table("class", box=None, pad_edge=False)
        for column in ("read", "kept"):
            table.add_column(column, justify="right")
        for label, count in report["classes"].items():
            table.add_row(escape(label), f"{count['read']:,}", f"{count['kept']:,}")
        console.print("")
        console.print(table)


def _left_out(report: UploadFacts) -> list[str]:
    conflicts = report["conflicts"]
    what = "texts" if report.get("pictures") is None else "pictures"
    told = [
        (report["repeated"], "the same as an earlier one"),
        (report["dropped_by_user_bound"], "beyond what one user may contribute"),
        (conflicts["records"], f"with one of {conflicts['texts']:,} {what} that have two or more labels"),
        (report["longer_than_max_length"], f"longer than {report['max_length']} tokens, or more: the rest is cut"),
    ]
    return [f"{count:,} {words}" for count, words in told if count]


def _ask(report: UploadFacts) -> None:
    if report["questions"]:
        console.print("\n[bold yellow]Is this meant so?[/]")
    for question in report["questions"]:
        console.print(f"  [bold]{question['code']}[/]: {escape(question['message'])}")
