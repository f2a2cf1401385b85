"""Every kind of task is whole, and one that is not is refused by its name."""

import json
import re
import sys
from pathlib import Path

import pytest

import dpcore.terms.tasks as tasks
from dpcore.export import About
from dpcore.export.snippets import snippet
from dpcore.tasks import make_task
from dpcore.terms.errors import HalfMade
from dpcore.terms.tasks import KINDS, UnknownKind, get_kind, told_by

from .conftest import LABELS, MAX_LENGTH

WHOLE = """
from dpcore.terms.kind import Column, Kind

KIND = Kind(
    about="A language model learns titles.",
    columns=(Column(name="title", help="The column with the title."),),
    causal_lm=True,
    measured_as="completion",
    example="asked = ...",
)
"""


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lays a kind called `half` beside the others."""

    def lay(code: str) -> None:
        (tmp_path / "half.py").write_text(code)
        monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])

    yield lay
    sys.modules.pop("dpcore.terms.tasks.half", None)
    vars(tasks).pop("half", None)


def test_another_file_is_another_kind(half):
    half(WHOLE)
    assert [*tasks.load()] == ["classification", "image", "pair", "completion", "chat", "half", "text"]


@pytest.mark.parametrize(
    ("whole", "half_made", "words"),
    [
        ('about="A language model learns titles.",', "", "about: Field required"),
        ('measured_as="completion",', "", "measured_as: Field required"),
        ("causal_lm=True", "causal_lm=1", "causal_lm: Input should be a valid boolean"),
        (
            "causal_lm=True",
            "causal_lm=False, chat_template=True",
            "chat_template and written are for kinds of a causal",
        ),
        ('name="title"', 'name="label"', "a text column cannot be called 'label'"),
        ("KIND =", "KINDS =", "has no attribute 'KIND'"),
        ("KIND =", "KIND, KINDS = 3,", "KIND is no Kind"),
        ("example=", "sample=", "example: Field required"),
        ("causal_lm=True", 'causal_lm=True, tells=("titel",)', "tells names titel, which is none of its columns"),
        (
            '"title", help="The column with the title."',
            '"text", help="Another."',
            "another kind has another column 'text'",
        ),
        (
            'title", help="The column with the title."),),',
            'prompt", help="The column with the prompt."),), tells=("prompt",),',
            "tells: the column 'prompt' tells 'completion' already",
        ),
        ('measured_as="completion"', 'measured_as="classification"', "'classification' cannot stand for it"),
        ('measured_as="completion"', 'measured_as="chat"', "'chat' cannot stand for it"),
        ('measured_as="completion"', 'measured_as="poem"', "'poem' cannot stand for it"),
    ],
)
def test_a_half_made_kind_is_refused_by_its_name(half, whole, half_made, words):
    assert whole in WHOLE
    half(WHOLE.replace(whole, half_made))
    with pytest.raises(HalfMade, match=f"^kind of task 'half': .*{re.escape(words)}"):
        tasks.load()


def test_a_kind_without_a_torch_side_is_refused_by_its_module(monkeypatch, writer_tokenizer):
    for name, words in (("half", "missing"), ("records", "half-made: make is missing")):  # shared code is of no kind
        monkeypatch.setitem(tasks.KINDS, name, get_kind("text"))
        with pytest.raises(HalfMade, match=rf"^dpcore\.tasks\.{name} is {words}"):
            make_task(name, writer_tokenizer, max_length=MAX_LENGTH)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.of_pictures])
def test_every_kind_of_texts_has_two_sides(name, tokenizer, writer_tokenizer):
    kind = get_kind(name)
    labels, made_of = (LABELS, tokenizer) if kind.labelled else ((), writer_tokenizer)
    task = make_task(name, made_of, labels=labels, max_length=MAX_LENGTH)
    turns = json.dumps([{"role": role, "content": "w1"} for role in ("user", "assistant")])
    columns = {column.name: [turns if column.conversation else "w1 w2"] * 2 for column in kind.columns}
    assert len(task.encode(columns, [0, 1] if labels else [])) == 2
    if kind.causal_lm:
        assert task.beginning({name: values[0] if name in kind.asked else "" for name, values in columns.items()})
        with pytest.raises(ValueError, match=f"records of kind {name} have no labels"):
            make_task(name, made_of, labels=LABELS, max_length=MAX_LENGTH)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("layout", ["peft", "trained", "whole", "beside"])
def test_what_a_card_says_of_a_kind_is_python(name, layout):
    labels = LABELS if get_kind(name).labelled else ()
    lines = snippet(layout, About("minilm", "0" * 64, "lora", name, labels, 77))
    compile(lines, "README.md", "exec")
    assert ("max_length=77" in lines) == (get_kind(name).labelled and not get_kind(name).of_pictures)


def test_columns_tell_a_kind():
    told = {"text": "classification", "label": "classification", "text_pair": "pair", "messages": "chat"}
    told |= {"image": "image"}
    told |= {"prompt": "completion", "completion": "completion"}
    assert {column: told_by([column]) for column in told} == told
    assert told_by([]) == "classification"
    with pytest.raises(
        UnknownKind, match="unknown kind of task 'poem'; there are: classification, image, pair, completion"
    ):
        get_kind("poem")


def test_the_database_takes_the_kinds_that_there_are():
    """A new kind comes with a migration of these."""
    manifest = (Path(__file__).parents[2] / "ledger" / "manifest.json").read_text()
    for name, wanted in {
        "file.file_task": set(KINDS),
        "model_profile.model_profile_task_check": set(KINDS),
        "model_trial.model_trial_task": set(KINDS),
        "file.only_classes_have_labels": {name for name, kind in KINDS.items() if kind.labelled},
    }.items():
        (check,) = re.findall(rf'"public\.{name}": "(.*)"', manifest)
        assert set(re.findall(r"'(\w+)'::text", check)) == wanted, name
