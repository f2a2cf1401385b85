"""Lines of a text file that nobody vouches for."""

import codecs
from collections.abc import Iterator
from typing import IO

from domain.ingest.problems import Problems

LONGEST = 2**20
"""Bytes of a line."""
_BOM = b"\xef\xbb\xbf"


def lines(source: IO[bytes], problems: Problems) -> Iterator[str]:
    """Each line with its ending; a bad one is noted and becomes an empty line, so that numbers stay right.

    UTF-8, with or without a byte order mark. A line ends with LF or CR LF; the last may lack its ending.
    """
    number = 0
    while raw := source.readline(LONGEST + 1):
        number += 1
        if number == 1:
            if _is_utf16(raw):
                problems.note(None, "utf16", "the file is UTF-16 or UTF-32: save it as UTF-8")
                return
            raw = raw.removeprefix(_BOM)
        if len(raw) > LONGEST:
            problems.note(number, "line_too_long", f"the line is longer than {LONGEST} bytes")
            while raw and not raw.endswith(b"\n"):
                raw = source.readline(LONGEST)
            yield "\n"
            continue
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            problems.note(number, "not_utf8", "the line is not UTF-8: save the file as UTF-8")
            yield "\n"
            continue
        if "\0" in line:
            problems.note(number, "nul", "the line holds a NUL character")
            yield "\n"
            continue
        yield line


def _is_utf16(line: bytes) -> bool:
    """Whether a file that begins so has two or four bytes for each character, by its mark or by the NULs of ASCII."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        return True
    return len(line) >= 4 and 3 * max(line[0::2].count(0), line[1::2].count(0)) >= len(line)
