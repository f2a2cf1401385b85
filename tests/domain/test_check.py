"""The check of an upload: every trap is a problem with a line number, and no problem tells content."""

import io
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.ingest import lines
from domain.ingest.check import CheckReport, CheckRequest, check
from domain.ingest.fingerprint import fingerprint, normalise, tenant_key
from domain.ingest.problems import SHOWN
from domain.ingest.run import run_check
from domain.storage.rows import FileRows, parse_rows

CANARY = "canary-7f3a"
KEY = "11" * 32
COLUMNS = {"text": "text", "label": "label"}


def run(folder: Path, content: bytes, format: str = "jsonl", **request) -> tuple[CheckReport, FileRows]:
    source = folder / "source"
    source.write_bytes(content)
    basis = {"columns": COLUMNS, "labels": ["no", "yes"], "declared_size": None, "key": KEY}
    report = check(CheckRequest(source=source, target=folder / "rows", format=format, **(basis | request)))
    return report, parse_rows(folder / "rows")


def line(text: object = "fine", label: object = "yes") -> bytes:
    return json.dumps({"text": text, "label": label}).encode() + b"\n"


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("jsonl", b'{"text": "a b", "label": "yes", "other": 1}\n\n{"label": "no", "text": "c"}'),
        ("jsonl", b'\xef\xbb\xbf{"text": "a b", "label": "yes"}\r\n{"text": "c", "label": "no"}\r\n\r\n'),
        ("csv", b'text,label\n"a b",yes\nc,no\n'),
        ("csv", b'\xef\xbb\xbflabel,x,text\r\nyes,,"a b"\r\n\r\nno,"q ""q""\nq",c'),
        ("tsv", b"label\ttext\nyes\ta b\nno\tc\n"),
    ],
)
def test_good_files(tmp_path: Path, format: str, content: bytes) -> None:
    report, rows = run(tmp_path, content, format)
    assert (report.problems, report.units) == ([], 2)
    assert rows == FileRows({"text": ["a b", "c"]}, [1, 0])


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    _, rows = run(tmp_path, b'text\tlabel\n"so" it is\tyes\n" alone\tno\n', "tsv")
    assert rows.columns["text"] == ['"so" it is', '" alone']


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"text": "%b", "label": NaN}\n', "unusable_json"),
        (b'{"text": "%b", "label": 1e999}\n', "unusable_json"),
        (b'{"text": "%b", "label": ' + b"9" * 5000 + b"}\n", "unusable_json"),
        (b'{"text": "%b", "text": "b", "label": "yes"}\n', "unusable_json"),
        (b'{"text": "%b", "x": ' + b"[" * 200_000 + b"\n", "nested_too_deeply"),
        (b'{"text": "%b", "label": "yes"\n', "not_json"),
        (b'["%b", "yes"]\n', "not_an_object"),
        (b'{"%b": 1, "label": "yes"}\n', "missing_column"),
        (b'{"text": "%b\\ud800", "label": "yes"}\n', "bad_text"),
        (b'{"text": "%b\\u0000", "label": "yes"}\n', "bad_text"),
        (b'{"text": ["%b"], "label": "yes"}\n', "bad_text"),
        (b'{"text": " \\t", "label": "%b"}\n', "bad_text"),
        (b'{"text": "%b", "label": 1.5}\n', "label_not_public"),
        (b'{"text": "%b", "label": true}\n', "bad_label"),
        (b'{"text": "%b", "label": ""}\n', "bad_label"),
        (b'{"text": "x", "label": "%b"}\n', "label_not_public"),
        (b'{"text": "%b\xff", "label": "yes"}\n', "not_utf8"),
        (b'{"text": "%b\x00", "label": "yes"}\n', "nul"),
        (b'{"text": "%b", "x": "' + b"x" * lines.LONGEST + b'"}\n', "line_too_long"),
    ],
)
def test_json_traps(tmp_path: Path, content: bytes, code: str) -> None:
    report, _ = run(tmp_path, line("one") + content.replace(b"%b", CANARY.encode()) + line("three", "maybe"))
    assert [(p.line, p.code) for p in report.problems] == [(2, code), (3, "label_not_public")]
    assert CANARY not in report.model_dump_json()


@pytest.mark.parametrize(
    ("format", "content", "expected"),
    [
        ("csv", b'text,label\n"%b" x,yes\nok,maybe\n', [(2, "malformed"), (3, "label_not_public")]),
        ("csv", b'text,label\nok,yes\n"%b,yes\n', [(3, "malformed")]),
        ("csv", b"text,label\n%b,yes,more\n%b\n", [(2, "wrong_width"), (3, "wrong_width")]),
        ("csv", b'text,label\n"a\nb",yes\n%b,maybe\n', [(4, "label_not_public")]),
        ("csv", b"%b,label\nx,yes\n", [(1, "missing_column")]),
        ("csv", b"text,text,label\n%b,x,yes\n", [(1, "missing_column")]),
        ("csv", b"text,label\n\xff%b,yes\nok,maybe\n", [(2, "not_utf8"), (3, "label_not_public")]),
        (
            "csv",
            b"text,label\n" + b"x" * (lines.LONGEST + 9) + b",yes\n%b,maybe\n",
            [(2, "line_too_long"), (3, "label_not_public")],
        ),
        ("tsv", b"text,label\n%b\tyes\n", [(1, "missing_column")]),
        ("csv", b"", [(None, "empty_file")]),
        ("csv", b"text,label\n", [(None, "empty_file")]),
        ("jsonl", b"\n \n\r\n", [(None, "empty_file")]),
        ("jsonl", b"\xff\xfe{\x00", [(None, "utf16")]),
    ],
)
def test_table_traps(tmp_path: Path, format: str, content: bytes, expected: list) -> None:
    report, _ = run(tmp_path, content.replace(b"%b", CANARY.encode()), format)
    assert [(p.line, p.code) for p in report.problems] == expected
    assert CANARY not in report.model_dump_json()


def test_many_problems_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    report, _ = run(tmp_path, b"x\n" * 1000)
    assert (len(report.problems), report.problem_count) == (SHOWN, 1000)


def test_one_row_for_each_fingerprint_and_the_first_label_stays(tmp_path: Path) -> None:
    copies = line("Caf\u00e9  au\tlait", "yes") + line(" CAFE\u0301 au lait\n", "no") + line("cafe au lait", "no")
    report, rows = run(tmp_path, copies, declared_size=2)
    assert (report.problems, report.units) == ([], 2)
    assert rows == FileRows({"text": ["Caf\u00e9  au\tlait", "cafe au lait"]}, [1, 0])
    assert run(tmp_path, copies, key=None)[0].units == 3  # a public set keeps every row


def test_fingerprints_of_tenants_differ() -> None:
    key = bytes(32)
    assert normalise(" a\u00a0 b\r\n") == "a b"
    assert fingerprint(["a  b"], tenant_key(key, "one")) == fingerprint(["a b "], tenant_key(key, "one"))
    assert fingerprint(["a b"], tenant_key(key, "one")) != fingerprint(["a b"], tenant_key(key, "two"))


def test_declared_size_bounds_the_units(tmp_path: Path) -> None:
    rows = line("a") + line("b") + line("c") + line("a")
    assert run(tmp_path, rows, declared_size=3)[0].problems == []
    assert [p.code for p in run(tmp_path, rows, declared_size=2)[0].problems] == ["declared_size_too_small"]


def test_published_labels_are_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    report, rows = run(tmp_path, line("a", "z") + line("b", 10) + line("c", "m"), labels=None)
    assert (report.labels, rows.labels) == (["10", "m", "z"], [2, 0, 1])
    found = ["10", "2", "b 1", "1", "-3", "0", "B", "1.5"]
    for order in (found, found[::-1]):
        report, _ = run(tmp_path, b"".join(line(f"text {label}", label) for label in order), labels=None)
        assert report.labels == ["-3", "0", "1", "1.5", "2", "10", "B", "b 1"]
    assert [p.code for p in run(tmp_path, line("a"), labels=None)[0].problems] == ["too_few_labels"]


def test_a_check_that_dies_is_a_problem_and_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"".join(line(f"{CANARY} {i}") for i in range(20_000)))
    request = CheckRequest(
        source=source,
        target=tmp_path / "rows",
        format="jsonl",
        columns=COLUMNS,
        labels=["no", "yes"],
        declared_size=None,
        key=KEY,
    )
    assert run_check(request).units == 20_000
    monkeypatch.setattr("domain.ingest.run.SECONDS", 0.2)
    assert [p.code for p in run_check(request).problems] == ["check_took_too_long"]
    monkeypatch.undo()
    missing = request.model_copy(update={"source": tmp_path / CANARY})
    report = run_check(missing)
    assert [p.code for p in report.problems] == ["check_failed"]
    assert CANARY not in report.model_dump_json()


def test_what_a_check_says_when_it_dies_is_not_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A native library may quote what it chokes on; the check's own word is the kind of an exception."""
    request = CheckRequest(
        source=tmp_path, target=tmp_path / "rows", format="csv", columns=COLUMNS, declared_size=None, key=KEY
    )
    said = {f"panicked at '{CANARY}'": "no kind of error", CANARY: "no kind of error", "MemoryError": "MemoryError"}
    for words, logged in said.items():
        program = tmp_path / "python"
        program.write_text(f'#!/bin/sh\necho -n "{words}" >&2\nexit 3\n')
        program.chmod(0o700)
        monkeypatch.setattr("sys.executable", str(program))
        caplog.clear()
        assert [p.code for p in run_check(request).problems] == ["check_failed"]
        assert caplog.messages == [f"the check of a file ended with 3: {logged}"]


def test_the_child_is_limited() -> None:
    """Memory, CPU time and core dumps, as the child itself sees them after it has set its limits."""
    program = (
        "import resource, sys; from domain.ingest import __main__ as child; child.limit(); "
        "print([resource.getrlimit(r)[0] for r in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE)]);"
        "bytearray(child.MEMORY)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    memory, seconds, dump = json.loads(done.stdout)
    assert (memory, seconds) == (4 * 2**30, 600)
    assert dump <= 1  # byte
    assert "MemoryError" in done.stderr


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "9" * 25])
@pytest.mark.parametrize("column", ["other", "text"])
def test_a_number_out_of_bounds_matters_where_it_is_used(tmp_path: Path, value: str, column: str) -> None:
    names = {"text": '"a"', "label": '"yes"'} | {column: f'[{{"deep": {value}}}]'}
    record = "{" + ", ".join(f'"{name}": {written}' for name, written in names.items()) + "}\n"
    report, _ = run(tmp_path, record.encode())
    assert [p.code for p in report.problems] == ([] if column == "other" else ["unusable_json"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_file_of_another_encoding_is_told_so_once(tmp_path: Path, encoding: str, format: str) -> None:
    text = "text,label\nder B\u00e4r,yes\n" if format == "csv" else '{"text": "der B\u00e4r", "label": "yes"}\n'
    report, _ = run(tmp_path, text.encode(encoding), format)
    assert [(p.line, p.code) for p in report.problems] == [(None, "utf16")]
    assert "save it as UTF-8" in report.problems[0].message


def test_a_header_in_the_middle_of_joined_files_is_a_line_to_take_out(tmp_path: Path) -> None:
    content = b"text,label\na,yes\ntext,label\nb,no\n"
    for labels in (["no", "yes"], None):
        report, _ = run(tmp_path, content, "csv", labels=labels)
        assert [(p.line, p.code) for p in report.problems] == [(3, "repeated_header")]


@pytest.mark.parametrize(
    ("header", "task", "way"),
    [
        ("messages", "classification", "send task=chat"),
        ("conversations,id", "classification", "send task=chat and columns[messages]=conversations"),
        ("prompt,completion", "classification", "send task=completion"),
        ("instruction,input,output", "completion", "columns[prompt]=instruction and columns[completion]=output"),
        ("text,class", "classification", "columns[label]"),
        (f"{CANARY},x", "classification", "columns[...]"),
    ],
)
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_columns_by_another_name_are_told_what_to_send(
    tmp_path: Path, header: str, task: str, way: str, format: str
) -> None:
    names = header.split(",")
    content = (header + "\n" + ",".join("x" for _ in names) + "\n").encode()
    if format == "jsonl":
        content = json.dumps(dict.fromkeys(names, "x")).encode() + b"\n"
    if format == "parquet":
        pq.write_table(pa.table({name: ["x"] for name in names}), target := io.BytesIO())
        content = target.getvalue()
    fields = {"classification": ("text", "label"), "completion": ("prompt", "completion")}[task]
    labels = ["no", "yes"] if task == "classification" else None
    report, _ = run(tmp_path, content, format, task=task, columns={name: name for name in fields}, labels=labels)
    assert [p.code for p in report.problems] == ["missing_column"] * report.problem_count
    if format != "jsonl" or CANARY not in header:
        assert way in report.problems[0].message
    assert CANARY not in report.model_dump_json()


def test_an_empty_prompt_names_the_way_out(tmp_path: Path) -> None:
    content = b'{"prompt": " ", "completion": "warm"}\n'
    columns = {"prompt": "prompt", "completion": "completion"}
    report, _ = run(tmp_path, content, task="completion", columns=columns, labels=None)
    assert "send task=text and columns[text]=completion" in report.problems[0].message


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.0], ["0", "1"]),
        ([0.5, 1.5], ["0.5", "1.5"]),
        ([0.1, 1e-7], ["1e-07", "0.1"]),
        ([-0.0, 2.0], ["0", "2"]),
    ],
)
def test_numbers_are_the_same_labels_in_every_format(tmp_path: Path, values: list[float], labels: list[str]) -> None:
    rows = [{"text": f"t {i}", "label": value} for i, value in enumerate(values)]
    written = {
        "csv": ("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows)).encode(),
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
    }
    for type in (pa.float64(), pa.float32()):
        table = pa.table({"text": [r["text"] for r in rows], "label": pa.array(values, type)})
        pq.write_table(table, target := io.BytesIO())
        written[f"parquet {type}"] = target.getvalue()
    for format, content in written.items():
        report, rows_kept = run(tmp_path, content, format.partition(" ")[0], labels=None)
        found = sorted(report.labels or [], key=float)
        assert (report.problems, [float(one) for one in found]) == ([], sorted(float(one) for one in labels)), format
        if format != "csv" or -0.0 not in values:
            assert set(report.labels or []) == set(labels), format
        assert len(rows_kept.columns["text"]) == 2


@pytest.mark.parametrize("type", [pa.decimal128(4, 0), pa.decimal128(6, 2), pa.decimal256(40, 0)], ids=str)
def test_whole_numbers_that_a_database_wrote_as_decimals_are_labels(tmp_path: Path, type: pa.DataType) -> None:
    table = pa.table({"text": ["one", "two"], "label": pa.array([Decimal(3), Decimal(10)], type)})
    pq.write_table(table, target := io.BytesIO())
    report, rows = run(tmp_path, target.getvalue(), "parquet", labels=None)
    assert (report.problems, report.labels, rows.labels) == ([], ["3", "10"], [0, 1])


def test_text_that_was_written_as_bytes_is_text(tmp_path: Path) -> None:
    for type in (pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())):
        table = pa.table({"text": pa.array([b"one", "zw\u00f6".encode()]).cast(type), "label": ["yes", "no"]})
        pq.write_table(table, target := io.BytesIO())
        report, rows = run(tmp_path, target.getvalue(), "parquet")
        assert (report.problems, rows.columns["text"]) == ([], ["one", "zw\u00f6"])
    pq.write_table(pa.table({"text": [b"\xff", b"ok"], "label": ["yes", "no"]}), target := io.BytesIO())
    report, _ = run(tmp_path, target.getvalue(), "parquet")
    assert [(p.line, p.code) for p in report.problems] == [(1, "not_utf8")]
