"""Pictures as records: what a record's loss depends on, what is refused, and that methods train on them exactly."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from dpcore.engine.errors import NotTrainable
from dpcore.estimators import Setting
from dpcore.estimators import make as make_estimator
from dpcore.mechanism.keystream import Streams
from dpcore.methods import get_trainer
from dpcore.run import require_fitting, run
from dpcore.tasks.image_classification import ImageClassification
from dpcore.terms.mechanisms import PoissonGaussian
from dpcore.terms.program import Phase, Program
from dpcore.terms.speed import Speed
from dpcore.views import PART, OfViews, owners, viewed

from .architectures import ARCHITECTURES, IMAGE, make

LABELS = ("no", "yes", "perhaps")
IMAGES = [name for name, known in ARCHITECTURES.items() if known.kind == "image"]
METHODS = ["lora", "bitfit", "full"]
RECORDS = 12


@pytest.fixture
def task() -> ImageClassification:
    return ImageClassification(LABELS, IMAGE, tokens=17)


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    draws = np.random.default_rng(seed)
    return list(draws.integers(0, 256, (count, IMAGE, IMAGE, 3), dtype=np.uint8))


def model_of(name: str) -> nn.Module:
    return make(name, "full", dtype=torch.float32)


def program(method: str, options: dict[str, object]) -> Program:
    """Two steps."""
    phase = Phase(
        name="train",
        trains="any",
        mechanism=PoissonGaussian(sample_rate=0.5, noise_multiplier=1.0),
        steps=2,
        clip_norm=1.0,
        expected_batch=RECORDS // 2,
        learning_rate=0.01,
    )
    return Program(method=method, options=options, max_length=17, seed=0, phases=(phase,))


@pytest.mark.parametrize("name", IMAGES)
def test_a_record_s_loss_is_its_own(name, task):
    model, records = model_of(name), task.encode({"image": pictures(RECORDS)}, [i % 3 for i in range(RECORDS)])
    together = task.losses(model, records, np.arange(RECORDS), 17)
    alone = torch.cat([task.losses(model, records, np.array([i]), 17) for i in range(RECORDS)])
    assert torch.allclose(together, alone, atol=1e-5)
    logits = task.logits(model, {"image": pictures(RECORDS)})
    assert torch.equal(task.right(model, records, np.arange(RECORDS), 17), logits.argmax(1) == torch.arange(12) % 3)


def test_values_are_scaled_as_the_model_was_told(task):
    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, pixel_values):
            self.pixels = pixel_values
            return type("Output", (), {"logits": pixel_values.mean((2, 3))})

    scaled = ImageClassification(LABELS, 2, tokens=5, mean=(0.1, 0.2, 0.3), deviation=(0.5, 1.0, 2.0))
    picture = np.full((2, 2, 3), 51, dtype=np.uint8)
    picture[0, 1] = 255  # above on the right
    model = Seen()
    scaled.logits(model, {"image": [picture]})
    assert model.pixels.shape == (1, 3, 2, 2)
    assert model.pixels[0, :, 1, 0].tolist() == pytest.approx([0.2, 0.0, -0.05], abs=1e-6)
    assert model.pixels[0, :, 0, 1].tolist() == pytest.approx([1.8, 0.8, 0.35], abs=1e-6)


@pytest.mark.parametrize(
    ("picture", "label", "words"),
    [
        (np.zeros((IMAGE, IMAGE + 1, 3), dtype=np.uint8), 0, "a picture is not of"),
        (np.zeros((IMAGE, IMAGE), dtype=np.uint8), 0, "a picture is not of"),
        (np.zeros((IMAGE, IMAGE, 3), dtype=np.float32), 0, "a picture is not of"),
        (np.zeros((IMAGE, IMAGE, 3), dtype=np.uint8), 3, "not in the public label set"),
    ],
)
def test_what_is_refused(task, picture, label, words):
    with pytest.raises(ValueError, match=words):
        task.encode({"image": [picture]}, [label])


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("name", "method"), [case for case in product(IMAGES, METHODS) if case != ("bit", "lora")])
def test_a_private_step_is_rehearsed_and_taken(name, method, task):
    """The whole loop: records are held apart, the engine beside plain autograd, at moved weights too."""
    trainer = get_trainer(method)
    options = {"target_modules": "all-linear"} if method == "lora" else {}
    model = trainer.attach(model_of(name), options, task="classification", seed=0)
    before = {n: p.clone() for n, p in model.named_parameters()}
    made = program(method, options)
    records = task.encode({"image": pictures(RECORDS)}, [i % 3 for i in range(RECORDS)])
    outcome = run(
        model=model,
        task=task,
        records=records,
        program=made,
        begin=partial(trainer.begin, task="classification"),
        learns=trainer.learns,
        between=trainer.between,
        authorise=lambda phase, steps: steps,
        save=lambda data: None,
        should_stop=lambda: False,
    )
    assert outcome.ended == "finished"
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in model.named_parameters() if p.requires_grad}


def test_a_network_of_convolutions_alone_has_nothing_for_lora():
    with pytest.raises(ValueError, match="no linear layer that lora can adapt"):
        get_trainer("lora").attach(model_of("bit"), {}, task="classification", seed=0)


def test_records_that_meet_are_refused(task):
    model = model_of("vit")

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = model

        def forward(self, pixel_values):
            return self.vit(pixel_values=pixel_values - pixel_values.mean(0, keepdim=True))

    with pytest.raises(NotTrainable):
        run(
            model=Mixed(),
            task=task,
            records=task.encode({"image": pictures(4)}, [0, 1, 2, 0]),
            program=program("full", {}),
            authorise=lambda phase, steps: pytest.fail("paid for"),
            save=lambda data: None,
            should_stop=lambda: False,
        )


VIEWS = 3


def of_views(task, records, seed: int = 0):
    """The views of some records, and whose they are."""
    seen = viewed(records, VIEWS, Streams(test_secret=bytes([seed])).at("views", 0))
    return OfViews(task, VIEWS), seen, owners(len(records), None, VIEWS)


def test_a_view_is_the_picture_moved_and_of_nobody_else(task):
    records = task.encode({"image": pictures(RECORDS)}, [i % 3 for i in range(RECORDS)])
    _, seen, whose = of_views(task, records)
    assert list(whose) == [i // VIEWS for i in range(RECORDS * VIEWS)]
    made, most = seen.some(np.arange(len(seen))), IMAGE // PART
    assert np.abs(seen.moved).max() == most
    assert len({tuple(by) for by in seen.moved}) > 1
    for view, (down, right) in enumerate(seen.moved):
        own = records.pixels[view // VIEWS]
        inside = np.s_[:, most:-most, most:-most]
        assert (made.pixels[view][inside] == np.roll(own, (down, right), (1, 2))[inside]).all()
        assert made.labels[view] == records.labels[view // VIEWS]
    _, again, _ = of_views(task, records, seed=1)
    assert (again.moved != seen.moved).any()


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_gradient_of_a_record_s_views_is_clipped_as_one(task, method):
    """Held against plain autograd, view by view, in float64."""
    model = get_trainer(method).attach(make("vit", "full"), {}, task="image", seed=0)
    records = task.encode({"image": pictures(4)}, [0, 1, 2, 0])
    seen_task, seen, whose = of_views(task, records)
    (phase,) = program(method, {}).phases
    phase = phase.model_copy(update={"clipping": "flat", "clip_norm": 0.5})
    setting = Setting(model, seen_task, seen, whose, "user", phase, Speed(), lambda: False)
    estimator = make_estimator(setting)
    estimator.rehearse()
    estimator.enter()
    assert estimator.units == 4
    made = estimator.sum(np.array([0, 2, 3]), phase.clip_norm, lambda: None)
    wanted = 0
    parameters = [p for p in model.parameters() if p.requires_grad]
    for record in (0, 2, 3):
        views = seen.some(np.arange(record * VIEWS, (record + 1) * VIEWS))
        loss = task.losses(model, views, np.arange(VIEWS), 17).mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        wanted = wanted + gradient * min(1.0, phase.clip_norm / float(gradient.norm()))
    assert float((made.value - wanted).norm() / wanted.norm()) < 1e-6


def test_a_run_of_several_views_trains_and_draws_records(task):
    model = get_trainer("lora").attach(model_of("vit"), {}, task="image", seed=0)
    records = task.encode({"image": pictures(RECORDS)}, [i % 3 for i in range(RECORDS)])
    wanted = program("lora", {}).model_copy(update={"views": VIEWS})
    done = run(
        model=model,
        task=task,
        records=records,
        program=wanted,
        authorise=lambda phase, steps: steps,
        save=lambda data: None,
        should_stop=lambda: False,
    )
    assert (done.step, done.ended) == (2, "finished")
    with pytest.raises(ValueError, match="views are of pictures alone"):
        require_fitting(object(), records, wanted, None)
