"""Single steps at an expected batch of one or two: how they are drawn, and what they are divided by."""

import pytest

from dpcore.audit import single_steps, two_worlds
from dpcore.audit.subject import Subject

from . import broken
from .conftest import Repeatable


@pytest.fixture
def steps(folder):
    """steps(count, batch): the bound and the claim."""

    def run(count, batch):
        streams = Repeatable(b"without"), Repeatable(b"within")
        subject = Subject(method="bitfit")
        worlds = single_steps.outputs(subject, folder("classification", "tiny"), count, batch=batch, streams=streams)
        return two_worlds.bound(worlds.without, worlds.within, single_steps.DELTA, 0.05), worlds.claim, worlds

    return run


def test_an_honest_step_says_as_much_as_its_noise_allows(steps):
    bound, claim, worlds = steps(100, 1)
    assert bound <= claim
    # Half of the steps have each unit, and the two pull opposite ways; noise has the deviation of the plan.
    assert worlds.without[:, 0].mean() == pytest.approx(-0.5, abs=0.25)
    assert worlds.within[:, 0].mean() == pytest.approx(0.0, abs=0.3)
    assert worlds.without[:, 1].std() < 0.05  # how far all other directions go tells nothing of the draw


@pytest.mark.verify
def test_division_by_the_size_of_the_draw_is_found(steps):
    with broken.divided_by_the_size_of_the_draw():
        bound, claim, _ = steps(240, 1)
    assert bound > claim


@pytest.mark.verify
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("way", ["draws of fixed size", "divided by the size of the draw", None])
def test_each_broken_step_is_found_and_the_honest_one_is_not(steps, way, batch):
    if way is None:
        bound, claim, _ = steps(2000, batch)
        assert bound <= claim
        return
    with broken.BROKEN[way]():
        bound, claim, _ = steps(2000, batch)
    assert bound > claim
