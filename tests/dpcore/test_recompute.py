"""Layers that are computed again in the backward pass give the same gradients, and keep less until then."""

from functools import partial

import numpy as np
import pytest
import torch

from dpcore.engine.per_example import PerExample
from dpcore.machine import recompute
from dpcore.machine.token_budget import kept_bytes
from dpcore.methods import get_trainer
from dpcore.terms.speed import Speed

from .test_train import Host, equal, make_phase, make_program, secret, trained


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("training", ["lora", "full"])
def test_recomputed_layers_give_the_same_gradients_and_keep_less(
    make_model, make_base, make_records, task, name, training
):
    make = make_model if training == "lora" else make_base
    model, records, kept, sums = make(name, layers=3, dtype=torch.float64), make_records(4), [], []
    engine = PerExample(model)

    def compute():
        gradients = engine.gradients(lambda: task.losses(model, records, np.arange(4), 16), 4)
        sums.append(torch.zeros(engine.width, dtype=torch.float64))
        gradients.add_weighted(sums[-1], torch.ones(4, dtype=torch.float64))

    kept.append(kept_bytes(compute))
    assert recompute.switch_on(model, engine.recomputing)
    assert not recompute.switch_on(model, engine.recomputing)  # a second time there is nothing left to switch
    kept.append(kept_bytes(compute))
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-12, atol=1e-14)
    assert kept[1] < 0.7 * kept[0]


def test_a_run_that_recomputes_trains_as_one_that_does_not(make_model, make_records, task):
    results = []
    for recomputing in (False, True):
        model = make_model(layers=2)
        speed = Speed(recompute=recomputing)
        Host().run(model, task, make_records(20), make_program(steps=2), speed=speed, streams=secret())
        assert any("forward" in vars(m) for m in model.modules()) == recomputing
        results.append(trained(model))
    assert equal(*results)


def test_layers_that_are_computed_again_are_the_running_phase_s(make_base, make_records, task):
    """Both phases' engines have seen them; the second's saw them last, and the first runs first."""
    method, phases = get_trainer("bitfit"), (make_phase(trains="full", steps=2), make_phase(trains="bitfit", steps=2))
    program = make_program(method="bitfit", options={"full_steps": 2}, phases=phases)
    results = []
    for recomputing in (False, True):
        model = method.attach(make_base(layers=2), {"full_steps": 2}, task="classification", seed=0)
        more = {"speed": Speed(recompute=recomputing), "begin": partial(method.begin, task="classification")}
        Host().run(model, task, make_records(20), program, streams=secret(), **more)
        results.append(model.state_dict())
    assert equal(*results)


def test_one_record_out_of_memory_switches_recomputing_on(make_model, make_records, task, monkeypatch):
    reference, model, original = make_model(layers=2), make_model(layers=2), task.losses
    program = make_program(steps=2, sample_rate=0.5)
    Host().run(reference, task, make_records(40), program, streams=secret())

    def tight(model, records, indices, length):
        if len(records) == 40 and not any("forward" in vars(m) for m in model.modules()):
            raise torch.OutOfMemoryError("no memory for all layers")
        return original(model, records, indices, length)

    monkeypatch.setattr(task, "losses", tight)
    assert Host().run(model, task, make_records(40), program, streams=secret()).step == 2
    for name, value in trained(reference).items():
        torch.testing.assert_close(trained(model)[name], value, rtol=1e-3, atol=1e-4)
