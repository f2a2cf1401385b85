"""Sampled text beside the adapter: after the last authorised step, from the folder that is released and from nothing
else of the job. It is public once the adapter is, so that what goes wrong here may be said, and costs neither the
adapter nor a step."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from domain.jobs.releases import Result
from domain.kit.logs import describe
from domain.storage.blobs import Store
from dpcore.machine.micro_batches import Stopped
from dpcore.methods import load_export
from dpcore.synthetic import beginnings, sample, settings
from dpcore.tasks.causal_lm import CausalLM
from dpcore.tasks.records import device_of
from dpcore.terms.synthetic import Synthetic
from ledger.work import Lease
from worker.assignment import Assignment
from worker.build import Built
from worker.errors import Refused
from worker.log import log
from worker.results import keep
from worker.synthetic_card import card

ATTEMPTS = 3
"""That may die while they sample; the next one releases the adapter alone."""
_NO_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


@dataclass(frozen=True)
class Sampling:
    """What is to be sampled, and the tokens that each prompt is: known to fit before anything is paid."""

    wanted: Synthetic
    begin: list[list[int]]


@dataclass(frozen=True)
class Sampled:
    """What came of it. data: None where it failed, and `why` says how."""

    wanted: Synthetic
    data: bytes | None
    records: int = 0
    settings: Mapping[str, Any] | None = None
    why: str | None = None

    def report(self) -> dict[str, Any]:
        """For the job's report."""
        asked = self.wanted.model_dump(mode="json", exclude_none=True)
        if self.data is None:
            return {"asked": asked, "file": None, "why": self.why}
        return {
            "asked": asked,
            "file": "synthetic.jsonl",
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "bytes": len(self.data),
            "records": self.records,
            "epsilon_charged": 0.0,
            "generate": dict(self.settings or {}),
        }

    def store(self, store: Store, lease: Lease, report: Mapping[str, Any]) -> list[Result]:
        """The file and its card, under this attempt's fence; nothing where sampling failed."""
        if self.data is None:
            return []
        return [
            keep(store, lease, "synthetic", "synthetic.jsonl", self.data),
            keep(store, lease, "synthetic_card", "synthetic.md", card(report).encode()),
        ]


def prepared(assignment: Assignment, built: Built) -> Sampling | None:
    """None for a job that samples nothing. Raises Refused for prompts that do not fit the model, at no cost."""
    wanted = assignment.synthetic
    if wanted is None:
        return None
    assert isinstance(built.task, CausalLM)
    try:
        begin = beginnings(wanted, assignment.task, built.task, built.tokenizer, built.base.facts.max_positions)
    except ValueError as error:
        raise Refused("cannot_sample", f"synthetic.prompts: {error}.") from error
    return Sampling(wanted, begin)


def sampled(
    sampling: Sampling,
    assignment: Assignment,
    built: Built,
    adapter: bytes,
    attempts: int,
    most: int,
    should_stop: Callable[[], bool],
) -> Sampled:
    """Sample from the bytes of the adapter that is about to be released.

    attempts: since the last checkpoint, this one among them unless it kept one. most: of them that sample. Raises
    Stopped where the worker is to let go; any other failure is a part of what is answered.
    """
    wanted = sampling.wanted
    if attempts > most:
        log.error("job %s: workers were lost while they sampled: its text is left out", assignment.job_id)
        return Sampled(wanted, None, why="its worker was lost again and again while it sampled")
    device = device_of(built.model)
    try:
        built.model.to("cpu")  # two models are too much for a device that had room for one
        with TemporaryDirectory(prefix="tacit-synthetic-") as folder:
            with zipfile.ZipFile(io.BytesIO(adapter)) as files:
                files.extractall(folder)
            model: nn.Module = load_export(Path(folder), built.base.folder)[0].to(device)
            told = settings(wanted, model).to_diff_dict()
            rows = list(sample(model, built.tokenizer, wanted, assignment.task, sampling.begin, should_stop))
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001
        # Whatever it was, the adapter is there; no row had a part in it, so that its type may be told.
        log.error("job %s: sampling failed: %s", assignment.job_id, describe(error))
        return Sampled(wanted, None, why=f"the model could not be sampled from: {type(error).__name__}")
    if not rows:
        return Sampled(wanted, None, why="all records came out empty")
    told = {name: value for name, value in told.items() if name != "transformers_version"}
    return Sampled(wanted, jsonl(rows), len(rows), told)


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    """Records as lines, as a file is uploaded: nothing in a text ends a line to any reader."""
    lines = (json.dumps(row, ensure_ascii=False).translate(_NO_LINE_ENDS) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", errors="replace")
