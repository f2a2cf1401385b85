"""The largest relative error of each architecture and method that this process has tested, as a table."""

ERRORS: dict[tuple[str, str], tuple[float, str]] = {}
"""By architecture and method: the error, and a mark for what is special about the cell."""


def lines() -> list[str]:
    """The table; nothing where nothing was tested."""
    if not ERRORS:
        return []
    methods = list(dict.fromkeys(method for _, method in ERRORS))
    rows = [["", *methods]]
    for name in dict.fromkeys(name for name, _ in ERRORS):
        cells = [ERRORS.get((name, method)) for method in methods]
        rows.append([name, *("" if cell is None else f"{cell[0]:.0e}{cell[1]}" for cell in cells)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*table, "* one record at a time, by plain autograd"]
