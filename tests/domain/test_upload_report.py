"""The report of an upload: its counts are those of a few lines of plain Python over the same rows, made-up ones."""

import csv
import io
import json
import random
import re
import tracemalloc
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.ingest import columns, questions, tally
from domain.ingest.check import CheckRequest, check
from domain.ingest.person_names import names_people
from domain.ingest.report import UploadReport
from domain.storage.rows import parse_rows

KEY = "11" * 32
COLUMNS = {"text": "text", "label": "label"}
FORMATS = ["csv", "tsv", "jsonl", "parquet"]
Row = dict[str, Any]


def written(rows: list[Row], format: str) -> bytes:
    if format == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if format == "parquet":
        target = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), target)
        return target.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter="\t" if format == "tsv" else ",", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def reported(folder: Path, rows: list[Row], format: str = "csv", **request: Any) -> UploadReport:
    source = folder / f"source.{format}"
    source.write_bytes(written(rows, format))
    basis = {"columns": COLUMNS, "labels": None, "declared_size": None, "key": KEY, "max_length": 16}
    found = check(CheckRequest(source=source, target=folder / "rows", format=format, **(basis | request)))
    assert (found.problems, {p.name for p in folder.iterdir()}) == ([], {source.name, "rows"})
    assert found.report is not None
    kept = parse_rows(folder / "rows")
    assert found.report.kept == len(next(iter(kept.columns.values())))
    if kept.labels is not None:
        by_place = Counter(kept.labels)
        assert [count.kept for count in found.report.classes.values()] == [
            by_place[place] for place in range(len(found.labels or []))
        ]
    return found.report


def asked(report: UploadReport) -> list[tuple[str, str | None]]:
    return [(question.code, question.column or question.label) for question in report.questions]


def same(text: str) -> str:
    return " ".join(text.lower().split())


def notes(seed: int, count: int) -> list[Row]:
    """Clinical notes, some of which come again, with other labels, other case or other blanks."""
    chosen = random.Random(seed)
    words = [
        "patient",
        "reports",
        "mild",
        "chest",
        "pain",
        "since",
        "Tuesday",
        "no",
        "fever",
        "cough",
        "resolved",
        "ward",
        "round",
        "review",
    ]
    rows: list[Row] = []
    for number in range(count):
        text = " ".join(chosen.choices(words, k=chosen.randrange(2, 25))) + f" case {number}."
        if rows and chosen.random() < 0.2:
            text = chosen.choice([str.upper, lambda t: t.replace(" ", "  "), str])(chosen.choice(rows)["text"])
        rows.append({"text": text, "label": chosen.choice(["urgent", "routine", "unclear"])})
    return rows


@pytest.mark.parametrize("format", FORMATS)
def test_repeats_conflicts_lengths_and_classes(tmp_path: Path, format: str) -> None:
    rows = notes(1, 3000)
    report = reported(tmp_path, rows, format)
    by_text: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_text[same(row["text"])].append(row["label"])
    torn = [labels for labels in by_text.values() if len(set(labels)) > 1]
    read, first = Counter(row["label"] for row in rows), Counter(labels[0] for labels in by_text.values())
    words = sorted(len(row["text"].split()) for row in rows)
    assert (report.read, report.kept, report.repeated) == (3000, len(by_text), 3000 - len(by_text))
    assert report.conflicts.model_dump() == {"texts": len(torn), "records": sum(map(len, torn))}
    assert len(torn) > 100
    assert {k: (c.read, c.kept) for k, c in report.classes.items()} == {k: (read[k], first[k]) for k in sorted(read)}
    assert report.longer_than_max_length == sum(len(re.findall(r"\w+|[^\w\s]", row["text"])) > 16 for row in rows) > 0
    ranks = {"min": 1, "median": 1500, "p90": 2700, "p99": 2970, "max": 3000}
    assert report.length.model_dump() == {name: words[rank - 1] for name, rank in ranks.items()}
    assert asked(report) == [("conflicting_labels", None), ("many_repeated", None)]


def test_ten_texts_twice_with_two_labels_become_ten_rows_of_one_in_so_many_words(tmp_path: Path) -> None:
    rows = [{"text": f"text {i % 10}", "label": "ab"[i // 10]} for i in range(20)]
    report = reported(tmp_path, rows)
    assert (report.read, report.kept, report.repeated) == (20, 10, 10)
    assert report.conflicts.model_dump() == {"texts": 10, "records": 20}
    assert {label: (c.read, c.kept) for label, c in report.classes.items()} == {"a": (10, 10), "b": (10, 0)}
    assert asked(report) == [("conflicting_labels", None), ("many_repeated", None)]


def visits(people: int, each: int) -> list[Row]:
    rows = [
        {
            "text": f"visit {v} of {p}",
            "label": "ab"[v % 2],
            "PatientID": f"P-{p:03}",
            "ward": f"W{p % 4}",
            "age": p % 90,
        }
        for p in range(people)
        for v in range(each + p % 3)
    ]
    random.Random(2).shuffle(rows)
    return rows


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["PatientID", "stay"])
def test_a_column_that_looks_like_a_person_is_asked_about(tmp_path: Path, format: str, name: str) -> None:
    rows = [{name if k == "PatientID" else k: v for k, v in row.items()} for row in visits(60, 18)]
    report = reported(tmp_path, rows, format)
    (question,) = (q for q in report.questions if q.code == "person_column")
    k = max(Counter(row[name] for row in rows).values())
    assert k == 20
    assert (question.column, question.detail) == (name, {"records": k, "values": 60, "epsilon_factor": k})
    assert f"{k} x epsilon and {k} x exp({k - 1} x epsilon) x delta" in question.message
    assert f"columns[user]={name}" in question.message
    assert report.unused_columns == [name, "ward", "age"]


@pytest.mark.parametrize("most", [1, 3, 19])
def test_under_the_unit_user_there_is_no_question_and_what_is_beyond_the_bound_is_counted(
    tmp_path: Path, most: int
) -> None:
    rows = visits(60, 18)
    rows += [dict(row) for row in rows[:50]]
    report = reported(tmp_path, rows, columns={**COLUMNS, "user": "PatientID"}, max_records_per_user=most)
    pairs = {(row["PatientID"], row["text"]) for row in rows}
    bounded = Counter(patient for patient, _ in pairs)
    kept = sum(min(most, count) for count in bounded.values())
    assert (report.read, report.repeated) == (len(rows), len(rows) - len(pairs))
    assert (report.kept, report.dropped_by_user_bound) == (kept, len(pairs) - kept)
    assert report.unused_columns == ["ward", "age"]
    assert [code for code, _ in asked(report)] == ["many_repeated"]


def test_a_column_that_was_named_as_the_users_counts_as_people_where_the_record_is_the_unit(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": "ab"[i % 2], "who": f"w{i % 7}"} for i in range(30)]
    report = reported(tmp_path, rows, columns={**COLUMNS, "user": "who"})
    assert (report.unused_columns, asked(report)) == ([], [("person_column", "who")])
    assert report.questions[0].detail["records"] == 5


def test_a_header_in_the_middle_and_missing_values_among_the_classes_are_named(tmp_path: Path) -> None:
    labels = ["benign", "malignant", "label", "unit", "NULL", "nan", "\\N", "#N/A", "-", "?", "unknown", "na", "nil"]
    rows = [{"text": f"finding {i}", "label": labels[i % len(labels)], "unit": "mm"} for i in range(130)]
    report = reported(tmp_path, rows)
    odd = {q.label: q.detail["records"] for q in report.questions}
    assert odd == dict.fromkeys(set(labels) - {"benign", "malignant", "unknown"}, 10)
    messages = {q.label: q.message for q in report.questions}
    assert all(("name of a column" in messages[label]) == (label in ("label", "unit")) for label in messages)


def test_joined_files_are_refused_at_the_header_that_came_along(tmp_path: Path) -> None:
    one = written([{"text": f"note {i}", "class": "ab"[i % 2]} for i in range(10)], "csv")
    source = tmp_path / "joined.csv"
    source.write_bytes(one + one.replace(b"note", b"letter"))
    request = {"columns": {"text": "text", "label": "class"}, "labels": None, "declared_size": None, "key": KEY}
    found = check(CheckRequest(source=source, target=tmp_path / "rows", format="csv", **request))
    assert [(p.line, p.code) for p in found.problems] == [(12, "repeated_header")]


def test_of_a_public_set_all_is_kept_and_no_person_is_asked_about(tmp_path: Path) -> None:
    rows = [{"text": f"t {i % 10}", "label": "ab"[i // 10], "patient": f"p{i % 3}"} for i in range(20)]
    report = reported(tmp_path, rows, public=True)
    assert (report.read, report.kept, report.repeated) == (20, 20, 10)
    assert (report.conflicts.texts, report.unused_columns) == (10, ["patient"])
    assert asked(report) == [("conflicting_labels", None), ("many_repeated", None)]


def test_conversations_are_as_long_as_what_is_said(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "why so late?"}, {"role": "assistant", "content": "traffic"}]
    rows: list[Row] = [{"messages": [*said, *said[:1] * i]} for i in range(4)]
    report = reported(tmp_path, rows, "jsonl", task="chat", columns={"messages": "messages"}, max_length=10)
    assert report.length.model_dump() == {"min": 4, "median": 7, "p90": 13, "p99": 13, "max": 13}
    assert (report.longer_than_max_length, report.classes) == (2, {})  # 5, 9, 13 and 17 words and marks


def test_no_text_of_a_row_is_in_the_report(tmp_path: Path) -> None:
    rows = [{"text": f"canary-{i % 5} text", "label": "ab"[i % 2], "patient_id": f"canary-{i % 2}"} for i in range(40)]
    report = reported(tmp_path, rows)
    assert len(report.questions) == 3
    assert "canary" not in report.model_dump_json()


def test_names_that_no_terminal_and_no_database_can_hold_are_mended_and_many_are_cut(tmp_path: Path) -> None:
    row: Row = {"text": "a", "label": "b", "odd\ud800\0\x1b[31m": 1, "n" * 5000: 2}
    report = reported(tmp_path, [row, row | {"text": "c", "label": "d"} | {f"c{i}": i for i in range(1000)}], "jsonl")
    assert report.unused_columns[:2] == ["odd\ufffd\ufffd\ufffd[31m", "n" * 200]
    assert len(report.unused_columns) == 100
    report.model_dump_json().encode()


def test_a_column_of_parquet_that_cannot_be_used_is_named_and_its_values_are_not_needed(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": "ab"[i % 2], "patient": {"id": i % 3}, "user": float(i % 4)} for i in range(40)]
    report = reported(tmp_path, rows, "parquet")
    assert report.unused_columns == ["patient", "user"]
    assert asked(report) == [("person_column", "user")]


def test_many_rows_of_parquet_are_followed_to_the_end(tmp_path: Path) -> None:
    rows = [
        {"text": f"t {i}", "label": "ab"[i % 2], "stay": 100_000 + i % 2500, "free": f"some words {i}"}
        for i in range(10_000)
    ]
    report = reported(tmp_path, rows, "parquet")
    assert [q.detail for q in report.questions] == [{"records": 4, "values": 2500, "epsilon_factor": 4}]


@pytest.mark.parametrize(
    ("values", "is_asked"),
    [
        ([f"2024-01-{i % 28 + 1:02}" for i in range(200)], False),
        ([f"{i % 40}" for i in range(200)], False),
        ([f"{i % 50}.5" for i in range(200)], False),
        ([f"kind {i % 50}" for i in range(200)], False),
        ([f"k{i % 5}" for i in range(200)], False),
        ([f"k{i}" for i in range(200)], False),
        ([f"k{i % 50 if i > 120 else 1}" for i in range(200)], False),
        (["n/a"] * 150 + [f"k{i}" for i in range(50)], False),
        ([f"k{i % 50}" for i in range(200)], True),
        ([f"{i % 50}@example.org" for i in range(200)], True),
        ([100_000 + i % 50 for i in range(200)], True),
    ],
)
def test_only_what_repeats_like_ids_is_asked_about(tmp_path: Path, values: list[Any], is_asked: bool) -> None:
    rows = [{"text": f"t {i}", "label": "ab"[i % 2], "what": value} for i, value in enumerate(values)]
    assert asked(reported(tmp_path, rows)) == ([("person_column", "what")] if is_asked else [])


PEOPLE = "patient patient_id PatientID PATIENT_ID userName user_id userid customerId author email email_address accountNumber"
PEOPLE += " mrn MRN insured_no subject_id KundenNr Kundennummer Versichertennummer versicherten_nr Mitgliedsnummer Patienten-ID"
PEOPLE += " employé numéro_patient id_paciente nombre_usuario"
THINGS = (
    "text label id number name focus qtype collection user_rating user_agent customer_feedback label_name answer source"
)
THINGS += " casino email_body num_users age role patients_per_ward"


@pytest.mark.parametrize("name", PEOPLE.split())
def test_names_of_people(name: str) -> None:
    assert names_people(name)


@pytest.mark.parametrize("name", THINGS.split())
def test_names_of_things(name: str) -> None:
    assert not names_people(name)


def test_many_different_values_are_counted_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "COUNTED", 100)
    rows = [{"text": f"t {i}", "label": "ab"[i % 2], "stay": f"s{i % 450}"} for i in range(1000)]
    (question,) = reported(tmp_path, rows).questions
    assert question.detail == {"records": 3, "values": 450, "epsilon_factor": 3}


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (10_000, 40_000):
        rows = [{"text": f"t {i}", "label": "ab"[i % 2], "patient": f"p{i // 2}", "x": i} for i in range(count)]
        (folder := tmp_path / str(count)).mkdir()
        source = folder / "source"
        source.write_bytes(written(rows, "csv"))
        del rows
        request = CheckRequest(
            source=source,
            target=folder / "rows",
            format="csv",
            columns=COLUMNS,
            labels=["a", "b"],
            declared_size=None,
            key=KEY,
        )
        tracemalloc.start()
        check(request)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 2**20


def test_questions_are_bounded() -> None:
    followed = [columns.Followed(f"user{i}", False, True, True, 100, 5, i) for i in range(2, 100)]
    found = questions.person_columns(followed)
    assert [q.detail["records"] for q in found] == list(range(99, 89, -1))


def test_words_and_marks_are_counted_as_one_would() -> None:
    chosen = random.Random(3)
    alphabet = "abc  .,-'_\u00e4\u00df\u4e2d\u3002\u2014\u00bd\t\x01\x1c9"
    for _ in range(20_000):
        text = "".join(chosen.choices(alphabet, k=chosen.randrange(1, 60)))
        pieces = len(re.findall(r"\w+|[^\w\s]", text))
        for most in (pieces - 1, pieces, pieces + 1, chosen.randrange(60)):
            assert tally._is_longer(text, len(text.split()), most) == (pieces > most), (text, most)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("public", [False, True])
def test_a_column_that_says_something_and_is_not_used_is_asked_about(tmp_path: Path, format: str, public: bool) -> None:
    """As the `input` of a well-known set of instructions: without it records look the same."""
    rows = [
        {"instruction": f"do {i % 5}", "input": "" if i % 3 else f"item {i}", "output": f"done {i % 5}", "note": "ok"}
        for i in range(20)
    ]
    rows = [row | {"remark": f"a remark of several words, number {i}"} for i, row in enumerate(rows)]
    found = reported(
        tmp_path,
        rows,
        format,
        task="completion",
        columns={"prompt": "instruction", "completion": "output"},
        public=public,
        max_length=None,
    )
    assert found.unused_columns == ["input", "note", "remark"]
    unused = [q for q in found.questions if q.code == "unused_text"]
    assert [(q.column, q.detail) for q in unused] == [
        ("input", {"records": 7, "looked": 20}),
        ("remark", {"records": 20, "looked": 20}),
    ]
    assert "records that differ in it alone are the same record" in unused[0].message


def test_the_tools_of_conversations_are_asked_about(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    rows = [{"messages": talk, "tools": [{"type": "function"}], "parallel_tool_calls": False}]
    found = reported(tmp_path, rows, "jsonl", task="chat", columns={"messages": "messages"}, max_length=None)
    assert asked(found) == [("unused_text", "tools")]
