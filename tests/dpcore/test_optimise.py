"""Optimisers on noised means."""

import pytest
import torch
from torch import nn

from dpcore import optimise
from dpcore.adam_bc import FLOOR

from .test_train import make_phase

P = 4000


def run(phase, gradient, deviation, *, steps=400, seed=0):
    """Noised gradients that are always the same but for the noise; the parameter [P] after each step."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {"w": nn.Parameter(torch.zeros(P))}
    optimiser = optimise.make(parameters, phase)
    seen = []
    for done in range(steps):
        mean = gradient + deviation * torch.randn(P, generator=generator)
        optimise.step(optimiser, parameters, [{"w": mean}], phase=phase, done=done, deviation=deviation)
        seen.append(parameters["w"].detach().clone())
    return seen


def test_without_noise_adam_bc_is_adam():
    gradient = torch.linspace(-3, 3, P)
    runs = [run(make_phase(optimizer=name, steps=50), gradient, 0.0, steps=50) for name in ("adamw", "adam-bc")]
    torch.testing.assert_close(runs[0][-1], runs[1][-1], rtol=1e-5, atol=1e-6)


def test_adam_bc_takes_the_noise_out_of_the_second_moment():
    """Coordinates whose gradients differ tenfold, all below the noise: Adam makes steps that differ tenfold, as SGD
    would; with the bias corrected they come together, as Adam's own steps do without noise."""
    gradient, deviation = torch.full((P,), 1.0), 2.0
    gradient[: P // 2] = 0.3
    ratios = {}
    for name in ("adamw", "adam-bc"):
        after = run(make_phase(optimizer=name, steps=1000, betas=(0.9, 0.999)), gradient, deviation, steps=1000)[-1]
        ratios[name] = (after[P // 2 :].mean() / after[: P // 2].mean()).item()
    assert ratios["adamw"] == pytest.approx(1 / 0.3 * 2.02 / 2.24, rel=0.05)
    assert ratios["adam-bc"] < 0.8 * ratios["adamw"]


def test_adam_bc_never_divides_by_less_than_its_floor():
    """Where the noise explains more than all there is, in the first steps say."""
    phase = make_phase(optimizer="adam-bc", steps=100)
    first = run(phase, torch.zeros(P), 1.0, steps=1)[0]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(P, generator=generator)
    expected = -phase.learning_rate * noise / (noise.square() - 1).clamp(min=FLOOR).sqrt()
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-6)


def test_the_noise_that_is_taken_out_may_change_from_step_to_step():
    """As it does under adaptive clipping: its square is averaged like the second moment."""
    phase = make_phase(optimizer="adam-bc", steps=10)
    parameters = {"w": nn.Parameter(torch.zeros(3))}
    optimiser = optimise.make(parameters, phase)
    for done, deviation in enumerate((1.0, 3.0)):
        optimise.step(optimiser, parameters, [{"w": torch.ones(3)}], phase=phase, done=done, deviation=deviation)
    (state,) = optimiser.state.values()
    assert state["noise_sq"].item() == pytest.approx(0.001 * (0.999 * 1 + 9))


def test_sgd_is_momentum_on_the_mean():
    phase = make_phase(optimizer="sgd", steps=4, betas=(0.5, 0.999), learning_rate=0.1)
    after = run(phase, torch.ones(P), 0.0, steps=3)[-1]
    moments, rates = (1, 1.5, 1.75), (0.1, 0.075, 0.05)
    torch.testing.assert_close(after, torch.full((P,), -sum(m * r for m, r in zip(moments, rates, strict=True))))
