"""A check of pictures, in this process."""

import base64
import io
from pathlib import Path

from PIL import Image

from domain.ingest.check import CheckReport, CheckRequest, check
from domain.storage.rows import FileRows, parse_rows
from tests.domain.marks import marks_in

KEY = "44" * 32
COLUMNS = {"image": "image", "label": "label"}


def run(folder: Path, content: bytes, format: str = "zip", **request: object) -> tuple[CheckReport, FileRows | None]:
    """The rows are there where the check got as far as writing some."""
    folder.mkdir(exist_ok=True)
    source = folder / "source"
    source.write_bytes(content)
    asked = {"columns": COLUMNS, "declared_size": None, "key": KEY, "task": "image", "marks": marks_in(folder)}
    rows = folder / "rows"
    report = check(CheckRequest(source=source, target=rows, format=format, **(asked | request)))  # type: ignore[arg-type]
    return report, parse_rows(rows) if rows.exists() else None


def found(report: CheckReport) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.code) for problem in report.problems]


def shown(text: str) -> Image.Image:
    """A picture that was kept."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


def marks(folder: Path) -> set[bytes]:
    content = marks_in(folder).records.read_bytes()
    return {content[i : i + 32] for i in range(0, len(content), 32)}
