"""The loss of a record that is all but certain keeps the digits of its gradient, in float32 too."""

import pytest
import torch
import torch.nn.functional as F

from dpcore.tasks.cross_entropy import cross_entropy, cross_entropy_behind


def behind(logits, targets):
    """Behind a layer that changes nothing."""
    return cross_entropy_behind(logits, torch.eye(7, dtype=logits.dtype), None, targets)


def gradient(loss, logits, targets):
    logits = logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad((loss(logits, targets) * torch.tensor([1.0, 2.0, 0.5])).sum(), logits)
    return grad


@pytest.mark.parametrize("loss", [cross_entropy, behind])
@pytest.mark.parametrize("gap", [0.0, 4.0, 8.0, 16.0, 30.0])
def test_float32_gradients_have_the_digits_of_float64(gap, loss):
    logits = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).float().double()
    targets = torch.tensor([2, 0, 6])
    logits[torch.arange(3), targets] += gap
    exact = gradient(lambda x, y: F.cross_entropy(x, y, reduction="none"), logits.to(torch.float64), targets)
    exact[torch.arange(3), targets] = 0
    exact[torch.arange(3), targets] = -exact.sum(1)
    ours = gradient(loss, logits.float(), targets).double()
    assert ((ours - exact).abs() <= 1e-5 * exact.abs()).all()
    losses = loss(logits.float(), targets)
    torch.testing.assert_close(losses, F.cross_entropy(logits.float(), targets, reduction="none"))


def test_half_precision_logits_are_widened():
    logits, targets = torch.zeros(2, 7, dtype=torch.bfloat16, requires_grad=True), torch.tensor([0, 1])
    for loss in (cross_entropy, behind):
        losses = loss(logits, targets)
        assert losses.dtype == torch.float32
        losses.sum().backward()


def test_rows_that_do_not_count_leave_nothing_even_where_they_are_no_numbers():
    logits, targets = torch.randn(3, 7, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0, 6])
    expected = gradient(cross_entropy, logits, targets)
    expected[1] = 0
    counted = torch.tensor([True, False, True])
    logits[1, 3] = float("nan")
    assert torch.equal(gradient(lambda x, y: cross_entropy(x, y, counted), logits, targets), expected)
    assert cross_entropy(logits, targets, counted)[1] == 0
    loss = cross_entropy(logits.requires_grad_(), targets).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
