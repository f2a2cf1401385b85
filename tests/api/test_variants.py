"""The same rows, as people and programs write them again: the same budget, or a question; never silently another."""

import io
import json
import random
import unicodedata
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpcore.terms.tasks import get_kind
from tests.api.conftest import PRIVATE, World

pytestmark = pytest.mark.usefixtures("quick_checks")

ROWS = 24
WORDS = [
    "ward",
    "knee",
    "shoulder",
    "again",
    "today",
    "pain",
    "less",
    "more",
    "week",
    "since",
    "cold",
    "fever",
    "letter",
    "visit",
    "night",
    "morning",
    "doctor",
    "nurse",
    "bed",
    "medicine",
    "slept",
    "walked",
    "stairs",
    "hurts",
    "left",
    "right",
    "hand",
    "daughter",
    "brother",
    "garden",
    "ate",
    "soup",
    "tablets",
    "blood",
    "pressure",
    "high",
    "low",
    "better",
    "worse",
    "called",
    "asked",
    "waited",
    "hour",
    "minutes",
    "corridor",
    "window",
    "lamp",
    "quiet",
    "noise",
]
INLINE = PRIVATE | {"declared_size": "100", "labels": "publish"}
Made = tuple[str, bytes, dict[str, str]]
"""Name of the file, content, further fields of the form."""


def sentences(seed: int) -> list[str]:
    chance = random.Random(seed)
    return [f"It's {' '.join(chance.choices(WORDS, k=14))}, \u00e9t\u00e9 {seed}." for _ in range(ROWS)]


def table(rows: list[dict[str, object]], separator: str = ",") -> bytes:
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    quoted = ('"' + str(v).replace('"', '""') + '"' for line in lines for v in line)
    width = len(rows[0])
    cells = list(quoted)
    return "".join(separator.join(cells[i : i + width]) + "\n" for i in range(0, len(cells), width)).encode()


def as_csv(texts: list[str]) -> Made:
    return "rows.csv", table([{"text": t, "label": i % 2} for i, t in enumerate(texts)]), {}


def each(change: Callable[[str], str]) -> Callable[[list[str]], Made]:
    return lambda texts: as_csv([change(t) for t in texts])


def lines(task: str, row: Callable[[str], dict[str, object]]) -> Callable[[list[str]], Made]:
    form = {"task": task} if get_kind(task).labelled else {"task": task, "labels": ""}
    return lambda texts: ("rows.jsonl", "".join(json.dumps(row(t)) + "\n" for t in texts).encode(), form)


def two(text: str) -> str:
    return "a" if len(text) % 2 else "b"


def chat(*turns: tuple[str, str]) -> Callable[[str], dict[str, object]]:
    return lambda text: {"messages": [{"role": r, "content": c.replace("%", text)} for r, c in turns]}


def parquet(texts: list[str]) -> Made:
    target = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": [i % 2 for i in range(len(texts))]}), target)
    return "rows.parquet", target.getvalue(), {}


def words(change: Callable[[list[str]], list[str]]) -> Callable[[list[str]], Made]:
    return each(lambda text: " ".join(change(text.split())))


def wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


SAME: dict[str, Callable[[list[str]], Made]] = {
    "as it was": as_csv,
    "JSON Lines": lines("classification", lambda t: {"text": t, "label": two(t)}),
    "TSV without marks": lambda texts: (
        "rows.tsv",
        "".join(f"{t}\t{label}\n" for t, label in [("text", "label"), *((t, two(t)) for t in texts)]).encode(),
        {},
    ),
    "TSV between marks": lambda texts: ("rows.tsv", table([{"text": t, "label": two(t)} for t in texts], "\t"), {}),
    "Parquet": parquet,
    "other labels": lambda texts: (
        "rows.csv",
        table([{"text": t, "label": f"x{i % 3}"} for i, t in enumerate(texts)]),
        {},
    ),
    "another order": lambda texts: as_csv(texts[::-1]),
    "a third of the rows": lambda texts: as_csv(texts[::3]),
    "one old row among new ones": lambda texts: as_csv([texts[0], *sentences(91)]),
    "every row twice": lambda texts: as_csv(texts + texts),
    "another column's name": lambda texts: (
        "rows.csv",
        table([{"note": t, "label": two(t)} for t in texts]),
        {"columns[text]": "note"},
    ),
    "upper case": each(str.upper),
    "lower case": each(str.lower),
    "decomposed": each(lambda t: unicodedata.normalize("NFD", t)),
    "full width": each(wide),
    "double blanks": each(lambda t: t.replace(" ", "  ")),
    "no-break blanks": each(lambda t: t.replace(" ", "\u00a0")),
    "line ends inside": each(lambda t: t.replace(" ", "\n", 3)),
    "zero-width spaces": each(lambda t: t.replace(" ", " \u200b")),
    "a zero-width space in a word": each(lambda t: t[:8] + "\u200b" + t[8:]),
    "soft hyphens": each(lambda t: t.replace("e", "e\u00ad")),
    "byte-order marks": each(lambda t: "\ufeff" + t),
    "direction marks": each(lambda t: f"\u202a{t}\u202c\u200f"),
    "variation selectors": each(lambda t: t.replace("5", "5\ufe0f") + "\ufe0f"),
    "a full stop more": each(lambda t: t + "."),
    "without punctuation": each(lambda t: t.replace(",", "").replace(".", "")),
    "an ellipsis": each(lambda t: t.removesuffix(".") + "\u2026"),
    "curly quotes": each(lambda t: t.replace("'", "\u2019")),
    "an acute for a quote": each(lambda t: t.replace("'", "\u00b4")),
    "in quotes": each(lambda t: f"\u00ab{t}\u00bb"),
    "dashes for commas": each(lambda t: t.replace(",", " \u2014")),
    "as a prompt": lines("completion", lambda t: {"prompt": t, "completion": two(t)}),
    "as a completion": lines("completion", lambda t: {"prompt": "Write a note.", "completion": t}),
    "as a user's message": lines("chat", chat(("user", "%"), ("assistant", "Thanks."))),
    "as an answer after a template": lines(
        "chat", chat(("system", "You write the notes of a ward, briefly."), ("user", "Write."), ("assistant", "%"))
    ),
    "as the first of a pair": lines("pair", lambda t: {"text": t, "text_pair": f"about {len(t)}", "label": two(t)}),
    "as the second of a pair": lines("pair", lambda t: {"text": f"about {len(t)}", "text_pair": t, "label": two(t)}),
    "as text": lines("text", lambda t: {"text": t}),
}
ASKED: dict[str, Callable[[list[str]], Made]] = {
    "a word changed": words(lambda w: [*w[:5], "changed", *w[6:]]),
    "a word less": words(lambda w: w[:4] + w[5:]),
    "a typing error": words(lambda w: [*w[:6], w[6][::-1] + "x", *w[7:]]),
    "the first half": words(lambda w: w[: len(w) // 2 + 1]),
    "the second half": words(lambda w: w[len(w) // 2 - 1 :]),
    "two joined": lambda texts: as_csv([f"{a} {b}" for a, b in zip(texts[::2], texts[1::2], strict=True)]),
    "a sentence more": each(lambda t: f"{t} Seen once more on the ward."),
    "a name before": each(lambda t: f"Note of the day: {t}"),
    "edited, as chat": lines("chat", chat(("user", "Dear doctor, %"), ("assistant", "Thanks."))),
    "half of them edited": lambda texts: as_csv([f"{t} Seen again." for t in texts[::2]] + sentences(92)[::2]),
}
OTHER: dict[str, Callable[[list[str]], Made]] = {
    "other sentences": lambda _: as_csv(sentences(93)),
    "the same words in another order": words(lambda w: sorted(w, key=lambda x: x[::-1])),
}


def outcome(world: World, made: Made, budget: str, **form: str) -> str:
    name, content, further = made
    fields = {k: v for k, v in (INLINE | further | form).items() if v}
    answer = world.upload(content, fields, name=name)
    assert answer.status_code == 201, answer.text
    file = answer.json()
    if file["question"] is not None:
        assert [one["budget"] for one in file["question"]["budgets"]] == [budget]
        assert world.get(f"/v1/files/{file['id']}", "analyst").status_code == 404
        return "question"
    return "same" if file["budget"] == budget else "new"


def test_the_same_rows_written_again_are_the_same_people_or_a_question(world: World) -> None:
    texts = sentences(90)
    answer = world.upload(as_csv(texts)[1], INLINE, name="rows.csv")
    budget = answer.json()["budget"]
    for expected, variants in (("same", SAME), ("question", ASKED), ("new", OTHER)):
        found = {name: outcome(world, change(texts), budget) for name, change in variants.items()}
        print(*(f"{answer:9} {name}" for name, answer in found.items()), sep="\n")
        assert found == dict.fromkeys(variants, expected)
    assert len(SAME) + len(ASKED) + len(OTHER) >= 40


IDS: dict[str, Callable[[int], str]] = {
    "a number": str,
    "a fraction of zero": lambda n: f"{n}.0",
    "a fraction with a comma": lambda n: f"{n},00",
    "zeros before": lambda n: f"{n:09}",
    "thousands": lambda n: f"{n:,}",
    "thousands, in Germany": lambda n: f"{n:,}".replace(",", "."),
    "thousands, in Switzerland": lambda n: f"{n:,}".replace(",", "\u2019"),
    "thousands, in France": lambda n: f"{n:,}".replace(",", "\u202f"),
    "an exponent": lambda n: f"{n / 1000}e3",
    "a currency": lambda n: f"\u20ac {n}",
    "a number sign": lambda n: f"#{n}",
    "a text for a spreadsheet": lambda n: f"'{n}",
    "blanks around": lambda n: f" {n} ",
    "full width": lambda n: wide(str(n)),
    "Arabic digits": lambda n: "".join(chr(0x660 + int(d)) for d in str(n)),
    "an invisible character": lambda n: f"{n}\u200b",
}
TYPED: dict[str, pa.DataType] = {
    "whole numbers": pa.int64(),
    "floats": pa.float64(),
    "decimals": pa.decimal128(12, 2),
    "texts": pa.string(),
}
BY_USER = INLINE | {
    "privacy_budget[unit]": "user",
    "privacy_budget[max_records_per_user]": "3",
    "columns[user]": "patient",
}
PATIENTS = range(470_011, 470_014)


def notes(seed: int) -> list[dict[str, object]]:
    return [{"text": text, "label": i % 2, "patient": PATIENTS[i % 3]} for i, text in enumerate(sentences(seed))]


def test_a_user_is_one_in_every_spelling_and_format(world: World) -> None:
    first = world.upload(table(notes(100)), BY_USER, name="rows.csv").json()
    seeds = iter(range(101, 200))
    for spelling, write in IDS.items():
        rows = [row | {"patient": write(int(str(row["patient"])))} for row in notes(next(seeds))]
        for name, content in (
            ("rows.csv", table(rows)),
            ("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode()),
        ):
            answer = world.upload(content, BY_USER, name=name)
            assert (answer.json()["budget"], answer.json()["budget_inherited"]) == (first["budget"], True), spelling
    for kind, type_ in TYPED.items():
        rows, target = notes(next(seeds)), io.BytesIO()
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        ids = pa.array([str(i) for i in columns["patient"]]).cast(type_)
        pq.write_table(pa.table(columns | {"patient": ids}), target)
        answer = world.upload(target.getvalue(), BY_USER, name="rows.parquet")
        assert answer.json().get("budget") == first["budget"], (kind, answer.text)
    floats = "".join(json.dumps(row | {"patient": float(str(row["patient"]))}) + "\n" for row in notes(next(seeds)))
    assert world.upload(floats.encode(), BY_USER, name="rows.jsonl").json()["budget"] == first["budget"]
    others = [row | {"patient": int(str(row["patient"])) + 100} for row in notes(next(seeds))]
    assert world.upload(table(others), BY_USER, name="rows.csv").json()["budget"] != first["budget"]


def test_the_bound_on_a_users_rows_holds_over_spellings(world: World) -> None:
    rows = [row | {"patient": f"{row['patient']}.0" if i % 2 else row["patient"]} for i, row in enumerate(notes(200))]
    made = world.upload(table(rows), BY_USER | {"declared_size": "count"}, name="rows.csv").json()
    assert made["declared_size"] == len(PATIENTS)
    assert len(world.get(f"/v1/files/{made['id']}/content", "steward").text.splitlines()) == 3 * len(PATIENTS)


@pytest.mark.parametrize("id", [2.0**53, 1e300, 0.5, True])
def test_numbers_that_may_stand_for_several_are_refused(world: World, id: object) -> None:
    target = io.BytesIO()
    pq.write_table(pa.table({"text": ["a b", "c d"], "label": [0, 1], "patient": [id, id]}), target)
    answer = world.upload(target.getvalue(), BY_USER, name="rows.parquet")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_file")
    exact = b'{"text": "one of them", "label": 0, "patient": %b}\n{"text": "x", "label": 1, "patient": %b}\n'
    kept = world.upload(
        exact % (b"9007199254740993.0", b"9007199254740992.0"), BY_USER | {"declared_size": "count"}, name="r.jsonl"
    )
    assert kept.json()["declared_size"] == 2  # as written, they are exact
    world.upload(exact % (b"1", b"2"), BY_USER, name="r.jsonl")
