"""Users that train by themselves: the sum is that of a plain loop in float64, a user that leaves takes its own clipped
vector with it, and nothing of any user's training outlives it."""

import copy
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dpcore.estimators import Setting, make
from dpcore.machine.micro_batches import Stopped
from dpcore.run import Outcome
from dpcore.terms.estimators import Local
from dpcore.terms.speed import Speed

from .test_train import Host, equal, make_program, secret, trained

OWNERS = np.array([0, 1, 2, 3, 1, 0, 2, 2, 4, 1, 2, 0])
USERS = 5
OPTIONS = [
    {},
    {"local_steps": 3},
    {"local_steps": 3, "batch_size": 2},
    {"local_steps": 2, "most_tokens": 14},
    {"learning_rate": 3.0, "local_steps": 2},
]


@pytest.fixture
def make_local(make_model, make_records, task):
    """The estimator on a model in float64, and its records."""

    def made(clipping="flat", records=None, should_stop=lambda: False, **options):
        terms = Local(**{"learning_rate": 0.3, **options})
        program = make_program(unit="user", estimator=terms, clipping=clipping, clip_norm=0.1, sample_rate=0.5)
        model = make_model(dtype=torch.float64)
        records = make_records(len(OWNERS)) if records is None else records
        setting = Setting(model, task, records, OWNERS, "user", program.phases[0], Speed(), should_stop)
        estimator = make(setting)
        estimator.rehearse()
        return estimator, setting

    return made


def vector(setting, user):
    """What one user's training moves, written out."""
    terms = setting.phase.estimator
    model = copy.deepcopy(setting.model).eval()
    own = [int(i) for i in np.flatnonzero(setting.owners == user)]
    looked_at, tokens = [], 0
    for record in own:
        tokens += int(setting.records.lengths[record])
        if tokens > terms.most_tokens:
            break
        looked_at.append(record)
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    descent = torch.optim.SGD(parameters, lr=terms.learning_rate)
    size = min(terms.batch_size, len(looked_at))
    for step in range(terms.local_steps if looked_at else 0):
        now = [looked_at[(step * terms.batch_size + i) % len(looked_at)] for i in range(size)]
        descent.zero_grad()
        losses = [setting.task.losses(model, setting.records, np.array([record]), 16)[0] for record in now]
        (sum(losses) / len(losses)).backward()
        descent.step()
    return torch.cat([(p.detach() - b).flatten() for p, b in zip(parameters, before, strict=True)])


def clipped(moved, bound):
    return moved * min(1.0, bound / float(moved.norm())) if moved.norm() > 0 else moved


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_sum_is_that_of_a_loop_over_users(make_local, options):
    estimator, setting = make_local(**options)
    before = trained(setting.model)
    drawn = np.array([0, 2, 3, 4])
    total = estimator.sum(drawn, 0.1, lambda: pytest.fail("there are no directions"))
    wanted = sum(clipped(vector(setting, user), 0.1) for user in drawn)
    torch.testing.assert_close(total.value, wanted, rtol=1e-9, atol=1e-11)
    assert float(wanted.norm()) > 0.05
    assert equal(before, trained(setting.model))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_user_that_leaves_takes_its_own_clipped_vector_and_moves_nobody_else_s(make_local, options):
    estimator, setting = make_local(**options)
    everybody = np.arange(USERS)
    whole = estimator.sum(everybody, 0.1, lambda: None)
    for user in everybody:
        rest = estimator.sum(np.delete(everybody, user), 0.1, lambda: None)
        moved = whole.value - rest.value
        torch.testing.assert_close(moved, clipped(vector(setting, user), 0.1), rtol=1e-8, atol=1e-11)
        assert float(moved.norm()) <= 0.1 * (1 + 1e-9) <= whole.sensitivity * (1 + 1e-9)


def of_first(make_local, records, most_tokens):
    estimator, _ = make_local(records=records, most_tokens=most_tokens, local_steps=2)
    return estimator.sum(np.array([0]), 0.1, lambda: None).value


def test_no_user_sees_more_than_its_bound_of_tokens(make_local, make_records):
    """Worlds that differ in what lies beyond it are one."""
    records = make_records(len(OWNERS))
    bound = int(records.lengths[[0, 5]].sum())
    first = of_first(make_local, records, bound)
    others = copy.deepcopy(records)
    start = int(np.asarray(others.lengths)[:11].sum())
    others.tokens[start + 1] += 1  # of record 11, which is the third of user 0
    assert torch.equal(of_first(make_local, others, bound), first)
    assert not torch.equal(of_first(make_local, others, 1000), of_first(make_local, records, 1000))
    nothing, _ = make_local(records=records, most_tokens=1)
    assert not nothing.sum(np.arange(USERS), 0.1, lambda: None).value.any()


def test_a_user_whose_training_is_not_finite_adds_nothing_and_leaves_the_weights(make_local, monkeypatch):
    estimator, setting = make_local(local_steps=2)
    before, real = trained(setting.model), setting.task.losses
    plain = estimator.sum(np.array([1, 3]), 0.1, lambda: None).value

    def losses(model, records, indices, length):
        found = real(model, records, indices, length)
        return found * math.nan if 0 in indices else found

    monkeypatch.setattr(setting.task, "losses", losses)
    assert torch.equal(estimator.sum(np.array([0, 1, 3]), 0.1, lambda: None).value, plain)
    assert equal(before, trained(setting.model))


@pytest.mark.parametrize("error", [Stopped, RuntimeError])
def test_weights_are_back_when_training_is_stopped_or_fails(make_local, monkeypatch, error):
    calls = []
    estimator, setting = make_local(local_steps=3, should_stop=lambda: error is Stopped and bool(calls))
    before, real = trained(setting.model), setting.task.losses

    def losses(*arguments):
        calls.append(1)
        if error is RuntimeError and len(calls) == 5:
            raise RuntimeError
        return real(*arguments)

    monkeypatch.setattr(setting.task, "losses", losses)
    with pytest.raises(error):
        estimator.sum(np.arange(USERS), 0.1, lambda: None)
    assert equal(before, trained(setting.model))


def test_a_run_that_was_broken_off_goes_on_to_the_same_end(make_model, make_records, task):
    program = make_program(
        unit="user",
        estimator=Local(learning_rate=0.3, local_steps=2),
        clipping="flat",
        clip_norm=0.1,
        sample_rate=0.6,
        expected_batch=3,
        optimizer="adam-bc",
        weight_averaging=0.5,
        steps=6,
    )
    more = {"owners": OWNERS}
    models = [make_model() for _ in range(2)]
    records = make_records(len(OWNERS))
    whole = Host().run(models[0], task, records, program, streams=secret(), **more)
    assert whole == Outcome(6, "finished")
    broken = Host(grants=[1, 1, 1, 0])
    broken.run(make_model(), task, records, program, streams=secret(), **more)
    Host().run(models[1], task, records, program, streams=secret(), checkpoint=broken.saved[-1], **more)
    assert equal(trained(models[0]), trained(models[1]))


def test_local_training_is_of_users_and_clipped_as_one_vector():
    with pytest.raises(ValidationError, match="local training is of users"):
        make_program(estimator=Local(learning_rate=0.1), clipping="flat")
    for clipping in ("automatic", "per-layer"):
        with pytest.raises(ValidationError, match="clipped as one vector"):
            make_program(unit="user", estimator=Local(learning_rate=0.1), clipping=clipping)
