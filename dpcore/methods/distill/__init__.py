"""Distillation: teacher and student side by side, of which one trains in each phase; the student alone leaves."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.export import About, export_whole
from dpcore.methods import full, lora
from dpcore.methods.distill.learning import Distilling
from dpcore.methods.distill.pair import TeacherAndStudent
from dpcore.methods.layers import find_layers, only_layers
from dpcore.methods.prune.leaving import export_packed, load
from dpcore.methods.prune.masks import apply, prunable, smallest
from dpcore.readers import Reader
from dpcore.terms.methods.distill import TEACHER, Options
from dpcore.terms.program import Phase
from dpcore.terms.tasks import TaskKind
from dpcore.train import Iterate

__all__ = ["attach", "begin", "between", "export", "learns", "load"]


def attach(model: PreTrainedModel, options: Mapping[str, Any], *, task: TaskKind, seed: int) -> TeacherAndStudent:
    """The base model as teacher, and the student: chosen layers of it with its embeddings and head. The seed drives
    LoRA's initialisation only.

    model: the student's, where the options name one; the base model is then handed over as teacher afterwards
    (`TeacherAndStudent.train_teacher`). So is a teacher from elsewhere (`learn_from`), and this model is let go. Raises
    ValueError for a model whose layers cannot be found.
    """
    chosen = Options.model_validate(options)
    student = only_layers(model, chosen.keeps(len(find_layers(model)[1])))
    full.attach(student, {}, task=task, seed=seed)
    masks = {}
    if chosen.student_sparsity is not None:
        masks = smallest(prunable(student), chosen.student_sparsity, matrix_by_matrix=False)
        apply(masks, student)
    as_teacher = partial(_trained, of=chosen.teacher_trains, task=task, seed=seed)
    teacher: nn.Module | None = None
    if chosen.student_model is None and chosen.taught_by is None:
        if chosen.teacher == "train":
            teacher = as_teacher(model)
        elif chosen.teacher == "public":
            teacher = model.requires_grad_(False)
    loss = {"temperature": chosen.temperature, "mixing": chosen.mixing}
    return TeacherAndStudent(student, teacher, **loss, as_teacher=as_teacher, masks=masks)


def _trained(model: PreTrainedModel, *, of: str, task: TaskKind, seed: int) -> nn.Module:
    teacher: nn.Module = (lora if of == "lora" else full).attach(model, {}, task=task, seed=seed)
    return teacher


def begin(model: Any, phase: Phase, kept: Mapping[str, Tensor], *, task: TaskKind) -> None:
    """The teacher trains in its phase, the student in its own, where the teacher is frozen."""
    model.turn_to(teacher=phase.name == TEACHER)


def learns(model: Any, phase: Phase, task: Any) -> Any:
    """The teacher learns the task as it is; the student the teacher's answers with it, if they have a weight."""
    return task if phase.name == TEACHER or not model.mixing else Distilling(task, model)


def between(iterate: Iterate) -> bool:
    """Keep zero what the student's public weights have pruned."""
    if iterate.phase.name != TEACHER:
        pair = cast(TeacherAndStudent, iterate.model)
        pair.masks = {name: mask.to(pair.get_parameter(name).device) for name, mask in pair.masks.items()}
        apply(pair.masks, pair, iterate.optimiser, iterate.averages)
    return False


def export(model: Any, folder: str | Path, about: About, *, tokenizer: Reader | None = None) -> None:
    """The student, whole, or packed where it is pruned; nothing of its teacher."""
    if model.masks:
        export_packed(model.student, Path(folder), about, tokenizer=tokenizer)
    else:
        export_whole(model.student, folder, about, tokenizer=tokenizer)
