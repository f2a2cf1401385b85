"""A method that acts between its steps is two files as any other; what it keeps is all that a resume needs."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch

from dpcore.checkpoint import loads

from .test_run import Killed, Service
from .test_train import equal, make_program, secret, trained

TERMS = """
from dpcore.terms.methods.full import Options, Request, check, memory, phases, resolve, trainable
"""
FREEZES = """
from dpcore.export import export_whole as export, load_whole as load
from dpcore.methods.plain import learns

AFTER, LAYER = 3, "bert.encoder.layer.0"


def attach(model, options, *, task, seed):
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith((LAYER, "classifier")))
    return model


def begin(model, phase, kept, *, task):
    if "frozen" in kept:
        model.get_submodule(LAYER).requires_grad_(False)


def between(iterate):
    if iterate.step != AFTER:
        return False
    iterate.model.get_submodule(LAYER).requires_grad_(False)
    iterate.kept["frozen"] = iterate.model.get_parameter("classifier.weight").detach().norm()
    return True
"""
MASKS = """
import torch

from dpcore.export import export_whole as export, load_whole as load
from dpcore.methods.plain import begin, learns

AFTER, NAME = 2, "classifier.weight"


def attach(model, options, *, task, seed):
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("classifier"))
    return model


def between(iterate):
    weight = iterate.model.get_parameter(NAME)
    if iterate.step == AFTER:
        iterate.kept["mask"] = weight.detach().abs() > weight.detach().abs().median()
    if iterate.step >= AFTER:
        with torch.no_grad():
            weight.mul_(iterate.kept["mask"])
    return False
"""
LAYER, STEPS = "bert.encoder.layer.0", 7


@pytest.fixture
def go(make_base, make_records, task):
    """Run a method to its end or its death: the model, and its service."""

    def go(method, program, *, checkpoint=None, dies=None):
        model, service = make_base(), Service(dies=dies)
        model = method.attach(model, {}, task="classification", seed=0)
        more = {"begin": partial(method.begin, task="classification"), "between": method.between}
        more |= {"checkpoint": checkpoint, "streams": secret()}
        with nullcontext() if dies is None else pytest.raises(Killed):
            service.train(model, task, make_records(40), program, **more)
        return model, service

    return go


CHANGES = [{}, {"optimizer": "adam-bc", "clipping": "adaptive", "weight_averaging": 0.5}]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("changes", CHANGES, ids=["plain", "adaptive"])
def test_a_layer_that_was_frozen_moves_no_more_and_stays_so_over_a_resume(plant, go, changes):
    method = plant("freezes", TERMS, FREEZES)
    program = make_program(steps=STEPS, method="freezes", **changes)
    whole, service = go(method, program)
    iterates = [loads(data).weights for data in service.saved]
    layer = [name for name in iterates[0] if name.startswith(LAYER)]
    for name in layer:
        assert not torch.equal(iterates[1][name], iterates[2][name])
        assert all(torch.equal(later[name], iterates[2][name]) for later in iterates[3:])
    assert not torch.equal(iterates[-1]["classifier.weight"], iterates[-2]["classifier.weight"])
    assert "frozen" in loads(service.saved[-1]).kept
    last = loads(service.saved[-1])
    assert not last.moments.keys() & {*layer}
    # What still trains goes on as it was: its moments, and its average over all iterates.
    assert last.moments["classifier.weight"]["step"] == STEPS
    weights = [program.phases[0].weight_averaging ** (STEPS - i) for i in range(1, STEPS + 1)]
    mean = sum(w * one["classifier.weight"] for w, one in zip(weights, iterates, strict=True)) / sum(weights)
    torch.testing.assert_close(whole.get_parameter("classifier.weight").detach(), mean, rtol=1e-5, atol=1e-6)
    for killed in (2, 3, 4, 6):
        first = go(method, program, dies=("authorise", killed))[1]
        again, last = go(method, program, checkpoint=first.saved[-1])
        assert sum(n for _, n in last.events) == STEPS - len(first.saved)
        assert not any(p.requires_grad for p in again.get_submodule(LAYER).parameters())
        assert equal(whole.state_dict(), again.state_dict())


def test_weights_that_are_masked_stay_zero_over_a_resume(plant, go):
    method = plant("masks", TERMS, MASKS)
    program = make_program(steps=STEPS, method="masks")
    whole, service = go(method, program)
    zeros = [loads(data).weights["classifier.weight"] == 0 for data in service.saved]
    assert not zeros[0].any()
    assert 0 < zeros[1].sum() < zeros[1].numel()
    assert all(torch.equal(now, zeros[1]) for now in zeros[1:])
    for killed in (2, 3, 5):
        first = go(method, program, dies=("authorise", killed))[1]
        again, last = go(method, program, checkpoint=first.saved[-1])
        assert equal(whole.state_dict(), again.state_dict())
        assert all(torch.equal(loads(data).weights["classifier.weight"] == 0, zeros[1]) for data in last.saved[1:])


def test_what_is_done_between_steps_is_done_on_the_noised_iterate(plant, go, monkeypatch):
    """Each step once, with the number of steps that were done; what it sees is what is saved."""
    seen = []
    method = plant("watches", TERMS, FREEZES)
    monkeypatch.setattr(method, "between", lambda iterate: seen.append((iterate.step, trained(iterate.model))) or False)
    _, service = go(method, make_program(steps=4, method="watches"))
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    for (_, weights), data in zip(seen, service.saved, strict=True):
        assert equal(weights, loads(data).weights)
