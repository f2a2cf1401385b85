"""An option for each column of texts that some kind of task has: `--text`, `--prompt` and so on."""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from dpcore.terms.tasks import COLUMNS

Named = dict[str, str | None]
"""The file's own names for columns; None where one was not named."""


def named(columns: Iterable[str] = tuple(COLUMNS)) -> Callable[..., Named]:
    """For `options.sharing`: takes an option for each of these columns, and returns what was given."""

    def make(**given: str | None) -> Named:
        return given

    make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=None,
                annotation=Annotated[str | None, typer.Option(help=COLUMNS[name].help)],
            )
            for name in columns
        ]
    )
    return make
