"""Requests for everything that the application routes, with ids of others in every place where an id can stand."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute, Mount, Route

from domain.kit.ids import new_id
from tests.api.conftest import CSV, JOBS, PRIVATE, World, job_body

DASHBOARD = "/dashboard"
INVITATIONS = "/v1/invitations"
PUBLIC = {
    ("GET", path) for path in ("/", "/healthz", "/readyz", "/openapi.json", f"{DASHBOARD}/", f"{DASHBOARD}/login")
} | {("POST", f"{DASHBOARD}/login"), ("GET", f"{DASHBOARD}/static/{{place}}")}
"""What needs no key, and tells everybody the same."""
KINDS = ("budget", "file", "job", "key", "grant", "invitation", "webhook")
PLAIN = {"seq": "1", "model_id": "minilm-l6", "receipt": "1"}
"""Parameters of paths that name nothing of a tenant's."""
KNOWN_QUERY = {"after", "limit", "order", "purpose", "stream", "population", "cohort", "status_detail"}
KNOWN_QUERY |= {"budget", "inherited", "flatters"}  # of pages about files
KNOWN_QUERY |= {"format"}  # of statements
GRANT = {"key": "key", "reason": "r"}
HOOK = "https://hooks.example/tacit"
WEBHOOK_FORM = {"url": HOOK, "tell.job.ended": "yes"}
ESTIMATE = {"training_file": "file", "validation_file": "file", "model": "minilm-l6", "epsilon": "1"}


@dataclass(frozen=True)
class Ids:
    """One of each kind that exists, or that never did; further ones of a kind in `more`."""

    budget: str
    file: str
    job: str
    key: str
    grant: str
    invitation: str
    webhook: str
    more: Mapping[str, list[str]] = field(default_factory=dict)

    def all_of(self, kind: str) -> list[str]:
        return [getattr(self, kind), *self.more.get(kind, [])]

    def cursors(self, kind: str) -> list[str]:
        """What lists of this kind, and of what belongs to it, go on after."""
        ids = self.all_of(kind)
        numbered = {"budget": lambda id: f"{id}-1", "job": lambda id: f"ftevent-{id.removeprefix('ftjob-')}-1"}
        return ids + ([numbered[kind](id) for id in ids] if kind in numbered else [])


def made_up(like: Ids) -> Ids:
    """The same shapes, never given out."""
    kinds = {"budget": ("budget", "-"), "file": ("file", "-"), "job": ("ftjob", "-"), "key": ("key", "_")}
    kinds |= {"invitation": ("inv", "-"), "webhook": ("hook", "_")}
    fresh = {kind: new_id(*kinds.get(kind, (kind, "_"))) for kind in KINDS}
    more = {k: [new_id(*kinds.get(k, (k, "_"))) for _ in ids] for k, ids in like.more.items()}
    return Ids(**fresh, more=more)


@dataclass(frozen=True)
class Call:
    """A request, and which of its words are ids."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    json: Any = None
    form: dict[str, str] | None = None
    upload: bool = False


def routes(app: FastAPI) -> list[tuple[str, str, Dependant | None]]:
    """(method, path, what its endpoint depends on) of all that the application answers, what is mounted included."""
    return sorted(_walk(app.routes, ""), key=lambda r: (r[1], r[0]))


def _walk(found: list[BaseRoute], prefix: str) -> Iterator[tuple[str, str, Dependant | None]]:
    for context in iter_route_contexts(found):
        route = context.original_route
        if isinstance(route, Mount):
            yield from _walk(route.routes, prefix + route.path)
            continue
        assert isinstance(route, Route), f"no attack knows what {route} answers"
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", f"{prefix}{context.path}")
        dependant = context.dependant if isinstance(route, APIRoute) else None
        yield from ((method, path, dependant) for method in sorted((context.methods or set()) - {"HEAD"}))


# Bodies and raw queries, with the fields that hold an id and of which kind: a new route must be told of here.
BODIES: dict[tuple[str, str], dict[str, str]] = {
    ("POST", "/v1/budgets"): {},
    ("POST", "/v1/budgets/{budget_id}/freeze"): {},
    ("POST", "/v1/budgets/{budget_id}/grants"): {"key": "key"},
    ("POST", "/v1/budgets/{budget_id}/limit"): {},
    ("POST", "/v1/budgets/{budget_id}/rename"): {},
    ("POST", "/v1/budgets/{budget_id}/rules"): {},
    ("POST", "/v1/budgets/{budget_id}/verify"): {},
    ("POST", "/v1/files"): {"budget": "budget"},
    ("POST", "/v1/files/{file_id}/answer"): {},
    ("POST", "/v1/keys"): {},
    ("POST", "/v1/keys/{key_id}/rotate"): {},
    ("POST", INVITATIONS): {"training_file": "file"},
    ("POST", f"{INVITATIONS}/{{invitation_id}}/estimate"): {"training_file": "file"},
    ("POST", f"{INVITATIONS}/{{invitation_id}}/accept"): {"training_file": "file"},
    ("POST", f"{INVITATIONS}/{{invitation_id}}/withdraw"): {},
    ("POST", "/v1/webhooks"): {},
    ("POST", JOBS): {"training_file": "file", "validation_file": "file"},
    ("POST", f"{JOBS}/estimate"): {"training_file": "file", "validation_file": "file"},
    ("POST", f"{JOBS}/{{job_id}}/cancel"): {},
    ("POST", f"{JOBS}/{{job_id}}/pause"): {},
    ("POST", f"{JOBS}/{{job_id}}/resume"): {},
    ("POST", f"{JOBS}/{{job_id}}/approve"): {},
    ("POST", f"{JOBS}/{{job_id}}/reject"): {},
    ("POST", f"{DASHBOARD}/logout"): {},
    ("POST", f"{DASHBOARD}/files"): {"budget": "budget"},
    ("GET", f"{DASHBOARD}/files/new"): {"budget": "budget"},
    ("POST", f"{DASHBOARD}/budgets/{{budget_id}}/grants"): {"key": "key"},
    ("POST", f"{DASHBOARD}/budgets/{{budget_id}}/grants/{{grant_id}}/revoke"): {},
    ("POST", f"{DASHBOARD}/budgets/new"): {},
    ("POST", f"{DASHBOARD}/budgets/{{budget_id}}/limit"): {},
    ("POST", f"{DASHBOARD}/budgets/{{budget_id}}/freeze"): {},
    ("POST", f"{DASHBOARD}/budgets/{{budget_id}}/rules"): {},
    ("POST", f"{DASHBOARD}/budgets/{{budget_id}}/name"): {},
    ("POST", f"{DASHBOARD}/budgets/{{budget_id}}/verify"): {},
    ("POST", f"{DASHBOARD}/files/{{file_id}}/delete"): {},
    ("POST", f"{DASHBOARD}/inbox/{{job_id}}/approve"): {},
    ("POST", f"{DASHBOARD}/inbox/{{job_id}}/reject"): {},
    ("POST", f"{DASHBOARD}/keys"): {},
    ("POST", f"{DASHBOARD}/keys/{{key_id}}/rotate"): {},
    ("POST", f"{DASHBOARD}/keys/{{key_id}}/revoke"): {},
    ("POST", f"{DASHBOARD}/questions/{{file_id}}"): {},
    ("POST", f"{DASHBOARD}/webhooks"): {},
    ("POST", f"{DASHBOARD}/webhooks/{{webhook_id}}/remove"): {},
    ("POST", f"{DASHBOARD}/jobs/{{job_id}}/cancel"): {},
    ("POST", f"{DASHBOARD}/jobs/{{job_id}}/pause"): {},
    ("POST", f"{DASHBOARD}/jobs/{{job_id}}/resume"): {},
    ("POST", f"{DASHBOARD}/jobs/{{job_id}}/approve"): {},
    ("POST", f"{DASHBOARD}/jobs/{{job_id}}/reject"): {},
    ("POST", f"{DASHBOARD}/invitations/{{invitation_id}}/accept"): {"training_file": "file"},
    ("POST", f"{DASHBOARD}/invitations/{{invitation_id}}/withdraw"): {},
    ("POST", f"{DASHBOARD}/estimate"): {"training_file": "file", "validation_file": "file"},
    ("GET", f"{DASHBOARD}/estimate"): {"training_file": "file", "validation_file": "file"},
}


def filled(method: str, path: str, own: Ids) -> Call:
    """The route as its caller would use it on things of its own."""
    where = path
    for name in re.findall(r"\{(\w+)\}", path):
        kind = name.removesuffix("_id")
        assert kind in KINDS or name in PLAIN, f"no attack knows what {{{name}}} of {path} names: tell attacks.py"
        where = where.replace(f"{{{name}}}", getattr(own, kind) if kind in KINDS else PLAIN[name])
    call = Call(method, where)
    if method not in ("GET", "DELETE"):
        assert (method, path) in BODIES, f"no attack knows the body of {method} {path}: tell attacks.py"
    if path in ("/v1/files", f"{DASHBOARD}/files") and method == "POST":
        form = {k: v for k, v in PRIVATE.items() if not k.startswith("privacy_budget")} | {"budget": own.budget}
        return replace(call, form=form, upload=True)
    if path.startswith(DASHBOARD):
        filled = {"training_file": own.file, "model": "minilm-l6", "epsilon": "1"} if "estimate" in path else {}
        filled |= {"training_file": own.file, "epsilon": "1"} if path.endswith("/accept") else {}
        filled |= {"answer": "publish"} if "/questions/" in path else {}
        filled |= {"epsilon": "1", "queue_days": "7"} if path.endswith(("/limit", "/rules")) else {}
        filled |= {"name": "other"} if path.endswith("/name") else {}
        filled |= {"overlap_hours": "1"} if path.endswith("/rotate") else {}
        filled |= WEBHOOK_FORM if path.endswith("/webhooks") else {}
        filled |= {"key": own.key} if path.endswith("/grants") else {"reason": "r"} if method == "POST" else {}
        return replace(call, form=filled) if method == "POST" else replace(call, query=filled)
    offer = {"training_file": own.file, "privacy": {"epsilon": 1}}
    bodies: dict[str, Any] = {
        "invitations": {"guest": "tenant_x", "model": "minilm-l6", "training_file": own.file},
        "accept": offer,
        "grants": {"key": own.key},
        "budgets": {"name": "n", "epsilon": 8, "delta": 1e-5},
        "webhooks": {"url": HOOK, "events": ["job.ended"]},
        "keys": {"name": "n", "scopes": ["analyst"]},
        "jobs": job_body(own.file, 1.0),
        "estimate": offer if path.startswith(INVITATIONS) else job_body(own.file, 1.0),
        "answer": {"answer": "publish", "reason": "r"},
        "freeze": {"reason": "r"},
        "rotate": {"overlap_hours": 1},
        "reject": {"reason": "r"},
        "limit": {"epsilon": 1, "reason": "r"},
        "rename": {"name": "another"},
        "rules": {"approval_above": None, "queue_days": 7, "reason": "r"},
    }
    return replace(call, json=bodies.get(path.rpartition("/")[2])) if method == "POST" else call


def attacks(method: str, path: str, needs: Dependant | None, own: Ids, others: Ids, unknown: Ids) -> Iterator[Any]:
    """(column, call with what is another's, the same call with what never was, the ids that differ)."""
    if (method, path) in PUBLIC:
        return
    plain = filled(method, path, own)
    named = [n.removesuffix("_id") for n in re.findall(r"\{(\w+)\}", path) if n not in PLAIN]
    for kind in named:
        for theirs, nothing in zip(others.all_of(kind), unknown.all_of(kind), strict=True):
            calls = [replace(plain, path=plain.path.replace(getattr(own, kind), id, 1)) for id in (theirs, nothing)]
            yield kind, *calls, (theirs, nothing)
    if len(named) > 1:  # everything in the path is another's
        both = [filled(method, path, ids) for ids in (others, unknown)]
        pairs = [(getattr(others, kind), getattr(unknown, kind)) for kind in named]
        yield named[-1], *both, *pairs
    for name, kind in BODIES.get((method, path), {}).items():
        for theirs, nothing in zip(others.all_of(kind), unknown.all_of(kind), strict=True):
            yield kind, *(_with(plain, name, id) for id in (theirs, nothing)), (theirs, nothing)
    if needs is not None:
        asked = {parameter.alias for parameter in needs.query_params}
        assert asked <= KNOWN_QUERY, f"no attack knows the query {asked} of {path}"
        if "after" in asked:
            for kind in KINDS:
                for theirs, nothing in zip(others.cursors(kind), unknown.cursors(kind), strict=True):
                    for more in [{}, {"stream": "true"}] if "stream" in asked else [{}]:
                        calls = [replace(plain, query={"after": id, **more}) for id in (theirs, nothing)]
                        yield "cursor", *calls, (theirs, nothing)


def listing(method: str, path: str, own: Ids) -> Call | None:
    """The route as it is, if it only reads: nothing of another's may be in the answer."""
    return filled(method, path, own) if method == "GET" and (method, path) not in PUBLIC else None


def _with(call: Call, name: str, id: str) -> Call:
    if call.json is not None:
        return replace(call, json=call.json | {name: id})
    if call.form is not None:
        return replace(call, form=call.form | {name: id})
    return replace(call, query=call.query | {name: id})


@dataclass
class Browser:
    """A caller with its key, and a session of the dashboard."""

    world: World
    key: str
    cookie: str = ""
    token: str = ""

    def __post_init__(self) -> None:
        client = self.world.client
        form = client.get(f"{DASHBOARD}/login")
        sent = {"token": _token(form.text), "key": self.key, "next": ""}
        answer = client.post(f"{DASHBOARD}/login", data=sent, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        self.cookie = f"tacit_session={answer.cookies['tacit_session']}"
        client.cookies.clear()
        page = self.send(Call("GET", f"{DASHBOARD}/budgets"))
        self.token = _token(page.text)

    def send(self, call: Call) -> httpx.Response:
        dashboard = call.path.startswith(DASHBOARD)
        headers = {"cookie": self.cookie} if dashboard else {"Authorization": f"Bearer {self.key}"}
        options: dict[str, Any] = {"json": call.json} if call.json is not None else {}
        if call.form is not None:
            options = {"data": ({"token": self.token} if dashboard else {}) | call.form}
        if call.upload:
            options["files"] = {"file": ("rows.csv", CSV)}
        client = self.world.client
        answer = client.request(
            call.method, call.path, params=call.query, headers=headers, follow_redirects=False, **options
        )
        client.cookies.clear()
        return answer


def _token(page: str) -> str:
    found = re.search(r'name="token"\s+value="([^"]+)"', page)
    assert found, page
    return found[1]


def difference(answer: httpx.Response, other: httpx.Response, *ids: tuple[str, str]) -> str:
    """Where two answers part but for the ids that were sent, and for the number of the request; empty: nowhere."""
    one, two = _bare(answer, [a for a, _ in ids]), _bare(other, [b for _, b in ids])
    return next((f"{a!r} instead of {b!r}" for a, b in zip_longest(one, two) if a != b), "")


def _bare(answer: httpx.Response, ids: list[str]) -> list[str]:
    """Status, headers and body, line by line."""

    def clean(text: str) -> str:
        for number, id in enumerate(ids):
            text = text.replace(id, f"<{number}>").replace(id.partition("-")[2] or id, f"<{number}>")
        # A form that may be sent twice carries a number of its own.
        text = re.sub(r'(name="once"[^>]*value=")[0-9a-f]+', r"\1", text)
        return re.sub(r"req_[0-9a-f]{32}", "<request>", text)

    # An ETag is a hash of the body, which is compared itself.
    headers = sorted(f"{k}: {clean(v)}" for k, v in answer.headers.items() if k not in ("date", "etag"))
    return [str(answer.status_code), *headers, *clean(answer.text).splitlines()]
