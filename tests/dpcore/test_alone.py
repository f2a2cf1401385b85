"""A run without the service: as private as it says, and no cheaper than the ledger's own price."""

from pathlib import Path

import pytest
import torch

from dpcore import alone
from dpcore.models import build_model
from dpcore.run import Outcome
from dpcore.tasks import make_task
from dpcore.terms import accounting
from dpcore.terms.methods import method_names
from tests.worker import tiny

TEXTS = tiny.rows(300, seed=1)[0]
PRICE = {"size": 320, "epsilon": 4.0, "delta": 1e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("writer")
    tiny.save_writer(made)
    return made


def perplexity(model: torch.nn.Module, tokenizer: object) -> float:
    return make_task("text", tokenizer, max_length=16).metrics(model, {"text": TEXTS}, [])["perplexity"]


def test_a_list_of_texts_is_learnt(folder: Path) -> None:
    made = alone.train(TEXTS, folder, **PRICE, max_length=16, method="full", steps=60, batch_size=80)
    assert perplexity(made.model, made.tokenizer) < 0.9 * perplexity(
        build_model("text", folder, (), seed=0), made.tokenizer
    )
    assert made.promise.startswith("(4.000, 0.001)-differentially private for each text")
    assert "nobody counts another run" in made.promise


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", [name for name in method_names() if name not in ("federated-lm", "federated-lora")])
def test_noise_is_for_the_epsilon_asked_by_public_numbers_alone(
    folder: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Priced once more by itself, at the rate of the public size; other texts change no number."""
    monkeypatch.setattr(alone, "run", lambda **given: Outcome(0, "finished"))
    made = [alone.train(texts, folder, **PRICE, method=method, steps=40) for texts in (TEXTS, TEXTS[:9])]
    assert made[0].program == made[1].program
    costs = [
        accounting.cost(accounting.curve(p.mechanism.noise_multiplier, p.expected_batch / 320, (2, 4, 8, 16)), p.steps)
        for p in made[0].program.phases
    ]
    assert accounting.total(costs) == made[0].program.cost((2, 4, 8, 16))
    assert 3.9 < made[0].epsilon <= 4.0
    assert accounting.pld_epsilon(alone.parts(made[0].program.phases), 1e-3) <= 4.0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"size": 299}, "more texts than size"),
        ({"delta": 1 / 320}, "delta must lie"),
        ({"delta": 0.0}, "delta must lie"),
        ({"batch_size": 321}, "larger than the declared size"),
        ({"epochs": 3}, "epochs"),
        ({"method": "federated-lm"}, "protects users"),
        ({"method": "none"}, "there are: "),
        ({"epsilon": 1e-9}, "smallest that works"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(
    folder: Path, changed: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        alone.train(TEXTS, folder, **PRICE | changed)
    assert "300" not in str(refused.value), "the number of texts is theirs"
