"""Options that every client command has, and how its errors end."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from cli.client import ApiError
from cli.embedded.errors import StackError
from domain.kit.share_words import share_of

if TYPE_CHECKING:
    from domain.kit.settings import FileSettings

Url = Annotated[
    str | None,
    typer.Option(envvar="TACIT_URL", help="The service. Default: the one on ./tacit-data, or http://127.0.0.1:8000."),
]
Key = Annotated[
    str | None,
    typer.Option(envvar="TACIT_API_KEY", help="The API key. Default: the one in ./tacit-data."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]
Most = Annotated[int, typer.Option(min=1, help="At most so many, newest first.")]

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def read_share(text: str) -> float:
    """0.25 or 25%, as an option says it."""
    try:
        return share_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


ShareOption = Annotated[
    float | None,
    typer.Option(
        parser=read_share, metavar="SHARE", help="What part of the budget it may take: 0.25 or 25%. Shares add up."
    ),
]
MeasureOption = Annotated[
    float | None,
    typer.Option(
        parser=read_share,
        metavar="SHARE",
        help="How much of its share it spends on saying how good it is, on what the budget holds out: 0.02 or 2%.",
    ),
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="FileSettings")


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """Errors as message, field and fix on standard error, and exit code 1."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ApiError, StackError) as error:
            fail(str(error))
        except OSError as error:
            if error.filename is None:
                raise
            fail(f"{error.filename}: {error.strerror}\n  fix: name another file, or make this one usable")

    return wrapped


def sharing(make: Callable[..., R]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of `make` before its own; what `make` returns is the command's first argument."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        shared = list(inspect.signature(make).parameters.values())
        own = list(inspect.signature(command).parameters.values())[1:]

        @functools.wraps(command)
        def wrapped(**given: Any) -> None:
            command(make(**{option.name: given.pop(option.name) for option in shared}), **given)

        options = sorted([*shared, *own], key=lambda option: option.default is not option.empty)
        wrapped.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {option.name: option.annotation for option in options}
        return wrapped

    return decorated


def settings(kind: type[S]) -> S:
    """Settings from the environment. Raises StackError naming the variable that is missing or wrong."""
    from domain.kit.settings import BadSettings, from_environment

    try:
        return from_environment(kind)
    except BadSettings as error:
        raise StackError(str(error)) from None


def sure(question: str, yes: bool) -> None:
    """Ask before what cannot be undone; without somebody to ask it takes --yes."""
    if yes:
        return
    if not _somebody():
        fail(f"{question} Nobody is there to be asked: say so with --yes")
    if not typer.confirm(question):
        raise typer.Exit(1)


def _somebody() -> bool:
    """Whether somebody sits there."""
    return sys.stdin.isatty()


def note(message: str) -> None:
    """Something to know beside the result, on standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, markup=False)


def fail(message: str) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]Error:[/bold red] {escape(message)}")
    raise typer.Exit(1)


def group(about: str) -> typer.Typer:
    """A group of commands, such as `tacit jobs`."""
    return typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=about)
