"""What is wrong with a file: line numbers and reasons, never content."""

from dataclasses import dataclass, field

from pydantic import BaseModel

SHOWN = 100
"""Problems that are listed; the rest are only counted."""


class Problem(BaseModel):
    """One thing that is wrong; line None means the file as a whole."""

    line: int | None
    code: str
    message: str


@dataclass
class Problems:
    """The first problems of a file, and how many there are."""

    listed: list[Problem] = field(default_factory=list)
    count: int = 0

    def note(self, line: int | None, code: str, message: str) -> None:
        """Add a problem. The message is fixed text: nothing from the file belongs in it."""
        self.count += 1
        if len(self.listed) < SHOWN:
            self.listed.append(Problem(line=line, code=code, message=message))
