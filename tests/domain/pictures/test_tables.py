"""Pictures in Parquet, as Hugging Face writes them and as plain bytes; and rows that have none."""

from pathlib import Path

import pyarrow as pa
import pytest

from domain.ingest.check import MOST_LABELS
from domain.ingest.pictures import bounds, tables
from domain.ingest.pictures.tables import class_names
from tests.domain.pictures.checking import found, run
from tests.made_pictures import encoded, huge_png, of_face, picture, table

IMAGES = [picture(i) for i in range(6)]
LABELS = [0, 1, 0, 1, 0, 1]
CANARY = "canary-91bd"


def test_a_struct_of_bytes_and_path(tmp_path: Path) -> None:
    report, rows = run(tmp_path, table(of_face(IMAGES, "JPEG"), LABELS), "parquet")
    assert (report.problems, report.labels, report.units) == ([], ["0", "1"], 6)
    assert rows is not None
    assert rows.labels == LABELS


@pytest.mark.parametrize("type", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_plain_bytes_and_labels_in_words(tmp_path: Path, type: pa.DataType) -> None:
    data = pa.array([encoded(image) for image in IMAGES], type)
    report, _ = run(
        tmp_path,
        table(data, list("nynyny")),
        "parquet",
        columns={"image": "image", "label": "label"},
        labels=["n", "y"],
    )
    assert (report.problems, report.units) == ([], 6)


def test_the_columns_may_have_other_names(tmp_path: Path) -> None:
    content = table([1] * 6, [1.5] * 6, img=of_face(IMAGES), fine_label=LABELS)
    report, _ = run(tmp_path, content, "parquet", columns={"image": "img", "label": "fine_label"})
    assert (report.problems, report.units) == ([], 6)


def test_classes_have_the_names_that_the_file_tells(tmp_path: Path) -> None:
    content = table(of_face(IMAGES), LABELS, ["cat", "dog"])
    report, rows = run(tmp_path, content, "parquet")
    assert (report.problems, report.labels) == ([], ["cat", "dog"])
    assert rows is not None
    assert rows.labels == LABELS
    _, rows = run(tmp_path, content, "parquet", labels=["dog", "cat"])
    assert rows is not None
    assert rows.labels == [1 - label for label in LABELS]
    assert (
        run(tmp_path, content, "parquet", labels=["0", "1"])[0].problems == []
    )  # or the numbers, where these are named
    without = table(of_face(IMAGES), [0, 1, 0, 1, -1, 2], ["cat", "dog"])
    assert found(run(tmp_path, without, "parquet")[0]) == [(5, "bad_label"), (6, "bad_label")]


@pytest.mark.parametrize(
    "told",
    [
        b"not json",
        b"[" * 100_000,
        b'{"info": {"features": {"label": {"_type": "Value"}}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", 3]}}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": []}}}}',
    ],
)
def test_a_description_that_tells_nothing_is_passed_over(told: bytes) -> None:
    assert class_names(pa.schema([("label", pa.int64())], {"huggingface": told}), "label", None) is None


def test_no_more_names_than_labels_are_taken() -> None:
    assert tables.MOST_NAMES == MOST_LABELS


def test_bad_rows_are_named_by_their_number(tmp_path: Path) -> None:
    sent = of_face(IMAGES)
    sent[1] = {"bytes": None, "path": f"/home/{CANARY}.png"}
    sent[2] = {"bytes": None, "path": None}
    sent[3] = None  # type: ignore[call-overload]
    sent[4] = {"bytes": encoded(IMAGES[4])[:-40], "path": None}
    sent[5] = {"bytes": huge_png(), "path": None}
    report, _ = run(tmp_path, table(sent, LABELS), "parquet")
    reasons = ["no_picture", "no_picture", "no_picture", "broken_picture", "picture_too_large"]
    assert found(report) == list(zip(range(2, 7), reasons, strict=True))
    assert "only a path: put the bytes into the file" in report.problems[0].message
    assert "only a path" not in report.problems[1].message
    assert CANARY not in report.model_dump_json()


def test_a_picture_is_not_copied_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_BYTES", 5000)
    sent = [encoded(picture(0, 16, 16)), encoded(picture(1, 300, 200))]
    assert found(run(tmp_path, table(sent, [0, 1]), "parquet")[0]) == [(2, "picture_too_large")]


@pytest.mark.parametrize(
    "images",
    [["a.png"] * 6, [1] * 6, [{"path": "a.png"}] * 6, [{"bytes": "x", "path": "a.png"}] * 6, [[b"x"]] * 6],
    ids=["paths", "numbers", "struct of a path", "struct of words", "lists"],
)
def test_a_column_of_no_pictures_is_refused(tmp_path: Path, images: list[object]) -> None:
    report, _ = run(tmp_path, table(images, LABELS), "parquet", labels=["0", "1"])
    assert [problem.code for problem in report.problems] == ["bad_type"]


def test_a_file_of_pictures_that_is_taken_for_texts_is_told_what_to_send(tmp_path: Path) -> None:
    report, _ = run(
        tmp_path, table(of_face(IMAGES), LABELS), "parquet", task="classification",
        columns={"text": "text", "label": "label"},
    )  # fmt: skip
    assert "task=image" in report.problems[0].message


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
def test_no_text_file_holds_pictures(tmp_path: Path, format: str) -> None:
    report, _ = run(tmp_path, b"image,label\nx,y\n", format)
    assert found(report) == [(None, "other_format")]
    assert "Parquet" in report.problems[0].message


def test_other_columns_are_looked_at_as_in_every_file(tmp_path: Path) -> None:
    content = table(of_face(IMAGES), LABELS, patient_id=["p1", "p2", "p1", "p2", "p1", "p2"])
    report, _ = run(tmp_path, content, "parquet")
    assert report.report is not None
    assert [question.code for question in report.report.questions] == ["person_column"]


def test_pictures_of_users(tmp_path: Path) -> None:
    content = table(of_face(IMAGES), LABELS, who=["p1", "p1", "p1", "p2", "p2", "p2"])
    columns = {"image": "image", "label": "label", "user": "who"}
    report, rows = run(tmp_path, content, "parquet", columns=columns, max_records_per_user=2)
    assert (report.problems, report.units) == ([], 2)
    assert rows is not None
    assert sorted(rows.users or []) == [0, 0, 1, 1]
    assert all(len(text) > 100 for text in rows.columns["image"])


def test_how_much_is_read_at_a_time_fits_into_memory() -> None:
    assert bounds.AT_ONCE * bounds.MOST_BYTES <= 2**28
