"""Reports of uploads, kept with their files."""

import sqlalchemy as sa
from pydantic import ValidationError

from domain.ingest.report import UploadReport
from domain.kit.tables import upload_report


def keep(connection: sa.Connection, file_id: str, report: UploadReport) -> None:
    """Write down the report of a file that was just registered; the caller commits."""
    connection.execute(upload_report.insert().values(file_id=file_id, report=report.model_dump()))


def of_file(connection: sa.Connection, file_id: str) -> UploadReport | None:
    """The report; None where an earlier version took the file, or where it is no report that can be read."""
    found = sa.select(upload_report.c.report).where(upload_report.c.file_id == file_id)
    stored = connection.execute(found).scalar_one_or_none()
    try:
        return None if stored is None else UploadReport.model_validate(stored)
    except ValidationError:
        return None
