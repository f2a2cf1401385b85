"""What commands print: tables for people, JSON for machines."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

console = Console(highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show(item: Mapping[str, Any], as_json: bool) -> None:
    """One thing: its fields under each other, nested ones with dots."""
    if as_json:
        return print_json(item)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in flatten(item).items():
        table.add_row(Text(name, style="bold"), escape(cell(name, value)))
    console.print(table)


def show_list(items: Sequence[Mapping[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    """Many things: one row each, of those columns that the service sent."""
    if as_json:
        return print_json({"object": "list", "data": list(items)})
    if not items:
        return console.print("None.")
    rows = [flatten(item) for item in items]
    present = [name for name in columns if any(row.get(name) is not None for row in rows)]
    table = Table(box=None, pad_edge=False)
    for name in present:
        table.add_column(name.rpartition(".")[2].replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(escape(_short(name, cell(name, row.get(name)))) for name in present))
    console.print(table)


def flatten(item: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in item.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def cell(name: str, value: Any) -> str:
    """A value as a person reads it; times are UTC."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.rpartition(".")[2] in ("at", "expires_at") or name.endswith(("_at", "estimated_finish")):
        return _time(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and all(isinstance(element, str | int) for element in value):
        return ", ".join(str(element) for element in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(name: str, text: str) -> str:
    """The beginning of a hash is enough in a list."""
    return text[:16] if name == "hash" else text


def _time(value: Any) -> str:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return str(value)[:19].replace("T", " ")
