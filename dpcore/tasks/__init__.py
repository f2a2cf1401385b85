"""What a record is, and one loss for each that depends on that record alone. One module a kind of task, found by its
name, which keeps the Protocol `Maker`; the others are what kinds share."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from dpcore.readers import Reader
from dpcore.tasks.causal_lm import CausalLM
from dpcore.tasks.image_classification import ImageClassification, Pictures
from dpcore.tasks.records import Records
from dpcore.tasks.sequence_classification import SequenceClassification
from dpcore.terms.errors import HalfMade
from dpcore.terms.method import keeping
from dpcore.terms.tasks import TaskKind, get_kind

TextTask = SequenceClassification | CausalLM
AnyTask = TextTask | ImageClassification
AnyRecords = Records | Pictures


class Maker(Protocol):
    """A kind's side in `dpcore/tasks/`."""

    def make(self, reader: Any, *, labels: Sequence[str], max_length: int) -> AnyTask:
        """The task. labels: none where the kind has none. reader: what `load_reader` loads for the kind.
        Raises ValueError where they do not fit."""


def make_task(kind: TaskKind, reader: Reader, *, labels: Sequence[str] = (), max_length: int) -> AnyTask:
    """The task of a kind. Raises ValueError, with a public reason, when labels or reader do not fit it, and
    HalfMade, naming the module, for a kind without a torch side."""
    if labels and not get_kind(kind).labelled:
        raise ValueError(f"records of kind {kind} have no labels")
    return _read(f"{__name__}.{kind}").make(reader, labels=labels, max_length=max_length)


@cache
def _read(module: str) -> Maker:
    if find_spec(module) is None:
        raise HalfMade(f"{module} is missing, the torch side of a kind of task")
    return keeping(import_module(module), Maker)  # type: ignore[type-abstract]
