"""Sending a blob: whole or one range of it, with its sha256, so that a broken download can be taken up again."""

import re
from collections.abc import Mapping
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.errors import HttpError
from domain.storage.sealing import Sealed

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def send_blob(request: Request, blob: Sealed, *, sha256: str, filename: str, media_type: str) -> Response:
    """200, 206 for `Range`, no body for HEAD, 304 for a matching `If-None-Match`, 416 for a range outside the blob."""
    etag = f'"{sha256}"'
    headers = {
        "etag": etag,
        "x-content-sha256": sha256,
        "accept-ranges": "bytes",
        "content-disposition": attachment(filename),
    }
    if etag in _etags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers={"etag": etag})
    start, end = _wanted(request.headers, blob.size, etag)
    status = 200
    if (start, end) != (0, blob.size):
        status = 206
        headers["content-range"] = f"bytes {start}-{end - 1}/{blob.size}"
    headers["content-length"] = str(end - start)
    if request.method == "HEAD":
        return Response(None, status, headers, media_type)
    return StreamingResponse(blob.read(start, end), status, headers, media_type)


def attachment(filename: str) -> str:
    """A Content-Disposition that saves under this name (RFC 6266)."""
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}"


def _wanted(headers: Mapping[str, str], size: int, etag: str) -> tuple[int, int]:
    """Start and end (exclusive) of what is asked for; the whole blob where the range is not one that must be kept."""
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or found[1] == found[2] == "" or headers.get("if-range", etag) != etag:
        return 0, size
    if found[1] == "":
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), size if found[2] == "" else min(size, int(found[2]) + 1)
    if start >= size or (found[1] and found[2] and int(found[2]) < start):
        raise HttpError(
            416,
            "range_not_satisfiable",
            f"the range lies outside the {size} bytes that there are",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, end


def _etags(header: str) -> list[str]:
    return [tag.strip().removeprefix("W/") for tag in header.split(",")]
