"""One unit moves the clipped sum by at most its sensitivity, whatever its gradient is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpcore.clipping import ROUNDING_SLACK, ClippedSum
from dpcore.engine.rows import Rows

CPU = torch.device("cpu")


def clipped_sum(gradients, clipping="flat", clip_norm=1.0, expected_batch=1):
    total = ClippedSum.zero(
        gradients.shape[1], clip_norm=clip_norm, clipping=clipping, expected_batch=expected_batch, device=CPU
    )
    total.add(Rows(gradients))
    return total


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-20, 1e-3, 0.12, 1.0, 1e3, 1e18, 1e30]),
    clip_norm=st.sampled_from([1e-3, 1.0, 50.0]),
    clipping=st.sampled_from(["flat", "automatic"]),
)
def test_removing_a_unit_moves_the_sum_by_at_most_the_sensitivity(seed, scale, clip_norm, clipping):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(5, 40, generator=generator) * torch.tensor([[scale], [1.0], [0.1], [10.0], [1.0]])
    whole = clipped_sum(gradients, clipping, clip_norm)
    without = clipped_sum(gradients[1:], clipping, clip_norm)
    assert (whole.value - without.value).norm() <= whole.sensitivity


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_non_finite_unit_contributes_zero_and_changes_nothing_else(clipping, poison):
    gradients = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    bad = gradients.clone()
    bad[2] = 1e38 if poison == 1e38 else bad[2]  # every entry finite, the norm overflows
    bad[2, 7] = poison
    assert not bad[2].norm().isfinite()
    others = clipped_sum(gradients[[0, 1, 3]], clipping).value
    torch.testing.assert_close(clipped_sum(bad, clipping).value, others, rtol=0, atol=1e-6)


def test_sensitivity_is_public_and_covers_rounding():
    """It depends on the clip norm and the expected batch alone, and an empty draw carries the same."""
    assert clipped_sum(torch.ones(3, 4), clip_norm=2.0, expected_batch=1000).sensitivity == 2.0 * (
        1 + 1000 * ROUNDING_SLACK
    )
    empty = clipped_sum(torch.zeros(0, 4), clip_norm=2.0, expected_batch=1000)
    assert empty.sensitivity > 2.0
    assert empty.value.abs().sum() == 0
