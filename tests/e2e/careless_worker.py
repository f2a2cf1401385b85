"""`python -m worker` that breaks in the data phase the way that the file named by BREAK says, quoting rows as it does.

Its folder is the one named by PLACE. The pool's processes are forked with this module in them.
"""

import os
from pathlib import Path
from typing import Any

from dpcore.tasks.sequence_classification import SequenceClassification
from worker import training
from worker.__main__ import main  # noqa: F401  (what is run)

_encode, _train = SequenceClassification.encode, training.run
_rows: dict[str, Any] = {}


def _how() -> str:
    return Path(os.environ["BREAK"]).read_text()


def encode(self: SequenceClassification, columns: Any, labels: Any) -> Any:
    _rows.update(columns)
    if _how() == "encode":
        raise ValueError(f"cannot read {columns}")
    return _encode(self, columns, labels)


def train(**arguments: Any) -> Any:
    if _how() in ("step", "abort"):
        arguments["authorise"](0, 1)
        if _how() == "abort":
            os.abort()
        try:
            raise KeyError(str(_rows))
        except KeyError as error:
            raise RuntimeError(f"a step failed on {_rows}") from error
    return _train(**arguments)


SequenceClassification.encode = encode  # type: ignore[method-assign]
training.run = train

os.chdir(os.environ["PLACE"])
