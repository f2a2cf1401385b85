"""Users that share micro-batches: the same sums as one at a time, and a bound on what rounding does."""

import numpy as np
import pytest
import torch

from dpcore import optimise
from dpcore.engine.per_user import CANCELLING, UserGradient, UserGradients
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK
from dpcore.terms.speed import Speed

from .test_train import Host, make_program, secret, whole

OWNERS = np.array([0, 1, 2, 3] * 4 + [4] * 9)


@pytest.fixture
def step(make_model, make_records, task, monkeypatch):
    """One step over all users, and the sum that it ended with, its noise and how often a user was computed alone."""

    def run(*, unit="user", awake=True, **speed):
        seen, alone, original = [], [], UserGradient.gradients
        monkeypatch.setattr(optimise, "step", lambda o, p, mean, **more: seen.append((whole(mean), more["deviation"])))
        monkeypatch.setattr(UserGradient, "gradients", lambda self: alone.append(1) or original(self))
        program = make_program(unit=unit, sample_rate=1.0, steps=1, expected_batch=5, noise_multiplier=1e-9)
        owners = OWNERS if unit == "user" else None
        model = make_model(dtype=torch.float64, awake=awake)
        Host().run(model, task, make_records(25), program, owners=owners, speed=Speed(**speed), streams=secret())
        return torch.cat([part.flatten().double() for part in seen[0][0].values()]), seen[0][1], len(alone)

    return run


def test_groups_and_micro_batches_of_users_change_nothing(step):
    sums = [step(**speed)[0] for speed in ({}, {"tokens": 1}, {"buffer_bytes": 1}, {"tokens": 64})]
    for other in sums[1:]:
        torch.testing.assert_close(other, sums[0], rtol=1e-6, atol=1e-9)


def test_users_that_share_micro_batches_are_noised_for_what_rounding_does_to_their_sums(step):
    slack = 5 * ROUNDING_SLACK
    of_users, of_records = step()[1], step(unit="record")[1]
    assert of_users / of_records == pytest.approx((1 + CANCELLING * slack) / (1 + slack), rel=1e-7)


def test_a_user_whose_records_cancel_is_computed_alone(make_model, make_records, task, step, monkeypatch):
    """Two records of opposite gradients: what is left of them is rounding, and must not be scaled up."""
    before = step()[2]
    original, weights = task.losses, torch.ones(25, dtype=torch.float64)
    # User 0 has records 0, 4, 8 and 12: one of them twice over, with both signs.
    weights[[8, 12]] = 0.0

    def losses(model, records, indices, length):
        if len(records) != 25:
            return original(model, records, indices, length)
        same = np.where(indices == 4, 0, indices)
        sign = torch.where(torch.from_numpy(indices == 4), -1.0 + 1e-9, 1.0)
        return original(model, records, same, 16) * weights[torch.from_numpy(indices)] * sign

    monkeypatch.setattr(task, "losses", losses)
    assert step()[2] == before + 1


def test_a_user_with_a_broken_record_is_left_out_whole_and_no_other(step, task, monkeypatch):
    original, results = task.losses, []
    for broken in ([0], [0, 4, 8, 12]):  # one record of user 0, or all of them

        def losses(model, records, indices, length, broken=broken):
            weight = torch.ones(len(indices), dtype=torch.float64)
            if len(records) == 25:
                weight[torch.from_numpy(np.isin(indices, broken))] = float("nan")
            return original(model, records, indices, length) * weight

        monkeypatch.setattr(task, "losses", losses)
        results.append(step()[0])
    assert results[0].isfinite().all()
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def test_sums_of_users_do_not_depend_on_how_their_records_are_spread(make_model):
    """Rows of several users in one micro-batch, some users in several micro-batches."""

    class Part:
        def __init__(self, rows):
            self.thin = rows

        def norms(self):
            return self.thin.norm(dim=1)

    class Engine:
        width, device = 3, torch.device("cpu")

    rows, users = torch.arange(21.0).view(7, 3), np.array([0, 1, 0, 1, 1, 2, 2])
    rows[6] = -0.99 * rows[5]  # what is left of the third user is to be computed again, and not to be added twice
    sums = UserGradients(Engine(), 3)
    for part in (slice(0, 2), slice(2, 6), slice(6, 7)):
        sums.add(Part(rows[part]), users[part])
    together, alone = sums.finish()
    assert alone.tolist() == [2]
    torch.testing.assert_close(together.rows.float(), torch.stack([rows[[0, 2]].sum(0), rows[[1, 3, 4]].sum(0)]))
