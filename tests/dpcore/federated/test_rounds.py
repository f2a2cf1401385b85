"""Rounds over silos: the loop of every other job, broken off anywhere, from public beginnings to an adapter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from dpcore.checkpoint import PlanMismatch
from dpcore.export import About, export_peft
from dpcore.federated import message, server
from dpcore.federated.message import Message
from dpcore.federated.silo import attach, factors, put
from dpcore.federated.simulate import simulate
from dpcore.mechanism.keystream import Streams
from dpcore.models import build_model
from dpcore.run import run
from tests.dpcore.test_run import Killed, Service
from tests.dpcore.test_train import equal, secret

from .conftest import awake, make_options, round_of


def weights(model, state):
    return {n: model.get_parameter(n).detach().clone() for n in state.factors}


@pytest.mark.parametrize("clipping", ["record", "delta"])
def test_one_silo_and_its_mean_are_a_job_of_its_own(make_silo, make_records, task, clipping):
    """Rounds cut the very run that `run` makes: the same draws and noise, the same rates, the same iterates."""
    options = make_options(factors="both", clipping=clipping)
    silo, state = make_silo(options)
    ended = simulate(state, options, [silo], {"a": 24}, streams={"a": secret()})
    alone, _ = make_silo(options)
    out = run(
        model=alone._model,
        task=task,
        records=make_records(24),
        program=alone._program,
        authorise=lambda phase, steps: steps,
        save=lambda data: None,
        should_stop=lambda: False,
        streams=secret(),
    )
    assert out.step == options.rounds * options.steps_each
    for name, value in weights(alone._model, state).items():
        torch.testing.assert_close(ended.factors[name], value, rtol=1e-5, atol=1e-6)
        assert not torch.equal(value, state.factors[name])


class Noted(Streams):
    def __init__(self):
        super().__init__(test_secret=b"test")
        self.notes = []

    def at(self, purpose, step):
        self.notes.append((purpose, step))
        return super().at(purpose, step)


def test_every_step_of_every_round_has_streams_of_its_own(make_silo):
    options, streams = make_options(factors="alternating"), Noted()
    silo, state = make_silo(options)
    simulate(state, options, [silo], {"a": 24}, streams={"a": streams})
    assert sorted(streams.notes) == sorted((p, n) for p in ("noise", "sampling") for n in range(8))
    with pytest.raises(ValueError, match="already"):
        round_of(silo, state, streams)


def test_only_what_a_round_trains_changes(make_silo):
    """A stays as drawn with a-frozen; in turn, the other factor stands still for all silos."""
    for kind, number, still in (("a-frozen", 0, "lora_A"), ("alternating", 0, "lora_A"), ("alternating", 1, "lora_B")):
        options = make_options(factors=kind)
        silo, state = make_silo(options)
        before = {n: p.detach().clone() for n, p in silo._model.named_parameters()}
        sent = round_of(silo, replace(state, round=number, factors=awake(state.factors)), secret())
        assert isinstance(sent, Message)
        assert not any(still in name for name in sent.delta)
        moving = "lora_B" if still == "lora_A" else "lora_A"
        assert any(moving in name for name in sent.delta)
        assert any("classifier" in name for name in sent.delta)
        for name, p in silo._model.named_parameters():
            if name not in state.factors:
                assert torch.equal(before[name], p), name


def test_a_frozen_factor_comes_from_the_public_seed_alone(make_base, make_silo, make_records):
    """The same in silos of other records, before and after; another seed is another factor. It never travels."""
    options = make_options()
    fresh = {n: p for n, p in attach(make_base(), options, task="classification", seed=3).named_parameters()}
    one, state = make_silo(options)
    other, _ = make_silo(options, name="b", records=make_records(40, seed=9))
    ended = simulate(state, options, [one, other], {"a": 24, "b": 40}, streams={"a": secret(), "b": secret(b"b")})
    frozen = [name for name in fresh if "lora_A" in name]
    assert frozen
    assert not set(frozen) & ended.factors.keys()
    for silo in (one, other):
        assert all(torch.equal(silo._model.get_parameter(name), fresh[name]) for name in frozen)
    again = attach(make_base(), options, task="classification", seed=4)
    assert not any(torch.equal(again.get_parameter(name), fresh[name]) for name in frozen)


DEATHS = [("authorise", 1), ("save", 1), ("authorise", 2), ("save", 2)]
"""Before its first step was paid for and after it, in the middle, and after its last."""


class Silos(Service):
    def authorise(self, steps):
        return super().authorise(0, steps)


@pytest.mark.parametrize(
    "dies",
    [*(pytest.param(dies, marks=pytest.mark.verify) for dies in DEATHS[:2]), *DEATHS[2:]],
    ids=["-".join(map(str, dies)) for dies in DEATHS],
)
def test_a_silo_that_was_killed_in_a_round_sends_the_same_message(make_silo, dies):
    """Under the test's secret. After its last step it sends the very bytes without another step."""
    options = make_options(local_steps=2)
    silo, state = make_silo(options)
    state = replace(state, round=1, factors=awake(state.factors))
    whole = message.dumps(round_of(silo, state, secret()))
    broken, last = Silos(dies=dies), Silos()
    with pytest.raises(Killed):
        round_of(silo, state, secret(), authorise=broken.authorise, save=broken.save)
    again, _ = make_silo(options)
    saved = broken.saved[-1] if broken.saved else None
    calls = {"authorise": last.authorise, "save": last.save}
    assert message.dumps(round_of(again, state, secret(), checkpoint=saved, **calls)) == whole
    assert len(last.events) == 2 - len(broken.saved)


def test_a_round_pays_for_its_own_steps_and_no_more(make_silo):
    """Where a chunk of the program is longer than a round, too."""
    silo, state = make_silo(make_options(rounds=30, local_steps=2))
    service = Silos()
    assert silo._program.chunk == 3
    sent = round_of(silo, replace(state, round=4), secret(), authorise=service.authorise, save=service.save)
    assert isinstance(sent, Message)
    assert service.events == [(0, 2)]


def test_a_resumed_round_is_noised_afresh(make_silo):
    silo, state = make_silo(make_options(local_steps=2))
    service = Silos(dies=("authorise", 2))
    with pytest.raises(Killed):
        round_of(silo, state, secret(), authorise=service.authorise, save=service.save)
    sent = [round_of(silo, state, Streams(), checkpoint=service.saved[-1]) for _ in range(2)]
    assert message.dumps(sent[0]) != message.dumps(sent[1])


def test_a_checkpoint_of_another_round_is_refused(make_silo):
    silo, state = make_silo(make_options())
    service = Silos()
    round_of(silo, state, secret(), authorise=service.authorise, save=service.save)
    with pytest.raises(PlanMismatch, match="another round"):
        round_of(silo, replace(state, round=2), secret(), checkpoint=service.saved[-1])
    with pytest.raises(PlanMismatch, match="no round"):
        round_of(silo, replace(state, round=4), secret())
    some = dict(list(state.factors.items())[1:])
    more = state.factors | {"x": torch.zeros(1)}
    other = {n: value[:1] for n, value in state.factors.items()}
    for changed in (some, more, other):
        with pytest.raises(PlanMismatch, match="not those"):
            round_of(silo, replace(state, factors=changed), secret())
    broken = {n: torch.full_like(value, torch.nan) for n, value in state.factors.items()}
    with pytest.raises(PlanMismatch, match="not finite"):
        round_of(silo, replace(state, factors=broken), secret())


def test_a_silo_without_steps_left_sends_nothing(make_silo):
    silo, state = make_silo(make_options())
    assert round_of(silo, state, secret(), authorise=lambda steps: 0) == "used_up"
    assert all(p.requires_grad for n, p in silo._model.named_parameters() if n in state.factors)


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.verify), 3])
def test_a_coordinator_that_was_killed_goes_on_to_the_same_end(make_silo, make_records, at):
    """From its bytes, with silos that are new but for their streams; a message is lost on the way."""
    options = make_options(factors="alternating", server="fedadam")
    sizes = {"a": 24, "b": 40}

    def silos():
        return [make_silo(options)[0], make_silo(options, name="b", records=make_records(40, seed=9))[0]]

    def lost(round, silo, data):
        return None if (round, silo) == (2, "b") else data

    def streams():
        return {"a": secret(), "b": secret(b"b")}

    kept = []
    state = make_silo(options)[1]
    more = {"travels": lost, "keep": lambda state: kept.append(server.dumps(state))}
    whole = simulate(state, options, silos(), sizes, streams=streams(), **more)
    again = simulate(server.loads(kept[at - 1]), options, silos(), sizes, streams=streams(), travels=lost)
    assert server.dumps(again) == server.dumps(whole)
    assert server.dumps(server.loads(kept[-1])) == kept[-1]
    assert not equal(whole.factors, state.factors)


def test_what_comes_out_loads_in_stock_peft(base_folder, tmp_path):
    """Both factors and head are in it, by stock readers alone."""
    labels = ("no", "yes", "perhaps")
    base = build_model("classification", base_folder, labels, seed=0)
    model = attach(base, make_options(), task="classification", seed=3)
    put(model, awake(factors(model)))
    export_peft(model, tmp_path, About("base", "0" * 64, "lora", "classification", labels, 16))
    stock = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=len(labels))
    adapted = PeftModel.from_pretrained(stock, str(tmp_path)).eval()
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 60, (3, 7)))
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=0)
