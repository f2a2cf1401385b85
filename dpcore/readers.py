"""What turns a record of a kind of task into what a model takes: a tokenizer, or what makes pictures."""

from pathlib import Path
from typing import TypeAlias

from transformers import PreTrainedTokenizerBase

from dpcore.pictures import PictureReader, load_picture_reader
from dpcore.terms.tasks import TaskKind, get_kind
from dpcore.tokenizers import load_tokenizer

Reader: TypeAlias = PreTrainedTokenizerBase | PictureReader


def load_reader(kind: TaskKind, folder: str | Path) -> Reader:
    """Of the model in a folder. Raises OSError and ValueError as `load_tokenizer` and `load_picture_reader` do."""
    return load_picture_reader(folder) if get_kind(kind).of_pictures else load_tokenizer(folder)
