"""The texts of a record: what each says by itself, whatever the task."""

import json
from collections.abc import Sequence

COMMON_RECORDS = 20
COMMON_SHARE = 100
"""A text in more than so many records, and in more than one in so many of a file, is a template: it identifies
nobody."""
SHORT_CHARACTERS = 6
"""Up to so many of a form of `fingerprint.form_of`, as `yes` or `thanks`, a text beside others identifies nobody."""


def texts_of(task: str, columns: Sequence[str]) -> list[str]:
    """The texts in a row's columns: the columns themselves, or the contents of its messages."""
    if task == "chat":
        return [message["content"] for message in json.loads(columns[0])]
    return list(columns)


def is_short(form: str) -> bool:
    """Whether a text of this form, beside others, says too little to tell who wrote it."""
    return len(form) <= SHORT_CHARACTERS


def is_common(records: int, of: int) -> bool:
    """Whether a text that so many records of a file have is a template."""
    return records > COMMON_RECORDS and records * COMMON_SHARE > of
