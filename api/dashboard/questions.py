"""Answers to the questions that stand in the inbox, on the list of budgets and on the page of the file that waits."""

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from api.auth import allowed
from api.dashboard.files import address
from api.dashboard.forms import filled, parse
from api.dashboard.session import PATH, Posted, Visit
from api.deps import Service
from api.fields import Id
from api.files import endpoints as files_api
from api.files import questions as questions_api
from api.files.questions import Answer

router = APIRouter(prefix="/questions")
_steward = allowed("steward")


@router.post("/{file_id}")
def answer(file_id: Id, visit: Visit, posted: Posted, service: Service) -> Response:
    """Say whose the records of a file are that waits, or withdraw it."""
    _steward(visit.caller)
    back = f"{PATH}/inbox" if posted.get("from") == "inbox" else ""
    if posted.get("answer") == "withdraw":
        with service.engine.begin() as connection:
            files_api.delete(file_id, visit.caller, service, connection)
        return RedirectResponse(back or f"{PATH}/budgets", 303)
    body = parse(Answer, filled(posted, "answer", "reason"))
    made = questions_api.answer(file_id, body, visit.caller, service)
    return RedirectResponse(back or address(made), 303)
