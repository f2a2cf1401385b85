"""What a student learns: the record's own answer and its teacher's, mixed; one loss for each record."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dpcore.methods.distill.pair import Scores, TeacherAndStudent
from dpcore.tasks.other_loss import OtherLoss
from dpcore.terms.memory import SCORES_AT_ONCE


class Distilling(OtherLoss):
    """A task whose losses hold a teacher's answers to the very records. A record's loss depends on that record alone,
    as its teacher's answer does; a language model's is the mean over the record's own targets."""

    def __init__(self, task: Any, pair: TeacherAndStudent) -> None:
        super().__init__(task, self._distilled)
        self._temperature, self._mixing = pair.temperature, pair.mixing

    def require_fit(self, model: nn.Module) -> None:
        """Raises what the task raises, of either model."""
        assert isinstance(model, TeacherAndStudent)
        super().require_fit(model.student)
        assert model.teacher is not None
        super().require_fit(model.teacher)

    def _distilled(self, pair: nn.Module, run: Callable[..., Any], where: Tensor, targets: Tensor) -> Tensor:
        scores: Scores = run(beside=True)
        each = distilled(
            scores.logits.flatten(0, -2),
            scores.taught.flatten(0, -2),
            targets.flatten(),
            where.flatten(),
            temperature=self._temperature,
            mixing=self._mixing,
        )
        return each.view(where.shape)


class _Distilled(torch.autograd.Function):
    """The gradient is computed in the forward pass, a few rows at a time, so that of what lies between scores and
    losses nothing is kept but this."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, taught: Tensor, targets: Tensor, counted: Tensor, temperature: float, mixing: float
    ) -> Tensor:
        losses = logits.new_empty(len(logits))
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        step = max(1, SCORES_AT_ONCE // logits.shape[1])
        for start in range(0, len(logits), step):
            rows, wanted = slice(start, start + step), targets[start : start + step].unsqueeze(1)
            log_p = torch.log_softmax(logits[rows], dim=1)
            log_p_soft = torch.log_softmax(logits[rows] / temperature, dim=1)
            log_q = torch.log_softmax(taught[rows] / temperature, dim=1)
            q = log_q.exp()
            own, far = -log_p.gather(1, wanted).squeeze(1), (q * (log_q - log_p_soft)).sum(1)
            losses[rows] = (1 - mixing) * own + mixing * temperature**2 * far
            if gradient is not None:
                part = (1 - mixing) * log_p.exp_() + mixing * temperature * (log_p_soft.exp_() - q)
                # The parts add up to zero, and minus the sum of the others keeps the digits of the target's own.
                part.scatter_(1, wanted, 0.0)
                gradient[rows] = part.scatter_(1, wanted, -part.sum(1, keepdim=True))
        ctx.save_for_backward(gradient, counted)
        # Left out rather than weighted with zero, which a NaN would survive.
        return losses.masked_fill_(~counted, 0.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        gradient, counted = ctx.saved_tensors
        given = (gradient * grads[0].unsqueeze(1)).masked_fill_(~counted.unsqueeze(1), 0.0)
        return given, None, None, None, None, None


def distilled(
    logits: Tensor, taught: Tensor, targets: Tensor, counted: Tensor, *, temperature: float, mixing: float
) -> Tensor:
    """Of each row: (1 - mixing) CE(target, p) + mixing temperature^2 KL(q || p'), with p the student's probabilities,
    p' and q the student's and the teacher's after their scores were divided by the temperature (Hinton et al. 2015;
    DPKD, Mireshghallah et al. 2022): float32 or better [n].

    logits, taught: [n, classes], the second without a gradient; targets: int64 [n]; counted: bool [n], the other rows
    have loss and gradient zero, whatever stands in them.
    """
    kind = torch.promote_types(logits.dtype, torch.float32)
    losses: Tensor = _Distilled.apply(  # type: ignore[no-untyped-call]
        logits.to(kind), taught.detach().to(kind), targets, counted, temperature, mixing
    )
    return losses
