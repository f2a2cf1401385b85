"""One unit moves the clipped sum by at most its sensitivity, whatever its gradient is and however it is clipped."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpcore.engine.per_example import PerExample
from dpcore.engine.rows import Rows
from dpcore.mechanism import adaptive
from dpcore.mechanism.clipping import ROUNDING_SLACK, ClippedSum, by_module
from dpcore.terms.program import Clipping

CPU = torch.device("cpu")
STYLES = get_args(Clipping)


def groups_of(size):
    """Three layers, the last of one number; the first has two parameters."""
    return ((slice(0, 5), slice(8, size - 1)), (slice(5, 8),), (slice(size - 1, size),))


def clipped_sum(gradients, clipping="flat", clip_norm=1.0, expected_batch=1):
    size = gradients.shape[1]
    total = ClippedSum.zero(
        size,
        clip_norm=clip_norm,
        clipping=clipping,
        expected_batch=expected_batch,
        device=CPU,
        groups=groups_of(size) if size > 8 else (),
    )
    total.add(Rows(gradients))
    return total


@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1e-20, 1e-3, 0.12, 1.0, 1e3, 1e18, 1e30]),
    clip_norm=st.sampled_from([1e-3, 1.0, 50.0]),
    clipping=st.sampled_from(STYLES),
)
def test_removing_a_unit_moves_the_sum_by_at_most_the_sensitivity(seed, scale, clip_norm, clipping):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(5, 40, generator=generator) * torch.tensor([[scale], [1.0], [0.1], [10.0], [1.0]])
    whole = clipped_sum(gradients, clipping, clip_norm)
    without = clipped_sum(gradients[1:], clipping, clip_norm)
    assert (whole.value - without.value).norm() <= whole.sensitivity
    if whole.below is not None:
        assert (whole.below.value - without.below.value).abs() <= whole.below.sensitivity


@pytest.mark.parametrize("clipping", STYLES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e38])
def test_non_finite_unit_contributes_zero_and_changes_nothing_else(clipping, poison):
    gradients = torch.randn(4, 30, generator=torch.Generator().manual_seed(1))
    bad = gradients.clone()
    bad[2, 8:] = 1e38 if poison == 1e38 else bad[2, 8:]  # every entry finite, the norm of one layer overflows
    bad[2, 10] = poison
    assert not bad[2, 8:].norm().isfinite()
    others, spoiled = clipped_sum(gradients[[0, 1, 3]], clipping), clipped_sum(bad, clipping)
    torch.testing.assert_close(spoiled.value, others.value, rtol=0, atol=1e-6)
    if spoiled.below is not None:
        torch.testing.assert_close(spoiled.below.value, others.below.value)


@pytest.mark.parametrize("size", [4, 2**20])
def test_sensitivity_is_public_and_covers_rounding(size):
    """It depends on public values alone, covers the grid, and an empty draw carries the same."""
    public = {"clip_norm": 2.0, "expected_batch": 1000}
    bound = 2.0 * (1 + 1000 * ROUNDING_SLACK)
    sums = [clipped_sum(torch.ones(count, size), **public) for count in (1, 0)]
    assert sums[0].sensitivity == sums[1].sensitivity == bound + sums[0].grid * size**0.5 <= bound * 1.00001
    assert math.frexp(sums[0].grid)[0] == 0.5  # a power of two
    assert sums[1].value.abs().sum() == 0


@given(seed=st.integers(0, 2**32 - 1), width=st.sampled_from([1, 10, 1000]))
def test_rounding_to_the_grid_stays_within_the_sensitivity(seed, width):
    """Two sums at the very bound, each rounded the worse way."""
    total = ClippedSum.zero(width, clip_norm=1.0, clipping="flat", expected_batch=1, device=CPU)
    bound = 1 + ROUNDING_SLACK
    start = torch.rand(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    apart = torch.full((width,), bound / width**0.5, dtype=torch.float64)
    rounded = [(value / total.grid).round() * total.grid for value in (start, start + apart)]
    assert (rounded[1] - rounded[0]).norm() <= total.sensitivity


def test_layers_are_clipped_each_to_its_share(make_base, make_records, task):
    """Against autograd, one record at a time: wide matrices, tied positions, norms and biases, by module."""
    model, records = make_base(dtype=torch.float64), make_records(6)
    engine = PerExample(model)
    groups = by_module(engine.parameters)
    modules = {name.rpartition(".")[0] for name in engine.parameters}
    assert len(groups) == len(modules) > 10
    picked = torch.arange(6).numpy()
    gradients = engine.gradients(lambda: task.losses(model, records, picked, 16), 6)
    limit = torch.stack([gradients.norms_at(place) for places in groups for place in places]).median().item()
    total = ClippedSum.zero(
        engine.width,
        clip_norm=limit * len(groups) ** 0.5,
        clipping="per-layer",
        expected_batch=1,
        device=CPU,
        groups=groups,
    )
    total.add(gradients)
    expected = {name: torch.zeros_like(p) for name, p in engine.parameters.items()}
    scales = []
    for i in picked:
        own = torch.autograd.grad(task.losses(model, records, picked[i : i + 1], 16)[0], [*engine.parameters.values()])
        own = dict(zip(engine.parameters, own, strict=True))
        for module in modules:
            mine = [name for name in own if name.rpartition(".")[0] == module]
            norm = torch.cat([own[name].flatten() for name in mine]).norm()
            scales.append(min(1.0, limit / norm.item()))
            for name in mine:
                expected[name] += scales[-1] * own[name]
    assert 0 < sum(scale < 1 for scale in scales) < len(scales)  # some are clipped, some are not
    for name, value in engine.unflatten(total.value).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-9 * limit)


def test_clipping_per_layer_needs_all_layers():
    for groups in ((), ((slice(0, 5),),)):
        with pytest.raises(ValueError, match="every trainable parameter"):
            ClippedSum.zero(6, clip_norm=1.0, clipping="per-layer", expected_batch=1, device=CPU, groups=groups)


def test_the_count_tells_which_units_lie_below_and_never_jumps():
    norms = torch.tensor([0.0, 0.9, 1.0, 1.1, 5.0, float("inf"), float("nan")])
    assert adaptive.scores(norms, 1.0).tolist() == [0.5, 0.5, 0.0, -0.5, -0.5, 0.0, 0.0]
    # Another unit's norm may move by rounding; what that moves the count by is part of its sensitivity.
    near = torch.linspace(0.5, 1.5, 10_001, dtype=torch.float64)
    moved = (adaptive.scores(near, 1.0) - adaptive.scores(near * (1 + ROUNDING_SLACK), 1.0)).abs().max().item()
    allowed = adaptive.count(expected_batch=1000, device=CPU).sensitivity - 0.5
    assert 0 < 1000 * moved <= allowed


def test_the_clip_norm_goes_to_the_median_of_the_norms():
    """Without noise, from far above and far below; norms are skewed."""
    generator = torch.Generator().manual_seed(0)
    norms = torch.randn(4001, generator=generator).mul(0.7).exp() * 3
    for clip_norm in (0.05, 90.0):
        for _ in range(100):
            clip_norm = adaptive.next_clip_norm(clip_norm, adaptive.scores(norms, clip_norm).mean().item())
        assert clip_norm == pytest.approx(norms.median().item(), rel=0.03)
    assert adaptive.next_clip_norm(adaptive.MOST, -9.0) == adaptive.MOST
    assert adaptive.next_clip_norm(1.0, 9.0) == pytest.approx(math.exp(-adaptive.RATE / 2))
    assert adaptive.next_clip_norm(adaptive.LEAST, 9.0) == adaptive.LEAST


@pytest.mark.parametrize("sigma", [0.4, 1.0, 30.0])
def test_gradients_and_count_together_cost_what_the_plan_says(sigma):
    """Each part over its own noise: one unit moves the pair by at most 1 / sigma, and can move it that far."""
    gradient_noise, count_noise = adaptive.split(sigma)
    total = ClippedSum.zero(7, clip_norm=3.0, clipping="adaptive", expected_batch=100, device=CPU)
    unit = torch.zeros(8, dtype=torch.float64)
    unit[2], unit[7] = total.sensitivity, total.below.sensitivity
    deviations = unit.new_tensor([gradient_noise * total.sensitivity] * 7 + [count_noise * total.below.sensitivity])
    assert (unit / deviations).norm().item() == pytest.approx(1 / sigma, rel=1e-12)
    assert gradient_noise > sigma
