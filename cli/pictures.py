"""Pictures to ask an adapter about: a folder of them, or what the service takes as an upload."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cli.embedded.errors import StackError
from dpcore.terms.kind import LABEL

ENDINGS = (".zip", ".parquet")


class NamedPicture(NamedTuple):
    """name: of its file, or its row; kept: as a model's reader takes it; label: as its folder or its row says."""

    name: str
    kept: str
    label: str | None


def pictures(source: Path, column: str, label: str | None) -> list[NamedPicture]:
    """All pictures of a folder, an archive or a Parquet file, in the order of their names or rows; those of a folder
    that are not in one of its folders have no label. Raises StackError naming the first that cannot be read."""
    if not source.is_dir() and source.suffix.lower() not in ENDINGS:
        raise StackError(f"{source} must be a folder of pictures, or end in one of {', '.join(ENDINGS)}")
    found = list(_of_folder(source) if source.is_dir() else _of_file(source, column, label))
    if not found:
        raise StackError(f"{source} has no picture.")
    return found


def _of_folder(folder: Path) -> Iterator[NamedPicture]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield NamedPicture(
                str(name), _kept(path.read_bytes(), str(name)), name.parts[-2] if len(name.parts) > 1 else None
            )


def _of_file(file: Path, column: str, label: str | None) -> Iterator[NamedPicture]:
    from domain.ingest.formats import UPLOADED, records
    from domain.ingest.problems import Problems

    format, problems = UPLOADED[file.suffix.lower()], Problems()
    columns = (column, label or LABEL) if label or format == "zip" or _has_label(file) else (column,)
    with file.open("rb") as source:
        for record in records(source, format, columns, problems, label=label or LABEL, picture=column):
            data, *rest = record.values
            known = None if not rest or rest[0] is None else str(rest[0])
            name = f"{'entry' if format == 'zip' else 'row'} {record.line}"
            if isinstance(data, Exception):
                raise StackError(f"{file}: {name}: {data}")
            yield NamedPicture(name, _kept(data, name), known)
    if problems.listed:
        worst = problems.listed[0]
        raise StackError(f"{file}:{'' if worst.line is None else f' {worst.line}:'} {worst.message}")


def _has_label(file: Path) -> bool:
    import pyarrow.parquet as pq

    return LABEL in pq.read_schema(file).names


def _kept(data: bytes, name: str) -> str:
    from domain.ingest.pictures.bad import BadPicture
    from domain.ingest.pictures.kept import MOST_RESOLUTION
    from domain.ingest.pictures.picture import PlainPictures

    try:
        return PlainPictures(MOST_RESOLUTION).picture(data).kept
    except BadPicture as bad:
        raise StackError(f"{name}: {bad.message}") from None


def rows(found: list[NamedPicture]) -> tuple[list[dict[str, str]], list[str | None] | None]:
    """What a model is asked, and what is known of it, if anything is."""
    known = [one.label for one in found]
    return [{"image": one.kept} for one in found], known if any(label is not None for label in known) else None


def told(found: list[NamedPicture], answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers with the names of their pictures."""
    return [{"image": one.name} | answer for one, answer in zip(found, answers, strict=True)]
