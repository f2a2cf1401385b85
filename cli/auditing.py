"""Running a list of audits with a progress bar, so that it can be interrupted and goes on."""

import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cli import options
from dpcore.audit import finding, little
from dpcore.audit.golden import GoldenResult
from dpcore.audit.installation import PlannedAudit
from dpcore.engine.errors import NotTrainable

INTERRUPTED = 130
"""Exit code, as a shell has it for Ctrl-C."""


@dataclass
class Findings:
    """What a file of lines holds, and what is added to it, a line at a time."""

    file: Path | None
    lines: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path | None) -> "Findings":
        """Of a file that may not be there. Ends the command for one that holds something else."""
        kept = cls(file)
        if file is not None and file.is_file():
            for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    line = json.loads(text)
                    if "accountant" not in line:
                        kept.lines[finding.AuditFinding.read(line).key] = line
                except (ValueError, TypeError):
                    options.fail(f"{file}, line {number}: no finding of an audit\n  fix: name another file")
        return kept

    def add(self, found: finding.AuditFinding) -> None:
        """One more audit."""
        self.lines[found.key] = found.line()
        self._write(found.line())

    def add_golden(self, results: Iterable[GoldenResult]) -> None:
        """Values of accountants."""
        for one in results:
            self._write(asdict(one) | {"holds": one.holds})

    def _write(self, line: dict[str, Any]) -> None:
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")


def run(
    plans: Sequence[PlannedAudit], canaries: int, confidence: float, kept: Findings, *, alone: bool
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The findings, those that are kept already among them, and why some plans were left out: method, task and unit do
    not go together. alone: that ends the command. The confidence is that of all findings together."""
    each = round(1 - (1 - confidence) / len(plans), 12)
    found, left_out = [], {}
    with tempfile.TemporaryDirectory() as folder, _quiet(), _bar() as bar:
        row = bar.add_task("", total=len(plans))
        for plan in plans:
            bar.update(row, description=plan.name)
            key = (plan.audit, plan.subject.name, plan.subject.epsilon, each, canaries)
            try:
                if key not in kept.lines:
                    kept.add(_find(plan, Path(folder), canaries, each))
                found.append(kept.lines[key])
            except (ValueError, NotTrainable) as error:
                if alone:
                    options.fail(str(error))
                left_out[plan.name] = str(error)
            except KeyboardInterrupt:
                bar.stop()
                again = f"; the same command goes on, with --json {kept.file}" if kept.file else ""
                options.note(f"Interrupted after {len(found)} of {len(plans)} audits{again}.")
                raise typer.Exit(INTERRUPTED) from None
            bar.advance(row)
    return found, left_out


def _find(plan: PlannedAudit, folder: Path, canaries: int, confidence: float) -> finding.AuditFinding:
    model = little.write(folder / f"{plan.audit}-{plan.subject.task}", plan.subject.task, **plan.model)
    return finding.find(plan.audit, plan.subject, model, canaries, confidence)


def _bar() -> Progress:
    """On standard error, and gone at the end."""
    console = Console(stderr=True)
    parts = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    return Progress(*parts, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers says of writing and reading little models."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
