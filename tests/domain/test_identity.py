"""Who is one person and which record is one record: fingerprints, and what is kept of each user."""

import json
import random
from pathlib import Path

import pytest

from domain.ingest.check import CheckReport, CheckRequest, check
from domain.ingest.fingerprint import SIZE, fingerprint, form_of, normalise, text_mark
from domain.storage.rows import FileRows, parse_rows
from tests.domain.marks import marks_in

CANARY = "canary-90fe"
KEY = "22" * 32
MOST = 3
Row = tuple[object, str, object]
"""text, label, user"""


def run(folder: Path, rows: list[Row], *, most: int | None = MOST, **request) -> tuple[CheckReport, FileRows, dict]:
    source = folder / "source"
    source.write_text("".join(json.dumps(dict(zip(("text", "label", "who"), row, strict=True))) + "\n" for row in rows))
    asked = CheckRequest(
        source=source,
        target=folder / "rows",
        format="jsonl",
        columns={"text": "text", "label": "label", "user": "who"},
        labels=["no", "yes"],
        max_records_per_user=most,
        marks=marks_in(folder),
        **{"declared_size": None, "key": KEY} | request,
    )
    report = check(asked)
    marks = {path.name: cut(path.read_bytes()) for path in marks_in(folder) if path.name != "sketches"}
    return report, parse_rows(folder / "rows"), marks


def cut(content: bytes) -> list[bytes]:
    return [content[i : i + SIZE] for i in range(0, len(content), SIZE)]


def kept(rows: FileRows) -> list[list[tuple[str, int]]]:
    """What is kept of each user, without the numbers that users have in this file."""
    assert rows.users is not None
    groups: dict[int, list[tuple[str, int]]] = {}
    for user, text, label in zip(rows.users, rows.columns["text"], rows.labels or (), strict=True):
        groups.setdefault(user, []).append((text, label))
    assert sorted(groups) == list(range(len(groups)))
    return sorted(groups.values())


def many_rows() -> list[Row]:
    """Users with one to ten rows, many of them shared with others, copied, or labelled in two ways."""
    chance = random.Random(5)
    own: list[Row] = [(f"own {user}.{i}", "yes", f"user {user}") for user in range(10) for i in range(user + 1)]
    shared: list[Row] = [
        (f"{chance.choice(['Shared', 'shared'])}  {chance.randrange(6)}", chance.choice(["no", "yes"]), f"user {user}")
        for user in range(10)
        for _ in range(6)
    ]
    return own + shared


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a b", " a\u00a0\r\n b\t", True),
        ("Caf\u00e9", "CAFE\u0301", True),
        ("stra\u00dfe", "STRASSE", True),
        ("a b", "ab", False),
        ("cafe", "caf\u00e9", False),
    ],
)
def test_what_makes_two_texts_the_same(one: str, other: str, same: bool) -> None:
    assert (normalise(one) == normalise(other)) is same
    assert (fingerprint([one], b"k") == fingerprint([other], b"k")) is same


def test_a_record_is_never_taken_for_a_user() -> None:
    assert fingerprint(["alice"], b"k") != fingerprint(["alice"], b"k", "user")


def test_the_fingerprints_of_all_rows_and_users_are_handed_on_whatever_the_unit(tmp_path: Path) -> None:
    key = bytes.fromhex(KEY)
    rows: list[Row] = [(f"text {i}", "yes", 7) for i in range(9)] + [("TEXT 0", "no", " Ann ")]
    for most in (MOST, None):
        _, _, marks = run(tmp_path, rows, most=most)
        assert marks["records"] == sorted(text_mark([form_of(f"text {i}")], key) for i in range(9))
        assert marks["old_records"] == sorted(fingerprint([f"text {i}"], key) for i in range(9))
        assert marks["old_users"] == []  # spelled as they mean
        assert marks["users"] == sorted(fingerprint([who], key, "user") for who in ("7", "ann"))


def test_a_user_keeps_at_most_so_many_rows_and_counts_once(tmp_path: Path) -> None:
    report, rows, _ = run(tmp_path, many_rows(), declared_size=10)
    assert (report.problems, report.units) == ([], 10)
    sizes = [len(group) for group in kept(rows)]
    assert len(sizes) == 10
    assert max(sizes) == MOST
    assert [p.code for p in run(tmp_path, many_rows(), declared_size=9)[0].problems] == ["declared_size_too_small"]
    for group in kept(rows):
        assert len({normalise(text) for text, _ in group}) == len(group)


def test_what_is_kept_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows = many_rows()
    first = run(tmp_path, rows)[1]
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert run(tmp_path, rows)[1] == first


def test_what_is_kept_of_a_user_does_not_depend_on_the_others(tmp_path: Path) -> None:
    """Otherwise the removal of one would move what others contribute, and its effect would not be one user's."""
    rows = many_rows()
    whole = kept(run(tmp_path, rows)[1])
    for user in range(10):
        without = kept(run(tmp_path, [row for row in rows if row[2] != f"user {user}"])[1])
        assert len(without) == 9
        assert all(group in whole for group in without)


def test_a_user_is_one_however_the_id_is_written(tmp_path: Path) -> None:
    report, rows, _ = run(tmp_path, [("a", "yes", "Ann B"), ("b", "yes", " ann  b"), ("c", "no", 7), ("d", "no", "7")])
    assert report.units == 2
    assert sorted(sorted(group) for group in kept(rows)) == [[("a", 1), ("b", 1)], [("c", 0), ("d", 0)]]


def test_no_id_leaves_the_check(tmp_path: Path) -> None:
    report, _, _ = run(tmp_path, [(f"{CANARY} text", "yes", f"{CANARY} user"), ("b", "no", "b")])
    for path in tmp_path.glob("*"):
        assert path.name in ("source", "rows") or CANARY.encode() not in path.read_bytes()
    assert f"{CANARY} user".encode() not in (tmp_path / "rows").read_bytes()
    assert CANARY not in report.model_dump_json()


@pytest.mark.parametrize("bad", ["", " ", None, 1.5, True, ["x"], "x\0", "x" * 1001])
def test_bad_users_are_reported_by_line(tmp_path: Path, bad: object) -> None:
    report, _, _ = run(tmp_path, [("one", "yes", CANARY), ("two", "no", bad)])
    assert [(p.line, p.code) for p in report.problems] == [(2, "bad_user")]
    assert CANARY not in report.model_dump_json()
