"""What a check found that is no problem: told to the steward alone, for it counts private rows."""

from typing import Literal

from pydantic import BaseModel, Field

Published = Literal["labels", "declared_size"]
"""What a steward may let be published as it is found in a file."""
LONGEST_NAME = 200
"""Characters of a column's name that are shown."""
Code = Literal[
    "person_column", "odd_class", "single_record", "empty_class", "conflicting_labels", "many_repeated", "unused_text"
]


def shown(name: str) -> str:
    """A column's name so that every terminal, database and page can hold it."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name[:LONGEST_NAME])


class ClassCount(BaseModel):
    """Records of one label."""

    read: int
    kept: int


class Conflicts(BaseModel):
    """Texts that came with two or more labels, compared as repeated records are."""

    texts: int = Field(description="distinct texts")
    records: int = Field(description="records that have one of these texts")


class Lengths(BaseModel):
    """Words of a record, all its texts together: what white space divides. Each number is the length of a record."""

    min: int
    median: int
    p90: int
    p99: int
    max: int


class PictureSides(BaseModel):
    """Pixels of the shorter side of a picture, as it was sent. Each number is that of a picture."""

    smallest: int
    median: int
    largest: int
    resolution: int = Field(
        description="pixels of the shorter side that are kept at most, and twice that of the longer"
    )
    scaled_down: int = Field(description="pictures that are kept smaller than they were sent")
    decoder: str = Field(description="what decoded them, with its versions")


class Question(BaseModel):
    """Something that may be meant so, or may not."""

    code: Code
    message: str
    column: str | None = None
    label: str | None = None
    detail: dict[str, int] = Field(default={}, description="the numbers of the message")


class UploadReport(BaseModel):
    """What became of the records of a file, and what to look at again. It holds no text of a row."""

    read: int = Field(description="records in the file")
    kept: int = Field(description="records that jobs learn from, or that a public set has")
    repeated: int = Field(
        description="records that are the same as an earlier one (of the same user, where the user is the unit), "
        "whatever their labels: left out of a private file, kept in a public one"
    )
    conflicts: Conflicts
    dropped_by_user_bound: int = Field(description="further records of users who have more than max_records_per_user")
    max_length: int | None = Field(description="null for pictures")
    longer_than_max_length: int = Field(
        description="records with more words and punctuation marks than max_length. A tokenizer that never joins two "
        "of them (word pieces, as BERT's) cuts at least so many records, usually more: most long words are several "
        "tokens. Byte-pair tokenizers may join marks"
    )
    classes: dict[str, ClassCount] = Field(description="by label; empty for a task without labels")
    length: Lengths | None = Field(description="null for pictures")
    pictures: PictureSides | None = Field(default=None, description="null for texts")
    unused_columns: list[str] = Field(description="names of columns that were not used and are not kept; at most 100")
    questions: list[Question]
    published: list[Published] | None = Field(
        default=None,
        description="what became public as it was found, by the steward's decision (`labels=publish`, "
        "`declared_size=count`); null: an earlier version did not write it down",
    )
