"""Made-up pictures for the demo, as archives with a folder for each class: stained cells as under a microscope."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image

from cli.drawings import CELLS, cells

ROWS, EVALUATED = 4000, 600
LABELS = CELLS


def write(folder: Path) -> tuple[Path, Path]:
    """An archive to learn from and one to measure on, of other pictures."""
    made, train, evaluation = cells(ROWS + EVALUATED, seed=1), folder / "cells.zip", folder / "evaluation.zip"
    _archive(train, made[:ROWS])
    _archive(evaluation, made[ROWS:])
    return train, evaluation


def unpack(archive: Path, folder: Path) -> list[dict[str, str]]:
    """The pictures of an archive as files, and which is which."""
    folder.mkdir()
    rows = []
    with zipfile.ZipFile(archive) as opened:
        for number, name in enumerate(name for name in opened.namelist() if not name.endswith("/")):
            path = folder / f"{number}{Path(name).suffix}"
            path.write_bytes(opened.read(name))
            rows.append({"image": str(path), "label": Path(name).parent.name})
    return rows


def count(archive: Path) -> int:
    """How many there are."""
    with zipfile.ZipFile(archive) as opened:
        return sum(not name.endswith("/") for name in opened.namelist())


def _archive(path: Path, pictures: Sequence[tuple[Image, str]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, (picture, label) in enumerate(pictures):
            data = io.BytesIO()
            picture.save(data, "PNG")
            archive.writestr(f"{label}/{number:05}.png", data.getvalue())
