"""An exported adapter on its base model, and what it says about rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cli.embedded.errors import StackError
from dpcore.export import About
from dpcore.methods import load_export
from dpcore.readers import load_reader
from dpcore.tasks import make_task
from dpcore.terms.tasks import get_kind


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode with what is needed to ask it."""

    model: Any
    reader: Any
    task: Any
    about: About


def load(folder: Path, base_folder: Path) -> Loaded:
    """Raises StackError when the two do not fit."""
    try:
        model, about = load_export(folder, base_folder)
        reader = load_reader(about.task, folder)
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StackError(f"The adapter does not load on the model in {base_folder}: {first}") from None
    task = make_task(about.task, reader, labels=about.labels, max_length=about.max_length)
    return Loaded(model, reader, task, about)


def probabilities(loaded: Loaded, rows: Sequence[Mapping[str, str]]) -> list[list[float]]:
    """The probability of each label, in the order of the labels, for each row."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    shares: list[list[float]] = loaded.task.logits(loaded.model, columns).softmax(1).tolist()
    return shares


@torch.no_grad()
def completion(loaded: Loaded, row: Mapping[str, str], max_new_tokens: int) -> str:
    """What the model writes after a prompt, a chat or a beginning: its likeliest word each time."""
    ids = _beginning(loaded, row)
    config = loaded.model.config
    room = max(1, int(getattr(config, "max_position_embeddings", None) or 2**31) - len(ids))
    padding = loaded.model.generation_config.pad_token_id
    written = loaded.model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=min(max_new_tokens, room),
        do_sample=False,
        pad_token_id=0 if padding is None else padding,
    )
    text: str = loaded.reader.decode(written[0, len(ids) :], skip_special_tokens=True)
    return text.strip()


def _beginning(loaded: Loaded, row: Mapping[str, str]) -> list[int]:
    """The tokens that stand before what is to be written, as they stood in training. Raises StackError for none."""
    unwritten = dict.fromkeys(get_kind(loaded.about.task).written, "")
    try:
        ids: list[int] = loaded.task.beginning({**row, **unwritten})
    except ValueError as error:
        raise StackError(str(error)) from None
    if not ids:
        raise StackError("A row is empty: there is nothing to go on from.")
    return ids
