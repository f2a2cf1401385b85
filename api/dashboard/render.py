"""Pages from templates: escaped by default, with an ETag so that polling an unchanged page costs little."""

import hashlib
import math
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from api.dashboard import shares
from api.dashboard.session import PATH
from api.jobs.privacy import JobPrivacy
from domain.jobs.planning import rounded_up
from domain.kit import share_words as words

_STATIC = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES: dict[str, tuple[bytes, str]] = {}
"""The package's own files by `<hash>/<name>`: a changed file has another address, so each may be kept for ever."""
_ADDRESS: dict[str, str] = {}
for _path in sorted(_STATIC.iterdir()):
    if _path.suffix in _TYPES:
        _place = f"{hashlib.sha256(_path.read_bytes()).hexdigest()[:16]}/{_path.name}"
        FILES[_place] = (_path.read_bytes(), _TYPES[_path.suffix])
        _ADDRESS[_path.name] = f"{PATH}/static/{_place}"


_MECHANISMS = {
    "poisson_gaussian": "Gaussian on Poisson draws",
    "gaussian": "Gaussian on the whole file",
    "whole": "one indivisible whole",
}


def spent(epsilon: float) -> str:
    """An epsilon that is used or asked for: never less than it is."""
    return f"{rounded_up(epsilon):,.3f}".rstrip("0").rstrip(".")


def left(epsilon: float) -> str:
    """An epsilon that is still there: never more than it is."""
    return f"{math.floor(epsilon * 1000) / 1000:,.3f}".rstrip("0").rstrip(".")


def taken(share: float) -> str:
    """A share that is used or asked for, in percent: never less than it is."""
    return words.percent(words.up(share))


def open_share(share: float) -> str:
    """A share that is still there, in percent: never more than it is."""
    return words.percent(words.down(share))


def used_beside(left: float) -> str:
    """What is used where so much is left, in percent: never less than it is."""
    return words.percent(words.WHOLE - words.down(left))


def phase_shares(privacy: JobPrivacy) -> list[str]:
    """What each phase takes: together what the job does."""
    amounts = [phase.share for phase in privacy.phases]
    if privacy.share is None or any(amount is None for amount in amounts):
        return ["unknown" if amount is None else taken(amount) for amount in amounts]
    shown = shares.apart(words.up(privacy.share), [Fraction(str(amount)) for amount in amounts])
    return [words.percent(part) for part in shown]


def mechanism(kind: str) -> str:
    """What a phase's mechanism is called."""
    return _MECHANISMS.get(kind, kind)


def change(epsilon: float) -> str:
    """By how much a total moved, to the nearest thousandth."""
    return f"{epsilon:+.3f}".rstrip("0").rstrip(".").replace("-", "−") if abs(epsilon) >= 0.0005 else "0"


def short(id: str) -> str:
    """Enough of an id to tell it from its neighbours."""
    return id if len(id) < 20 else f"{id[:14]}…"


def minute(timestamp: int) -> str:
    """22 Nov 2026, 13:30 UTC."""
    at = datetime.fromtimestamp(timestamp, UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def iso(timestamp: int) -> str:
    """For machines, to the minute as well."""
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%MZ}"


def size(count: int) -> str:
    """Bytes in words."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.3g} {unit}"


def lasting(seconds: float | None) -> str:
    """A time that something takes, in words."""
    if seconds is None:
        return "not measured"
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{round(seconds / 60):,} min"


def sentence(text: str) -> str:
    """A message, or an API's description, as a sentence: a capital, a full stop, and words without their quotes."""
    return f"{text[0].upper()}{text[1:].removesuffix('.')}.".replace("`", "") if text else ""


_environment = Environment(
    loader=PackageLoader("api.dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "spent": spent,
    "left": left,
    "taken": taken,
    "open_share": open_share,
    "percent": words.percent,
    "plan": shares.plan_of,
    "used_beside": used_beside,
    "phase_shares": phase_shares,
    "in_words": words.in_words,
    "like_it": words.like_it,
    "mechanism": mechanism,
    "change": change,
    "short": short,
    "minute": minute,
    "iso": iso,
    "size": size,
    "lasting": lasting,
    "sentence": sentence,
}
_environment.globals |= {"root": PATH, "static": _ADDRESS}


def page(
    request: Request, template: str, *, status: int = 200, live: int = 0, typing: bool = False, **values: Any
) -> Response:
    """A page, or 304 for one that has not changed. `live`: seconds after which it is worth looking again, 0: never.
    `typing`: it has fields to be filled in, which loading it anew would empty."""
    visit = getattr(request.state, "visitor", None)
    text = _environment.get_template(template).render(
        visit=visit, live=live, typing=typing, here=request.scope["path"], status=status, **values
    )
    etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
    if status == 200 and request.method == "GET" and request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag})
    return HTMLResponse(text, status, headers={"etag": etag})


def for_script(request: Request) -> bool:
    """Whether a page's own script asks, which reads JSON."""
    return request.headers.get("accept", "").partition(",")[0].strip() == "application/json"


def origin(request: Request) -> str:
    """The service's address as this browser reaches it."""
    return f"{request.url.scheme}://{request.url.netloc}"
