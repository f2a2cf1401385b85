"""Parquet uploads: read row by row, refused when they unfold too far or hold what is not flat."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.ingest import parquet
from domain.ingest.check import CheckReport, CheckRequest, check
from domain.ingest.run import run_check
from domain.storage.rows import FileRows, parse_rows

CANARY = "canary-c0de"
KEY = "44" * 32
MESSAGE = pa.struct([("content", pa.string()), ("role", pa.string())])


def request(folder: Path, task: str = "classification", **more: Any) -> CheckRequest:
    columns = {"chat": {"messages": "messages"}}.get(task, {"text": "text", "label": "label"})
    labels = ["0", "1"] if task == "classification" else None
    basis = {"columns": columns, "labels": labels, "declared_size": None, "key": KEY, "task": task}
    return CheckRequest(source=folder / "source", target=folder / "rows", format="parquet", **basis | more)


def run(folder: Path, table: pa.Table, task: str = "classification", **more: Any) -> tuple[CheckReport, FileRows]:
    pq.write_table(table, folder / "source")
    report = check(request(folder, task, **more))
    assert CANARY not in report.model_dump_json()
    return report, parse_rows(folder / "rows")


@pytest.mark.parametrize(
    "text", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
@pytest.mark.parametrize("label", [pa.int8(), pa.uint64(), pa.string()])
def test_flat_columns(tmp_path: Path, text: pa.DataType, label: pa.DataType) -> None:
    labels = ["1", "0"] if label == pa.string() else [1, 0]
    columns = {"other": pa.array([[1.5], None]), "label": pa.array(labels, label), "text": pa.array(["a", "b"], text)}
    report, rows = run(tmp_path, pa.table(columns))
    assert (report.problems, rows) == ([], FileRows({"text": ["a", "b"]}, [1, 0]))


@pytest.mark.parametrize("type", [pa.list_(MESSAGE), pa.large_list(MESSAGE), pa.string()])
def test_conversations(tmp_path: Path, type: pa.DataType) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    values: list[Any] = (
        [turns] if type != pa.string() else ['[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]']
    )
    report, rows = run(tmp_path, pa.table({"messages": pa.array(values, type)}), "chat")
    assert report.problems == []
    assert rows.columns["messages"] == ['[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]']


NOT_FLAT: dict[str, Any] = {
    "list": pa.array([[CANARY]]),
    "struct": pa.array([{CANARY: "x"}]),
    "map": pa.array([[("a", CANARY)]], pa.map_(pa.string(), pa.string())),
    "float": pa.array([1.5]),
    "boolean": pa.array([True]),
    "time": pa.array([datetime.datetime(2020, 1, 1)]),
    "decimal": pa.array([1], pa.decimal128(5)),
    "null": pa.nulls(1),
    "extension": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))),
    "extension over text": pa.ExtensionArray.from_storage(pa.json_(), pa.array([f'"{CANARY}"'])),
    "messages with a time": pa.array([[{"role": "user", "content": CANARY, "at": datetime.datetime(2020, 1, 1)}]]),
}


@pytest.mark.parametrize("kind", NOT_FLAT)
def test_columns_that_are_not_flat_are_named_and_refused(tmp_path: Path, kind: str) -> None:
    table = pa.table({"notes": NOT_FLAT[kind], "label": pa.array([1])})
    report, _ = run(tmp_path, table, columns={"text": "notes", "label": "label"})
    assert [(p.line, p.code) for p in report.problems] == [(None, "bad_type")]
    assert "'notes'" in report.problems[0].message
    report, _ = run(tmp_path, table, columns={"text": "text", "label": "label"})
    assert [(p.line, p.code) for p in report.problems] == [(None, "missing_column")]


def test_bad_rows_are_named_by_number(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"\xff" + CANARY.encode(), b"fine too", None, b"last"], pa.binary()).view(pa.string())
    labels = pa.array([0, 1, 7, 1, None])
    report, _ = run(tmp_path, pa.table({"text": texts, "label": labels}))
    assert [(p.line, p.code) for p in report.problems] == [
        (2, "not_utf8"),
        (3, "label_not_public"),
        (4, "bad_text"),
        (5, "bad_label"),
    ]


def test_files_that_are_not_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"{CANARY} {i}" for i in range(9000)], "label": [0] * 9000}), tmp_path / "source")
    whole = (tmp_path / "source").read_bytes()
    for broken in (
        b"",
        CANARY.encode(),
        whole[:-9],
        b"PAR1" + b"\xff" * 999 + whole[-400:],
        b"PAR1\xff\xff\xff\x7fPAR1",
    ):
        (tmp_path / "source").write_bytes(broken)
        report = run_check(request(tmp_path))
        assert {p.code for p in report.problems} <= {"not_parquet", "check_failed"}
        assert report.problems
        assert CANARY not in report.model_dump_json()


def test_a_bomb_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One text of a megabyte, written once and repeated by the file's dictionary: 64 GB from a few kilobytes."""
    bomb = pa.DictionaryArray.from_arrays(pa.array([0] * 65_536, pa.int32()), pa.array(["x" * (2**20 - 16)]))
    table = pa.table({"text": bomb, "label": pa.array([0] * 65_536)})
    pq.write_table(table, tmp_path / "source", compression="zstd")
    assert (tmp_path / "source").stat().st_size < 2**20
    monkeypatch.setattr(parquet, "MOST_CHARACTERS", 200 * 2**20)
    report = check(request(tmp_path))
    assert [(p.line, p.code) for p in report.problems] == [(201, "too_large")]
    monkeypatch.setattr(parquet, "MOST_ROWS", 65_535)
    assert [p.code for p in check(request(tmp_path)).problems] == ["too_large"]


def test_a_text_is_as_long_as_a_line_may_be(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * (2**20 + 1), "y"], "label": [0, 1]})
    assert [(p.line, p.code) for p in run(tmp_path, table)[0].problems] == [(1, "row_too_long")]
