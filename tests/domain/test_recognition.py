"""Which texts are one, which ids are one person, what resembles what; and what is kept of that."""

import io
import random
from pathlib import Path

import numpy as np
import pytest

from domain.ingest.check import CheckRequest, check
from domain.ingest.fingerprint import SIZE, form_of, text_mark
from domain.ingest.normal import normal, words
from domain.ingest.person import canonical
from domain.ingest.problems import Problems
from domain.ingest.quotes import read_quotes
from domain.ingest.sketch import ALIKE, FEWEST_WORDS, MINIMA, Sketcher, alike
from domain.ingest.sketch import SIZE as SKETCH
from domain.ingest.spooled_texts import RECORD, SpooledTexts
from tests.domain.marks import marks_in

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("id", "other", "same"),
    [
        ("4711", "4711.", True),
        ("4711", "+4711", True),
        ("4711", "-4711", False),
        ("4711", "47110e-1", True),
        ("0.001", "1e-3", True),
        ("0.001", "1", False),
        ("1.5", "1,50", True),
        ("12-3", "123", False),
        ("1,234,567.00", "1.234.567", True),
        ("9007199254740993", "9007199254740992", False),
        ("9007199254740993.0", "9007199254740993", True),
        ("P-0012", "p\u20110012", True),
        ("P-0012", "P-12", False),
        ("{550E8400-E29B-41D4-A716-446655440000}", "550e8400e29b41d4a716446655440000", True),
        ("2021-03-04 00:00:00", "2021-03-04", True),
        ("2021-03-04", "2021-03-05", False),
        ("O\u2019Brien", "o'brien", True),
        ("$1", "\u20ac1", True),
        ("!", "?", False),
        ("1e400", "1e401", False),
    ],
)
def test_ids_are_compared_as_what_they_mean(id: str, other: str, same: bool) -> None:
    assert (canonical(id) == canonical(other)) is same
    assert canonical(canonical(id)) == canonical(id)


def test_a_text_of_which_nothing_is_left_is_known_by_its_bytes() -> None:
    assert normal("...") == normal("\u2014 !") == ""
    assert len({text_mark([form_of(text)], KEY) for text in ("...", "\u2014 !", "", "b")}) == 4
    assert words("\u6771\u4eac is big") == ["\u6771", "\u4eac", "is", "big"]


def of(folder: Path, records: list[list[str]]) -> tuple[set[bytes], set[int]]:
    """Marks, and the records that have a sketch."""
    spooled, marks = SpooledTexts(folder, KEY), marks_in(folder)
    for texts in records:
        spooled.add(texts)
    spooled.write(marks.records, marks.sketches)
    content, sketches = marks.records.read_bytes(), marks.sketches.read_bytes()
    width = SKETCH + RECORD
    return {content[i : i + SIZE] for i in range(0, len(content), SIZE)}, {
        int.from_bytes(sketches[i + SKETCH : i + width], "little") for i in range(0, len(sketches), width)
    }


def mark(*texts: str) -> bytes:
    return text_mark([form_of(text) for text in texts], KEY)


def test_templates_and_short_texts_identify_nobody(tmp_path: Path) -> None:
    template = "You are the ward's helper and answer in one short sentence."
    own = [f"the note of patient {i} about a knee and a shoulder" for i in range(100)]
    marks, sketched = of(tmp_path, [[template, text, "ok"] for text in own])
    assert marks == {mark(text) for text in own}
    assert sketched == set(range(100))
    # A record of templates and short texts alone is known by all of them.
    rest = [[template, "yes", str(i)] for i in range(5)]
    marks, sketched = of(tmp_path, [[template, text] for text in own] + rest)
    assert marks == {mark(text) for text in own} | {mark(*texts) for texts in rest}
    assert sketched == set(range(100))
    # In a small file nothing is common; a text that is a whole record always marks it.
    assert mark(template) in of(tmp_path, [[template, text] for text in own[:20]])[0]
    assert of(tmp_path, [["ok"]] * 500) == ({mark("ok")}, set())
    assert of(tmp_path, [[""], ["\u200b"]])[0] == {mark(""), mark("\u200b")}


def test_sketches_agree_as_their_texts_do() -> None:
    """The share of places that agree is J + (1 - J) / 16, within five standard deviations."""
    chance, sketcher = random.Random(3), Sketcher(KEY)
    for shared in (0, 20, 40):
        texts = [[f"w{chance.randrange(10**9)}" for _ in range(41)] for _ in range(400)]
        others = [t[: shared + 1] + [f"v{chance.randrange(10**9)}" for _ in range(40 - shared)] for t in texts]
        mine, theirs = (
            sketcher.sketches([w for t in some if (w := sketcher.words(" ".join(t))) is not None])
            for some in (texts, others)
        )
        agree = np.mean([((mine >> 4) == (theirs >> 4)).mean(), ((mine & 15) == (theirs & 15)).mean()])
        jaccard = shared / (80 - shared)
        expected = jaccard + (1 - jaccard) / 16
        assert abs(agree - expected) < 5 * (expected * (1 - expected) / (MINIMA * 400)) ** 0.5 + 1e-9
        found = (alike(mine, theirs, len(mine) * len(theirs)) > 0).mean()
        assert found > 0.99 if jaccard > ALIKE + 0.1 else found < (0.01 if jaccard == 0 else 0.5)
    assert sketcher.words(" ".join(["word"] * (FEWEST_WORDS - 1))) is None


def test_of_very_many_texts_the_alike_are_still_found() -> None:
    """Work is bounded by longer keys: pieces of what agrees much are found whatever the number."""
    chance, sketcher = random.Random(4), Sketcher(KEY)
    texts = [[f"w{chance.randrange(10**6)}" for _ in range(30)] for _ in range(200)]
    edited = [[*t[:12], "changed", *t[13:]] for t in texts]
    mine, theirs = (sketcher.sketches([sketcher.words(" ".join(t)) or [] for t in some]) for some in (edited, texts))
    for pairs in (10**4, 10**9, 10**12, 10**15):
        assert (alike(mine, theirs, pairs) > 0).mean() > 0.97


def test_a_sketch_tells_no_word_even_to_who_has_the_key() -> None:
    """Four bits of each minimum: of a thousand guesses at a pair of words dozens fit each place."""
    sketcher = Sketcher(KEY)
    sketch = sketcher.sketches([sketcher.words("the patient was seen again today and says her knee hurts") or []])
    assert sketch.nbytes * 8 <= 4 * MINIMA
    guesses = sketcher.sketches([sketcher.words(f"w{i} " * FEWEST_WORDS) or [] for i in range(1000)])
    fits = ((guesses >> 4) == (sketch >> 4)).sum(axis=0)
    assert fits.min() > 30


TSV = [
    (b'text\tlabel\n"a ""b"" c"\tx\nplain\ty\n', "marks", None),
    (b'"text"\t"label"\n"a"\t"x"\n"b"\t"y"\n', "marks", None),
    (b'text\tlabel\n"two\nlines"\tx\nb\ty\n', "marks", None),
    (b'text\tlabel\n"a\tb"\tx\nb\ty\n', "marks", None),
    (b'text\tlabel\n"so" it is\tx\n" alone\ty\n', "text", None),
    (b'text\tlabel\n"all of it"\tx\nplain\ty\n', "text", None),
    (b"text\tlabel\nplain\tx\n", "text", None),
    (b'text\tlabel\n"a, b"\tx\nplain\ty\n', "text", 2),
    (b'text\tlabel\nplain\tx\n"a ""b"""\tx\nsay "so"\ty\n', "text", 3),
]


@pytest.mark.parametrize(("content", "expected", "unclear"), TSV)
def test_quotes_of_tsv_are_read_as_they_were_meant(content: bytes, expected: str, unclear: int | None) -> None:
    problems = Problems()
    assert read_quotes(io.BytesIO(content), problems) == expected
    assert [(p.line, p.code) for p in problems.listed] == ([] if unclear is None else [(unclear, "unclear_quotes")])


@pytest.mark.parametrize(("said", "text"), [("text", '"a ""b"""'), ("marks", 'a "b"')])
def test_unclear_quotes_are_as_the_steward_says(tmp_path: Path, said: str, text: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(b'text\tlabel\n"a ""b"""\tx\nsay so\ty\n')
    asked = {"format": "tsv", "columns": {"text": "text", "label": "label"}, "declared_size": None, "key": KEY.hex()}
    request = CheckRequest(source=source, target=tmp_path / "rows", quotes=said, **asked)
    assert check(request).problems == []
    from domain.storage.rows import parse_rows

    assert parse_rows(tmp_path / "rows").columns["text"][0] == text
