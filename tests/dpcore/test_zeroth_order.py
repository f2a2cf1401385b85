"""Zeroth order against its definition, one record and one direction at a time, in float64; and what it must not touch."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dpcore.checkpoint import loads
from dpcore.engine.errors import MixedExamples
from dpcore.estimators import Setting, make
from dpcore.explicit_mask import explicit_masks
from dpcore.mechanism.clipping import AUTOMATIC_OFFSET
from dpcore.mechanism.keystream import Streams
from dpcore.run import Outcome
from dpcore.terms.estimators import ZerothOrder
from dpcore.terms.speed import Speed

from .test_public_values import Layer, neighbour
from .test_rehearsal import LONGEST, RECORDS, Padded, Squares
from .test_run import LENGTH, Killed, Service, Two, state
from .test_train import Host, equal, make_phase, make_program, secret, trained

K, SCALE = 5, 1e-3
OWNERS = np.array([2, 0, 1, 1, 2, 3, *[1] * 4, 3, 0])


def zeroth(**changes):
    """Fields of a phase that estimates so."""
    more = {"directions": changes.pop("directions", K), "scale": changes.pop("scale", SCALE)}
    more = {"estimator": ZerothOrder(**more), "expected_batch": 64}  # eight records share a micro-batch
    return more | {"optimizer": "sgd", "betas": (0.0, 0.999)} | changes


@pytest.fixture
def make_estimator(task):
    def build(model, records, *, owners=None, speed=None, **changes):
        phase = make_phase(**zeroth(**changes))
        unit = "record" if owners is None else "user"
        estimator = make(Setting(model, task, records, owners, unit, phase, speed or Speed(), lambda: False))
        estimator.rehearse()
        return estimator

    with explicit_masks():
        yield build


def directions():
    return secret().at("directions", 0)


def slopes(model, task, records, scale=SCALE):
    """What each record says of each direction: float64 [n, K], by central differences of its loss alone."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in parameters.items()}
    out = torch.zeros(len(records), K, dtype=torch.float64)
    for k, seed in enumerate(directions().integers(K)):
        generator = torch.Generator().manual_seed(int(seed) // 2)
        along = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in parameters.items()}
        for i in range(len(records)):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    for name, p in parameters.items():
                        p.copy_(start[name] + sign * scale * along[name])
                    length = -(-int(records.lengths[i]) // 4) * 4
                    ends.append(task.losses(model, records, np.array([i]), length).item())
            out[i, k] = (ends[0] - ends[1]) / (2 * scale)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(start[name])
    return out


def clipped(rows, clip_norm, clipping):
    norms = rows.norm(dim=1)
    factors = (clip_norm / norms).clamp(max=1) if clipping == "flat" else clip_norm / (norms + AUTOMATIC_OFFSET)
    return factors[:, None] * rows


@pytest.mark.sampled(2)
@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize("unit", ["record", "user"])
@pytest.mark.parametrize("training", ["lora", "full"])
def test_the_sum_is_that_of_each_unit_s_clipped_slopes(
    make_model, make_base, make_records, task, make_estimator, training, unit, clipping
):
    """Some units are clipped and some are not; a user's records are added up before."""
    model = make_model(dtype=torch.float64) if training == "lora" else make_base(dtype=torch.float64)
    records, owners = make_records(12), OWNERS if unit == "user" else None
    rows = slopes(model, task, records)
    if unit == "user":
        rows = torch.zeros(4, K, dtype=torch.float64).index_add_(0, torch.from_numpy(OWNERS), rows)
    clip_norm = rows.norm(dim=1).median().item()
    estimator = make_estimator(
        model, records, owners=owners, speed=Speed(tokens=64), clipping=clipping, clip_norm=clip_norm
    )
    assert estimator.units == len(rows)
    drawn = np.delete(np.arange(len(rows)), 1)
    total = estimator.sum(drawn, clip_norm, directions)
    expected = clipped(rows[drawn], clip_norm, clipping).sum(0)
    assert (total.value - expected).norm() <= 1e-9 * expected.norm()
    assert total.sensitivity == pytest.approx(clip_norm * (1 + 64e-6), rel=1e-6)

    # The noised means make a gradient: each direction by its mean, over their number.
    mean, gradient = torch.linspace(-1, 1, K, dtype=torch.float64), {}
    for part in estimator.gradients(mean):
        assert len(part) == 1
        gradient |= part
    for name, p in gradient.items():
        assert p.shape == model.get_parameter(name).shape
    generators = [torch.Generator().manual_seed(int(seed) // 2) for seed in directions().integers(K)]
    for name, p in trained(model).items():
        each = [m * torch.randn(p.shape, generator=g, dtype=p.dtype) for m, g in zip(mean, generators, strict=True)]
        torch.testing.assert_close(gradient[name], sum(each) / K, rtol=1e-12, atol=1e-14)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("clipping", ["flat", "automatic"])
def test_a_record_moves_the_sum_by_no_more_than_the_clip_norm(make_model, make_records, make_estimator, clipping):
    """All K numbers of it together, in float32 and among others: they are one output."""
    clip_norm, everyone = 1e-3, np.arange(12)
    estimator = make_estimator(make_model(), make_records(12), clipping=clipping, clip_norm=clip_norm)
    whole = estimator.sum(everyone, clip_norm, directions).value
    for left_out in everyone:
        moved = (whole - estimator.sum(np.delete(everyone, left_out), clip_norm, directions).value).norm()
        assert 0.5 * clip_norm < moved <= clip_norm * (1 + 1e-6)
    assert estimator.sum(everyone[:0], clip_norm, directions).value.tolist() == [0.0] * K


def test_an_empty_draw_is_a_step_with_noise(make_model, make_records, task):
    model, host = make_model(), Host()
    before = trained(model)
    host.run(model, task, make_records(10), make_program(**zeroth(sample_rate=1e-12, expected_batch=1, steps=3)))
    assert len(host.saved) == 3
    assert not any(torch.equal(before[name], p) for name, p in trained(model).items())


def test_directions_have_a_stream_of_their_own(make_model, make_records, task):
    """Once a step; nothing is drawn and no noise is made by it, and nobody's global generator moves."""
    notes, given = [], {}

    class Noted(Streams):
        def at(self, purpose, step):
            notes.append((purpose, step))
            stream = super().at(purpose, step)
            integers = stream.integers
            stream.integers = lambda count: given.setdefault((purpose, step), integers(count))
            return stream

    torch.manual_seed(4)
    before = torch.get_rng_state()
    Host().run(make_model(), task, make_records(40), make_program(**zeroth(steps=2)), streams=Noted(test_secret=b"x"))
    assert torch.equal(torch.get_rng_state(), before)
    assert sorted(notes) == [(purpose, step) for purpose in ("directions", "noise", "sampling") for step in (0, 1)]
    first = [numbers[:K].tolist() for numbers in given.values()]
    assert len({number for numbers in first for number in numbers}) == sum(map(len, first)) > 5 * K


class Stopping(Host):
    """Asks for a stop while weights are moved for the second micro-batch of a direction."""

    def __init__(self, model):
        super().__init__()
        self.model, self.before, self.moved = model, trained(model), 0

    def authorise(self, phase, n):
        self.moved = 1
        return n

    def should_stop(self):
        self.moved += self.moved > 0 and not equal(self.before, trained(self.model))
        return self.moved > 2


@pytest.mark.parametrize("training", ["lora", "full"])
def test_a_stop_while_weights_are_moved_brings_them_back(make_model, make_base, make_records, task, training):
    """An adapter's are copied, and come back to the bit; those of a whole model are moved back."""
    model = make_model() if training == "lora" else make_base()
    host = Stopping(model)
    program = make_program(**zeroth(sample_rate=1.0))
    assert host.run(model, task, make_records(20), program, speed=Speed(tokens=16)) == Outcome(0, "stopped")
    assert host.moved == 3, "they had been moved"
    if training == "lora":
        assert equal(host.before, trained(model))
    for name, p in trained(model).items():
        torch.testing.assert_close(p, host.before[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("by", [0.0, 1e-5])
def test_records_whose_losses_differ_by_place_are_taken_one_at_a_time(make_model, make_records, task, monkeypatch, by):
    """If only at one length. Otherwise micro-batches have one size for each, filled up where records are too few."""
    shapes, original = set(), task.losses

    def losses(model, records, indices, length):
        if len(records) == 20:
            shapes.add((length, len(indices)))
        return original(model, records, indices, length) * (1 + by * (length == 8) * torch.arange(len(indices)))

    monkeypatch.setattr(task, "losses", losses)
    program = make_program(**zeroth(steps=1, sample_rate=1.0))
    Host().run(make_model(), task, make_records(20), program, speed=Speed(tokens=128))
    assert len(shapes) > 3
    assert shapes == {(length, 1 if by else 128 // length) for length, _ in shapes}


def test_models_in_which_records_meet_are_refused(make_base, make_records, task):
    """Where an operation shows it, and where only their losses do."""
    base = make_base().requires_grad_(False)
    base.classifier = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3)).train()
    host, program = Host(), make_program(**zeroth(steps=1))
    with pytest.raises(MixedExamples, match=r"classifier\.0: a batch norm"):
        host.run(base, task, make_records(20), program)
    longest = make_program(**zeroth(steps=1), max_length=LONGEST)

    def mean(layer: Layer, y: Tensor) -> Tensor:
        return y - 0.5 * y.mean(0)

    for function, words in ((neighbour_of, "depends on the others in its batch"), (mean, "reduces over the records")):
        with pytest.raises(MixedExamples, match=words):
            host.run(Layer(function), Squares(), Padded(RECORDS, LONGEST), longest, speed=Speed(tokens=10_000))
    assert (host.asked, host.saved) == ([], [])


def neighbour_of(layer: Layer, y: Tensor) -> Tensor:
    return neighbour(y)


def test_it_learns():
    """With little noise: a wrong sign, scale or direction would not."""
    shape = zeroth(steps=60, directions=8, sample_rate=1.0, expected_batch=RECORDS, learning_rate=0.1)
    program = make_program(max_length=LENGTH, trains="all", noise_multiplier=0.01, **shape)
    records, start = Padded(RECORDS, LENGTH), Two()
    with torch.no_grad():
        before, after = (model(records.x[:, :LENGTH]).mean() for model in (start, Service().run(program)))
    assert after < 0.4 * before


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "weight_averaging": 0.5}], ids=["sgd", "adamw"])
def test_a_run_that_was_killed_goes_on_to_the_same_end(changes):
    program = make_program(max_length=LENGTH, trains="all", **zeroth(steps=6, **changes))
    whole, broken, last = Service().run(program), Service(dies=("save", 4)), Service()
    with pytest.raises(Killed):
        broken.run(program)
    model = last.run(program, checkpoint=broken.saved[-1])
    assert last.outcome == Outcome(6, "finished")
    assert equal(state(whole), state(model))
    assert {name for name, moment in loads(last.saved[-1]).moments.items() if moment} == (
        {"one.weight", "one.bias", "two.weight", "two.bias"} if changes else set()
    )
