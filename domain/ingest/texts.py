"""The texts of a record: what each says by itself, whatever the task. A picture is one, by the name of its pixels."""

import json
from collections.abc import Sequence

from domain.ingest.fingerprint import PICTURE
from dpcore.terms.tasks import TaskKind, get_kind

COMMON_RECORDS = 20
COMMON_SHARE = 100
"""A text in more than so many records, and in more than one in so many of a file, is a template: it identifies
nobody."""
SHORT_CHARACTERS = 6
"""Up to so many of a form of `fingerprint.form_of`, as `yes` or `thanks`, a text beside others identifies nobody."""


def texts_of(task: TaskKind, columns: Sequence[str]) -> list[str]:
    """The texts in a row's columns: the columns themselves, and the contents of a conversation's messages; of a picture
    that is kept and what it is known by, the latter."""
    if get_kind(task).of_pictures:
        _, pixels = columns
        return [PICTURE + pixels]
    return [
        text
        for column, value in zip(get_kind(task).columns, columns, strict=True)
        for text in ([message["content"] for message in json.loads(value)] if column.conversation else [value])
    ]


def is_short(form: str) -> bool:
    """Whether a text of this form, beside others, says too little to tell who wrote it."""
    return len(form) <= SHORT_CHARACTERS


def is_common(records: int, of: int) -> bool:
    """Whether a text that so many records of a file have is a template."""
    return records > COMMON_RECORDS and records * COMMON_SHARE > of
