"""How an attempt may end short of its goal, and what is said about it."""

from obstore.exceptions import BaseError
from sqlalchemy.exc import SQLAlchemyError

STORE_ERRORS: tuple[type[Exception], ...] = (BaseError, OSError, SQLAlchemyError)
"""What a blob store that is away, full or lacks a blob may raise; its keys are in the database."""


class Refused(Exception):
    """The job cannot be run, for a public reason that was found before any private row was touched."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class OutOfTime(Refused):
    """The job was in hand for longer than a job may be; whoever watches it can tell, so that it is said, whatever had
    begun."""

    def __init__(self) -> None:
        super().__init__("time_limit", "The job took longer than the operator allows a job to take.")


class DataPhaseFailed(Exception):
    """Something failed that the private rows may have caused; what it was stays out of sight."""


class Unavailable(Exception):
    """The database, the blob store or memory is away: the attempt ends, the job stays and is tried again."""
