"""How frequent each token is in public text, which decides what trains and what negatives are drawn: of the text that a
model's maker counted, or where nobody did, by the order in which its tokenizer numbers tokens.

Tokenizers number tokens by how early they were merged or how likely they are, so that the number says about how
frequent one is; the distribution over ranks is Zipf's as Mandelbrot shifted it. Nothing here looks at a private file.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

WORD_COUNTS = "word_counts.json"
"""In a model's folder: a list with a count for each row of its table."""
_SHIFT = 2.7


def write_word_counts(folder: Path, counts: Sequence[int]) -> None:
    """Beside a model."""
    (folder / WORD_COUNTS).write_text(json.dumps([int(count) for count in counts]), encoding="utf-8")


def probabilities(folder: Path, vocabulary: int) -> np.ndarray:
    """Of each token, above zero, adding up to one: float64 [vocabulary]. A token that the maker's text lacks counts as
    one half. Raises ValueError for counts that are not the vocabulary's."""
    file = folder / WORD_COUNTS
    if file.is_file():
        try:
            counts = np.asarray(json.loads(file.read_text(encoding="utf-8")), dtype=np.float64)
        except (ValueError, TypeError):
            counts = np.zeros(0)
        if counts.shape != (vocabulary,) or not (np.isfinite(counts).all() and (counts >= 0).all()):
            raise ValueError(f"{WORD_COUNTS} of the model has no count of 0 or more for each of its {vocabulary} rows")
        weights = np.maximum(counts, 0.5)
    else:
        weights = 1.0 / (np.arange(vocabulary) + 1 + _SHIFT)
    found: np.ndarray = weights / weights.sum()
    return found
