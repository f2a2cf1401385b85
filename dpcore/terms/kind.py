"""What can be said of a kind of task without training: what a record holds, and what a model learns from it."""

from keyword import iskeyword
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from dpcore.terms.strict import StrictModel

LABEL, USER, LOT, PIXELS = "label", "user", "lot", "pixels"
"""Columns beside a record's texts: its label, where the kind has labels; whose it is, where users are told; and what a
picture is known by."""


def _free(name: str) -> str:
    if name in (LABEL, USER, LOT, PIXELS) or iskeyword(name):
        raise ValueError(f"a text column cannot be called {name!r}")
    return name


ColumnName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_free)]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Column(StrictModel):
    """A column of a record's texts. Kinds that have one of a name have the same."""

    name: ColumnName
    help: Words
    """Of the option with which a command is told the file's own name for it."""
    conversation: bool = False
    """Whether it holds {"role", "content"} messages, kept as their canonical JSON text."""
    picture: bool = False
    """Whether it holds a picture, kept as the base64 of a PNG with its RGB pixels and nothing else. What is neither is
    a text."""


TEXT = Column(name="text", help="The column with the text, if not `text`.")


class Kind(StrictModel):
    """A kind of task. Its records have one of a public set of labels each, or teach a language model to write."""

    about: Words
    """In a sentence, for people."""
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    """Of a record's texts, in the order in which the model reads them."""
    tells: tuple[str, ...] = ()
    """Columns that tell this kind when an upload names them and no task."""
    written: tuple[str, ...] = ()
    """Columns that the model writes: whoever asks it has the others alone."""
    causal_lm: bool
    """Whether it asks for a causal language model, and learns to write; any model gets a classifier's head."""
    chat_template: bool = False
    """Whether it asks for a tokenizer that brings one."""
    measured_as: str
    """The kind whose time, memory and trials stand for it: itself, or one that computes the same."""
    example: str
    """Lines of Python that ask a model of this kind something, for the card; `{max_length}` stands for the length
    cap. A classifier is called `classify`; a language model goes on from `asked`, as a tokenizer returns it."""

    @property
    def labelled(self) -> bool:
        """Whether its records have labels."""
        return not self.causal_lm

    @property
    def of_pictures(self) -> bool:
        """Whether its records are pictures: what it asks of a model, and its length cap, are those of pictures."""
        return self.columns[0].picture

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the columns of texts, in their order."""
        return tuple(column.name for column in self.columns)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of all columns that a file of this kind has."""
        return (*self.texts, LABEL) if self.labelled else self.texts

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the columns that somebody who asks the model has."""
        return tuple(name for name in self.texts if name not in self.written)

    @model_validator(mode="after")
    def _whole_kind(self) -> "Kind":
        if len(set(self.texts)) < len(self.texts):
            raise ValueError("a column occurs twice")
        for place in ("tells", "written"):
            if unknown := set(getattr(self, place)) - set(self.texts):
                raise ValueError(f"{place} names {', '.join(sorted(unknown))}, which is none of its columns")
        if self.labelled and (self.chat_template or self.written):
            raise ValueError("chat_template and written are for kinds of a causal_lm")
        if any(column.picture for column in self.columns) and (len(self.columns) > 1 or not self.labelled):
            raise ValueError("a picture stands alone, and has a label")
        return self
