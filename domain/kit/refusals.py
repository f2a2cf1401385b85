"""What the service refuses, in words for the caller: what is wrong, which field, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any


class Refusal(Exception):
    """A request that cannot be granted. `code` is stable; `message` never holds content of a private file."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        param: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.errors = errors
        self.extra = extra
        """Further public members, such as what is left of a budget."""


class Invalid(Refusal):
    """The request itself is wrong."""


class NotFound(Refusal):
    """No such thing, or not the caller's: the two are not told apart."""

    def __init__(self, kind: str, param: str | None = None) -> None:
        super().__init__(f"no such {kind}", code="not_found", param=param)


class Conflict(Refusal):
    """The thing is in a state in which this cannot be done."""


class Forbidden(Refusal):
    """Not for this key, though it may see the thing."""


class TooMany(Refusal):
    """As many as there may be are there already."""


class OverBudget(Refusal):
    """The budget has no room for what was asked."""
