"""What one record or user may change of a message before its noise is what the silo's price says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dpcore.checkpoint import loads
from dpcore.machine.micro_batches import Stopped
from dpcore.mechanism import delta, output
from dpcore.mechanism.clipping import AUTOMATIC_OFFSET
from dpcore.tasks.records import joined
from tests.dpcore.conftest import MAX_LENGTH
from tests.dpcore.test_train import secret

from .conftest import RECORDS, awake, make_options, round_of

USERS = np.arange(RECORDS) // 3
ROUNDS = [("a-frozen", 0), ("both", 0), ("alternating", 0), ("alternating", 1)]
"""Every set of weights that a round may train."""
SAMPLE = [("a-frozen", 0, "record"), ("both", 0, "user"), ("alternating", 1, "record")]
CASES = [
    pytest.param(*case, id="-".join(map(str, case)), marks=() if case in SAMPLE else pytest.mark.verify)
    for case in ((*of, unit) for of in ROUNDS for unit in ("record", "user"))
]


def kept(records, places):
    cuts = [slice(records.offsets[i], records.offsets[i + 1]) for i in places]
    return joined([(records.tokens[c], records.marks[c]) for c in cuts], records.labels[places], filler=0)


def flat(message):
    return torch.cat([value.double().flatten() for value in message.delta.values()])


@pytest.fixture
def bare(monkeypatch):
    """Noise is left out; what it would have been: (multiplier, sensitivity, divisor) of each output."""
    seen = []

    def noised_mean(total, multiplier, divisor, stream, *, dtype):
        seen.append((multiplier, total.sensitivity, divisor))
        return (total.value / divisor).to(dtype)

    monkeypatch.setattr(output, "noised_mean", noised_mean)
    return seen


def one_by_one(silo, model, task, records, units):
    """Each unit's gradient by plain autograd, clipped, and their sum, over what trains in a round."""
    total = 0.0
    named = {n: p for n, p in model.named_parameters() if silo(n)}
    for p in model.parameters():
        p.requires_grad_(True)
    for unit in sorted(set(units)):
        losses = sum(task.losses(model, records, np.array([i]), MAX_LENGTH) for i in np.flatnonzero(units == unit))
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(losses.sum(), list(named.values()))])
        total = total + gradient / (gradient.norm() + AUTOMATIC_OFFSET)
    for n, p in model.named_parameters():
        p.requires_grad_(n in named)
    return total


@pytest.mark.parametrize(("factors", "number", "unit"), CASES)
def test_a_unit_moves_a_record_clipped_message_by_what_is_priced(
    make_silo, make_records, task, bare, factors, number, unit
):
    """And the message is the sum of clipped gradients, each by plain autograd in float64, over all that trains in its
    round and nothing else."""
    options = make_options(factors=factors, local_steps=1)
    records, owners = make_records(RECORDS), np.arange(RECORDS) if unit == "record" else USERS
    made, messages = [], []
    for places in (np.arange(RECORDS), np.flatnonzero(owners != 5)):
        some, whose = kept(records, places), np.unique(owners[places], return_inverse=True)[1]
        of_users = None if unit == "record" else whose
        silo, state = make_silo(options, records=some, dtype=torch.float64, owners=of_users, batch=RECORDS)
        state = replace(state, round=number, factors=awake(state.factors))
        messages.append(round_of(silo, state, secret()))
        made.append((silo, some, whose, state))
    rate = 0.2 * (1 - number / options.rounds)
    (multiplier, sensitivity, divisor), *_ = bare
    assert (multiplier, divisor) == (0.5, RECORDS)
    assert 1 <= sensitivity <= 1 + 1e-3
    whole, less = map(flat, messages)
    assert (whole - less).norm() <= rate * sensitivity / divisor * (1 + 1e-6)

    silo, some, whose, state = made[0]
    model = silo._model
    with torch.no_grad():
        for name, value in state.factors.items():
            model.get_parameter(name).copy_(value)
    names = [n for n in state.factors if options.trains(n, number)]
    assert sorted(messages[0].delta) == sorted(names)
    expected = one_by_one(lambda n: n in names, model, task, some, whose)
    found = torch.cat([messages[0].delta[n].double().flatten() for n, _ in model.named_parameters() if n in names])
    torch.testing.assert_close(found, -rate / divisor * expected, rtol=1e-5, atol=1e-8)


def test_a_whole_delta_moves_by_twice_its_bound():
    """Which is what two that are opposite do: half of it would be too little."""
    moved = torch.linspace(-3, 5, 1000, dtype=torch.float64)
    one, other = delta.clipped(moved, 0.25), delta.clipped(-moved, 0.25)
    apart = (one.value - other.value).norm().item()
    assert apart == pytest.approx(0.5, rel=1e-9)
    assert apart <= 0.5 <= one.sensitivity <= 0.5 * (1 + 1e-6)
    assert one.value.norm() <= 0.25
    within = moved / moved.norm() * 0.2
    torch.testing.assert_close(delta.clipped(within, 0.25).value, within, rtol=0, atol=0)
    for broken in (torch.nan, torch.inf):
        assert not delta.clipped(torch.where(moved > 4, broken, moved), 0.25).value.any()


@pytest.mark.parametrize("unit", [pytest.param("record", marks=pytest.mark.verify), "user"])
def test_a_delta_is_noised_once_a_round_as_of_the_whole_file(make_silo, make_records, bare, unit):
    """A changed record, or user, moves it by twice the clip norm at most, whatever the local steps did."""
    options = make_options(clipping="delta", local_steps=3, server="fedavg")
    records, messages = make_records(RECORDS), []
    for places in (np.arange(RECORDS), np.flatnonzero(USERS != 5)):
        owners = np.unique(USERS[places], return_inverse=True)[1] if unit == "user" else None
        silo, state = make_silo(
            options, records=kept(records, places), owners=owners, clip_norm=0.1, dtype=torch.float64
        )
        messages.append(flat(round_of(silo, state, secret())))
    bound = 0.1 * 0.2 * 3
    assert len(bare) == 2
    for multiplier, sensitivity, divisor in bare:
        assert (multiplier, divisor) == (0.5, 1)
        assert 2 * bound <= sensitivity <= 2 * bound * (1 + 1e-6)
    assert all(message.norm() <= bound * (1 + 1e-6) for message in messages)
    assert 0 < (messages[0] - messages[1]).norm() <= 2 * bound


@pytest.mark.parametrize("unit", ["record", pytest.param("user", marks=pytest.mark.verify)])
def test_a_delta_of_one_step_within_its_bound_is_the_step(make_silo, bare, unit):
    """Without noise: what leaves goes where local training went."""
    owners, messages = USERS if unit == "user" else None, []
    for clipping in ("record", "delta"):
        options = make_options(clipping=clipping, local_steps=1)
        silo, state = make_silo(options, owners=owners, batch=RECORDS)
        messages.append(flat(round_of(silo, state, secret())))
    assert messages[0].any()
    torch.testing.assert_close(messages[1], messages[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("end", ["stopped", "failed"])
def test_nothing_of_local_training_outlives_a_delta(make_silo, monkeypatch, end):
    """Broken off between two local steps: weights and checkpoint are those that the round began at."""
    saved, calls = [], []
    options = make_options(clipping="delta", local_steps=5)
    silo, state = make_silo(options, should_stop=lambda: False)
    within, original = silo._estimators[0]._within, silo._estimators[0]._within.sum

    def third(*arguments):
        calls.append({n: silo._model.get_parameter(n).detach().clone() for n in state.factors})
        if len(calls) == 3:
            raise Stopped if end == "stopped" else ZeroDivisionError
        return original(*arguments)

    monkeypatch.setattr(within, "sum", third)
    if end == "stopped":
        assert round_of(silo, state, secret(), save=saved.append) == "stopped"
        assert loads(saved[-1]).step == 0
        assert all(torch.equal(value, state.factors[n]) for n, value in loads(saved[-1]).weights.items())
    else:
        with pytest.raises(ZeroDivisionError):
            round_of(silo, state, secret(), save=saved.append)
        assert saved == []
    assert any(not torch.equal(calls[-1][n], state.factors[n]) for n in state.factors)
    assert all(torch.equal(silo._model.get_parameter(n), value) for n, value in state.factors.items())


def test_a_silo_begins_each_round_at_the_servers_factors(make_silo):
    """What another round left in the model is not in the message."""
    options = make_options()
    silo, state = make_silo(options)
    round_of(silo, state, secret())
    later = replace(state, round=1)
    again, _ = make_silo(options)
    assert torch.equal(flat(round_of(silo, later, secret())), flat(round_of(again, later, secret())))
