"""Results become visible here, in one transaction under the fence, or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from domain.files.binding import bind
from domain.jobs import life
from domain.kit.ids import new_id
from domain.kit.purposes import RESULT
from domain.kit.tables import file, release
from domain.storage.sealing import Seal
from ledger.reserve import Admission, settle
from ledger.work import Lease


@dataclass(frozen=True)
class Result:
    """A finished artifact in the blob store. kind: adapter, report, synthetic or synthetic_card; bytes and sha256
    (hex) are of its content."""

    kind: str
    filename: str
    bytes: int
    sha256: str
    stored: Seal


def publish(
    connection: sa.Connection,
    lease: Lease,
    tenant_id: str,
    results: Sequence[Result],
    quality: Mapping[str, Any] | None = None,
) -> list[Admission]:
    """Settle the job as succeeded, make its results visible and finish it; the caller commits. quality: of the results,
    where a public file measured it.

    Raises StaleFence or AlreadySettled; the transaction must then be rolled back and nothing is visible.
    """
    receipts = settle(connection, lease.job_id, "succeeded", fence=lease.fence)
    for result in results:
        values: dict[str, Any] = {
            "id": new_id("file", "-"),
            "tenant_id": tenant_id,
            "purpose": RESULT,
            "filename": result.filename,
            "bytes": result.bytes,
            "sha256": result.sha256,
            "status": "processed",
            "blob": result.stored.name,
        }
        connection.execute(file.insert().values(**values, binding=bind(connection, result.stored, values)))
        connection.execute(
            release.insert().values(
                id=new_id("release"), job_id=lease.job_id, file_id=values["id"], kind=result.kind, fence=lease.fence
            )
        )
    life.succeeded(connection, lease.job_id, quality)
    return receipts
