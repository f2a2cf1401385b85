"""`tacit status`: what runs, what waits, and what is wrong."""

from collections.abc import Mapping
from typing import Any

from cli import options, output
from cli.client import connect

WORKERS = ["name", "silo", "versions"]
MODELS = ["id", "available", "because"]
DISK = ["place", "word", "free_gib"]


@options.explained
def status(url: options.Url = None, key: options.Key = None, as_json: options.Json = False) -> None:
    """Operator: workers, queue, models, disk, verification and versions of a running service.

    What is wrong with this machine, and the fix: `tacit doctor`.

    ```text
    tacit status
    tacit status --json
    ```
    """
    report = connect(url, key).get("/v1/status")
    if as_json:
        output.print_json(report)
        return
    _facts("Checks", report["checks"])
    output.console.print("\n[bold]Workers[/bold]")
    if report["workers"] is None:
        output.console.print("The broker does not answer.")
    else:
        output.show_list([_worker(number, one) for number, one in enumerate(report["workers"], 1)], WORKERS, False)
    for whose in ("tenant", "installation"):
        if report[whose] is not None:
            _facts({"tenant": "Your tenant", "installation": "All tenants"}[whose], report[whose])
    for title, rows, columns in (("Models", report["models"], MODELS), ("Disk", report["disk"], DISK)):
        output.console.print(f"\n[bold]{title}[/bold]")
        output.show_list(rows, columns, False)
    _facts("Keeper of the ledger", report["keeping"])
    _facts("Versions", report["versions"])


def _facts(title: str, facts: Mapping[str, Any]) -> None:
    output.console.print(f"\n[bold]{title}[/bold]")
    output.show(facts, False)


def _worker(number: int, one: Mapping[str, Any]) -> dict[str, Any]:
    versions = ", ".join(f"{name} {of}" for name, of in one["versions"].items())
    return {"name": one["name"] or f"worker {number}", "silo": one["silo"], "versions": versions}
