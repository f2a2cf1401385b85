"""A teacher and its student as one module, of which a phase trains the one or the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dpcore.methods.prune.masks import Masks


@dataclass(frozen=True)
class Scores:
    """Of both: logits are the student's, taught the teacher's, without a gradient; both [..., classes]."""

    logits: Tensor
    taught: Tensor


class TeacherAndStudent(nn.Module):
    """It answers as the student does; while the teacher trains, as the teacher. What requires a gradient in either when
    they come is what trains in its phase. temperature, mixing: of the student's loss."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: nn.Module | None,
        *,
        temperature: float,
        mixing: float,
        as_teacher: Callable[[PreTrainedModel], nn.Module],
        masks: Masks,
    ) -> None:
        """as_teacher: makes of a model the teacher that trains. masks: where the student stays zero."""
        super().__init__()
        self._as_teacher = as_teacher
        self.masks = {f"student.{name}": mask for name, mask in masks.items()}
        self.teacher, self.student = teacher, student
        self.temperature, self.mixing = temperature, mixing
        self._trains = {id(module): _trainable(module) for module in (student, teacher) if module is not None}
        self._order: list[int] | None = None
        self._teacher_s_turn = False
        self.eval()

    def learn_from(self, teacher: nn.Module, order: Sequence[int] | None = None) -> None:
        """Take a teacher from elsewhere, frozen. order: where it has each of the student's classes, if it has them in
        another order.

        Raises ValueError for one with fewer weights than the student, with other classes or another padding.
        """
        self._require_pair(teacher)
        self.teacher = teacher.requires_grad_(False).eval()
        self._order = None if order is None else [*order]

    def train_teacher(self, model: PreTrainedModel) -> None:
        """Take another model than the student's as the teacher that trains here. Raises as `learn_from` does."""
        self._require_pair(model)
        self.teacher = self._as_teacher(model).eval()
        self._trains[id(self.teacher)] = _trainable(self.teacher)

    def _require_pair(self, teacher: nn.Module) -> None:
        mine, theirs = (sum(p.numel() for p in m.parameters()) for m in (self.student, teacher))
        if mine > theirs:
            raise ValueError(f"the student, of {mine:,} weights, is larger than its teacher, of {theirs:,}")
        mine, theirs = _classes(self.student), _classes(teacher)
        if mine != theirs:
            raise ValueError(f"the teacher has scores for {theirs:,} words or labels, the student for {mine:,}")
        paddings = {getattr(m.config, "pad_token_id", None) for m in (self.student, teacher)} - {None}
        if len(paddings) > 1:
            raise ValueError("the teacher has another padding token than the student")

    def turn_to(self, *, teacher: bool) -> None:
        """Let the teacher train, or the student; the other is frozen. Raises ValueError where there is no teacher and
        one is needed."""
        if self.teacher is None and (teacher or self.mixing):
            raise ValueError("this student has a teacher from elsewhere, and none was handed over")
        for module, turn in ((self.teacher, teacher), (self.student, not teacher)):
            for name, p in () if module is None else module.named_parameters():
                p.requires_grad_(turn and name in self._trains.get(id(module), ()))
        self._teacher_s_turn = teacher

    @property
    def current(self) -> Any:
        """The one that answers."""
        return self.teacher if self._teacher_s_turn else self.student

    @property
    def config(self) -> Any:
        """Of the one that answers."""
        return self.current.config

    def get_input_embeddings(self) -> Any:
        """Of the one that answers."""
        return self.current.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """Of the one that answers."""
        return self.current.get_output_embeddings()

    def forward(self, *, beside: bool = False, **inputs: Any) -> Any:
        """The output of the one that answers; with `beside` the scores of both."""
        output = self.current(**inputs)
        if not beside:
            return output
        assert self.teacher is not None
        with torch.no_grad():
            taught = self.teacher(**inputs).logits
        return Scores(output.logits, taught if self._order is None else taught[..., self._order])


def _trainable(module: nn.Module) -> frozenset[str]:
    return frozenset(name for name, p in module.named_parameters() if p.requires_grad)


def _classes(model: Any) -> int:
    """Words or labels that a model has scores for."""
    head = model.get_output_embeddings()
    return int(model.config.num_labels if head is None else head.weight.shape[0])
