"""Pruning: masks that follow from noised or public weights alone, zeros that stay, layers that go, over any resume."""

import math
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch

from dpcore.checkpoint import loads
from dpcore.engine import layout
from dpcore.engine.per_example import PerExample
from dpcore.engine.rehearsal import require_exact
from dpcore.estimators.first_order import FirstOrder
from dpcore.mechanism.clipping import ClippedSum
from dpcore.methods import get_trainer, prune
from dpcore.methods.prune.layers import shrink
from dpcore.methods.prune.masks import prunable, smallest
from dpcore.terms.errors import FieldError
from dpcore.terms.facts import ModelFacts
from dpcore.terms.methods import get_method
from dpcore.terms.methods.prune import Options, schedule

from . import zoo
from .architectures import Examples, alone
from .engine_rows import flat_rows
from .moves import cross_entropy_of, watch
from .test_run import Killed, Service
from .test_train import equal, make_program, secret

STEPS, RECORDS = 7, 7
AT = {2: 1 - (2 / 3) ** 3, 4: 1 - (1 / 3) ** 3, 6: 1.0}
"""After which steps there is a pruning here, and how much of the whole is done then."""
SCHEDULE = {"rounds": 3, "first": 2, "last": 6}
FOUR = {"kind": "structured", "keep_layers": [0, 3], "rounds": 2, "first": 2, "last": 4}
"""Of four layers, number 2 goes after the second step and number 1 after the fourth."""


def task_of(base):
    return "completion" if base.endswith("-lm") else "classification"


@pytest.fixture
def make_pruned(make_base):
    def make(options, base="bert", *, layers=2, dtype=torch.float32):
        model = make_base(base, layers=layers, dtype=dtype)
        return get_trainer("prune").attach(model, options, task=task_of(base), seed=3)

    return make


@pytest.fixture
def go(make_pruned, make_records, task):
    """Run a job to its end or its death: the model, and its service."""

    def go(
        options, *, checkpoint=None, dies=None, limits=None, layers=1, between=prune.between, name=b"test", **changes
    ):
        program = make_program(**{"steps": STEPS, "method": "prune", **changes})
        model, service = make_pruned(options, layers=layers), Service(dies=dies, limits=limits)
        more = {"begin": partial(prune.begin, task="classification"), "between": between}
        more |= {"checkpoint": checkpoint, "streams": secret(name)}
        with nullcontext() if dies is None else pytest.raises(Killed):
            service.train(model, task, make_records(40), program, **more)
        return model, service

    return go


def zeros(weights):
    return {name: value == 0 for name, value in weights.items()}


def same(one, other):
    """Two checkpoints, to the bit: safetensors has no order of its own."""
    found = []
    for data in (one, other):
        saved = loads(data)
        tensors = {"weights": saved.weights, "averages": saved.averages, "kept": saved.kept, **saved.moments}
        found.append({(kind, name): value for kind, of in tensors.items() for name, value in of.items()})
    return found[0].keys() == found[1].keys() and equal(*found)


def share(masks):
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize("base", ["bert", "gpt2-lm", "llama-lm"])
def test_gradients_of_a_pruned_model_are_each_record_s_own(make_pruned, monkeypatch, base, clipping):
    """In float64, by every path of the engine; the norm is that of all entries, pruned ones too."""
    monkeypatch.setattr(layout, "THIN_SIDE", 4)
    model = make_pruned({"when": "start", "sparsity": 0.6}, base, dtype=torch.float64)
    assert 0.6 <= share(zeros(prunable(model))) < 0.61
    examples = Examples(RECORDS, 10, kind="classifier" if base == "bert" else "causal")
    engine = PerExample(model)
    require_exact(engine, model, lambda i: examples.losses(model, i), RECORDS)
    rows = flat_rows(engine, alone(model, lambda i: examples.losses(model, i), RECORDS))
    norms = rows.norm(dim=1)
    clip_norm = norms.median().item()
    scale = (clip_norm / norms).clamp(max=1) if clipping == "flat" else clip_norm / (norms + 0.01)
    total = ClippedSum.zero(
        engine.width, clip_norm=clip_norm, clipping=clipping, expected_batch=1, device=engine.device
    )
    for part in ([0, 1, 2], [3, 4, 5, 6]):
        total.add(engine.gradients(lambda part=part: examples.losses(model, np.array(part)), len(part)))
    assert (total.value - scale @ rows).norm() <= 1e-9 * (scale @ rows).norm()


KINDS = {
    "entries": SCHEDULE,
    "entries-lora": {"weights": "lora", "r": 2},
    "layers": FOUR,
    "layers-lora": {"kind": "structured", "keep_layers": 2, "weights": "lora"},
}
SAMPLE = {("entries", "record"), ("entries-lora", "user"), ("layers", "user"), ("layers-lora", "record")}
UNITS = [
    pytest.param(options, unit, id=f"{kind}-{unit}", marks=[] if (kind, unit) in SAMPLE else pytest.mark.verify)
    for kind, options in KINDS.items()
    for unit in ("record", "user")
]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("options", "unit"), UNITS)
def test_a_unit_moves_each_step_s_sum_by_its_own_clipped_gradient_whatever_was_pruned(
    make_pruned, make_records, task, monkeypatch, options, unit
):
    """In float64, at every step of a job: before the first pruning, between two and after the last."""
    structured = "kind" in options
    model, records = make_pruned(options, layers=4 if structured else 1, dtype=torch.float64).double(), make_records(18)
    masked, clip_norm = [], 0.5

    def of_base(base):
        return {name: weight for name, weight in prunable(base).items() if "lora_" not in name}

    def seen(now):
        base = now.get_base_model() if "weights" in options else now
        masked.append(base.config.num_hidden_layers if structured else share(zeros(of_base(base))))

    moved = watch(monkeypatch, clip_norm, cross_entropy_of(records), seen=seen)
    owners = np.arange(18) % 6 if unit == "user" else None
    changes = {"unit": unit, "sample_rate": 0.4, "expected_batch": 3, "clip_norm": clip_norm, "clipping": "flat"}
    trains = options.get("weights", "full")
    program = make_program(steps=STEPS, method="prune", trains=trains, noise_multiplier=0.1, **changes)
    more = {"begin": partial(prune.begin, task="classification"), "between": prune.between}
    Service().train(model, task, records, program, owners=owners, streams=secret(), **more)
    if "weights" in options:  # pruned at the start
        assert set(masked) == {2} if structured else min(masked) >= 0.5
    else:
        assert masked == [4, 4, 3, 3, 2, 2, 2] if structured else (masked[0] == 0 and masked[-1] >= 0.5)
    assert len(moved) > STEPS
    assert max(moved) == pytest.approx(1), "some are clipped"


CHANGES = [
    {},
    {"optimizer": "adam-bc", "clipping": "adaptive", "weight_averaging": 0.5},
    {"optimizer": "sgd", "weight_averaging": 0.9},
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("changes", CHANGES, ids=["adamw", "adam-bc", "sgd"])
@pytest.mark.parametrize("scope", ["global", "matrix"])
def test_pruned_entries_are_zero_from_then_on_in_all_that_is_kept_and_left(go, scope, changes):
    model, service = go({**SCHEDULE, "scope": scope, "sparsity": 0.7}, **changes)
    done = 0.0
    for step, data in enumerate(service.saved, start=1):
        saved = loads(data)
        done = 0.7 * AT[step] if step in AT else done
        assert bool(saved.kept) == (done > 0)
        assert not saved.kept or saved.kept.keys() == prunable(model).keys()
        for name, mask in saved.kept.items():
            assert torch.equal(saved.weights[name] == 0, mask), "the mask is of these very weights"
            assert scope == "global" or int(mask.sum()) == math.ceil(done * mask.numel())
            for moment in (*saved.moments[name].values(), *(saved.averages[n] for n in [name] if saved.averages)):
                assert not moment.shape or not moment[mask].any()
        assert not saved.kept or done <= share(saved.kept) < done + 0.01
    left = {name: p.detach() for name, p in prunable(model).items()}
    assert all(torch.equal(weight == 0, loads(service.saved[-1]).kept[name]) for name, weight in left.items())
    others = model.state_dict().keys() - left.keys() - {"bert.embeddings.position_ids"}
    assert all((model.state_dict()[name] != 0).all() for name in others), "nothing else is pruned"


@pytest.mark.parametrize("scope", ["global", "matrix"])
@pytest.mark.parametrize("rewind", [False, True])
def test_a_mask_follows_from_the_noised_weights_alone(go, scope, rewind):
    """Worked out again from what a step with its noise left, before anything was done to it."""
    seen = []

    def watched(iterate):
        before = {n: p.detach().clone().numpy() for n, p in prunable(iterate.model).items()}
        changed = prune.between(iterate)
        seen.append((iterate.step, before, {n: m.numpy().copy() for n, m in iterate.kept.items()}))
        return changed

    go({**SCHEDULE, "scope": scope, "rewind": rewind}, between=watched)
    earlier = {}
    for step, before, masks in seen:
        if step not in AT:
            assert all(np.array_equal(masks[name], mask) for name, mask in earlier.items())
            continue
        # What was pruned before counts as zero, wherever the step has brought it.
        sizes = {name: np.where(earlier.get(name, False), 0, np.abs(weight)) for name, weight in before.items()}
        earlier = masks
        every = np.concatenate([s.ravel() for s in sizes.values()])
        for name, own in sizes.items():
            among = every if scope == "global" else own.ravel()
            border = np.sort(among)[math.ceil(0.5 * AT[step] * among.size) - 1]
            assert np.array_equal(masks[name], own <= border), (step, name)


def test_a_raw_sum_at_a_pruned_entry_never_shows(go, monkeypatch):
    """A clipped sum that is enormous there gives the same iterates, moments and averages, to the bit; one that is zero
    everywhere still moves what survives, by its noise."""
    options, changes = {"rounds": 1, "last": 2}, {"weight_averaging": 0.5}
    _, plain = go(options, **changes)
    masks, original = loads(plain.saved[-1]).kept, FirstOrder.sum
    ran = []

    def shouting(self, *args):
        total, start = original(self, *args), 0
        ran.append(len(ran))
        for name, parameter in self.parameters.items():
            if len(ran) > 2 and name in masks:  # after the pruning
                total.value[start : start + parameter.numel()][masks[name].flatten()] += 1e6
            start += parameter.numel()
        return total

    monkeypatch.setattr(FirstOrder, "sum", shouting)
    _, loud = go(options, **changes)
    assert len(ran) == STEPS
    assert all(map(same, loud.saved, plain.saved))

    def silent(self, *args):
        total = original(self, *args)
        total.value.zero_()
        return total

    monkeypatch.setattr(FirstOrder, "sum", silent)
    _, quiet = go(options)
    after, later = (loads(quiet.saved[index]) for index in (1, -1))
    for name, mask in after.kept.items():
        assert mask.any()
        assert not later.weights[name][mask].any()
        assert (later.weights[name] != after.weights[name])[~mask].all()


def test_a_rewound_model_is_the_public_one_behind_its_mask(go, make_pruned):
    """To the bit, with the moments of one that has not begun; averages are as if it had always been so."""
    public = {n: p.detach().clone() for n, p in make_pruned({}, layers=1).named_parameters()}
    _, service = go({**SCHEDULE, "rewind": True}, weight_averaging=0.5)
    for step, data in enumerate(service.saved, start=1):
        saved = loads(data)
        if step in AT:
            for name, weight in saved.weights.items():
                expected = public[name].masked_fill(saved.kept[name], 0) if name in saved.kept else public[name]
                assert torch.equal(weight, expected)
                assert torch.equal(saved.averages[name], expected)
            assert not saved.moments
        else:
            assert not torch.equal(saved.weights["classifier.weight"], public["classifier.weight"])


RESUMED = {
    "schedule": (SCHEDULE, {}),
    "averaged": ({**SCHEDULE, "scope": "matrix"}, CHANGES[1]),
    "rewind": ({**SCHEDULE, "rewind": True}, CHANGES[1]),
    "start": ({"when": "start"}, {}),
    "layers": (FOUR, CHANGES[1]),
    "layers at the start": ({"kind": "structured", "keep_layers": 2, "when": "start"}, {}),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("options", "changes"), RESUMED.values(), ids=RESUMED)
def test_a_job_that_was_killed_goes_on_to_the_same_end(go, options, changes):
    """Right after a pruning, and between two."""
    layers = 4 if "kind" in options else 1
    whole, service = go(options, layers=layers, **changes)
    for killed in (3, 4):
        first = go(options, layers=layers, dies=("authorise", killed), **changes)[1]
        again, last = go(options, layers=layers, checkpoint=first.saved[-1], **changes)
        assert equal(whole.state_dict(), again.state_dict())
        assert whole.state_dict().keys() == again.state_dict().keys()
        assert same(last.saved[-1], service.saved[-1])


def test_a_kill_inside_a_pruning_leaves_mask_and_weights_of_one_iterate(go, monkeypatch):
    """They are one checkpoint: half of a pruning is in none."""
    whole, service = go(SCHEDULE)
    for place in ("smallest", "apply"):
        original, calls = getattr(prune, place), []  # apply: once a step, and again where there is a pruning

        def dies(*args, at=original, seen=calls, **more):
            seen.append(at(*args, **more))
            if len(seen) == (2 if at is smallest else 3):
                raise Killed
            return seen[-1]

        with monkeypatch.context() as patch:
            patch.setattr(prune, place, dies)
            broken = go(SCHEDULE, dies=("never", 1))[1]
        saved = loads(broken.saved[-1])
        assert same(broken.saved[-1], service.saved[saved.step - 1])
        assert all(torch.equal(saved.weights[name] == 0, mask) for name, mask in saved.kept.items())
        again, _ = go(SCHEDULE, checkpoint=broken.saved[-1])
        assert equal(whole.state_dict(), again.state_dict())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_job_that_lost_the_steps_of_its_last_pruning_is_pruned_all_the_same(go, limit):
    """Steps that were paid for and lost are run no more; rewinding now would leave nothing of the training."""
    for more in ({}, {"rewind": True}):
        model, service = go({**SCHEDULE, **more}, limits={0: limit}, weight_averaging=0.5)
        assert len(service.saved) == limit
        assert share(zeros(prunable(model))) >= 0.5
    fresh = go({**SCHEDULE, "rewind": True}, limits={0: 0})[0]
    assert (limit == 0) == torch.equal(model.classifier.weight, fresh.classifier.weight)
    assert go(FOUR, limits={0: limit}, layers=4)[0].config.num_hidden_layers == 2


def test_layers_go_by_the_schedule_and_the_others_stay_what_they_were(go):
    """With their moments, and with the average of their own iterates, whatever their numbers are now."""
    model, service = go(FOUR, layers=4, weight_averaging=0.5)
    left = {1: (0, 1, 2, 3), 2: (0, 1, 3), 3: (0, 1, 3), **dict.fromkeys(range(4, STEPS + 1), (0, 3))}
    name, own = "bert.encoder.layer.{}.output.dense.weight", []
    for step, data in enumerate(service.saved, start=1):
        saved = loads(data)
        there = {int(n.split(".")[3]) for n in saved.weights if n.startswith("bert.encoder.layer.")}
        assert there == {*range(len(left[step]))}
        assert step < 2 or tuple(saved.kept["layers"].tolist()) == left[step]
        now = name.format(left[step].index(3))
        assert saved.moments[now]["step"] == step
        own.append(saved.weights[now])
    assert (model.config.num_hidden_layers, len(model.bert.encoder.layer)) == (2, 2)
    sizes = [0.5 ** (STEPS - i) for i in range(1, STEPS + 1)]
    mean = sum(size * weight for size, weight in zip(sizes, own, strict=True)) / sum(sizes)
    torch.testing.assert_close(model.get_parameter(name.format(1)).detach(), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base", ["bert", "gpt2-lm", "llama-lm", "distilbert"])
def test_a_model_that_shrinks_keeps_its_very_parameters(make_base, base):
    model = make_base(base, layers=4)
    before, ids = dict(model.named_parameters()), torch.tensor([[5, 6, 7, 8]])
    shrink(model, [0, 2, 3])
    shrink(model, [0, 2])
    assert model.config.num_hidden_layers == 2
    known = {id(p) for p in before.values()}
    assert all(id(p) in known for p in model.parameters())
    assert model(input_ids=ids).logits.isfinite().all()
    path = next(name for name in before if ".3." in name)
    assert model.get_parameter(path.replace(".3.", ".1.")) is before[path]


def test_an_adapter_s_base_is_pruned_by_public_weights_and_stays_so(go, make_base):
    model, service = go({"weights": "lora"}, trains="lora")
    base, public = model.get_base_model(), dict(make_base(layers=1).named_parameters())
    adapted = {n.replace(".base_layer", ""): p.detach() for n, p in base.named_parameters() if "lora" not in n}
    expected = smallest(prunable(make_base(layers=1)), 0.5, matrix_by_matrix=False)
    assert share(expected) >= 0.5
    for name, mask in expected.items():
        assert torch.equal(adapted[name], public[name].detach().masked_fill(mask, 0))
    assert all("lora" in n or "classifier" in n for n in loads(service.saved[-1]).weights)


FACTS = ModelFacts(
    model_type="bert", hidden_size=16, intermediate_size=32, layers=4, heads=2, vocab_size=70, max_positions=32
)


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"kind": "structured", "keep_layers": 5}, "keep_layers", "5 of the model's 4 layers"),
        ({"kind": "structured", "keep_layers": 4}, "keep_layers", "name fewer"),
        ({"kind": "structured", "keep_layers": [0, 0]}, "keep_layers", "each layer once"),
        ({"kind": "structured", "keep_layers": [0, 4]}, "keep_layers", "0 to 3"),
        ({"kind": "structured", "keep_layers": []}, "keep_layers", "name some"),
        ({"kind": "structured", "sparsity": 0.3}, "sparsity", "leave it out"),
        ({"kind": "structured", "rewind": True}, "rewind", "leave it out"),
        ({"keep_layers": 2}, "keep_layers", "leave it out"),
        ({"when": "start", "rounds": 3}, "rounds", "leave it out"),
        ({"weights": "lora", "when": "schedule"}, "when", "pruned at the start"),
        ({"weights": "lora", "last": 3}, "last", "leave it out"),
        ({"weights": "lora", "target_modules": []}, "target_modules", "empty"),
        ({"r": 4}, "r", "leave it out"),
        ({"last": 8}, "last", "7 steps"),
        ({"first": 6}, "first", "last pruning"),
        ({"rounds": 5}, "rounds", "do not fit"),
        ({"first": 3, "last": 4, "rounds": 3}, "rounds", "do not fit"),
        ({"rewind": True, "last": 7}, "rewind", "below 7"),
    ],
)
def test_what_means_nothing_or_does_not_fit_is_refused_by_field_before_anything_is_paid(options, field, words):
    method = get_method("prune")
    wanted = method.Options.model_validate(options)
    with pytest.raises(FieldError, match=words) as caught:
        method.check(wanted, FACTS, "classification")
        asked = method.Request(steps=STEPS, batch_size=4)
        method.resolve(asked, wanted, task="classification", declared_size=40, epsilon=3.0, facts=FACTS)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [0, 1, -0.5, 1.5])
def test_nothing_and_everything_are_no_sparsity(value):
    with pytest.raises(ValueError, match=r"sparsity\n.*(greater|less) than"):
        Options(sparsity=value)


@pytest.mark.parametrize("options", [{"kind": "structured", "when": "start"}, {"kind": "structured"}])
def test_a_model_whose_layers_cannot_be_found_is_refused_with_words(options):
    with pytest.raises(ValueError, match="cannot be found"):
        get_trainer("prune").attach(zoo.build("albert", "classification"), options, task="classification", seed=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 40, 100])
def test_a_schedule_of_defaults_fits_any_steps_and_ends_with_the_whole(steps):
    found = schedule(Options(), steps)
    assert [*found] == sorted(found)
    assert [*found][-1] == max(1, 2 * steps // 3)
    assert [*found.values()][-1] == 1
    assert [*found.values()] == sorted({*found.values()})
    assert not schedule(Options(when="start"), steps)
    assert not schedule(Options(weights="lora"), steps)
