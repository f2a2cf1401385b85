"""SIGKILL at chosen moments of jobs that distil or prune, each job then resumed or cancelled, and looked at: was it
lost, was it charged twice, do its masks fit its weights?

All draws and noises come from one secret, so that what is released can be compared, bit for bit, with that of a job
which nobody killed and which was granted as many steps as the other did not lose.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors.torch import load
from torch import Tensor, nn
from transformers import PreTrainedModel

from domain.storage.blobs import get_bytes
from dpcore.methods import load_export
from dpcore.methods.layers import find_layers
from dpcore.methods.prune import packed
from dpcore.methods.prune.masks import prunable, smallest
from dpcore.models import build_model
from dpcore.terms.methods.prune import Options, kept_layers
from ledger import work
from tests.worker import tiny
from tests.worker.books import authorised, lose, wrong
from tests.worker.service import PATIENCE, Service, Worker

LAYERS = 4
"""Of the base model, half of which go."""
TEACHER, STUDENT = 6, 10
PRUNINGS = {"first": 4, "last": 12}
STEPS, FEW = 16, 8
"""Chunks are of one step."""

PRUNED: dict[str, dict[str, Any]] = {
    "entries": {"rounds": 3, **PRUNINGS},
    "entries, to the end": {"rounds": 2, "first": 4, "last": STEPS},
    "layers": {"kind": "structured", "rounds": 2, **PRUNINGS},
    "entries, lora": {"weights": "lora"},
    "layers, lora": {"kind": "structured", "weights": "lora"},
}
"""Jobs of `prune`, by name; the others distil."""
TAUGHT_HERE, TAUGHT_BEFORE = "own teacher", "released teacher"

Point = tuple[str, int, Literal["before", "after"]]
"""The n-th call of a function."""
AUTHORISE, SAVE = "worker.training:Training._authorise", "worker.checkpoints:save"
PUT, BETWEEN = "worker.checkpoints:put_bytes", "dpcore.methods.prune:between"


@dataclass(frozen=True)
class Kill:
    """Where one job is killed, once for each point, and how many steps of each phase were paid for and lost by it."""

    job: str
    what: str
    points: tuple[Point, ...]
    lost: tuple[int, ...]
    then: Literal["resumed", "cancelled"] = "resumed"

    def __str__(self) -> str:
        return f"{self.job}: {self.what}"


def _of(job: str, what: str, place: str, call: int, when: Literal["before", "after"], *lost: int) -> Kill:
    return Kill(job, what, ((place, call, when),), lost)


def _publishing(job: str, *nothing: int) -> list[Kill]:
    return [
        _of(job, "in publishing, before its transaction", "worker.results:store_adapter", 1, "after", *nothing),
        _of(job, "in publishing, settled and not committed", "domain.jobs.releases:settle", 1, "after", *nothing),
        _of(job, "in publishing, all said and not committed", "worker.training:publish", 1, "after", *nothing),
    ]


KILLS = [
    _of("entries", "before any mask", AUTHORISE, 3, "after", 1),
    _of("entries", "before the first mask is made", BETWEEN, 4, "before", 1),
    _of("entries", "the first mask made, not applied", "dpcore.methods.prune:_masks", 1, "after", 1),
    _of("entries", "the second mask made, not applied", "dpcore.methods.prune:_masks", 2, "after", 1),
    _of("entries", "the second mask applied, not kept", BETWEEN, 8, "after", 1),
    _of("entries", "the checkpoint with the mask not stored", PUT, 8, "before", 1),
    _of("entries", "the checkpoint with the mask stored, not known", PUT, 8, "after", 1),
    _of("entries", "a checkpoint with a mask kept", SAVE, 8, "after", 0),
    _of("entries", "at the last mask", AUTHORISE, 12, "after", 1),
    _of("entries", "at the last step", AUTHORISE, STEPS, "after", 1),
    _of("entries", "after the last step, before publishing", SAVE, STEPS, "after", 0),
    *_publishing("entries", 0),
    _of("entries", "published, not tidied", "worker.checkpoints:discard", 1, "before", 0),
    Kill("entries", "again at the next mask", ((SAVE, 4, "after"), ("dpcore.methods.prune:_masks", 1, "after")), (1,)),
    Kill("entries", "while it is restored", ((SAVE, 9, "after"), ("dpcore.checkpoint:restore", 1, "before")), (0,)),
    Kill("entries", "a mask made, then cancelled", (("dpcore.methods.prune:_masks", 2, "after"),), (), "cancelled"),
    _of("entries, to the end", "at the last step, with its mask to come", AUTHORISE, STEPS, "after", 1),
    _of("layers", "before the first layer goes", BETWEEN, 4, "before", 1),
    _of("layers", "the first layer gone, not kept", "dpcore.methods.prune:shrink", 1, "after", 1),
    _of("layers", "what trains not yet found anew", "dpcore.train:PhaseRun._prepare", 2, "before", 1),
    _of("layers", "a checkpoint with fewer layers kept", SAVE, 4, "after", 0),
    _of("layers", "the last layer gone, not kept", BETWEEN, 12, "after", 1),
    _of("layers", "after the last step, before publishing", SAVE, STEPS, "after", 0),
    *_publishing("layers", 0),
    _of("entries, lora", "after the mask of the start", AUTHORISE, 3, "after", 1),
    _of("entries, lora", "after the last step, before publishing", SAVE, FEW, "after", 0),
    _of("layers, lora", "a checkpoint kept", SAVE, 3, "after", 0),
    _of("layers, lora", "in publishing", "worker.training:publish", 1, "after", 0),
    _of(TAUGHT_HERE, "in the teacher's phase", AUTHORISE, 3, "after", 1, 0),
    _of(TAUGHT_HERE, "at the teacher's last step", AUTHORISE, TEACHER, "after", 1, 0),
    _of(TAUGHT_HERE, "between the phases, the teacher kept", SAVE, TEACHER, "after", 0, 0),
    # Both phases are rehearsed before the first begins.
    _of(TAUGHT_HERE, "between the phases, the student's begun", "dpcore.methods.distill:begin", 4, "after", 0, 0),
    _of(TAUGHT_HERE, "at the student's first step", AUTHORISE, TEACHER + 1, "after", 0, 1),
    _of(TAUGHT_HERE, "in the student's phase, not kept", PUT, TEACHER + 5, "before", 0, 1),
    _of(TAUGHT_HERE, "after the last phase, before publishing", SAVE, TEACHER + STUDENT, "after", 0, 0),
    *_publishing(TAUGHT_HERE, 0, 0),
    # The second attempt has three steps of the teacher's left and asks for a fourth in vain.
    Kill(TAUGHT_HERE, "in the one phase, then in the other", ((AUTHORISE, 3, "after"), (AUTHORISE, 5, "after")), (1, 1)),
    Kill(TAUGHT_HERE, "in the student's phase, then cancelled", ((AUTHORISE, 9, "after"),), (), "cancelled"),
    _of(TAUGHT_BEFORE, "before the teacher is there", "dpcore.methods.distill.pair:TeacherAndStudent.learn_from", 1, "before", 0),
    _of(TAUGHT_BEFORE, "at the first step", AUTHORISE, 1, "after", 1),
    _of(TAUGHT_BEFORE, "a checkpoint kept", SAVE, 4, "after", 0),
    _of(TAUGHT_BEFORE, "after the last step, before publishing", SAVE, FEW, "after", 0),
    *_publishing(TAUGHT_BEFORE, 0),
]  # fmt: skip


@dataclass
class Totals:
    """What the kills came to."""

    jobs: int = 0
    kills: int = 0
    lost: list[str] = field(default_factory=list)
    double_charges: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"jobs {self.jobs}, kills {self.kills}, jobs lost {len(self.lost)}, double charges "
            f"{len(self.double_charges)}, masks or layers that do not fit their weights {len(self.unfit)}"
        )


@dataclass
class Matrix:
    """The jobs of one service, and what was released by those that nobody killed."""

    service: Service
    totals: Totals = field(default_factory=Totals)
    _whole: dict[tuple[str, tuple[int, ...]], dict[str, bytes]] = field(default_factory=dict)
    _teacher: str = ""

    def run(self, kill: Kill) -> None:
        """One job; what is wrong with it is in the totals."""
        service, totals, id = self.service, self.totals, self._submit(kill.job)
        for point in kill.points:
            status = self._attempt(id, at=point)
            assert status == -9, f"{kill}: no call {point[1]} of {point[0]}, the attempt ended with {status}"
            totals.kills += 1
            lose(service)
        if kill.then == "cancelled":
            with service.api.begin() as c:
                work.request_stop(c, id)
        self._attempt(id)
        totals.jobs += 1
        end = {"resumed": "succeeded", "cancelled": "cancelled"}[kill.then]
        released = service.released(id)
        if service.status(id) != end or bool(released) != (end == "succeeded"):
            totals.lost.append(f"{kill}: {service.status(id)}, {len(released)} results")
            return
        totals.double_charges += [f"{kill}: {what}" for what in wrong(service, id)]
        steps = _steps(kill.job)
        if end == "succeeded" and authorised(service, id) != [*steps]:
            totals.double_charges.append(f"{kill}: authorised {authorised(service, id)} of {steps}")
        if end == "succeeded":
            made = self._files(id)
            totals.unfit += [f"{kill}: {what}" for what in unfit(kill.job, made, service.model)]
            if made != self._unkilled(kill):
                totals.unfit.append(f"{kill}: not what the same steps give where nobody is killed")

    def _unkilled(self, kill: Kill) -> dict[str, bytes]:
        """What a job leaves that was granted so many steps fewer."""
        key = (kill.job, kill.lost)
        if key not in self._whole:
            id = self._submit(kill.job)
            granted = [steps - lost for steps, lost in zip(_steps(kill.job), kill.lost, strict=True)]
            assert self._attempt(id, grants=granted) == 0
            assert self.service.status(id) == "succeeded"
            self._whole[key] = self._files(id)
        return self._whole[key]

    def _attempt(self, id: str, *, at: Point | None = None, grants: list[int] | None = None) -> int:
        """One process, and how it ended, as Popen has it."""
        told = {"job": id, "secret": "one for all", "at": at, "grants": grants}
        started = Worker.start(self.service, 60, {"DYING": json.dumps(told)}, "tests.worker.dying")
        return started.process.wait(PATIENCE)

    def _submit(self, name: str) -> str:
        submit: Callable[..., str] = self.service.submit
        if name in PRUNED:
            return submit(method="prune", options=PRUNED[name], steps=_steps(name)[0], hint=False)
        if name == TAUGHT_HERE:
            return submit(method="distill", numbers={"teacher_steps": TEACHER}, steps=STUDENT, hint=False)
        if not self._teacher:
            self._teacher = submit(steps=FEW, hint=False)
            assert self._attempt(self._teacher) == 0
        options = {"teacher": "job", "teacher_job": self._teacher}
        return submit(method="distill", options=options, steps=FEW, hint=False)

    def _files(self, id: str) -> dict[str, bytes]:
        """Of the result, without what names the job's price: weights, masks, and what says of what they are."""
        with zipfile.ZipFile(
            io.BytesIO(get_bytes(self.service.store, self.service.released(id)["adapter"].blob))
        ) as left:
            return {name: left.read(name) for name in left.namelist() if name != "README.md"}


def _steps(job: str) -> tuple[int, ...]:
    few = job == TAUGHT_BEFORE or PRUNED.get(job, {}).get("weights") == "lora"
    return (TEACHER, STUDENT) if job == TAUGHT_HERE else (FEW,) if few else (STEPS,)


def unfit(job: str, files: Mapping[str, bytes], base: Path) -> list[str]:
    """What does not go together in a result: masks with weights, or layers with what the job keeps."""
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(data)
        model: Any = load_export(folder, base)[0]
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    options = Options(**PRUNED.get(job, {}))
    if job in PRUNED and options.kind == "unstructured":
        of_adapter = options.weights == "lora"
        bits = load(files[packed.MASKS if of_adapter else packed.WEIGHTS])
        found = _zeros_that_differ(inner, bits)
        if of_adapter:
            public = build_model("classification", base, tiny.LABELS, seed=7)
            found += _masks_that_differ(bits, smallest(prunable(public), options.sparsity, matrix_by_matrix=False))
        return found
    keeps = len(kept_layers(Options(), LAYERS))
    found = [] if len(find_layers(inner)[1]) == keeps else [f"{len(find_layers(inner)[1])} layers, {keeps} are kept"]
    if options.kind == "structured" and options.weights == "lora":
        said = tuple(json.loads(files[packed.PRUNED])["layers"]["kept"])
        found += [] if said == kept_layers(options, LAYERS) else [f"layers {said}"]
    return found


def _zeros_that_differ(model: nn.Module, bits: Mapping[str, Tensor]) -> list[str]:
    """Matrices that are zero elsewhere than their mask says; a share of zeros that is not the job's."""
    found, zeros, entries = [], 0, 0
    masks = {name.removesuffix(packed.MASK): mask for name, mask in bits.items() if name.endswith(packed.MASK)}
    weights = {name.replace(".base_layer.", "."): p for name, p in model.named_parameters()}
    for name, mask in masks.items():
        weight = weights[name]
        there = packed.unpack(mask, weight.numel()).view_as(weight)
        if not torch.equal(weight != 0, there):
            found.append(f"{name} is zero elsewhere than its mask says")
        zeros, entries = zeros + int((~there).sum()), entries + weight.numel()
    return found + ([] if masks and 2 * zeros == entries else [f"{zeros} zeros of {entries} entries"])


def _masks_that_differ(bits: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    same = bits.keys() == {name + packed.MASK for name in wanted} and all(
        torch.equal(packed.unpack(bits[name + packed.MASK], mask.numel()), ~mask.flatten())
        for name, mask in wanted.items()
    )
    return [] if same else ["the masks are not those of the public weights"]
