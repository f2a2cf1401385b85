"""The clipped sum equals the one-by-one sum by plain autograd, whatever the architecture, clip and micro-batches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dpcore.clipping import AUTOMATIC_OFFSET, ClippedSum
from dpcore.engine.buffer import BatchShape, UnseenParameter
from dpcore.engine.per_example import PerExample

LENGTH = 16


def oracle(model, task, records, clip_norm, clipping):
    """Loop over the records with plain autograd; clip the whole vector; sum. Also how many were clipped."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    total, bound = 0, 0
    for i in range(len(records)):
        loss = task.losses(model, records, np.array([i]), LENGTH)[0]
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        norm = gradient.norm()
        bound += int(norm > clip_norm)
        factor = min(1.0, clip_norm / norm) if clipping == "flat" else clip_norm / (norm + AUTOMATIC_OFFSET)
        total = total + factor * gradient
    return total, bound


def clipped(model, task, records, clip_norm, clipping, sizes):
    engine = PerExample(model)
    total = ClippedSum.zero(
        engine.width, clip_norm=clip_norm, clipping=clipping, expected_batch=1, device=engine.device
    )
    for part in np.split(np.arange(len(records)), np.cumsum(sizes)[:-1]):
        total.add(engine.gradients(lambda part=part: task.losses(model, records, part, LENGTH), len(part)))
    return total.value


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize("clip", ["never", "partly", "always"])
@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_clipped_sum_equals_the_one_by_one_oracle(make_model, make_records, task, name, clip, clipping):
    model, records = make_model(name, layers=2, dtype=torch.float64), make_records(9)
    engine = PerExample(model)
    gradients = engine.gradients(lambda: task.losses(model, records, np.arange(9), LENGTH), 9).rows.clone()
    norms = gradients.norm(dim=1)
    clip_norm = {"never": 10 * norms.max(), "partly": norms.median(), "always": 0.5 * norms.min()}[clip].item()
    expected, bound = oracle(model, task, records, clip_norm, clipping)
    assert {"never": bound == 0, "partly": 0 < bound < 9, "always": bound == 9}[clip]
    for sizes in ([9], [4, 5], [1] * 9):
        error = (clipped(model, task, records, clip_norm, clipping, sizes) - expected).norm() / expected.norm()
        assert error <= 1e-6, sizes
    for parameter_name, part in engine.unflatten(gradients.abs().sum(0)).items():
        assert part.sum() > 0, f"{parameter_name} has no gradient: the comparison would not notice its loss"


def test_float32_gradients_move_by_less_than_the_stated_slack_when_a_record_leaves(make_model, make_records, task):
    """The sensitivity's slack is 1e-6 C for every expected record: other records move by less than that."""
    model, records = make_model(layers=2), make_records(64)
    engine = PerExample(model)

    def rows(indices):
        gradients = engine.gradients(lambda: task.losses(model, records, indices, LENGTH), len(indices)).rows.double()
        return gradients / gradients.norm(dim=1, keepdim=True)

    whole, without = rows(np.arange(64)).clone(), rows(np.arange(1, 64))
    assert (whole[1:] - without).norm(dim=1).max() < 1e-6


def test_parameter_used_several_times_is_summed_exactly(task):
    """Shared layers write once and add after that."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 5).double()

        def forward(self, x):
            return self.layer(torch.tanh(self.layer(x))).pow(2).sum((1, 2))

    model = Shared()
    x = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradients = PerExample(model).gradients(lambda: model(x), 4).rows
    for i in range(4):
        one = torch.autograd.grad(model(x[i : i + 1]).sum(), list(model.parameters()))
        torch.testing.assert_close(gradients[i], torch.cat([g.flatten() for g in one]), rtol=1e-9, atol=1e-12)


def test_model_is_left_as_it_was(make_model, make_records, task):
    model, records = make_model(), make_records(6)
    before = {n: p.clone() for n, p in model.named_parameters()}
    logits = task._forward(model, records, np.arange(6), LENGTH)
    PerExample(model).gradients(lambda: task.losses(model, records, np.arange(6), LENGTH), 6)
    assert all(torch.equal(before[n], p) and p.grad is None for n, p in model.named_parameters())
    assert torch.equal(logits, task._forward(model, records, np.arange(6), LENGTH))


@pytest.mark.parametrize("name", ["LayerNorm.weight", "position_embeddings.weight"])
def test_unseen_trainable_parameter_is_an_error_that_names_it(make_model, make_records, task, name):
    model, records = make_model(), make_records(4)
    chosen = next(n for n, _ in model.named_parameters() if n.endswith(name))
    model.get_parameter(chosen).requires_grad_()
    with pytest.raises(UnseenParameter, match=chosen):
        PerExample(model).gradients(lambda: task.losses(model, records, np.arange(4), LENGTH), 4)


def test_bare_parameter_beside_a_seen_use_is_an_error():
    """A weight used by a linear layer and once more by a bare product: the seen part alone would be wrong."""
    layer = nn.Linear(3, 3)
    x = torch.ones(2, 3)
    with pytest.raises(UnseenParameter, match="weight"):
        PerExample(layer).gradients(lambda: (layer(x) + x @ layer.weight).sum(1), 2)


def test_parameter_without_a_gradient_is_an_error():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 1), nn.Linear(3, 1)

    model = Unused()
    with pytest.raises(UnseenParameter, match="idle"):
        PerExample(model).gradients(lambda: model.used(torch.ones(2, 3)).squeeze(1), 2)


def test_examples_must_be_in_the_first_dimension():
    layer = nn.Linear(3, 1)
    x = torch.ones(2, 4, 3)
    with pytest.raises(BatchShape, match="weight"):
        PerExample(layer).gradients(lambda: layer(x.flatten(0, 1)).view(2, 4).sum(1), 2)


def test_losses_must_be_one_for_each_example():
    layer = nn.Linear(3, 1)
    with pytest.raises(ValueError, match="one loss for each of 2"):
        PerExample(layer).gradients(lambda: F.mse_loss(layer(torch.ones(2, 3)), torch.zeros(2, 1)), 2)
