"""How much waits for a steward: the number beside the inbox, on every page of theirs."""

import sqlalchemy as sa

from api.auth import Caller
from api.deps import Resources
from domain.files import questions
from domain.jobs import reading


def count(service: Resources, caller: Caller) -> int:
    """Jobs and files of the tenant that wait for an answer; none for who may not give it."""
    if not caller.may("steward"):
        return 0
    files = sa.select(sa.func.count()).select_from(questions.open_questions(caller.tenant_id).subquery())
    both = sa.select(reading.count_waiting(caller) + files.scalar_subquery())
    with service.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # one statement
        return int(connection.execute(both).scalar_one())
