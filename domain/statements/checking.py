"""Checking evidence offline: no database, no settings, no network; what is checked is what lies in the folder."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from domain.statements import evidence
from domain.statements.evidence import EvidenceChain, EvidenceEntry, EvidenceSeal
from domain.statements.models import BudgetStatement, JobStatement, Stated
from domain.statements.places import BadEvidence, Evidence, digest_of
from domain.statements.recount import recount_budget, recount_job
from dpcore.terms.accounting import SATURATION
from ledger import receipts
from ledger.canonical import entry_hash
from ledger.receipts import BadReceipt, Receipt

Part = TypeVar("Part", bound=Stated)
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass
class EvidenceVerdict:
    """What came of it."""

    holds: bool
    sentence: str
    notes: list[str] = field(default_factory=list)


def read_keys(text: str) -> list[str]:
    """Public keys in hexadecimal: one a line, or as `/v1/ledger/keys` answers. Raises BadEvidence for anything else."""
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if isinstance(said, dict):
        found = [said.get("signing_key"), *(said.get("earlier_signing_keys") or [])]
    else:
        found = [line.strip() for line in text.splitlines() if line.strip()]
    keys = [key for key in found if isinstance(key, str) and _HEX.fullmatch(key)]
    if not keys or len(keys) != len(found):
        raise BadEvidence(
            "the file of keys holds no public key: 64 hexadecimal digits, or what GET /v1/ledger/keys answers"
        )
    return keys


def check(found: Evidence, keys: Sequence[str] | None, adapter: Path | None = None) -> EvidenceVerdict:
    """Everything that can be checked without the service. keys: those that may have signed; None: the one in the
    evidence is used, which shows that nothing was changed since, but not by whom it was made. adapter: where the
    archive is, if not beside the evidence. Raises OSError."""
    try:
        return _checked(found, keys, adapter)
    except BadEvidence as error:
        return EvidenceVerdict(False, f"Does not hold: {error}.")


def _checked(found: Evidence, keys: Sequence[str] | None, adapter: Path | None) -> EvidenceVerdict:
    seal = _seal(found)
    files = _files(found, seal)
    _signature(seal, keys)
    statement = _statement(files[evidence.STATEMENT])
    chain = _parsed(EvidenceChain, evidence.ENTRIES, files[evidence.ENTRIES])
    kept = _receipts(files[evidence.RECEIPTS], seal.public_key)
    _chain(chain)
    if isinstance(statement, JobStatement):
        _about(seal, f"job {statement.job}", statement.issued_at)
        _require(chain.budget == statement.account.budget, "the entries are of another budget than the statement's")
        _of_job(statement, chain, kept)
        recount = recount_job(statement)
        what = f"the statement of job {statement.job}"
    else:
        _about(seal, f"budget {statement.budget}", statement.issued_at)
        _require(chain.budget == statement.budget, "the entries are of another budget than the statement's")
        _of_budget(statement, chain, kept)
        recount = recount_budget(statement)
        what = f"the statement of budget {statement.budget}"
    try:
        problem = next(recount, None)
    except (ValueError, ArithmeticError, TypeError, LookupError, MemoryError):
        problem = "its numbers cannot be counted again"
    if problem is not None:
        raise BadEvidence(problem)
    seen = _adapter(found, statement, seal, adapter)
    return _holds(what, seal, chain, seen, pinned=keys is not None)


def _holds(what: str, seal: EvidenceSeal, chain: EvidenceChain, adapter: str, *, pinned: bool) -> EvidenceVerdict:
    bare = sum(one.fields is None for one in chain.entries)
    notes = []
    if not pinned:
        notes.append(
            "No key was given (--key): the one in the evidence was used. That shows that nothing was changed since "
            "it was signed, and not who signed it."
        )
    if bare:
        notes.append(
            f"{bare} of {len(chain.entries)} entries are other people's: their numbers and hashes are signed, and "
            "whoever holds the whole ledger can compare them."
        )
    key = f"{'the given key' if pinned else 'the key in it,'} {seal.public_key[:16]}…"
    return EvidenceVerdict(
        True,
        f"Holds: {what}, issued at {seal.issued_at}, is as it was signed with {key}, with its page, its receipts and "
        f"{len(chain.entries)} entries of the ledger; their chain, the prices, epsilons and odds were counted again; "
        f"{adapter}.",
        notes,
    )


def _seal(found: Evidence) -> EvidenceSeal:
    if evidence.SIGNATURE not in found.names():
        raise BadEvidence(f"{evidence.SIGNATURE} is missing")
    return _parsed(EvidenceSeal, evidence.SIGNATURE, found.read(evidence.SIGNATURE))


def _files(found: Evidence, seal: EvidenceSeal) -> dict[str, bytes]:
    """What was signed, each file as it was; and nothing else lies there, but the adapter."""
    known = {*seal.files, evidence.SIGNATURE, evidence.ADAPTER}
    for name in found.names():
        if name not in known and not name.startswith(f"{evidence.UNPACKED}/"):
            raise BadEvidence(f"{name} is not among what was signed")
    for name in (evidence.STATEMENT, evidence.PAGE, evidence.ENTRIES, evidence.RECEIPTS):
        _require(name in seal.files, f"{name} is not among what was signed")
    files = {}
    for name, digest in seal.files.items():
        _require(name in found.names(), f"{name} is missing")
        files[name] = found.read(name)
        _require(hashlib.sha256(files[name]).hexdigest() == digest, f"{name} is not the one that was signed")
    return files


def _signature(seal: EvidenceSeal, keys: Sequence[str] | None) -> None:
    if keys is not None and seal.public_key not in keys:
        raise BadEvidence(f"it was signed by another key, {seal.public_key}")
    try:
        signer = Ed25519PublicKey.from_public_bytes(bytes.fromhex(seal.public_key))
        covered = evidence.signed(seal.about, seal.issued_at, seal.adapter, seal.files)
        signer.verify(bytes.fromhex(seal.signature), covered)
    except (InvalidSignature, ValueError):
        raise BadEvidence("the signature does not hold") from None


def _statement(data: bytes) -> JobStatement | BudgetStatement:
    try:
        form = json.loads(data)["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadEvidence(f"{evidence.STATEMENT} is no statement") from None
    kinds: dict[str, type[JobStatement] | type[BudgetStatement]] = {
        JobStatement.model_fields["format"].default: JobStatement,
        BudgetStatement.model_fields["format"].default: BudgetStatement,
    }
    if form not in kinds:
        raise BadEvidence(f"{evidence.STATEMENT} is of a format that this version does not know")
    return _parsed(kinds[form], evidence.STATEMENT, data)


def _parsed(kind: type[Part], name: str, data: bytes) -> Part:
    try:
        return kind.model_validate_json(data)
    except ValueError:
        raise BadEvidence(f"{name} cannot be read") from None


def _receipts(data: bytes, key: str) -> list[Receipt]:
    try:
        kept = [Receipt.model_validate(one) for one in json.loads(data)]
    except (ValueError, TypeError, RecursionError):
        raise BadEvidence(f"{evidence.RECEIPTS} cannot be read") from None
    for one in kept:
        try:
            receipts.check(one, key)
        except BadReceipt as error:
            raise BadEvidence(f"the receipt of entry {one.seq}: {error}") from None
    return kept


def _about(seal: EvidenceSeal, about: str, issued_at: str) -> None:
    same = (seal.about, seal.issued_at) == (about, issued_at)
    _require(same, "the signature is about another statement")


def _chain(chain: EvidenceChain) -> None:
    """Numbers without a gap, hashes of what is said, and each after the one before, as far as the lines are shown."""
    before: EvidenceEntry | None = None
    for one in chain.entries:
        if before is not None:
            _require(one.seq == before.seq + 1, f"entry {one.seq} does not follow entry {before.seq}")
        _require((one.fields is None) == (one.prev_hash is None), f"entry {one.seq} is half shown")
        if one.fields is not None and one.prev_hash is not None:
            _require(_hash(one.prev_hash, one.fields) == one.hash, f"entry {one.seq} does not hash to its hash")
            named = one.fields[1:3] == [chain.budget, str(one.seq)]
            _require(named, f"entry {one.seq} is of another budget or has another number")
            linked = before is None or before.hash == one.prev_hash
            _require(linked, f"entry {one.seq} does not follow the entry before it")
        before = one
    if before is not None and before.seq >= chain.head_seq:
        _require((before.seq, before.hash) == (chain.head_seq, chain.head_hash), "the last entry is not the head")


def _hash(previous: str, fields: Sequence[str]) -> str | None:
    try:
        return entry_hash(bytes.fromhex(previous), fields).hex()
    except ValueError:
        return None


def _of_job(statement: JobStatement, chain: EvidenceChain, kept: Sequence[Receipt]) -> None:
    """The receipts are of this very job, the ledger's lines are those that the statement names, and the amounts in them
    are those that it states."""
    stated = [(one.seq, one.kind, one.hash) for one in statement.entries]
    _require(stated == [(one.seq, one.fields[3], one.hash) for one in kept], "the receipts are not the statement's")
    lines = {one.seq: one for one in chain.entries}
    for one in kept:
        line = lines.get(one.seq)
        same = line is not None and line.fields is not None and (line.hash, line.prev_hash) == (one.hash, one.prev_hash)
        _require(same, f"entry {one.seq} is not the one that its receipt is of")
        _require(one.budget == chain.budget, f"the receipt of entry {one.seq} is of another budget")
        _require(one.fields[4] == statement.reservation, f"the receipt of entry {one.seq} is of another job")
    kinds = [one.fields[3] for one in kept]
    _require(kinds.count("reserve") == 1 and kinds.count("settle") <= 1, "the job is not charged once")
    _require("settle" in kinds or not statement.standing.released, "a result was released without a settlement")
    if statement.repriced:
        return
    amounts = {one.fields[3]: one.fields for one in kept}
    if "settle" in amounts:
        charged = _amounts(amounts["settle"][7]) == list(statement.claim.cost)
        _require(charged, "the cost is not what the settlement charged")


def _of_budget(statement: BudgetStatement, chain: EvidenceChain, kept: Sequence[Receipt]) -> None:
    """The whole ledger adds up to what the statement says is spent and reserved."""
    _require([one.seq for one in kept] == [statement.head.seq], "the receipt is not of the budget's last entry")
    _require(bool(chain.entries) and chain.entries[0].seq == 1, "the ledger's first entries are missing")
    last = chain.entries[-1]
    at_head = (last.seq, last.hash) == (statement.head.seq, statement.head.hash) == (chain.head_seq, chain.head_hash)
    _require(at_head, "the ledger does not end where the statement says")
    _require((kept[0].seq, kept[0].hash) == (last.seq, last.hash), "the receipt is not of the budget's last entry")
    spent, reserved = ([0] * len(statement.filter.orders) for _ in range(2))
    for one in chain.entries:
        _require(one.fields is not None, f"entry {one.seq} is not shown")
        assert one.fields is not None
        changes = [_amounts(one.fields[place]) for place in (7, 8)]
        whole = all(len(change) == len(spent) for change in changes)
        _require(whole, f"the amounts of entry {one.seq} cannot be read")
        spent = [min(a + b, SATURATION) for a, b in zip(spent, changes[0], strict=True)]
        reserved = [a + b for a, b in zip(reserved, changes[1], strict=True)]
    _require(spent == list(statement.spent), "the entries do not add up to what is spent")
    _require(reserved == list(statement.reserved), "the entries do not add up to what is reserved")


def _amounts(text: str) -> list[int]:
    """An array as the ledger writes it; empty where it is none."""
    found = re.fullmatch(r"\{(-?\d{1,40}(?:,-?\d{1,40})*)\}", text, re.ASCII)
    return [] if found is None else [int(amount) for amount in found[1].split(",")]


def _adapter(
    found: Evidence, statement: JobStatement | BudgetStatement, seal: EvidenceSeal, elsewhere: Path | None
) -> str:
    """Whether the adapter is the one that was released, in words."""
    made = None
    if isinstance(statement, JobStatement):
        made = next((one for one in statement.releases if one.kind == "adapter"), None)
    _require((None if made is None else made.sha256) == seal.adapter, "another adapter was signed than is stated")
    names = found.names()
    unpacked = [name for name in names if name.startswith(f"{evidence.UNPACKED}/")]
    if made is None:
        _require(not unpacked and evidence.ADAPTER not in names and elsewhere is None, "there is an adapter of none")
        return "no adapter was released"
    looked = []
    if evidence.ADAPTER in names:
        looked.append(found.digest(evidence.ADAPTER))
    if elsewhere is not None:
        looked.append(digest_of(elsewhere))
    _require(all(digest == made.sha256 for digest in looked), "the adapter is not the one that was released")
    if unpacked:
        _require(made.contents is not None, "what the adapter holds is not recorded: check the archive instead")
        contents = {name.removeprefix(f"{evidence.UNPACKED}/"): found.digest(name) for name in unpacked}
        _require(contents == made.contents, "the unpacked adapter is not the one that was released")
    if looked or unpacked:
        return "the adapter is the one that was released"
    return f"the adapter is not here and was not looked at (its sha256 is {made.sha256})"


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise BadEvidence(problem)
