"""Who is held out of training: by identity and budget alone, once for all files."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pytest

from domain.files.held_out import NoLots, is_held_out, parted
from domain.ingest.check import CheckRequest, check
from domain.storage.rows import FileRows, StoredColumn, parse_rows
from tests.domain.marks import marks_in

KEY = bytes(range(32))
ROWS = 400


def checked(
    folder: Path, content: str, *, users: bool = False, task: str = "classification", key: bytes = KEY
) -> FileRows:
    """What ingest keeps of a private file."""
    folder.mkdir()
    (folder / "source").write_text(content, encoding="utf-8")
    columns = {"classification": ["text", "label"], "completion": ["prompt", "completion"]}[task]
    columns += ["user"] if users else []
    request = CheckRequest(
        source=folder / "source",
        target=folder / "rows",
        format="jsonl",
        task=task,
        columns={name: name for name in columns},
        labels=["0", "1"] if task == "classification" else None,
        declared_size=None,
        key=key.hex(),
        max_records_per_user=3 if users else None,
        marks=marks_in(folder),
    )
    assert check(request).problems == []
    return parse_rows(folder / "rows")


def lines(texts: list[str], **more: object) -> str:
    made = [{"text": text, "label": str(i % 2)} | {k: v(i) for k, v in more.items()} for i, text in enumerate(texts)]  # type: ignore[operator]
    return "".join(json.dumps(line) + "\n" for line in made)


def held(rows: FileRows, budget: str, share: float) -> set[str]:
    train, out = parted(rows, budget, share)
    first, second = set(train.columns["text"]), set(out.columns["text"])
    assert first.isdisjoint(second)
    assert len(first) + len(second) == len(rows.columns["text"])
    return second


def test_a_unit_is_in_one_part_whatever_the_file_the_order_and_who_else_is_there(tmp_path: Path) -> None:
    texts = [f"Note number {i}, of no importance" for i in range(ROWS)]
    whole = held(checked(tmp_path / "whole", lines(texts)), "budget_a", 0.2)
    assert 0.13 * ROWS < len(whole) < 0.27 * ROWS
    turned = random.Random(1).sample(texts, ROWS // 2)
    assert held(checked(tmp_path / "part", lines(turned)), "budget_a", 0.2) == whole & set(turned)
    respelled = {text.upper().replace(",", " ;"): text for text in texts}
    again = held(checked(tmp_path / "respelled", lines([*respelled])), "budget_a", 0.2)
    assert {respelled[text] for text in again} == whole
    # A larger share holds out the same ones and more; another budget, or another tenant's key, others.
    same = checked(tmp_path / "same", lines(texts))
    assert held(same, "budget_a", 0.4) > whole
    assert held(same, "budget_b", 0.2) != whole
    assert held(checked(tmp_path / "key", lines(texts), key=bytes(32)), "budget_a", 0.2) != whole


def test_all_records_of_a_user_are_in_the_users_part(tmp_path: Path) -> None:
    texts = [f"Note number {i}, of no importance" for i in range(ROWS)]
    rows = checked(tmp_path / "users", lines(texts, user=lambda i: f"00{i % 150}"), users=True)
    assert rows.users is not None
    train, out = parted(rows, "budget_a", 0.3)
    for part in (train, out):
        assert part.users is not None
        assert set(part.users) == set(range(len(set(part.users))))
    number = {text: int(text.split()[2].rstrip(",")) % 150 for text in texts}
    assert {number[text] for text in train.columns["text"]}.isdisjoint(number[text] for text in out.columns["text"])
    # In another file, by another spelling of the ids, with other texts.
    other = [f"Another note, {i}" for i in range(150)]
    later = held(checked(tmp_path / "later", lines(other, user=lambda i: i), users=True), "budget_a", 0.3)
    assert {int(text.split()[2]) for text in later} >= {number[text] for text in out.columns["text"]}


def test_large_values_are_parted_without_being_made() -> None:
    values = pa.chunked_array([[f"picture {i}" for i in range(60)], [f"picture {i}" for i in range(60, 100)]])
    rows = FileRows({"image": StoredColumn(values)}, list(range(100)), lots=[i << 57 for i in range(100)])
    train, out = parted(rows, "budget_a", 0.4)
    parts = [(part.columns["image"], part.labels) for part in (train, out)]
    assert all(isinstance(images, StoredColumn) for images, _ in parts)
    assert sorted(label for _, labels in parts for label in labels or ()) == list(range(100))
    for images, labels in parts:
        assert labels
        assert list(images) == [f"picture {label}" for label in labels]
        assert (images[-1], list(images[1:3])) == (f"picture {labels[-1]}", [f"picture {i}" for i in labels[1:3]])


def test_rows_that_drew_no_lots_are_not_parted() -> None:
    rows = FileRows({"text": ["a"]}, [0])
    assert parted(rows, "budget_a", 0.0)[0] == rows
    with pytest.raises(NoLots):
        parted(rows, "budget_a", 0.1)
    assert not any(is_held_out(lot, "budget_a", 0.0) for lot in (0, 2**64 - 1))
