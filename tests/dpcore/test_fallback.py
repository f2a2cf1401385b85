"""A model that uses a parameter in a way that the fast engine does not know is trained one record at a time."""

import pytest
import torch
from torch import Tensor, nn

from dpcore.engine.errors import MixedExamples

from .test_train import Host, make_program, secret


class Einsum(nn.Module):
    """A linear layer written as no handler expects it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("mi,oi->mo", x, self.weight) + self.bias


def train_classifier(make_base, make_records, task, change=lambda layer: layer, **plan):
    """The classifier's weight after some steps, and the sizes of all micro-batches."""
    model, sizes, losses = make_base("bert").requires_grad_(False), [], task.losses

    def counting(model, records, indices, length):
        sizes.append(len(indices))
        return losses(model, records, indices, length)

    model.classifier = change(model.classifier).requires_grad_(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "losses", counting)
        Host().run(model, task, make_records(30), make_program(steps=3, **plan), streams=secret())
    return model.classifier.weight.detach().clone(), sizes


@pytest.mark.parametrize("clipping", ["automatic", "per-layer"])
def test_one_at_a_time_gives_what_the_fast_engine_gives(make_base, make_records, task, clipping):
    fast, sizes = train_classifier(make_base, make_records, task, clipping=clipping)
    assert max(sizes[-10:]) > 1
    slow, sizes = train_classifier(make_base, make_records, task, Einsum, clipping=clipping)
    assert set(sizes[4:]) == {1}, "the trace, and the comparison that finds the use"
    torch.testing.assert_close(slow, fast, rtol=1e-4, atol=1e-6)


def test_model_in_which_records_meet_is_never_taken_one_at_a_time(make_base, make_records, task):
    def batch_norm(layer):
        return nn.Sequential(nn.BatchNorm1d(layer.in_features), Einsum(layer)).train()

    with pytest.raises(MixedExamples, match=r"classifier\.0: a batch norm"):
        train_classifier(make_base, make_records, task, batch_norm)
