"""Records that meet are found in the operations of the forward pass, whatever the weights and the records are."""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, NystromformerConfig
from transformers import NystromformerForSequenceClassification as Nystromformer

from dpcore.engine.errors import MixedExamples, NotTrainable, Packed
from dpcore.engine.trace import require_apart
from dpcore.explicit_mask import explicit_masks
from dpcore.tasks import make_task

from .conftest import LABELS
from .test_train import Host, make_program

MEETING: dict[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda x: x - x.amax((0, 1), keepdim=True).clamp(min=100),
    "a maximum of all": lambda x: x / torch.maximum(x.abs().max(), torch.tensor(100.0)),
    "any": lambda x: x * 2 if (x > 100).any() else x,
    "all": lambda x: x if (x < 100).all() else x * 2,
    "item": lambda x: x * (1 if x[0, 0, 0].item() < 100 else 2),
    "the first record": lambda x: x + torch.relu(x[:1] - 100),
    "nonzero": lambda x: x.index_put(((x > 100).nonzero(as_tuple=True)), x.new_zeros(())),
    "packing": lambda x: x.masked_scatter(x > 100, x[x > 100]),
    "tolist": lambda x: x if max(x.sum((1, 2)).tolist()) < 1e3 else 2 * x,
    "numpy": lambda x: x if x.numpy().max() < 100 else 2 * x,
    "a sum along the records": lambda x: x + torch.relu(x.cumsum(0) - 1e3),
    "attention to other records": lambda x: x + 0 * torch.softmax(x, 0),
    "a turn of the records": lambda x: x + torch.relu(x.roll(1, 0) - 100),
    "a product over the batch": lambda x: x + 0 * x @ (x.flatten(0, 1).T @ x.flatten(0, 1)),
    "their number": lambda x: x if len(x) < 3 else torch.relu(x) - torch.relu(-x),
}
APART: dict[str, Callable[[Tensor], Tensor]] = {
    "each record's own maximum": lambda x: x / (1 + x.abs().amax((1, 2), keepdim=True)),
    "softmax over tokens": lambda x: torch.softmax(x, 1),
    "a product within the record": lambda x: (x @ x.transpose(1, 2)) @ x,
    "a choice by value": lambda x: torch.where(x > 0, x, -x),
    "its last token": lambda x: x[torch.arange(len(x)), x.sum(2).argmax(1)].unsqueeze(1),
    "a question about a constant": lambda x: x if bool((torch.arange(4) < 5).all()) else 2 * x,
    "padding written over": lambda x: x.masked_fill(x > 0, 0),
    "a sum along the tokens": lambda x: x.cumsum(1),
    "a table of its size": lambda x: x + x.new_ones(x.shape[2]),
}


class Body(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.function = nn.Linear(6, 6), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner(x))


@pytest.mark.parametrize(("name", "apart"), [*((n, False) for n in MEETING), *((n, True) for n in APART)])
def test_what_reduces_over_the_batch_or_asks_it_is_refused_by_module(name: str, apart: bool) -> None:
    """None of these shows in any gradient: the values are far from where the others would begin to matter."""
    model = nn.Sequential(Body((APART if apart else MEETING)[name]))
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    with nullcontext() if apart else pytest.raises(MixedExamples, match=r"^0: ") as error:
        require_apart(model, lambda now: model(x[now]).flatten(1).sum(1))
    assert apart or isinstance(error.value, Packed) == (name in ("nonzero", "packing")), "one at a time they are exact"


def test_a_model_that_takes_a_maximum_over_the_batch_is_refused_before_anything_is_paid(tokenizer) -> None:
    """Nystromformer divides by the largest sum of all records: at its first weights that moves no gradient."""
    config = NystromformerConfig(
        vocab_size=70,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        segment_means_seq_len=16,
        num_landmarks=4,
        conv_kernel_size=3,
        num_labels=len(LABELS),
    )
    torch.manual_seed(0)
    model, host = Nystromformer(config).eval(), Host()
    layer, x = model.nystromformer.encoder.layer[0], torch.randn(3, 16, 16)
    with pytest.raises(MixedExamples, match=r"^attention\.self: max reduces over the records"):
        require_apart(layer, lambda now: layer(x[now])[0].sum((1, 2)))
    task = make_task("classification", tokenizer, labels=LABELS, max_length=16)
    with pytest.raises(NotTrainable, match=r"padded to 16 tokens"):
        host.run(model, task, task.synthetic(8, 16), make_program(max_length=16))
    assert host.asked == []


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_mask_is_there_whether_or_not_a_record_is_padded(attention: str) -> None:
    """Without it, what a neighbour's padding decides is the kernel that computes all of the batch."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=70, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    ).eval()
    model.set_attn_implementation(attention)
    ids = torch.arange(48).view(3, 16) + 5

    def losses(now: np.ndarray, padding: int = 3) -> Tensor:
        mask = (torch.arange(16) < 16 - padding * torch.arange(3)[:, None]).long()
        return model(input_ids=ids[now], attention_mask=mask[now]).logits.sum(1)

    with pytest.raises(MixedExamples, match=r"^bert: all reduces"):
        require_apart(model, losses)
    with explicit_masks():
        require_apart(model, losses)
        with explicit_masks():  # as in an evaluation while training
            pass
        require_apart(model, losses)
        alone = losses(np.array([0, 1, 2]), padding=0)[0]
        assert torch.equal(losses(np.array([0, 1, 2]))[0], alone)
    with pytest.raises(MixedExamples):
        require_apart(model, losses)
