"""A thin HTTP client: where the service is, who asks, and errors that say what to do."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
LOCAL_DATA = Path("tacit-data")
TIMEOUT = httpx.Timeout(60, connect=10, read=600)  # seconds; the server checks an upload before it answers
PAGE = 100
_V1 = re.compile(r"(/+v1)*/*$")
_PROXIES = "ALL_PROXY, HTTPS_PROXY, HTTP_PROXY"
_KEY = re.compile(r"[\x21-\x7e]+")
STANDARD = {"type", "title", "status", "detail", "instance", "request_id", "error", "fix", "errors"}  # of an error body


@dataclasses.dataclass
class ApiError(Exception):
    """What the service, or the way to it, answered instead of a result."""

    message: str
    status: int | None = None
    param: str | None = None
    code: str | None = None
    fix: str | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        lines = [self.message]
        named = {"field": self.param, "code": self.code, **self.extra, "fix": self.fix}
        lines += [f"  {name}: {value}" for name, value in named.items() if value is not None]
        return "\n".join(lines)


def connect(url: str | None, key: str | None) -> "Client":
    """The service at `url`, or the one that `tacit up` runs on ./tacit-data.

    The admin key kept there is used for an address of this machine only, never sent elsewhere.
    """
    address = LOCAL_DATA / "run" / "address"
    if url is None:
        url = address.read_text() if address.exists() else DEFAULT_URL
    url = _base(url)
    own_key = LOCAL_DATA / "secrets" / "admin-key"
    if key is None and _is_loopback(url) and own_key.exists():
        key = own_key.read_text()
    key = (key or "").strip()  # a secret that is mounted as a file ends its line
    if not key:
        raise ApiError("No API key.", fix=f"--key, or TACIT_API_KEY, or run this beside the folder {LOCAL_DATA}")
    if not _KEY.fullmatch(key):
        raise ApiError("The API key holds a character that no key has.", fix="copy it whole, without quotes around it")
    return Client(url, key)


class Client:
    """Calls that return decoded JSON and raise ApiError."""

    replayed = False
    """Whether the last answer was about what was done before, by the same request."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self._key = url, key
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {key}"},
                timeout=TIMEOUT,
                trust_env=not _is_loopback(self.url),  # a proxy does not know this machine's addresses
            )
        except ImportError:
            raise ApiError(
                f"The environment names a SOCKS proxy ({_PROXIES}), and the package for it is not installed.",
                fix="pip install 'httpx[socks]', or name the service's host in NO_PROXY",
            ) from None
        except (ValueError, httpx.InvalidURL):
            raise ApiError(
                f"The environment names a proxy that is no address ({_PROXIES}).",
                fix="http://HOST:PORT, or name the service's host in NO_PROXY",
            ) from None

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        return self.call("GET", path, params={k: v for k, v in parameters.items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.call("POST", path, json=dict(body or {}))

    def delete(self, path: str) -> dict[str, Any]:
        return self.call("DELETE", path)

    def upload(self, path: str, file: Path, form: Mapping[str, str | list[str]]) -> dict[str, Any]:
        """Stream a file as the part `file` of a form."""
        if not file.is_file():  # a pipe has no size and is read once: the service's answer may need a second time
            raise ApiError(f"{file} is not a plain file.", fix="write what it gives into a file, and name that")
        name = file.name.encode(errors="replace").decode()
        with file.open("rb") as content:
            return self.call("POST", path, data=dict(form), files={"file": (name, content)})

    def pages(self, path: str, limit: int, **parameters: Any) -> list[dict[str, Any]]:
        """Up to `limit` items, over as many pages as that takes."""
        items: list[dict[str, Any]] = []
        while len(items) < limit:
            after = items[-1].get("id", items[-1].get("seq")) if items else None
            page = self.get(path, limit=min(PAGE, limit - len(items)), after=after, **parameters)
            items += page["data"]
            if not page.get("has_more") or not page["data"]:
                break
        return items

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        with self._reached():
            response = self._http.request(method, path, **options)
        if response.is_error:
            raise error_of(response)
        self.replayed = response.headers.get("idempotent-replayed") == "true"
        try:
            answer: dict[str, Any] = response.json() if response.content else {}
        except ValueError:
            raise ApiError(
                f"What answers at {self.url} is no Tacit service.", fix="name it: --url or TACIT_URL"
            ) from None
        return answer

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator[httpx.Response]:
        """A response whose body is read piece by piece."""
        with self._reached(), self._http.stream("GET", path) as response:
            if response.is_error:
                response.read()
                raise error_of(response)
            yield response

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise ApiError(
                f"Nothing answers at {self.url} ({self._without_key(error)}).",
                fix="start the service with `tacit up`, or name it: --url",
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ApiError(
                f"The connection to {self.url} failed: {type(error).__name__} {self._without_key(error)}".rstrip(),
                fix="try again; `tacit doctor` looks at a service of this machine",
            ) from None

    def _without_key(self, error: Exception) -> str:
        """What a library says, which may quote what was sent."""
        return str(error).replace(self._key, "...")


def error_of(response: httpx.Response) -> ApiError:
    """The service's own words: RFC 9457 members and an `error` object in one body."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    inner = body.get("error")
    inner = inner if isinstance(inner, dict) else {}
    detail = body.get("detail")
    message = inner.get("message") or (detail if isinstance(detail, str) else None) or body.get("title")
    extra = {name: value for name, value in body.items() if name not in STANDARD and value is not None}
    several = body.get("errors")
    if isinstance(several, list) and len(several) > 1:  # a file's bad lines, a request's bad fields
        extra |= {f"problem {number}": _line(problem) for number, problem in enumerate(several, start=1)}
    fix = body.get("fix") or inner.get("fix")
    if response.status_code == httpx.codes.UNAUTHORIZED and fix is None:
        fix = "give a valid key with --key or TACIT_API_KEY"
    fallback = f"The service answered {response.status_code} {response.reason_phrase}"
    return ApiError(message or fallback, response.status_code, inner.get("param"), inner.get("code"), fix, extra)


def _line(problem: Any) -> str:
    """One of several problems: where, and what."""
    if not isinstance(problem, dict):
        return str(problem)
    where = f"line {problem['line']}" if problem.get("line") is not None else problem.get("param")
    return f"{where}: {problem.get('message')}" if where else str(problem.get("message"))


def _base(url: str) -> str:
    """The address of a service without its /v1, which the `openai` packages want and every path here has. Raises
    ApiError."""
    given = url.strip()
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx.URL(given)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable or parts.username is not None or parts.query or parts.fragment:
        raise ApiError(
            "The address of the service cannot be used.", fix="http://HOST:PORT or https://HOST, in --url or TACIT_URL"
        )
    return _V1.sub("", given)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
