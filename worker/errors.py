"""How an attempt may end short of its goal, and what is said about it."""

from obstore.exceptions import BaseError

STORE_ERRORS: tuple[type[Exception], ...] = (BaseError, OSError)
"""What a blob store that is away, full or lacks a blob may raise."""


class Refused(Exception):
    """The job cannot be run, for a public reason that was found before any private row was touched."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class DataPhaseFailed(Exception):
    """Something failed that the private rows may have caused; what it was stays out of sight."""


class Unavailable(Exception):
    """The database or the blob store is away: the attempt ends, the job stays and is tried again."""
