"""SIGKILL at chosen moments of jobs that distil or prune, each job then resumed or cancelled, and looked at: was it
lost, was it charged twice, do its masks fit its weights?"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.methods import load_export
from dpcore.methods.layers import find_layers
from dpcore.methods.prune import packed
from dpcore.methods.prune.masks import prunable, smallest
from dpcore.models import build_model
from dpcore.terms.methods.prune import Options, kept_layers
from tests.worker import tiny
from tests.worker.kill_matrix import AUTHORISE, PUT, SAVE, Kill, Matrix, killed, publishing

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

BETWEEN = "dpcore.methods.prune:between"

KILLS = [
    killed("entries", "before any mask", AUTHORISE, 3, "after", 1),
    killed("entries", "before the first mask is made", BETWEEN, 4, "before", 1),
    killed("entries", "the first mask made, not applied", "dpcore.methods.prune:_masks", 1, "after", 1),
    killed("entries", "the second mask made, not applied", "dpcore.methods.prune:_masks", 2, "after", 1),
    killed("entries", "the second mask applied, not kept", BETWEEN, 8, "after", 1),
    killed("entries", "the checkpoint with the mask not stored", PUT, 8, "before", 1),
    killed("entries", "the checkpoint with the mask stored, not known", PUT, 8, "after", 1),
    killed("entries", "a checkpoint with a mask kept", SAVE, 8, "after", 0),
    killed("entries", "at the last mask", AUTHORISE, 12, "after", 1),
    killed("entries", "at the last step", AUTHORISE, STEPS, "after", 1),
    killed("entries", "after the last step, before publishing", SAVE, STEPS, "after", 0),
    *publishing("entries", 0),
    killed("entries", "published, not tidied", "worker.checkpoints:discard", 1, "before", 0),
    Kill("entries", "again at the next mask", ((SAVE, 4, "after"), ("dpcore.methods.prune:_masks", 1, "after")), (1,)),
    Kill("entries", "while it is restored", ((SAVE, 9, "after"), ("dpcore.checkpoint:restore", 1, "before")), (0,)),
    Kill("entries", "a mask made, then cancelled", (("dpcore.methods.prune:_masks", 2, "after"),), (), "cancelled"),
    killed("entries, to the end", "at the last step, with its mask to come", AUTHORISE, STEPS, "after", 1),
    killed("layers", "before the first layer goes", BETWEEN, 4, "before", 1),
    killed("layers", "the first layer gone, not kept", "dpcore.methods.prune:shrink", 1, "after", 1),
    killed("layers", "what trains not yet found anew", "dpcore.train:PhaseRun._prepare", 2, "before", 1),
    killed("layers", "a checkpoint with fewer layers kept", SAVE, 4, "after", 0),
    killed("layers", "the last layer gone, not kept", BETWEEN, 12, "after", 1),
    killed("layers", "after the last step, before publishing", SAVE, STEPS, "after", 0),
    *publishing("layers", 0),
    killed("entries, lora", "after the mask of the start", AUTHORISE, 3, "after", 1),
    killed("entries, lora", "after the last step, before publishing", SAVE, FEW, "after", 0),
    killed("layers, lora", "a checkpoint kept", SAVE, 3, "after", 0),
    killed("layers, lora", "in publishing", "worker.training:publish", 1, "after", 0),
    killed(TAUGHT_HERE, "in the teacher's phase", AUTHORISE, 3, "after", 1, 0),
    killed(TAUGHT_HERE, "at the teacher's last step", AUTHORISE, TEACHER, "after", 1, 0),
    killed(TAUGHT_HERE, "between the phases, the teacher kept", SAVE, TEACHER, "after", 0, 0),
    # Both phases are rehearsed before the first begins.
    killed(TAUGHT_HERE, "between the phases, the student's begun", "dpcore.methods.distill:begin", 4, "after", 0, 0),
    killed(TAUGHT_HERE, "at the student's first step", AUTHORISE, TEACHER + 1, "after", 0, 1),
    killed(TAUGHT_HERE, "in the student's phase, not kept", PUT, TEACHER + 5, "before", 0, 1),
    killed(TAUGHT_HERE, "after the last phase, before publishing", SAVE, TEACHER + STUDENT, "after", 0, 0),
    *publishing(TAUGHT_HERE, 0, 0),
    # The second attempt has three steps of the teacher's left and asks for a fourth in vain.
    Kill(TAUGHT_HERE, "in the one phase, then in the other", ((AUTHORISE, 3, "after"), (AUTHORISE, 5, "after")), (1, 1)),
    Kill(TAUGHT_HERE, "in the student's phase, then cancelled", ((AUTHORISE, 9, "after"),), (), "cancelled"),
    killed(TAUGHT_BEFORE, "before the teacher is there", "dpcore.methods.distill.pair:TeacherAndStudent.learn_from", 1, "before", 0),
    killed(TAUGHT_BEFORE, "at the first step", AUTHORISE, 1, "after", 1),
    killed(TAUGHT_BEFORE, "a checkpoint kept", SAVE, 4, "after", 0),
    killed(TAUGHT_BEFORE, "after the last step, before publishing", SAVE, FEW, "after", 0),
    *publishing(TAUGHT_BEFORE, 0),
]  # fmt: skip


@dataclass
class Compressions(Matrix):
    """Jobs that distil or prune."""

    _teacher: str = ""

    def submit(self, name: str) -> str:
        submit: Callable[..., str] = self.service.submit
        if name in PRUNED:
            return submit(method="prune", options=PRUNED[name], steps=self.steps(name)[0], hint=False)
        if name == TAUGHT_HERE:
            return submit(method="distill", numbers={"teacher_steps": TEACHER}, steps=STUDENT, hint=False)
        if not self._teacher:
            self._teacher = submit(steps=FEW, hint=False)
            assert self.attempt(self._teacher) == 0
        options = {"teacher": "job", "teacher_job": self._teacher}
        return submit(method="distill", options=options, steps=FEW, hint=False)

    def steps(self, name: str) -> tuple[int, ...]:
        """Of its phases."""
        few = name == TAUGHT_BEFORE or PRUNED.get(name, {}).get("weights") == "lora"
        return (TEACHER, STUDENT) if name == TAUGHT_HERE else (FEW,) if few else (STEPS,)

    def unfit(self, name: str, files: Mapping[str, bytes]) -> list[str]:
        """Masks that do not fit their weights, layers that are not those that the job keeps."""
        return unfit(name, files, self.service.model)


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
