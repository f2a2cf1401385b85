"""A statement as one page: no script, nothing from elsewhere, to be read on a screen or on paper."""

import base64
import hashlib
import re

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from api.dashboard.render import minute, open_share, size, spent, taken
from domain.statements.models import BudgetStatement, JobStatement, StatedOdds
from domain.statements.words import shown
from dpcore.terms.accounting import UNITS_PER_NAT

SIDE = 300
"""The drawing's own units, along each axis."""
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def written(said: JobStatement | BudgetStatement) -> str:
    """The page."""
    name = "job.html" if isinstance(said, JobStatement) else "budget.html"
    return _environment.get_template(name).render(said=said)


def answer(text: str) -> Response:
    """The page for a browser, which is to run and fetch nothing."""
    found = _STYLE.search(text)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, headers={"content-security-policy": policy})


def line(found: StatedOdds) -> str:
    """A trade-off curve as a path: to the right those who are accused wrongly, upwards those who are found."""
    points = [(point.innocent, point.found) for point in found.curve]
    return "M" + "L".join(f"{SIDE * x:.1f} {SIDE * (1 - y):.1f}" for x, y in points)


def of_hundred(share: float) -> str:
    """A part of one as so many of a hundred, never less than it is."""
    return f"{-(-round(share * 10**6) // 1000) / 10:g}"


def part(share: float | None) -> str:
    """A share of a budget in percent."""
    return "no share" if share is None else taken(share)


def epsilon(value: float | None) -> str:
    """An epsilon, never less than it is."""
    return "none can be stated" if value is None else spent(value) if value < 1e6 else shown(value)


def nats(cost: int) -> str:
    """Units of 1e-12 nat, in nats, never less than it is."""
    return _millionths(-(-cost // (UNITS_PER_NAT // 10**6)))


def cap(amount: int) -> str:
    """The same of a cap, never more than it is."""
    return _millionths(amount // (UNITS_PER_NAT // 10**6))


def _millionths(amount: int) -> str:
    return f"{'-' if amount < 0 else ''}{abs(amount) // 10**6}.{abs(amount) % 10**6:06}"


def decision(said: bool | None) -> str:
    """Whether something was published by decision."""
    return {None: "not recorded", True: "as found in the file, by the steward's decision", False: "named beforehand"}[
        said
    ]


_environment = Environment(
    loader=PackageLoader("api.statements"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "line": line,
    "of_hundred": of_hundred,
    "part": part,
    "epsilon": epsilon,
    "nats": nats,
    "cap": cap,
    "open_share": open_share,
    "decision": decision,
    "minute": minute,
    "size": size,
}
