"""Files from before records were known by their texts, or from under a lost key, are read again where their rows are
still there."""

import logging
import shutil
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from obstore.exceptions import BaseError
from sqlalchemy.dialects.postgresql import insert

from domain.files import binding, fingerprints, resemblance, scratch
from domain.ingest.check import CheckRequest
from domain.ingest.fingerprint import tenant_key
from domain.ingest.formats import KEPT
from domain.ingest.pictures.kept import DEFAULT_RESOLUTION
from domain.ingest.run import run_check
from domain.kit.logs import type_name
from domain.kit.purposes import RESULT
from domain.kit.refusals import Refusal
from domain.kit.tables import file, identity
from domain.storage import blobs
from domain.storage.blobs import Store
from dpcore.terms.tasks import get_kind
from ledger.errors import LedgerError
from ledger.tables import budget, entry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recognition:
    """How the records of a private file are recognised when they come again."""

    file_id: str
    by: Literal["texts", "whole records", "nothing"]
    """`texts`, or `whole records` in the same columns alone, or `nothing` since the key was lost."""
    users: bool
    """Whether its users are known by what their ids mean; otherwise by their spelling."""
    elsewhere: int
    """Texts that another budget held already when the file was read again."""


def known(connection: sa.Connection, budget_id: str, key: bytes) -> list[Recognition]:
    """Of each file that a budget ever had, deleted ones too, the newest first."""
    mark, marks = fingerprints.mark_of(key), fingerprints.keys(connection)
    rows = connection.execute(
        sa.select(file.c.id, identity.c.file_id, identity.c.users, identity.c.elsewhere)
        .outerjoin(identity, sa.and_(identity.c.file_id == file.c.id, identity.c.key_mark == mark))
        .where(file.c.budget_id == budget_id)
        .order_by(file.c.created_at.desc())
    )
    without: Literal["whole records", "nothing"] = "whole records" if len(marks) == 1 else "nothing"
    return [
        Recognition(id, without if found is None else "texts", bool(users), int(elsewhere or 0))
        for id, found, users, elsewhere in rows
    ]


def recognise_old(engine: sa.Engine, store: Store, key: bytes) -> int:
    """Read all such files again, one after the other; answers how many. Whatever cannot be read is logged and left."""
    mark = fingerprints.mark_of(key)
    under = sa.select(identity.c.file_id).where(identity.c.key_mark == mark)
    waiting = sa.select(file).where(
        file.c.id.not_in(under),
        file.c.purpose != RESULT,
        file.c.status == "processed",
        file.c.blob.is_not(None),
        file.c.deleted_at.is_(None),
    )
    with engine.connect() as connection:
        rows = connection.execute(waiting.order_by(file.c.created_at)).all()
    done = 0
    for row in rows:
        try:
            done += _again(engine, store, key, row)
        except (Refusal, LedgerError, OSError, BaseError, sa.exc.DBAPIError) as error:
            logger.warning("the records of %s were not read again: %s", row.id, type_name(error))
    return done


def _again(engine: sa.Engine, store: Store, key: bytes, row: sa.Row[Any]) -> bool:
    """One file; False if another process is at it or was first. In one transaction, so that a kill leaves it as it
    was."""
    try:
        with scratch.part(store.at(row.blob), row.id) as part:
            with engine.connect() as connection, blobs.as_file(binding.open_file(connection, store, row)) as source:
                shutil.copyfileobj(source, part.file)
            part.file.flush()
            report = run_check(
                CheckRequest(
                    source=part.path,
                    target=part.rows,
                    format=KEPT if get_kind(row.task).of_pictures else "parquet",
                    resolution=row.max_length or DEFAULT_RESOLUTION,
                    task=row.task,
                    columns={name: name for name in get_kind(row.task).fields},
                    labels=[str(place) for place in range(len(row.labels or ()))],
                    declared_size=None,
                    key=tenant_key(key, row.tenant_id).hex(),
                    public=True,
                    marks=part.marks,
                )
            )
            if report.problems:
                logger.warning("the records of %s were not read again: %s", row.id, report.problems[0].code)
                return False
            with engine.begin() as connection:
                return _bind(connection, row, fingerprints.mark_of(key), part)
    except FileExistsError:
        return False


def _bind(connection: sa.Connection, row: sa.Row[Any], mark: bytes, part: scratch.OpenUpload) -> bool:
    fingerprints.lock(connection, row.tenant_id)
    elsewhere, users = 0, True
    if row.budget_id is None:
        fingerprints.publish(connection, row.tenant_id, row.id, part.marks)
    else:
        elsewhere = fingerprints.bind_free(connection, row.tenant_id, row.budget_id, part.marks)
        # Sealed whether anything is new: analysts see how long the chain is.
        connection.execute(entry.insert().values(budget_id=row.budget_id, kind="records"))
        unit = connection.execute(sa.select(budget.c.unit).where(budget.c.id == row.budget_id)).scalar_one()
        users = unit == "record"  # ids are not kept with the rows
    line = {"file_id": row.id, "key_mark": mark, "made": "again", "elsewhere": elsewhere, "users": users}
    first = connection.execute(
        insert(identity).values(line).on_conflict_do_nothing().returning(identity.c.file_id)
    ).first()
    if first is None:
        return False
    resemblance.keep(connection, row.tenant_id, row.id, row.budget_id, part.marks.sketches)
    return True
