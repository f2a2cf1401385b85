"""Evidence: a statement with everything that it rests on, all of it under one Ed25519 signature of the service's."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Literal

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.statements import registry
from domain.statements.models import BudgetStatement, JobStatement, Stated
from ledger.canonical import packed
from ledger.receipts import Receipt, issue
from ledger.tables import entry

FORMAT: Literal["tacit.evidence.v1"] = "tacit.evidence.v1"
STATEMENT, PAGE, ENTRIES, RECEIPTS = "statement.json", "statement.html", "entries.json", "receipts.json"
REGISTRY, SIGNATURE = "registry.yaml", "signature.json"
ADAPTER, UNPACKED = "adapter.zip", "adapter"
"""The adapter beside the evidence, as it was released or unpacked: the statement names its sha256."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP can hold


class EvidenceEntry(Stated):
    """A line of a budget's ledger. Of somebody else's only the number and the hash; hashes in hexadecimal."""

    seq: int
    hash: str
    prev_hash: str | None
    fields: list[str] | None


class EvidenceChain(Stated):
    """Lines of a ledger that follow each other without a gap, and where it ended when the evidence was made."""

    budget: str
    entries: list[EvidenceEntry]
    head_seq: int
    head_hash: str


class EvidenceSeal(Stated):
    """What is signed: the sha256 of each file, and what they are about."""

    format: Literal["tacit.evidence.v1"] = FORMAT
    about: str
    issued_at: str
    adapter: str | None
    files: dict[str, str]
    public_key: str
    signature: str


def of_job(
    connection: sa.Connection, key: Ed25519PrivateKey, statement: JobStatement, page: str, *, whole: bool
) -> dict[str, bytes]:
    """The files of a job's evidence. page: the statement as HTML. whole: other jobs' lines with what they say, for a
    steward; otherwise as numbers and hashes alone."""
    budget, own = statement.account.budget, [line.seq for line in statement.entries]
    chain = chain_of(connection, budget, min(own) - 1, max(own) + 1, None if whole else own)
    receipts = [issue(connection, key, budget, seq) for seq in own]
    adapter = next((one.sha256 for one in statement.releases if one.kind == "adapter"), None)
    more = {REGISTRY: registry.written(registry.entry(statement)).encode()} if statement.standing.released else {}
    return sealed(key, f"job {statement.job}", statement, page, chain, receipts, more, adapter)


def of_budget(
    connection: sa.Connection, key: Ed25519PrivateKey, statement: BudgetStatement, page: str
) -> dict[str, bytes]:
    """The files of a budget's evidence: its whole ledger, and a receipt of its last line."""
    chain = chain_of(connection, statement.budget, 1, statement.head.seq, None)
    receipts = [issue(connection, key, statement.budget, statement.head.seq)]
    return sealed(key, f"budget {statement.budget}", statement, page, chain, receipts, {}, None)


def chain_of(
    connection: sa.Connection, budget_id: str, first: int, last: int, shown: Sequence[int] | None
) -> EvidenceChain:
    """A budget's lines from `first` to `last`, as far as there are any. shown: the numbers of those that are shown with
    what they say; None: all."""
    fields: sa.ColumnElement[Sequence[str]] = sa.literal_column("ledger.entry_fields(entry.*)", sa.ARRAY(sa.Text))
    rows = connection.execute(
        sa.select(entry.c.seq, entry.c.prev_hash, entry.c.hash, fields.label("fields"))
        .where(entry.c.budget_id == budget_id, entry.c.seq >= first, entry.c.seq <= last)
        .order_by(entry.c.seq)
    ).all()
    head = connection.execute(
        sa.select(entry.c.seq, entry.c.hash).where(entry.c.budget_id == budget_id).order_by(entry.c.seq.desc()).limit(1)
    ).one()
    own = None if shown is None else frozenset(shown)
    return EvidenceChain(
        budget=budget_id,
        entries=[
            EvidenceEntry(seq=row.seq, hash=row.hash.hex(), prev_hash=row.prev_hash.hex(), fields=list(row.fields))
            if own is None or row.seq in own
            else EvidenceEntry(seq=row.seq, hash=row.hash.hex(), prev_hash=None, fields=None)
            for row in rows
        ],
        head_seq=head.seq,
        head_hash=head.hash.hex(),
    )


def sealed(
    key: Ed25519PrivateKey,
    about: str,
    statement: JobStatement | BudgetStatement,
    page: str,
    chain: EvidenceChain,
    receipts: Sequence[Receipt],
    more: Mapping[str, bytes],
    adapter: str | None,
) -> dict[str, bytes]:
    """All files with their signature, by name. adapter: its sha256."""
    files = {
        STATEMENT: written(statement),
        PAGE: page.encode(),
        ENTRIES: written(chain),
        RECEIPTS: (json.dumps([one.model_dump() for one in receipts], indent=1) + "\n").encode(),
        **more,
    }
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    seal = EvidenceSeal(
        about=about,
        issued_at=statement.issued_at,
        adapter=adapter,
        files=digests,
        public_key=key.public_key().public_bytes_raw().hex(),
        signature=key.sign(signed(about, statement.issued_at, adapter, digests)).hex(),
    )
    return {**files, SIGNATURE: written(seal)}


def signed(about: str, issued_at: str, adapter: str | None, digests: Mapping[str, str]) -> bytes:
    """The bytes that the signature is over."""
    return packed([FORMAT, about, issued_at, adapter or "", *(x for n in sorted(digests) for x in (n, digests[n]))])


def written(part: Stated) -> bytes:
    """JSON for people and programs."""
    return (json.dumps(part.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """As one ZIP, which depends on names and bytes alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
