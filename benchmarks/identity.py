"""Are the same texts found again when they come edited, and are other people's left alone?

false_questions/{A-B}           share of A's records that resemble B's, of sets that have no person in common; a
                                question is asked from one in twenty on, or for one that is nearly the same
found/mr_polarity               records of MR polarity's training set that are, or resemble, some of SST-2's: both have
                                sentences of the same reviews; `exact`: of these the same by what they mean
recall/{edited,halved,joined}   share of 3,000 sentences of SST-2 that are found once a word is changed, the second half
                                cut off, or another sentence joined to them; of those that still have eight words

--data is a folder of datasets: sst2/train.tsv, mr_polarity/train.tsv (sentence), banking77/train.tsv (text),
medquad/train.jsonl (question, answer). Without it only recall is taken, of made-up notes.
"""

import csv
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":  # run as a file: no module of this folder may hide a package of its name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.common import Figure, parser, report
from cli.demo_data import notes as made_up
from domain.ingest.fingerprint import form_of, text_mark
from domain.ingest.sketch import BATCH, SIZE, Sketcher, Sketches, alike

NAME = "identity"
KEY = bytes(32)
EDITED = 3000


def column(file: Path, name: str) -> list[list[str]]:
    """Records of one text."""
    with file.open(encoding="utf-8") as source:
        return [[row[name]] for row in csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE)]


def read(folder: Path) -> dict[str, list[list[str]]]:
    """The texts of each record of each set."""
    with (folder / "medquad" / "train.jsonl").open(encoding="utf-8") as source:
        medquad = [[row["question"], row["answer"]] for row in map(json.loads, source)]
    return {
        "sst2": column(folder / "sst2" / "train.tsv", "sentence"),
        "mr_polarity": column(folder / "mr_polarity" / "train.tsv", "sentence"),
        "banking77": column(folder / "banking77" / "train.tsv", "text"),
        "medquad": medquad,
    }


def sketched(records: Sequence[Sequence[str]]) -> tuple[Sketches, list[int]]:
    """Sketches of all texts that have one, and the record of each."""
    sketcher = Sketcher(KEY)
    texts = [(w, i) for i, record in enumerate(records) for t in record if (w := sketcher.words(t)) is not None]
    pieces = [sketcher.sketches([w for w, _ in texts[i : i + BATCH]]) for i in range(0, len(texts), BATCH)]
    return np.concatenate([np.zeros((0, SIZE), np.uint8), *pieces]), [i for _, i in texts]


def resembling(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], least: int = 1) -> set[int]:
    """Records of ours that resemble one of theirs; with `least` 2 those that are nearly one."""
    (mine, records), (other, _) = sketched(ours), sketched(theirs)
    return {records[i] for i in np.flatnonzero(alike(mine, other, len(mine) * len(other)) >= least)}


def exactly(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> set[int]:
    """Records of ours with a text of theirs."""
    known = {text_mark([form_of(text)], KEY) for record in theirs for text in record}
    return {i for i, record in enumerate(ours) if any(text_mark([form_of(text)], KEY) in known for text in record)}


def recall(sentences: Sequence[Sequence[str]]) -> list[Figure]:
    """How many of so many sentences are found again, changed in one way each."""
    chance = random.Random(1)
    base = [record[0] for record in sentences if len(record[0].split()) >= 8][:EDITED]

    def edited(text: str) -> str:
        words = text.split()
        words[chance.randrange(len(words))] = "changed"
        return " ".join(words)

    changes: dict[str, Callable[[str], str]] = {
        "edited": edited,
        "halved": lambda text: " ".join(text.split()[: max(8, (len(text.split()) + 1) // 2)]),
        "joined": lambda text: f"{text} {chance.choice(base)}",
    }
    found = []
    for name, change in changes.items():
        changed = [[change(text)] for text in base]
        sketches = len(sketched(changed)[0])
        share = len(resembling(changed, [[text] for text in base])) / sketches
        found.append(Figure(NAME, f"recall/{name}", share, "share", None, {"of": sketches}))
    return found


def across(sets: dict[str, list[list[str]]]) -> list[Figure]:
    """What is found of one set in another."""
    figures = []
    for ours, theirs in (("banking77", "sst2"), ("medquad", "sst2"), ("medquad", "banking77"), ("sst2", "banking77")):
        found = resembling(sets[ours], sets[theirs]) | exactly(sets[ours], sets[theirs])
        share, nearly = len(found) / len(sets[ours]), resembling(sets[ours], sets[theirs], 2)
        detail = {"records": len(found), "nearly the same": len(nearly), "of": len(sets[ours])}
        figures.append(Figure(NAME, f"false_questions/{ours}-{theirs}", share, "share", None, detail))
    same = exactly(sets["mr_polarity"], sets["sst2"])
    found = same | resembling(sets["mr_polarity"], sets["sst2"])
    detail = {"exact": len(same), "of": len(sets["mr_polarity"])}
    return [*figures, Figure(NAME, "found/mr_polarity", len(found), "records", None, detail)]


def main() -> None:
    """Run it."""
    made = parser(__doc__)
    made.add_argument("--data", type=Path, help="the folder of the datasets")
    options = made.parse_args()
    if options.data is None:
        report(recall([[text] for text, _ in made_up(300 if options.quick else EDITED)]), options.json)
    else:
        sets = read(options.data)
        report([*across(sets), *recall(sets["sst2"])], options.json)


if __name__ == "__main__":
    main()
