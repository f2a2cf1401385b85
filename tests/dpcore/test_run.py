"""A program of several phases: one after the other from what the last released, broken off anywhere and gone on with."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dpcore.checkpoint import loads, read_step
from dpcore.engine.errors import UnseenParameter
from dpcore.estimators.first_order import FirstOrder
from dpcore.mechanism import output
from dpcore.mechanism.keystream import Streams
from dpcore.methods import get_trainer
from dpcore.run import Outcome, run
from dpcore.terms.estimators import FirstOrder as FirstOrderTerms
from dpcore.terms.estimators import ZerothOrder
from dpcore.terms.mechanisms import Whole
from dpcore.terms.program import CHUNKS, Program
from dpcore.train import Interrupted

from .test_rehearsal import RECORDS, WIDTH, Padded, Squares
from .test_train import equal, make_phase, make_program, secret

FIRST, SECOND = 5, 4
"""Steps of the two phases."""


LENGTH = 8


class Short(Squares):
    max_length = LENGTH


class Killed(Exception):
    """The process ends here."""


class Service:
    """Grants steps of each phase up to its limit, saves, and notes both. It dies at the n-th call of one of them: `dies`
    is (which, n); and wants a stop after so many authorisations."""

    def __init__(self, *, limits=None, dies=None, stops_after=None):
        self.events, self.saved, self.calls, self.granted = [], [], Counter(), Counter()
        self.limits, self.dies, self.stops_after = limits or {}, dies, stops_after

    def authorise(self, phase, n):
        self._count("authorise")
        self.events.append((phase, n))
        most = min(n, self.limits[phase] - self.granted[phase]) if phase in self.limits else n
        self.granted[phase] += most
        return most

    def save(self, data):
        self._count("save")
        self.saved.append(data)

    def should_stop(self):
        return self.stops_after is not None and len(self.events) > self.stops_after

    def _count(self, what):
        self.calls[what] += 1
        if self.dies == (what, self.calls[what]):
            raise Killed

    def train(self, model, task, records, program, **more):
        return run(
            model=model,
            task=task,
            records=records,
            program=program,
            authorise=self.authorise,
            save=self.save,
            should_stop=self.should_stop,
            **more,
        )

    def run(self, program, *, model=None, checkpoint=None, streams=None):
        """On a small model of two layers, which is returned."""
        model, more = model or Two(), {"checkpoint": checkpoint, "streams": streams or secret(), "begin": start_phase}
        self.outcome = self.train(model, Short(), Padded(RECORDS, LENGTH), program, **more)
        return model


class Two(nn.Module):
    """Two layers, and a weight that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.idle = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2), nn.Parameter(torch.ones(2))
        with torch.no_grad():
            for number, p in enumerate((*self.one.parameters(), *self.two.parameters())):
                p.copy_(torch.linspace(-1, 1, p.numel()).view(p.shape) + 0.1 * number)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x))).square().sum((1, 2)) / x.shape[1]


def start_phase(model, phase, kept):
    """all, biases, or what cannot be trained."""
    for name, p in model.named_parameters():
        wanted = {"all": name != "idle", "biases": name.endswith("bias"), "idle": True}
        p.requires_grad_(wanted[phase.trains])


def two_phases(second="biases", whole=(), **changes):
    phases = [
        make_phase(name="first", trains="all", steps=FIRST, **changes),
        make_phase(name="second", trains=second, steps=SECOND, noise_multiplier=0.7, **changes),
    ]
    for index in whole:
        phases[index] = phases[index].model_copy(update={"mechanism": Whole(of=phases[index].mechanism)})
    return make_program(max_length=LENGTH, phases=tuple(phases))


def state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_everything_trains_first_and_then_the_biases(make_base, make_records, task):
    """X+BiTFiT by the method itself: what the second phase leaves alone stays to the bit as the first left it."""
    method = get_trainer("bitfit")
    model = method.attach(make_base(), {"full_steps": 2}, task="classification", seed=0)
    program = make_program(
        method="bitfit",
        options={"full_steps": 2},
        phases=(make_phase(trains="full", steps=2), make_phase(trains="bitfit", steps=3)),
    )
    before, service = state(model), Service()

    def begin(model, phase, kept):
        method.begin(model, phase, kept, task="classification")

    out = service.train(model, task, make_records(40), program, streams=secret(), begin=begin)
    assert out == Outcome(5, "finished")
    between, after = (loads(service.saved[index]).weights for index in (1, -1))
    assert [read_step(data) for data in service.saved] == [1, 2, 3, 4, 5]
    trained = {name for name in before if name != "bert.embeddings.position_ids"}
    assert {name for name in trained if not torch.equal(before[name], between[name])} == trained
    moved = {name for name in trained if not torch.equal(between[name], after[name])}
    assert moved == {name for name in trained if name.endswith(".bias") or name.startswith("classifier")}
    assert equal(after, state(model))


class Noted(Streams):
    def __init__(self, notes):
        super().__init__(test_secret=b"test")
        self.notes = notes

    def at(self, purpose, step):
        self.notes.append((purpose, step))
        return super().at(purpose, step)


def test_each_step_of_the_program_has_streams_of_its_own():
    """The second phase's begin where the first's end, also where that was cut short."""
    for limits, steps in (({}, range(9)), ({0: 3}, (0, 1, 2, 5, 6, 7, 8))):
        notes = []
        Service(limits=limits).run(two_phases(), streams=Noted(notes))
        assert sorted(notes) == sorted(itertools.product(("noise", "sampling"), steps))


class Later(Streams):
    """As of a program whose first phase is over."""

    def at(self, purpose, step):
        return super().at(purpose, step + FIRST)


@pytest.mark.parametrize("second", ["biases", "all"])
@pytest.mark.parametrize("estimator", [FirstOrderTerms(), ZerothOrder(directions=4)], ids=lambda e: e.kind)
def test_each_phase_is_what_it_would_be_alone(estimator, second):
    """With other weights, another estimator, optimiser and averages of its own; nothing of the first is in it but what
    it released."""
    program = two_phases(second, weight_averaging=0.5)
    phases = program.phases[0], program.phases[1].model_copy(update={"estimator": estimator, "optimizer": "adamw"})
    program = program.model_copy(update={"phases": phases})
    whole = Service().run(program)
    first = Service().run(program.model_copy(update={"phases": phases[:1]}))
    alone = program.model_copy(update={"phases": phases[1:]})
    Service().run(alone, model=first, streams=Later(test_secret=b"test"))
    for name, value in state(whole).items():
        torch.testing.assert_close(state(first)[name], value, rtol=1e-6, atol=1e-7)


ENDS = [
    *(("authorise", n) for n in (1, 3, FIRST + 1, FIRST + 3)),
    *(("save", n) for n in (1, 3, FIRST, FIRST + 1, FIRST + SECOND)),
]
"""The middles of both phases, their ends, and between the two."""


@pytest.mark.sampled(4)
@pytest.mark.parametrize("dies", ENDS, ids=lambda dies: "-".join(map(str, dies)))
@pytest.mark.parametrize("changes", [{}, {"clipping": "adaptive", "weight_averaging": 0.5}], ids=["plain", "adaptive"])
def test_a_run_that_was_killed_goes_on_to_the_same_end(dies, changes):
    program = two_phases(**changes)
    whole, broken, last = Service().run(program), Service(dies=dies), Service()
    with pytest.raises(Killed):
        broken.run(program)
    model = last.run(program, checkpoint=broken.saved[-1] if broken.saved else None)
    assert last.outcome == Outcome(FIRST + SECOND, "finished")
    assert equal(state(whole), state(model))


def test_a_stop_in_the_second_phase_is_gone_on_from():
    program = two_phases(weight_averaging=0.5)
    whole, stopped, last = Service().run(program), Service(stops_after=FIRST + 2), Service()
    stopped.run(program)
    assert stopped.outcome == Outcome(FIRST + 2, "stopped")
    assert (loads(stopped.saved[-1]).phase, loads(stopped.saved[-1]).before) == (1, FIRST)
    model = last.run(program, checkpoint=stopped.saved[-1])
    assert last.outcome == Outcome(FIRST + SECOND, "finished")
    assert last.events == [(1, 1), (1, 1)]
    assert equal(state(whole), state(model))


def test_a_phase_that_is_used_up_is_followed_by_the_next():
    """And what was lost of it is counted nowhere, also after a break."""
    program = two_phases()
    service = Service(limits={0: 3})
    whole = service.run(program)
    assert service.outcome == Outcome(3 + SECOND, "used_up")
    assert service.events == [(0, 1)] * 4 + [(1, 1)] * SECOND
    assert [read_step(data) for data in service.saved] == [1, 2, 3, 6, 7, 8, 9]
    for place in (2, 3, 6):
        again = Service(limits={0: 0})
        model = again.run(program, checkpoint=service.saved[place])
        assert again.outcome.step == 3 + SECOND
        assert equal(state(whole), state(model))


def test_a_second_phase_that_cannot_be_trained_costs_nothing():
    service = Service()
    model = Two()
    before = state(model)
    with pytest.raises(UnseenParameter, match="idle"):
        service.run(two_phases("idle"), model=model)
    assert (service.events, service.saved) == ([], [])
    assert equal(before, state(model))


def test_every_phase_that_is_left_is_rehearsed_before_anything_is_paid(monkeypatch):
    service, original = Service(), FirstOrder.rehearse
    rehearsed = []

    def rehearse(self):
        rehearsed.append((set(self.parameters), len(service.events)))
        original(self)

    monkeypatch.setattr(FirstOrder, "rehearse", rehearse)
    service.run(two_phases())
    biases = {"one.bias", "two.bias"}
    assert rehearsed == [({"one.weight", "two.weight", *biases}, 0), (biases, 0)]
    rehearsed.clear()
    service.events.clear()
    service.run(two_phases(), checkpoint=service.saved[-2])
    assert rehearsed == [(biases, 0)]


@given(st.lists(st.tuples(st.integers(1, 10_000_000), st.booleans()), min_size=1, max_size=8))
def test_a_program_is_asked_for_in_at_most_twenty_chunks(shape):
    """As few as that allows: with one step less in each there would be more."""
    made = [make_phase(steps=steps) for steps, _ in shape]
    wholes = [p.model_copy(update={"mechanism": Whole(of=p.mechanism)}) for p in made]
    phases = [whole if indivisible else p for p, whole, (_, indivisible) in zip(made, wholes, shape, strict=True)]
    program = Program(method="any", max_length=2, phases=phases)

    def asked(size):
        return sum(1 if indivisible else -(-steps // size) for steps, indivisible in shape)

    assert asked(program.chunk) <= CHUNKS
    least = -(-program.steps // CHUNKS)
    assert program.chunk == least or asked(program.chunk - 1) > CHUNKS
    if len(shape) == 1:
        assert program.chunk == least


def test_an_indivisible_phase_is_paid_for_once_and_whole():
    """In as many checkpoints as any other, of which none is asked for again."""
    service, program = Service(), two_phases(whole=[0])
    whole = service.run(program)
    assert service.outcome == Outcome(FIRST + SECOND, "finished")
    assert service.events == [(0, FIRST)] + [(1, 1)] * SECOND
    assert [read_step(data) for data in service.saved] == [*range(FIRST + SECOND + 1)]
    assert [loads(data).paid for data in service.saved] == [True] * (FIRST + 1) + [False] * SECOND
    for place in (0, 2, FIRST):
        # Nothing is left of what the phase had reserved, and nothing is asked for.
        again = Service(limits={0: 0})
        model = again.run(program, checkpoint=service.saved[place])
        assert again.outcome == Outcome(FIRST + SECOND, "finished")
        assert again.events == [(1, 1)] * SECOND
        assert equal(state(whole), state(model))


def test_an_indivisible_phase_that_was_paid_for_and_lost_is_never_run():
    """Killed between the authorisation and the first save: another attempt has nothing to go on from, and gets none."""
    program = two_phases(whole=[0])
    first = Service(dies=("save", 1))
    with pytest.raises(Killed):
        first.run(program)
    assert (first.events, first.saved) == ([(0, FIRST)], [])
    model, again = Two(), Service(limits={0: 0})
    before = state(model)
    with pytest.raises(Interrupted, match="first"):
        again.run(program, model=model)
    assert again.saved == []
    assert equal(before, state(model))


@pytest.mark.parametrize("left", [0, 1, SECOND - 1])
def test_an_indivisible_phase_is_never_cut_short(left):
    """Fewer steps than all are none: the outcome is no used_up, whatever the phases before it had."""
    service = Service(limits={1: left})
    with pytest.raises(Interrupted, match="second"):
        service.run(two_phases(whole=[1]))
    assert [read_step(data) for data in service.saved] == [*range(1, FIRST + 1)]


def test_an_indivisible_phase_that_was_stopped_goes_on_unpaid():
    program = two_phases(whole=[0], weight_averaging=0.5)
    whole, last = Service().run(program), Service()
    stopped = Service()
    stopped.should_stop = lambda: len(stopped.saved) == 3
    stopped.run(program)
    assert stopped.outcome == Outcome(2, "stopped")
    model = last.run(program, checkpoint=stopped.saved[-1])
    assert last.events == [(1, 1)] * SECOND
    assert equal(state(whole), state(model))


def test_one_mechanism_has_one_noise_in_each_phase(monkeypatch):
    """Whole or not: a phase's steps are noised as its own mechanism says."""
    seen, original = [], output.noised_mean

    def noised(total, multiplier, *rest, **more):
        seen.append(multiplier)
        return original(total, multiplier, *rest, **more)

    monkeypatch.setattr(output, "noised_mean", noised)
    Service().run(two_phases(whole=[1]))
    assert seen == [0.5] * FIRST + [0.7] * SECOND


def test_a_program_has_a_phase():
    with pytest.raises(ValueError, match="phases"):
        Program(method="any", max_length=2, phases=())
