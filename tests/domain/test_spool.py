"""What a check keeps on the disk in place of its memory says the same."""

import random
from pathlib import Path

from domain.ingest.check import CheckRequest, check
from domain.ingest.fingerprint import fingerprint, form_of, text_mark
from domain.ingest.spool import SpooledUsers
from domain.ingest.users import RowsByUser
from domain.storage.rows import BATCH, parse_rows
from tests.domain.marks import marks_in

KEY = bytes(32)


def test_the_first_of_equal_records_stays_wherever_the_others_are(tmp_path: Path) -> None:
    chosen = random.Random(7)
    texts = [f"text {chosen.randrange(BATCH)}" for _ in range(2 * BATCH + 100)]  # in several row groups
    source, target, marks = tmp_path / "source.csv", tmp_path / "rows", marks_in(tmp_path)
    source.write_text("text,label\n" + "".join(f"{text},{i % 2}\n" for i, text in enumerate(texts)))
    report = check(
        CheckRequest(
            source=source,
            target=target,
            format="csv",
            columns={"text": "text", "label": "label"},
            labels=["0", "1"],
            declared_size=None,
            key=KEY.hex(),
            marks=marks,
        )
    )
    first = {text: i for i, text in reversed(list(enumerate(texts)))}
    kept = sorted(first, key=lambda text: first[text])
    rows = parse_rows(target)
    assert report.units == len(kept) < len(texts)
    assert rows.columns["text"] == kept
    assert rows.labels == [first[text] % 2 for text in kept]
    assert marks.old_records.read_bytes() == b"".join(sorted(fingerprint([text], KEY) for text in kept))
    assert marks.records.read_bytes() == b"".join(sorted(text_mark([form_of(text)], KEY) for text in kept))
    assert {path.name for path in tmp_path.iterdir()} == {"source.csv", "rows", *(path.name for path in marks)}


def test_users_are_numbered_and_chosen_as_if_all_were_in_memory(tmp_path: Path) -> None:
    chosen = random.Random(7)
    spooled, held = SpooledUsers(tmp_path, 2), RowsByUser(2)
    for i in range(2000):
        text, user = f"{'tT'[i % 2]}ext {chosen.randrange(300)}\n\u2028", str(chosen.randrange(200))
        row = (text,), i % 3
        marks = fingerprint([user], KEY, "user"), fingerprint([text], KEY)
        spooled.add(*marks, row)
        held.add(*marks, row)
    assert list(spooled) == list(held)
    assert spooled.count == len(held) == 200
