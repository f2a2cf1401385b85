"""Files of every task: which columns they have, and what makes two of their rows the same."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.ingest.check import CheckReport, CheckRequest, check
from domain.ingest.fingerprint import SIZE
from domain.storage.rows import FileRows, parse_rows
from dpcore.terms.tasks import KINDS, get_kind
from tests.domain.marks import marks_in
from tests.sample_rows import row_of

CANARY = "canary-1d4e"
KEY = "33" * 32
USER = {"role": "user", "content": "why?"}
ANSWER = {"role": "assistant", "content": "so."}


def run(folder: Path, task: str, rows: list[dict[str, Any]], **more: Any) -> tuple[CheckReport, FileRows]:
    source = folder / "source"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [*get_kind(task).fields, *more.pop("also", [])]
    report = check(
        CheckRequest(
            source=source,
            target=folder / "rows",
            format="jsonl",
            task=task,
            columns={name: name for name in names},
            labels=["no", "yes"] if get_kind(task).labelled else None,
            declared_size=None,
            key=KEY,
            marks=marks_in(folder),
            **more,
        )
    )
    return report, parse_rows(folder / "rows")


OF_TEXTS = [task for task, kind in KINDS.items() if not kind.of_pictures]
"""The others: tests/domain/pictures/."""
SAMPLES = {task: [row_of(task, "a", "no"), row_of(task, "b", "yes")] for task in OF_TEXTS}


@pytest.mark.parametrize("task", OF_TEXTS)
def test_rows_of_a_task(tmp_path: Path, task: str) -> None:
    rows = SAMPLES[task]
    report, kept = run(tmp_path, task, [*rows, *rows])
    kind = get_kind(task)
    assert (report.problems, report.units, report.labels) == ([], 2, ["no", "yes"] if kind.labelled else None)
    assert tuple(kept.columns) == kind.texts
    for column in kind.columns:
        values = kept.columns[column.name]
        assert [json.loads(v) if column.conversation else v for v in values] == [row[column.name] for row in rows]
    assert kept.labels == ([0, 1] if kind.labelled else None)
    assert (tmp_path / "old_records").stat().st_size == 2 * SIZE


@pytest.mark.parametrize("task", OF_TEXTS)
def test_users_of_a_task(tmp_path: Path, task: str) -> None:
    rows = [{**row, "user": who} for row in SAMPLES[task] for who in ("Ann", "Bob", " ann ")]
    report, kept = run(tmp_path, task, rows, also=["user"], max_records_per_user=1)
    assert (report.problems, report.units) == ([], 2)
    assert kept.users == [0, 1]


def test_where_one_text_ends_matters(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a b", "completion": "c"},
        {"prompt": "a", "completion": "b c"},
        {"prompt": "A  b", "completion": "C"},
    ]
    assert run(tmp_path, "completion", rows)[0].units == 2
    rows = [{"prompt": "a\x1fb", "completion": "c"}, {"prompt": "a", "completion": "b\x1fc"}]
    assert run(tmp_path, "completion", rows)[0].units == 2


def test_a_conversation_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    turned = [dict(reversed(message.items())) for message in (USER, ANSWER)]
    rows = [{"messages": [USER, ANSWER]}, {"messages": turned}, {"messages": json.dumps(turned, indent=1)}]
    assert run(tmp_path, "chat", rows)[0].units == 1


DUMPED = {"refusal": None, "function_call": None, "tool_calls": None, "audio": None, "annotations": []}
PARTS = [{"type": "text", "text": "hel", "annotations": None}, {"type": "text", "text": "lo"}]


@pytest.mark.parametrize(
    ("messages", "same"),
    [
        ([{**USER, "name": None}, {**ANSWER, **DUMPED}], [USER, ANSWER]),
        ([{"role": "developer", "content": "short"}, ANSWER], [{"role": "system", "content": "short"}, ANSWER]),
        (
            [
                {"role": "user", "content": PARTS},
                {"role": "assistant", "content": [{"type": "text", "text": ANSWER["content"]}], "weight": 1},
            ],
            [{"role": "user", "content": "hel\nlo"}, ANSWER],
        ),
        (
            [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}],
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        ),
    ],
    ids=["what a client dumps", "developer", "parts and weight", "from and value"],
)
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_conversations_as_clients_write_them(tmp_path: Path, messages: Any, same: Any, format: str) -> None:
    content = json.dumps({"messages": messages}).encode() + b"\n"
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist([{"messages": messages}]), target := io.BytesIO())
        content = target.getvalue()
    (source := tmp_path / "source").write_bytes(content)
    asked = CheckRequest(
        source=source,
        target=tmp_path / "rows",
        format=format,
        task="chat",
        columns={"messages": "messages"},
        declared_size=None,
        key=None,
    )
    assert check(asked).problems == []
    (kept,) = parse_rows(tmp_path / "rows").columns["messages"]
    assert json.loads(kept) == same


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (CANARY, "not a list of messages"),
        ([], "not a list of messages"),
        ({"role": "user", "content": CANARY}, "not a list of messages"),
        ([USER], "no message of the assistant"),
        ([CANARY, ANSWER], "not an object"),
        ([USER, {"role": "tool", "content": CANARY}, ANSWER], "tools, which are not supported"),
        ([USER, {**ANSWER, "tool_calls": [CANARY]}], "tools, which are not supported"),
        ([{"role": CANARY, "content": "x"}, ANSWER], "role that is not one of"),
        ([{"role": ["user"], "content": CANARY}, ANSWER], "role that is not one of"),
        ([{**USER, CANARY: 1}, ANSWER], "other keys than role and content"),
        ([{"role": "user"}, ANSWER], "without 'content'"),
        ([{**USER, "name": "x"}, ANSWER], "the keys 'name', which nothing is learnt from"),
        ([USER, {**ANSWER, "weight": 0}], "'weight' is not 1"),
        ([{"from": "human", "value": CANARY}, {"from": "observation", "value": "x"}], "tools"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}, ANSWER], "an image"),
        ([{"role": "user", "content": [{"type": "input_audio", "data": CANARY}]}, ANSWER], "a sound"),
        ([{"role": "user", "content": [{"type": "text", "text": "a", CANARY: 1}]}, ANSWER], "a part that is not"),
        ([{"role": "user", "content": [CANARY]}, ANSWER], "a part that is not of the form"),
        ([{"role": "user", "content": [{"type": "text", "text": ["a"]}]}, ANSWER], "a part that is not"),
        ([USER, {"role": "system", "content": CANARY}, ANSWER], "system message that is not the first"),
        ([USER, {**ANSWER, "content": " "}], "content is not a text"),
        ([USER, {**ANSWER, "content": None}], "without 'content'"),
        ([USER, {**ANSWER, "content": f"{CANARY}\0"}], "content is not a text"),
        ([USER, {**ANSWER, "content": f"{CANARY}\ud800"}], "content is not a text"),
        ("[" * 100_000, "not a list of messages"),
    ],
)
def test_conversations_that_teach_nothing(tmp_path: Path, messages: Any, words: str) -> None:
    report, _ = run(tmp_path, "chat", [*SAMPLES["chat"], {"messages": messages}])
    assert [(p.line, p.code) for p in report.problems] == [(3, "bad_messages")]
    assert words in report.problems[0].message
    assert CANARY not in report.model_dump_json()


@pytest.mark.parametrize(("task", "column"), [("pair", "text_pair"), ("completion", "prompt"), ("text", "text")])
@pytest.mark.parametrize("bad", ["", " ", None, 7, ["x"]])
def test_texts_that_are_none(tmp_path: Path, task: str, column: str, bad: Any) -> None:
    report, _ = run(tmp_path, task, [SAMPLES[task][0] | {column: bad}])
    assert [(p.line, p.code) for p in report.problems] == [(1, "bad_text")]
    assert f"'{column}'" in report.problems[0].message
