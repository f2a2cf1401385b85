"""The loop: what is authorised is run, what is drawn is noised once, what is saved is public."""

import json

import numpy as np
import pytest
import torch

from dpcore import optimise
from dpcore.checkpoint import PlanMismatch, loads, read_step
from dpcore.engine.errors import InexactGradient, UnseenParameter
from dpcore.engine.rows import Rows
from dpcore.mechanism import output
from dpcore.mechanism.clipping import AUTOMATIC_OFFSET, ClippedSum
from dpcore.mechanism.keystream import Streams
from dpcore.mechanism.sampling import poisson
from dpcore.run import Outcome, run
from dpcore.terms.mechanisms import PoissonGaussian
from dpcore.terms.program import Phase, Program
from dpcore.terms.speed import Speed

from .conftest import MAX_LENGTH


def make_phase(**changes) -> Phase:
    values = {
        "name": "train",
        "trains": "lora",
        "mechanism": PoissonGaussian(
            sample_rate=changes.pop("sample_rate", 0.25), noise_multiplier=changes.pop("noise_multiplier", 0.5)
        ),
        "steps": 8,
        "clip_norm": 1.0,
        "expected_batch": 10,
        "learning_rate": 0.01,
    }
    return Phase(**values | changes)


def make_program(**changes) -> Program:
    """A program of one phase; what is no field of a program is one of the phase, or of its mechanism."""
    own = {name: changes.pop(name) for name in Program.model_fields.keys() & changes.keys()}
    phases = own.pop("phases", None) or (make_phase(**changes),)
    return Program(**{"method": "lora", "max_length": MAX_LENGTH, "phases": phases} | own)


class Host:
    """Stands in for the worker: grants, saves, stops."""

    def __init__(self, grants=None, stop_at_call=None):
        self.asked, self.saved, self.grants, self.calls = [], [], grants, 0
        self.stop_at_call = stop_at_call

    def authorise(self, phase, n):
        self.asked.append(n)
        return n if self.grants is None else self.grants.pop(0)

    def should_stop(self):
        self.calls += 1
        return self.stop_at_call is not None and self.calls >= self.stop_at_call

    def run(self, model, task, records, program, **more) -> Outcome:
        return run(
            model=model,
            task=task,
            records=records,
            program=program,
            authorise=self.authorise,
            save=self.saved.append,
            should_stop=self.should_stop,
            **more,
        )


def trained(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def equal(a, b):
    return all(torch.equal(a[n], b[n]) for n in a)


def secret(name=b"test"):
    return Streams(test_secret=name)


def test_trains_every_trainable_tensor_and_no_other(make_model, make_records, task):
    model = make_model(awake=False)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert Host().run(model, task, make_records(40), make_program()) == Outcome(8, "finished")
    for name, p in model.named_parameters():
        assert torch.equal(before[name], p) != p.requires_grad, name


def test_learns_a_task_through_clipping_and_noise(make_model, make_records, task):
    """With little noise the loop must learn: a wrong sign, scale or shuffled label would not."""
    model, records = make_model(awake=False, r=8), make_records(300)
    program = make_program(sample_rate=0.2, expected_batch=60, noise_multiplier=0.05, steps=150, learning_rate=0.05)
    Host().run(model, task, records, program, speed=Speed(tokens=10_000))
    losses = task.losses(model, records, np.arange(300), MAX_LENGTH)
    assert losses.mean() < 0.6  # log 3 = 1.10 untrained


def test_asks_for_chunks_and_runs_no_step_that_was_not_granted(make_model, make_records, task):
    program = make_program(steps=50)  # chunks of ceil(50 / 20) = 3
    host = Host(grants=[3, 2, 0])
    assert host.run(make_model(), task, make_records(10), program) == Outcome(5, "used_up")
    assert host.asked == [3, 3, 3]
    assert [read_step(data) for data in host.saved] == [3, 5]


def test_last_chunk_asks_for_what_is_left(make_model, make_records, task):
    host = Host()
    host.run(make_model(), task, make_records(10), make_program(steps=41))
    assert host.asked == [3] * 13 + [2]


def test_refusal_to_authorise_ends_the_run_before_the_step(make_model, make_records, task):
    model = make_model()
    before = trained(model)

    def refuse(phase, n):
        raise PermissionError("frozen")

    host = Host()
    host.authorise = refuse
    with pytest.raises(PermissionError):
        host.run(model, task, make_records(10), make_program())
    assert equal(before, trained(model))
    assert host.saved == []


def test_stop_inside_a_step_throws_the_step_away(make_model, make_records, task):
    model, records, program = make_model(), make_records(40), make_program(steps=60, sample_rate=1.0)
    host = Host(stop_at_call=6)  # one call a micro-batch of one record
    outcome = host.run(model, task, records, program, speed=Speed(tokens=1))
    assert outcome == Outcome(0, "stopped")
    assert read_step(host.saved[-1]) == 0


def test_empty_draws_are_steps_with_noise(make_model, make_records, task):
    model = make_model()
    before = trained(model)
    program = make_program(sample_rate=1e-12, expected_batch=1, steps=3)
    assert Host().run(model, task, make_records(10), program).step == 3
    assert not any(torch.equal(before[n], p) for n, p in trained(model).items())


def test_zero_gradients_give_noise_of_the_planned_variance_at_every_step(make_model, make_records, task, monkeypatch):
    """k steps of noise have k times the variance of one, differ from step to step, and one is drawn for each step."""
    means = []
    monkeypatch.setattr(
        optimise, "step", lambda o, p, mean, **_: means.append(torch.cat([*map(flat, whole(mean).values())]))
    )
    program = make_program(sample_rate=1e-12, expected_batch=7, noise_multiplier=3.0, clip_norm=2.0, steps=40)
    Host().run(make_model(), task, make_records(10), program, streams=secret())
    assert len(means) == 40
    assert len({m[0].item() for m in means}) == 40
    one = (3.0 * 2.0 / 7) ** 2
    assert abs(torch.stack(means).sum(0).var().item() / (40 * one) - 1) < 0.2
    assert abs(torch.stack(means).var().item() / one - 1) < 0.05


def flat(tensor):
    return tensor.flatten()


def whole(parts):
    """The gradients of a step by name, in however many parts they came."""
    return {name: gradient for part in parts for name, gradient in part.items()}


def test_micro_batches_change_neither_the_draw_nor_the_noise(make_model, make_records, task):
    """Same secret, micro-batches of one record or of all: the same iterates up to rounding, so one noise a step."""
    results = []
    for speed in (
        Speed(tokens=1),
        Speed(tokens=64, lengths_per_doubling=64),
        Speed(tokens=10_000, lengths_per_doubling=1),
    ):
        model = make_model(dtype=torch.float64)
        Host().run(model, task, make_records(40), make_program(), speed=speed, streams=secret())
        results.append(trained(model))
    for other in results[1:]:
        for name, value in results[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("unit", ["record", "user"])
def test_out_of_memory_goes_on_with_the_same_draw_in_smaller_micro_batches(
    make_model, make_records, task, monkeypatch, unit
):
    reference, model, records = make_model(dtype=torch.float64), make_model(dtype=torch.float64), make_records(40)
    program, owners = make_program(steps=2, unit=unit, sample_rate=0.5), np.arange(40) // 20 if unit == "user" else None
    Host().run(reference, task, records, program, owners=owners, streams=secret())
    sizes, original = [], task.losses

    def tight(model, records, indices, length):
        if len(records) == 40:  # the rehearsal passes
            sizes.append(len(indices))
            if len(indices) > 2:
                raise torch.OutOfMemoryError("no memory for more than two")
        return original(model, records, indices, length)

    monkeypatch.setattr(task, "losses", tight)
    assert Host().run(model, task, records, program, owners=owners, streams=secret()).step == 2
    assert max(sizes) > 2
    for name, value in trained(reference).items():
        torch.testing.assert_close(trained(model)[name], value, rtol=1e-6, atol=1e-9)


def test_divisor_is_public_and_the_same_for_every_draw(make_model, make_records, task, monkeypatch):
    """Twice the expected batch halves the mean of the very same draw."""
    means = {}
    for batch in (10, 20):
        monkeypatch.setattr(
            optimise,
            "step",
            lambda o, p, mean, batch=batch, **_: means.setdefault(batch, flat(whole(mean)[next(iter(p))])),
        )
        Host().run(
            make_model(),
            task,
            make_records(40),
            make_program(expected_batch=batch, steps=1, noise_multiplier=1e-9),
            streams=secret(),
        )
    torch.testing.assert_close(means[10], 2 * means[20], rtol=1e-4, atol=1e-9)


def test_unseen_parameter_stops_the_run_before_anything_is_authorised(make_model, make_records, task):
    model, host = make_model(), Host()
    model.idle = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(UnseenParameter, match="idle"):
        host.run(model, task, make_records(10), make_program())
    assert host.asked == []


def test_model_that_mixes_its_examples_stops_the_run_before_anything_is_authorised(
    make_model, make_records, task, monkeypatch
):
    original, host = task.losses, Host()

    def shared_out(*args):
        losses = original(*args)
        return losses / losses.detach().sum()

    monkeypatch.setattr(task, "losses", shared_out)
    with pytest.raises(InexactGradient):
        host.run(make_model(), task, make_records(10), make_program())
    assert host.asked == []


def test_one_bad_record_changes_nothing_else(make_model, make_records, task, monkeypatch):
    """A record whose loss is NaN: the run goes on as if that record had not been there."""
    original, results = task.losses, []
    for poison in (float("nan"), 0.0):

        def losses(model, records, indices, length, poison=poison):
            weight = torch.ones(len(indices), dtype=torch.float64)
            weight[torch.from_numpy(indices == 3)] = poison
            return original(model, records, indices, length) * weight

        monkeypatch.setattr(task, "losses", losses)
        model = make_model(dtype=torch.float64)
        Host().run(model, task, make_records(12), make_program(sample_rate=1.0, steps=3), streams=secret())
        results.append(trained(model))
    for name, value in results[1].items():
        torch.testing.assert_close(results[0][name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("optimizer", "clipping", "averaging"),
    [
        ("adamw", "automatic", 0.0),
        ("adamw", "adaptive", 0.5),
        ("adam-bc", "flat", 0.0),
        ("adam-bc", "adaptive", 0.9),
        ("sgd", "per-layer", 0.9),
    ],
)
def test_resumed_run_equals_the_run_without_a_break_under_a_test_secret(
    make_model, make_records, task, optimizer, clipping, averaging
):
    records = make_records(40)
    program = make_program(steps=8, optimizer=optimizer, clipping=clipping, weight_averaging=averaging)
    whole, first, second = make_model(), make_model(), make_model()
    Host().run(whole, task, records, program, streams=secret())
    host = Host(grants=[1, 1, 1, 0])
    assert host.run(first, task, records, program, streams=secret()) == Outcome(3, "used_up")
    again = Host()
    assert again.run(second, task, records, program, checkpoint=host.saved[-1], streams=secret()) == Outcome(
        8, "finished"
    )
    assert sum(again.asked) == 5
    assert equal(trained(whole), trained(second))


def test_a_run_stopped_before_its_first_step_is_resumed(make_model, make_records, task):
    model, records, program = make_model(), make_records(20), make_program(steps=2, weight_averaging=0.9)
    host = Host(stop_at_call=4)
    stopped = host.run(model, task, records, program, speed=Speed(tokens=1), streams=secret())  # a draw of several
    assert stopped == Outcome(0, "stopped")
    assert Host().run(make_model(), task, records, program, checkpoint=host.saved[-1]) == Outcome(2, "finished")


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_the_average_of_the_iterates_is_what_a_run_ends_with(make_model, make_records, task, steps):
    """Against its definition; without the bias of few steps, and the same for a run that was paid for no further."""
    records, decay, seen = make_records(20), 0.8, []
    program = make_program(steps=20, weight_averaging=decay)
    host = Host(grants=[1] * steps + [0])
    model = make_model()
    host.run(model, task, records, program, streams=secret())
    seen = [loads(data).weights for data in host.saved]
    weights = [decay ** (steps - i - 1) for i in range(steps)]
    for name, value in trained(model).items():
        expected = sum(w * iterate[name] for w, iterate in zip(weights, seen, strict=True)) / sum(weights)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    # Resumed with nothing left to spend, another model comes out the same.
    again = make_model()
    Host(grants=[0]).run(again, task, records, program, checkpoint=host.saved[-1])
    assert equal(trained(model), trained(again))


def test_a_run_that_stops_keeps_the_last_iterate(make_model, make_records, task):
    """What is averaged goes on from the iterate, not from the average."""
    model, host, program = make_model(), Host(stop_at_call=20), make_program(weight_averaging=0.9)
    assert host.run(model, task, make_records(20), program, speed=Speed(tokens=10_000)).ended == "stopped"
    saved = loads(host.saved[-1])
    assert saved.step > 1
    assert equal(saved.weights, trained(model))
    assert not equal(saved.averages, saved.weights)


def test_the_noise_of_a_step_costs_what_was_priced(make_model, make_records, task, monkeypatch):
    """Whatever is noised in a step, gradients and count: the noises of one draw make up the program's multiplier."""
    multipliers, original = [], output.noised_mean

    def noised(total, multiplier, *rest, **more):
        multipliers.append(multiplier)
        return original(total, multiplier, *rest, **more)

    monkeypatch.setattr(output, "noised_mean", noised)
    for clipping, sums in (("automatic", 1), ("flat", 1), ("per-layer", 1), ("adaptive", 2)):
        multipliers.clear()
        Host().run(make_model(), task, make_records(20), make_program(steps=1, clipping=clipping, noise_multiplier=0.7))
        assert len(multipliers) == sums
        assert sum(1 / m**2 for m in multipliers) == pytest.approx(1 / 0.7**2, rel=1e-12)


def test_an_adaptive_clip_norm_is_noised_public_and_moves(make_model, make_records, task):
    """It differs between two runs on the same draws with other noise, and what is saved is the norm of the next step."""
    records, program = make_records(40), make_program(steps=6, clipping="adaptive", clip_norm=5.0, noise_multiplier=3.0)
    norms = []
    for name in (b"one", b"two"):
        host = Host()
        host.run(make_model(), task, records, program, streams=secret(name))
        norms.append([loads(data).clip_norm for data in host.saved])
    assert not set(norms[0]) & set(norms[1])
    assert len({*norms[0], 5.0}) == 7
    header = json.loads(host.saved[-1][8 : 8 + int.from_bytes(host.saved[-1][:8], "little")])
    assert set(header["__metadata__"]) == {"format", "phase", "step", "before", "program", "clip_norm"}


def test_an_adaptive_clip_norm_finds_the_gradients(make_model, make_records, task):
    """From a thousand times too large, with little noise; the divisor stays public while the norm moves."""
    program = make_program(
        steps=60, sample_rate=1.0, expected_batch=40, clipping="adaptive", clip_norm=1e3, noise_multiplier=0.01
    )
    host = Host()
    host.run(make_model(), task, make_records(40), program, streams=secret())
    assert loads(host.saved[-1]).clip_norm < 20


def test_resumed_run_draws_afresh(make_model, make_records, task):
    """Two resumes of one checkpoint see other draws and other noise."""
    records, program = make_records(40), make_program(steps=8)
    host = Host(grants=[1, 1, 0])
    host.run(make_model(), task, records, program)
    results = []
    for _ in range(2):
        model = make_model()
        Host(grants=[1, 0]).run(model, task, records, program, checkpoint=host.saved[-1])
        results.append(trained(model))
    assert not any(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_same_seed_never_gives_the_same_adapter(make_model, make_records, task):
    """The user's seed drives initialisation only."""
    results = []
    for _ in range(2):
        model = make_model()
        Host().run(model, task, make_records(40), make_program(seed=11))
        results.append(trained(model))
    assert not any(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_resume_refuses_another_program_and_another_model(make_model, make_records, task):
    host = Host(grants=[1, 0])
    host.run(make_model(), task, make_records(10), make_program())
    model = make_model()
    before = trained(model)
    with pytest.raises(PlanMismatch):
        Host().run(model, task, make_records(10), make_program(noise_multiplier=0.4), checkpoint=host.saved[-1])
    with pytest.raises(PlanMismatch):
        Host().run(make_model(r=3), task, make_records(10), make_program(), checkpoint=host.saved[-1])
    for other in ({"optimizer": "sgd"}, {"clipping": "adaptive"}, {"weight_averaging": 0.9}):
        with pytest.raises(PlanMismatch):
            Host().run(model, task, make_records(10), make_program(**other), checkpoint=host.saved[-1])
    assert equal(before, trained(model))
    with pytest.raises(ValueError, match="not a checkpoint"):
        loads(b"\x10\0\0\0\0\0\0\0not json at all!")
    with pytest.raises(ValueError, match="not a checkpoint of format"):
        loads(host.saved[-1].replace(b"tacit-checkpoint-2", b"tacit-checkpoint-0"))


@pytest.mark.parametrize(
    ("optimizer", "kinds"),
    [
        ("adamw", {"weight", "exp_avg", "exp_avg_sq", "step"}),
        ("adam-bc", {"weight", "exp_avg", "exp_avg_sq", "step", "noise_sq"}),
        ("sgd", {"weight", "momentum_buffer"}),
    ],
)
def test_checkpoint_holds_noised_iterates_and_public_values_only(make_model, make_records, task, optimizer, kinds):
    model, host, program = make_model(), Host(grants=[1, 1, 0]), make_program(optimizer=optimizer)
    host.run(model, task, make_records(40), program)
    data = host.saved[-1]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.pop("__metadata__")
    assert set(metadata) == {"format", "phase", "step", "before", "program"}
    assert Program.model_validate_json(metadata["program"]) == program
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(header) == {f"{kind}/{n}" for kind in kinds for n in names}
    assert equal(loads(data).weights, trained(model))


def test_every_step_draws_from_all_records_and_sums_only_its_draw(make_model, make_records, task, monkeypatch):
    """What reaches the clipped sum over a run is exactly what was drawn, each unit once a step."""
    drawn, seen = [], []
    original_draw, original_losses = output.poisson, task.losses

    def draw(*args):
        drawn.append(original_draw(*args))
        seen.append([])
        return drawn[-1]

    def losses(model, records, indices, length):
        if seen:
            seen[-1].extend(indices.tolist())
        return original_losses(model, records, indices, length)

    monkeypatch.setattr(output, "poisson", draw)
    monkeypatch.setattr(task, "losses", losses)
    program = make_program(sample_rate=0.5, steps=20)
    Host().run(make_model(), task, make_records(40), program, speed=Speed(tokens=32), streams=secret())
    assert [sorted(s) for s in seen] == [d.tolist() for d in drawn]
    assert len(set().union(*seen)) == 40


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize("training", ["lora", "full"])
def test_users_gradients_are_summed_before_the_norm(
    make_model, make_base, make_records, task, monkeypatch, training, clipping
):
    """Against plain autograd, record by record, grouped by user; users have from one to many records."""
    model = make_model(dtype=torch.float64) if training == "lora" else make_base(dtype=torch.float64)
    records, owners, means = make_records(25), np.array([3, 0, 1, 1, 3, *[2] * 11, 1, 0, 3, *[1] * 6]), []
    parameters = [p for p in model.parameters() if p.requires_grad]
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    sums = [torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64) for _ in range(4)]
    for i, user in enumerate(owners):
        length = -(-int(records.lengths[i]) // 4) * 4
        loss = task.losses(model, records, np.array([i]), length)[0]
        sums[user] += torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
    norms = torch.stack(sums).norm(dim=1)
    clip_norm = norms.median().item()  # some users are clipped, some are not
    scale = (clip_norm / norms).clamp(max=1) if clipping == "flat" else clip_norm / (norms + AUTOMATIC_OFFSET)
    expected = scale @ torch.stack(sums)

    def keep(_, __, mean, **___):
        parts = whole(mean)
        means.append(torch.cat([flat(parts[name]) for name in names]))

    monkeypatch.setattr(optimise, "step", keep)
    program = make_program(
        unit="user", sample_rate=1.0, steps=1, clip_norm=clip_norm, clipping=clipping, noise_multiplier=1e-12
    )
    Host().run(model, task, records, program, owners=owners, speed=Speed(tokens=32), streams=secret())
    assert (means[0] * program.phases[0].expected_batch - expected).norm() <= 1e-6 * expected.norm()


def test_a_user_is_drawn_with_all_records_or_none(make_model, make_records, task, monkeypatch):
    seen, original = [], task.losses
    owners = np.random.default_rng(0).integers(6, size=40)

    def losses(model, records, indices, length):
        if len(records) == 40:
            seen[-1].extend(indices.tolist())
        return original(model, records, indices, length)

    def draw(stream, population, rate):
        assert population == 6
        seen.append([])
        return poisson(stream, population, rate)

    monkeypatch.setattr(task, "losses", losses)
    monkeypatch.setattr(output, "poisson", draw)
    Host().run(
        make_model(), task, make_records(40), make_program(unit="user", sample_rate=0.5, steps=12), owners=owners
    )
    assert len({len(step) for step in seen}) > 3
    for step in seen:
        users = set(owners[step])
        assert sorted(step) == [i for i in range(40) if owners[i] in users]


def test_owners_come_with_a_program_for_users_and_with_no_other(make_model, make_records, task):
    records = make_records(10)
    for unit, owners in (("user", None), ("record", np.arange(10)), ("user", np.arange(9))):
        with pytest.raises(ValueError, match="owner of each record"):
            Host().run(make_model(), task, records, make_program(unit=unit), owners=owners)


def test_padded_length_of_a_record_depends_on_that_record_alone(make_model, make_records, task, monkeypatch):
    records, lengths, original = make_records(60), {}, task.losses

    def losses(model, records, indices, length):
        if len(records) == 60:
            for i in indices.tolist():
                lengths.setdefault(i, set()).add(length)
        return original(model, records, indices, length)

    monkeypatch.setattr(task, "losses", losses)
    Host().run(make_model(), task, records, make_program(sample_rate=0.5), speed=Speed(lengths_per_doubling=1))
    powers = [1, 2, 4, 8, 16, 32, 64]
    for i, found in lengths.items():
        assert found == {min(next(p for p in powers if p >= records.lengths[i]), MAX_LENGTH)}


def test_sum_is_kept_in_float64(make_model):
    """Adding many micro-batches must not lose what a single record contributed."""
    total = ClippedSum.zero(1, clip_norm=1.0, clipping="flat", expected_batch=1, device=torch.device("cpu"))
    for _ in range(3):
        total.value.add_(2.0**26)
        total.add(Rows(torch.ones(1, 1)))
    assert total.value.item() == 3 * 2.0**26 + 3
