"""What commands print: tables for people, JSON for machines."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

LEAST = 8
"""Characters that a column is folded to at most."""
GAP = 2
"""Characters between columns."""
_ID = re.compile(r"[a-z]+[-_][0-9a-zA-Z_-]{16,}")
console = Console(highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show(item: Mapping[str, Any], as_json: bool) -> None:
    """One thing: its fields under each other, nested ones with dots."""
    if as_json:
        return print_json(item)
    if not console.is_terminal:
        lines = [{"name": name, "value": cell(name, value)} for name, value in flatten(item).items()]
        return _print_lines(lines, {"name": max((cell_len(line["name"]) for line in lines), default=0), "value": 0})
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
    cells = {name: [_short(name, cell(name, row.get(name))) for row in rows] for name in present}
    heads = {name: name.rpartition(".")[2].replace("_", " ") for name in present}
    wide = {name: max(map(cell_len, (heads[name], *cells[name]))) for name in present}
    if not console.is_terminal:
        lines = [[heads[name] for name in present], *zip(*cells.values(), strict=True)]
        return _print_lines([dict(zip(present, line, strict=True)) for line in lines], wide)
    whole = {name for name in present if any(_ID.fullmatch(text) for text in cells[name])}
    shown = _that_fit(present, wide, whole, console.width)
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(
            heads[name], overflow="fold", no_wrap=name in whole, min_width=wide[name] if name in whole else 1
        )
    for row in zip(*(cells[name] for name in shown), strict=True):
        table.add_row(*map(escape, row))
    console.print(table)
    if left := [heads[name] for name in present if name not in shown]:
        console.print(f"Not shown for want of room: {', '.join(left)}. --json shows all.", style="dim")


def _print_lines(lines: Sequence[Mapping[str, str]], wide: Mapping[str, int]) -> None:
    """Whoever reads a pipe wants lines, and each of them whole."""
    for line in lines:
        said = {name: " ".join(text.splitlines()) for name, text in line.items()}
        typer.echo("  ".join(text + " " * (wide[name] - cell_len(text)) for name, text in said.items()).rstrip())


def _that_fit(present: Sequence[str], wide: Mapping[str, int], whole: Collection[str], room: int) -> list[str]:
    """The columns for which there is room, the first ones first, when those that hold ids stay whole and the others are
    folded."""
    shown: list[str] = []
    left = room + GAP
    for name in present:
        least = GAP + (wide[name] if name in whole else min(wide[name], LEAST))
        if not shown or least <= left:
            shown.append(name)
            left -= least
    return shown


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
