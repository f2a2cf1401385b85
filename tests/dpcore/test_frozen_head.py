"""A language model's loss behind its frozen head, in pieces: exact, and without the scores of all words at all places."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dpcore.engine.per_example import PerExample
from dpcore.mechanism.bounded_sum import ROUNDING_SLACK
from dpcore.methods import get_trainer
from dpcore.tasks import cross_entropy, frozen_head
from dpcore.tasks.causal_lm import summed_losses
from dpcore.tasks.records import Batch

from .architectures import ARCHITECTURES, TRAINING, VOCABULARY, Examples, alone, make
from .engine_rows import flat_rows, rows_of

RECORDS, LENGTH = 7, 10
WRITERS = [name for name, known in ARCHITECTURES.items() if known.kind == "causal"]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(cross_entropy, "SCORES_AT_ONCE", 4 * VOCABULARY)


@pytest.fixture
def behind(monkeypatch):
    """How often a loss was computed behind the head."""
    calls: list[int] = []
    real = frozen_head.cross_entropy_behind
    monkeypatch.setattr(frozen_head, "cross_entropy_behind", lambda *given: calls.append(1) or real(*given))
    return calls


def losses_of(model, examples, indices):
    now = torch.from_numpy(indices)
    sums, counts = summed_losses(
        model, Batch(examples.ids[now], examples.mask[now], (examples.targets[now] != -100).long())
    )
    return sums / counts


def require_equal(model, examples):
    """The engine's gradients of the task's loss are those of plain autograd, of all logits, one by one."""
    engine = PerExample(model)
    expected = flat_rows(engine, alone(model, lambda i: examples.losses(model, i), RECORDS))
    for _ in range(2):  # the first call may find out that the logits are needed
        gradients = engine.gradients(lambda: losses_of(model, examples, np.arange(RECORDS)), RECORDS)
        assert (rows_of(gradients, engine, RECORDS) - expected).norm() <= 1e-9 * expected.norm()
    assert expected.norm() > 1e-3


@pytest.mark.sampled(8)
@pytest.mark.parametrize("training", [*TRAINING, "side"])
@pytest.mark.parametrize("name", WRITERS)
def test_gradients_equal_those_of_all_logits(name, training, behind):
    model = make(name, "full" if training == "side" else training)
    if training == "side":
        model = get_trainer("side").attach(model.float(), {}, task="text", seed=3).double()
        for p in model.parameters():
            p.data += 0.1 * p.requires_grad * torch.randn(p.shape, generator=torch.Generator().manual_seed(5))
    examples = Examples(RECORDS, LENGTH, kind="causal")
    with torch.no_grad():
        torch.testing.assert_close(
            losses_of(model, examples, np.arange(RECORDS)), examples.losses(model, np.arange(RECORDS))
        )
    require_equal(model, examples)
    assert bool(behind) == (training != "full"), "a head that trains needs its logits"
    assert "forward" not in vars(model.get_output_embeddings())


def test_a_head_with_low_rank_matrices_is_not_passed_over(behind):
    model = make("llama-untied", "full")
    model = get_peft_model(model.requires_grad_(False), LoraConfig(r=2, target_modules=["lm_head", "q_proj"])).double()
    for name, p in model.named_parameters():
        p.data += 0.2 * ("lora_" in name) * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    require_equal(model.eval(), Examples(RECORDS, LENGTH, kind="causal"))
    assert not behind


class _Doubled(torch.nn.Linear):
    def forward(self, rows):
        return 2 * super().forward(rows)


@pytest.mark.parametrize(("kind", "passed"), [(torch.nn.Linear, True), (_Doubled, False)])
def test_a_head_with_a_bias_is_passed_over_and_one_that_is_no_plain_layer_is_not(kind, passed, behind):
    model = make("llama-untied", "lora")
    inner = model.get_base_model()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        inner.lm_head = kind(inner.config.hidden_size, VOCABULARY).double().requires_grad_(False)
    require_equal(model, Examples(RECORDS, LENGTH, kind="causal"))
    assert bool(behind) == passed


@pytest.mark.parametrize("change", ["capped", "scaled in place"])
def test_a_model_that_changes_its_logits_gets_them(monkeypatch, change, behind):
    model = make("llama", "lora")
    inner = model.get_base_model()
    plain = inner.forward

    def forward(**inputs):
        output = plain(**inputs)
        if change == "capped":
            output.logits = 3 * torch.tanh(output.logits / 3)
        else:
            output.logits[..., torch.arange(5)] *= 2
        return output

    monkeypatch.setattr(inner, "forward", forward)
    require_equal(model, Examples(RECORDS, LENGTH, kind="causal"))
    assert not behind


class _Scores(TorchDispatchMode):
    """Numbers in the largest tensor, as wide as the vocabulary, that anything gives."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and t.shape[-1:] == (VOCABULARY,):
                self.numbers = max(self.numbers, t.untyped_storage().nbytes() // t.element_size())
        return out


@pytest.mark.parametrize("training", ["lora", "bitfit"])
def test_the_scores_are_never_there_all_at_once(training):
    model, examples = make("gpt2", training), Examples(64, 16, kind="causal")
    engine = PerExample(model)
    engine.gradients(lambda: losses_of(model, examples, np.arange(64)), 64)
    with _Scores() as ours:
        engine.gradients(lambda: losses_of(model, examples, np.arange(64)), 64)
    with _Scores() as plain:
        engine.gradients(lambda: examples.losses(model, np.arange(64)), 64)
    assert plain.numbers >= 64 * 15 * VOCABULARY
    assert 0 < ours.numbers <= max(cross_entropy.SCORES_AT_ONCE, model.get_output_embeddings().weight.numel())


@pytest.mark.parametrize("training", ["lora", "lora-fa", "bitfit"])
@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_float32_gradients_move_by_less_than_the_stated_slack_when_a_record_leaves(name, training):
    """Every record that follows is then in another piece."""
    model, examples = make(name, training, dtype=torch.float32), Examples(64, 16, kind="causal")
    engine = PerExample(model)

    def clipped(indices):
        gradients = engine.gradients(lambda: losses_of(model, examples, indices), len(indices))
        return rows_of(gradients, engine, len(indices)) / gradients.norms()[:, None]

    whole, without = clipped(np.arange(64)), clipped(np.arange(1, 64))
    assert (whole[1:] - without).norm(dim=1).max() < ROUNDING_SLACK
