"""Errors about public files and models, in words for everybody: bounded, and without the places where files are."""

import re
from pathlib import Path

_LONGEST = 500
_FOLDERS = re.compile(r"(?<![\w:/.])(?:/[^\s/'\",:;()]+)+/")


def shown(words: str) -> str:
    """One line, cut to what may be shown, of each absolute path the last name alone."""
    line = _FOLDERS.sub("", " ".join(words.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def reason(error: BaseException, folder: Path) -> str:
    """What an error about a folder says first, or its type, as `shown`."""
    lines = (line.strip() for line in str(error).replace(str(folder), "the folder").splitlines())
    return shown(next((line for line in lines if line), type(error).__name__))
