"""Files by the stock `openai` package: uploaded with a budget, waited for, listed by pages, read, deleted."""

import json

import openai
import pytest


def test_a_dataset_goes_up_with_its_budget(steward: openai.OpenAI, training_file: str) -> None:
    found = steward.files.retrieve(training_file)
    assert (found.object, found.purpose, found.status, found.filename) == ("file", "fine-tune", "processed", "rows.csv")
    assert found.bytes > 0
    assert found.expires_at is None
    assert steward.files.content(training_file).text.count("\n") == found.declared_size  # type: ignore[attr-defined]


def test_files_are_listed_by_pages_read_and_deleted(steward: openai.OpenAI, training_file: str) -> None:
    made = [steward.files.create(file=("e.csv", b"text,label\nplum,fruit\n"), purpose="evals").id for _ in range(5)]
    assert [f.id for f in steward.files.list(purpose="evals", limit=2)] == made[::-1]  # walks on to the last page
    assert [f.id for f in steward.files.list(purpose="evals", limit=2, order="asc")] == made
    rest = steward.files.list(purpose="evals", after=made[3], limit=10_000)  # as the package sends it by itself
    assert ([f.id for f in rest.data], rest.has_more) == (made[2::-1], False)
    assert training_file in [f.id for f in steward.files.list()]
    assert steward.files.content(made[0]).text == '{"text": "plum", "label": "fruit"}\n'
    gone = steward.files.delete(made[0])
    assert (gone.id, gone.deleted) == (made[0], True)
    with pytest.raises(openai.NotFoundError):
        steward.files.retrieve(made[0])
    with pytest.raises(openai.BadRequestError) as cursor:
        steward.files.list(after="file-nothing")
    assert cursor.value.code == "unknown_cursor"


def test_files_are_deleted_while_they_are_listed(steward: openai.OpenAI) -> None:
    made = {steward.files.create(file=("d.csv", b"text,label\nplum,fruit\n"), purpose="evals").id for _ in range(5)}
    for file in steward.files.list(limit=2, purpose="evals"):
        if file.id in made:
            steward.files.delete(file.id)
    assert made.isdisjoint(file.id for file in steward.files.list(purpose="evals"))


def test_no_reader_of_lines_breaks_a_text_apart(steward: openai.OpenAI) -> None:
    texts = [f"one{end}two" for end in ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c")]
    rows = "".join(json.dumps({"text": text, "label": "fruit"}) + "\n" for text in texts)
    made = steward.files.create(file=("e.jsonl", rows.encode()), purpose="evals")
    content = steward.files.content(made.id)
    for lines in (list(content.iter_lines()), content.text.splitlines()):
        assert [json.loads(line)["text"] for line in lines] == texts


def test_a_file_that_cannot_be_used_is_refused_line_by_line(steward: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        steward.files.create(file=("e.csv", b"text,label\nplum,fruit\nplum\n"), purpose="evals")
    assert (refused.value.code, refused.value.param) == ("invalid_file", "file")
    assert isinstance(refused.value.response.json()["errors"][0]["line"], int)
