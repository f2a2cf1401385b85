"""The built-in model of pictures: what its card says of it, and that what is offered trains it."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from cli.drawings import CELLS, cells, shapes
from domain.kit.settings import ModelSettings
from domain.models.allow_list import DEFAULT_SEER, base_models, built_in
from dpcore.models import build_model
from dpcore.readers import load_reader
from dpcore.tasks import make_task
from dpcore.terms.methods import method_names
from dpcore.terms.tasks import KINDS
from worker import profile

MODEL = base_models(ModelSettings()).usable[DEFAULT_SEER]
MOST_BYTES = 2 * 10**6


def test_its_card_says_what_it_is() -> None:
    weights, card = (Path(MODEL.folder) / name for name in ("model.safetensors", "README.md"))
    assert weights.stat().st_size < MOST_BYTES
    (said,) = re.findall(r"`([0-9a-f]{64})`", card.read_text())
    assert said == hashlib.sha256(weights.read_bytes()).hexdigest() == MODEL.revision
    assert f"{MODEL.facts.parameters:,} weights" in card.read_text()


def test_it_is_the_model_for_pictures_and_for_nothing_else() -> None:
    assert MODEL.facts.tasks == ("image",)
    assert [name for name in KINDS if built_in(name) == DEFAULT_SEER] == ["image"]


def test_what_it_has_learnt_helps_with_pictures_that_it_has_not_seen() -> None:
    """Cells by their nearest mean in what the frozen model makes of them, without any training."""
    many = tuple(str(i) for i in range(96))  # a head at random, so that its scores are what the model sees
    task = make_task("image", load_reader("image", MODEL.folder), labels=many, max_length=MODEL.facts.max_positions)
    model = build_model("image", MODEL.folder, many, seed=0)
    made = cells(160, seed=3)
    scores = task.logits(model, {"image": [picture for picture, _ in made]}).numpy()
    kinds = np.array([CELLS.index(label) for _, label in made])
    means = np.stack([scores[:80][kinds[:80] == kind].mean(0) for kind in range(len(CELLS))])
    nearest = ((scores[80:, None] - means) ** 2).sum(2).argmin(1)
    assert (nearest == kinds[80:]).mean() > 0.5  # a guess is 0.25


def test_drawings_are_what_the_seed_makes_them() -> None:
    assert (shapes(3, seed=1)[0] == shapes(3, seed=1)[0]).all()
    assert (shapes(3, seed=1)[0] != shapes(3, seed=2)[0]).any()
    assert sorted({label for _, label in cells(8, seed=0)}) == sorted(CELLS)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("method", method_names())
def test_a_method_that_is_offered_trains_it(method: str) -> None:
    """The rehearsal and two steps of the loop itself, with the method's default options."""
    if method not in MODEL.methods("image"):
        assert method in ("distill", "federated-lm", "federated-lora", "prune", "reversible")
        return
    size, length = profile.TINY, MODEL.facts.max_positions
    made = profile.measure(MODEL.folder, method, "image", "cpu", length, size.records, size.steps)
    assert made.tokens_per_second > 0
