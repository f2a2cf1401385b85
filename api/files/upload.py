"""Receiving a multipart form: the file's bytes go to disk as they arrive and are hashed on the way."""

import hashlib
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING

from anyio import to_thread
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from api.errors import HttpError
from api.middleware import too_large

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_FIELDS = 100
LONGEST_FIELD = 2**16
"""Bytes of one field beside the file."""
Unlock = Callable[[Mapping[str, str]], None]
"""Raises unless the first field of a form is the one that lets in what follows."""


class Form:
    """What a multipart body holds, as the parser's callbacks fill it in: fields, and one part named `file`.

    With `unlock` the first part is for it alone, and comes before a byte of the file is kept.
    """

    def __init__(self, target: IO[bytes], limit: int, unlock: Unlock | None = None) -> None:
        self.fields: list[tuple[str, str]] = []
        self.filename: str | None = None
        self.size = 0
        self.digest = hashlib.sha256()
        self.complete = False
        self._target = target
        self._limit = limit
        self._unlock = unlock
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._name = ""
        self._data: Callable[[bytes], None] = self._field_data

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._disposition = b""
        self._value.clear()

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = _text(options.get(b"name", b""))
        if b"filename" not in options:
            if self._name == "file":
                raise _bad_form("the part `file` has no filename: send it as a file")
            if len(self.fields) == MOST_FIELDS:
                raise _bad_form(f"the form has more than {MOST_FIELDS} fields")
            self._data = self._field_data
        elif self._name != "file" or self.filename is not None:
            raise _bad_form("the form has one file, in the part `file`")
        else:
            self.let_in({})
            self.filename = _text(options[b"filename"])
            self._data = self._file_data

    def _field_data(self, data: bytes) -> None:
        self._value.extend(data)
        if len(self._value) > LONGEST_FIELD:
            raise _bad_form(f"a field is longer than {LONGEST_FIELD} bytes")

    def _file_data(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise too_large(self._limit)
        self.digest.update(data)
        self._target.write(data)

    def _part_end(self) -> None:
        if self._data == self._field_data:
            value = _text(bytes(self._value))
            if not self.let_in({self._name: value}):
                self.fields.append((self._name, value))

    def _end(self) -> None:
        self.complete = True

    def let_in(self, first: Mapping[str, str]) -> bool:
        """Whether this was the form's first field, and meant for `unlock`. Raises what that raises."""
        unlock, self._unlock = self._unlock, None
        if unlock is not None:
            unlock(first)
        return unlock is not None


async def receive(request: Request, target: IO[bytes], limit: int, unlock: Unlock | None = None) -> Form:
    """Read the whole body. Raises HttpError for a form that is malformed, cut off or too large, and what `unlock`
    raises."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise HttpError(415, "unsupported_media_type", "send a multipart/form-data body")
    form = Form(target, limit, unlock)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        async for chunk in request.stream():
            await to_thread.run_sync(parser.write, chunk)
        parser.finalize()
    except FormParserError:
        raise _bad_form("the body is not well-formed multipart/form-data") from None
    except ClientDisconnect:
        raise _bad_form("the upload was cut off") from None
    if not form.complete:
        raise _bad_form("the body ends in the middle of the form")
    form.let_in({})
    target.flush()
    return form


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad_form("the form's fields are not UTF-8") from None


def _bad_form(message: str) -> HttpError:
    return HttpError(400, "invalid_form", message)


def wrong_field(name: str, message: str) -> RequestValidationError:
    """A field's problem, worded like those that the schema finds."""
    return wrong_fields({name: message})


def wrong_fields(problems: Mapping[str, str]) -> RequestValidationError:
    """The problems of several fields in one answer."""
    return RequestValidationError(
        [
            {"type": "value_error", "loc": ("body", *name.split(".")), "msg": message, "ctx": {"error": message}}
            for name, message in problems.items()
        ]
    )
