"""What is public of a private file, and what came of it by the steward's decision."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from domain.files import upload_reports
from domain.ingest.report import Published
from dpcore.terms.tasks import get_kind


def published(connection: sa.Connection, file_id: str) -> Sequence[Published] | None:
    """What the steward let be published as it was found; None where nobody wrote it down."""
    report = upload_reports.of_file(connection, file_id)
    return None if report is None else report.published


def was(what: Published, of: Sequence[Published] | None) -> bool | None:
    """Whether this was published by decision; None where nobody wrote it down."""
    return None if of is None else what in of


def in_words(row: sa.Row[Any], of: Sequence[Published] | None, unit: str) -> str:
    """What is public of a file, and why. row: of `file`."""
    size = f"a declared size of {row.declared_size} {unit}s"
    how = {
        None: "whether the size was counted or named beforehand is not recorded",
        True: "the size is the count, published by the steward's decision and outside the guarantee",
        False: "the size was named beforehand",
    }[was("declared_size", of)]
    labels = ""
    if row.labels is not None:
        named = {
            None: "whether they were found in the file or named beforehand is not recorded",
            True: "they were found in the file, and published by the steward's decision, outside the guarantee",
            False: "they were named beforehand",
        }[was("labels", of)]
        labels = f" and {len(row.labels)} labels ({named})"
    seen = f"texts are cut at {row.max_length} tokens"
    if of_pictures(row):
        seen = f"pictures are kept with at most {row.max_length} pixels on the shorter side"
    return (
        f"Public are {size} ({how}){labels}, and {seen}. Rates, batches, steps and noise follow from these and were "
        "fixed before a row was read."
    )


def of_pictures(row: sa.Row[Any]) -> bool:
    """Whether a file's rows are pictures, whose length cap is a resolution. row: of `file`."""
    return get_kind(row.task).of_pictures
