"""A picture is one record whatever it comes in, and stays one when its rows are read again under another key."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from domain.files.held_out import is_held_out
from domain.files.resemblance import Resemblance
from domain.ingest.fingerprint import PICTURE, form_of
from domain.ingest.formats import KEPT
from domain.ingest.sketch import SIZE, alike
from domain.ingest.spooled_texts import RECORD
from domain.ingest.texts import texts_of
from domain.ingest.values import is_text
from tests.domain.marks import marks_in
from tests.domain.pictures.checking import KEY, found, marks, run
from tests.made_pictures import archive, drawing, encoded, of_face, picture, table

WAYS = {
    "a smaller resolution": lambda: (archive(range(6)), "zip", {"resolution": 16}),
    "another format": lambda: (archive(range(6), format="WEBP", lossless=True), "zip", {}),
    "other metadata": lambda: (archive(range(6), icc_profile=bytes(200), dpi=(300, 300)), "zip", {}),
    "with alpha": lambda: (archive(range(6), lambda image: image.convert("RGBA")), "zip", {}),
    "other classes": lambda: (archive(range(6), top="top/"), "zip", {"labels": ["b", "a"]}),
    "a table": lambda: (table(of_face([picture(i) for i in range(6)]), [0, 1] * 3), "parquet", {"labels": ["1", "0"]}),
    "the other order": lambda: (archive(range(5, -1, -1)), "zip", {}),
    "a public set": lambda: (archive(range(6)), "zip", {"public": True}),
}


def lots(folder: Path) -> set[int]:
    return set(pq.read_table(folder / "rows").column("lot").to_pylist())


@pytest.mark.parametrize("way", WAYS)
def test_the_same_pictures_have_the_same_marks(tmp_path: Path, way: str) -> None:
    run(tmp_path / "first", archive(range(6)))
    content, format, request = WAYS[way]()
    report, _ = run(tmp_path / "again", content, format, **request)
    assert report.problems == []
    assert len(marks(tmp_path / "first")) == 6
    assert marks(tmp_path / "first") == marks(tmp_path / "again")
    if not request.get("public"):  # and so each is held out in both, or in none
        assert lots(tmp_path / "first") == lots(tmp_path / "again")
        assert {is_held_out(lot, "budget-1", 0.5) for lot in lots(tmp_path / "first")} == {True, False}


def test_other_pictures_and_other_tenants_have_other_marks(tmp_path: Path) -> None:
    run(tmp_path / "first", archive(range(6)))
    run(tmp_path / "other", archive(range(6, 12)))
    run(tmp_path / "tenant", archive(range(6)), key="55" * 32)
    run(tmp_path / "lossy", archive(range(6), format="JPEG"))
    for other in ("other", "tenant", "lossy"):
        assert marks(tmp_path / "first").isdisjoint(marks(tmp_path / other))


def test_no_text_is_taken_for_a_picture() -> None:
    name = texts_of("image", ("kept", "1:" + "0" * 64))[0]
    assert name.startswith(PICTURE)
    assert not is_text(name)
    assert form_of(name)[0] not in (form_of("text")[0], form_of("...")[0])


def sketched(folder: Path) -> Resemblance:
    """What a file's own sketches resemble among those of the first."""
    content = {name: marks_in(folder.parent / name).sketches.read_bytes() for name in ("first", folder.name)}
    width = SIZE + RECORD
    parts = {name: [data[i : i + SIZE] for i in range(0, len(data), width)] for name, data in content.items()}
    first, ours = (
        np.frombuffer(b"".join(parts[name]), dtype=np.uint8).reshape(-1, SIZE) for name in ("first", folder.name)
    )
    degrees = alike(ours, first, len(ours) * len(first))
    near = Resemblance(texts=len(ours))
    near.of_budget["b"]["f"] = set(np.flatnonzero(degrees).tolist())
    near.nearly = {"b"} if 2 in degrees else set()
    return near


def test_changed_copies_are_a_question_and_others_are_none(tmp_path: Path) -> None:
    run(tmp_path / "first", archive(range(30), make=drawing))
    small = archive(range(30), lambda image: image.resize((120, 100)), drawing, format="JPEG", quality=60)
    run(tmp_path / "small", small)
    run(tmp_path / "other", archive(range(100, 130), make=drawing))
    assert sketched(tmp_path / "small").in_budget("b") >= 29
    assert "b" in sketched(tmp_path / "small").budgets
    assert "b" not in sketched(tmp_path / "other").budgets


def test_flat_pictures_resemble_nothing_and_are_recognised(tmp_path: Path) -> None:
    flat = archive(range(6), make=lambda seed: Image.new("RGB", (20, 20), (seed, seed, 250)))
    run(tmp_path, flat)
    assert len(marks(tmp_path)) == 6
    assert marks_in(tmp_path).sketches.stat().st_size == 0


@pytest.mark.parametrize("resolution", [16, 224])
def test_rows_that_are_read_again_are_known_by_the_pixels_they_once_had(tmp_path: Path, resolution: int) -> None:
    lost, new = KEY, "66" * 32
    run(tmp_path / "first", archive(range(6)), key=lost, resolution=resolution)
    run(tmp_path / "fresh", archive(range(6)), key=new)
    again = {"key": new, "public": True, "labels": ["0", "1"], "resolution": resolution}
    report, _ = run(tmp_path / "again", (tmp_path / "first" / "rows").read_bytes(), KEPT, **again)
    assert (report.problems, report.units) == ([], 6)
    assert marks(tmp_path / "again") == marks(tmp_path / "fresh")
    assert marks_in(tmp_path / "again").sketches.stat().st_size == 6 * (SIZE + RECORD)


def test_labels_of_one_picture_that_differ_are_told_as_pictures(tmp_path: Path) -> None:
    rows = of_face([picture(i // 2) for i in range(8)])
    report, _ = run(tmp_path, table(rows, [0, 1] * 4), "parquet")
    assert report.report is not None
    messages = {question.code: question.message for question in report.report.questions}
    assert messages["conflicting_labels"].startswith("4 pictures came with two or more different labels")


def test_a_label_column_of_fractions_is_read_as_in_texts(tmp_path: Path) -> None:
    rows = [encoded(picture(i)) for i in range(4)]
    content = table(rows, pa.array([0.0, 1.0, 0.0, 1.0]).to_pylist())
    assert run(tmp_path, content, "parquet")[0].labels == ["0", "1"]
    assert found(run(tmp_path, content, "parquet", declared_size=3)[0]) == [(None, "declared_size_too_small")]
