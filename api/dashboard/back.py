"""The way back to the page that a form was sent from, with what was in it where that page takes it by its address.

Pages send no Referer: the page of a form is the nearest one above the form's own address.
"""

from collections.abc import Mapping
from urllib.parse import urlencode

from fastapi import Request
from starlette.routing import Match

from api.dashboard.forms import filled
from api.dashboard.session import PATH

LONGEST = 4000
"""Characters of an address that browsers and proxies surely take; a form that is longer is left empty."""


def page_of_form(request: Request, sent: Mapping[str, str]) -> str:
    """Address of the page that the form of this request stands on."""
    place: str = request.scope["path"]
    while place.startswith(f"{PATH}/") and not _is_page(request, place):
        place = place.rpartition("/")[0]
    if not place.startswith(f"{PATH}/"):
        return f"{PATH}/budgets"
    kept = urlencode(filled(sent, *request.app.state.by_address.get(place, ())))
    return f"{place}?{kept}" if kept and len(kept) <= LONGEST else place


def _is_page(request: Request, place: str) -> bool:
    scope = {**request.scope, "path": place, "method": "GET"}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)
