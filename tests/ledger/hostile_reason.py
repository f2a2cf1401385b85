"""A reason why something that the database accepts of a hostile login is harmless, and what it covers."""

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Reason:
    """Patterns as of a shell; `why` is what the code does about it."""

    login: str
    table: str
    column: str
    kind: str
    why: str

    def covers(self, login: str, table: str, column: str, kind: str) -> bool:
        told = ((self.login, login), (self.table, table), (self.column, column), (self.kind, kind))
        return all(any(fnmatchcase(actual, p) for p in pattern.split("|")) for pattern, actual in told)

    def __str__(self) -> str:
        return f"{self.table}.{self.column}: {self.kind}: {self.why}"


API, WORKER, BOTH = "tacit_api", "tacit_worker", "*"
NAMES = "empty|long|control characters|a number|nobody's id|another's *|own *"
TO_ANOTHER = "own *|another's *"
