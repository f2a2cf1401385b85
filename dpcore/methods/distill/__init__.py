"""Distillation: teacher and student side by side, of which one trains in each phase; the student alone leaves."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dpcore.export import About, export_whole
from dpcore.export import load_whole as load
from dpcore.methods import full, lora
from dpcore.methods.distill.learning import Distilling
from dpcore.methods.distill.pair import TeacherAndStudent
from dpcore.methods.layers import find_layers, only_layers
from dpcore.methods.plain import between
from dpcore.terms.methods.distill import TEACHER, Options
from dpcore.terms.program import Phase
from dpcore.terms.tasks import TaskKind

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
    as_teacher = partial(_trained, of=chosen.teacher_trains, task=task, seed=seed)
    teacher: nn.Module | None = None
    if chosen.student_model is None and chosen.taught_by is None:
        if chosen.teacher == "train":
            teacher = as_teacher(model)
        elif chosen.teacher == "public":
            teacher = model.requires_grad_(False)
    return TeacherAndStudent(
        student, teacher, temperature=chosen.temperature, mixing=chosen.mixing, as_teacher=as_teacher
    )


def _trained(model: PreTrainedModel, *, of: str, task: TaskKind, seed: int) -> nn.Module:
    teacher: nn.Module = (lora if of == "lora" else full).attach(model, {}, task=task, seed=seed)
    return teacher


def begin(model: Any, phase: Phase, kept: Mapping[str, Tensor], *, task: TaskKind) -> None:
    """The teacher trains in its phase, the student in its own, where the teacher is frozen."""
    model.turn_to(teacher=phase.name == TEACHER)


def learns(model: Any, phase: Phase, task: Any) -> Any:
    """The teacher learns the task as it is; the student the teacher's answers with it, if they have a weight."""
    return task if phase.name == TEACHER or not model.mixing else Distilling(task, model)


def export(model: Any, folder: str | Path, about: About, *, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """The student, whole; nothing of its teacher."""
    export_whole(model.student, folder, about, tokenizer=tokenizer)
