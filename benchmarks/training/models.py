"""Models of the benchmarks: random weights from a configuration, the methods on them, and a loss for each record."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from dpcore.methods import get_trainer
from dpcore.tasks.causal_lm import summed_losses
from dpcore.tasks.records import Batch as Padded

Family = Literal["bert", "gpt2", "vit"]


@dataclass(frozen=True)
class Size:
    """A transformer: layers, width d, attention heads, inner width, vocabulary; no words of one that sees."""

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int

    def __str__(self) -> str:
        words = f", vocabulary {self.vocabulary}" if self.vocabulary else ""
        return f"{self.layers} layers of {self.width}/{self.inner}{words}"


MINILM = Size(6, 384, 12, 1536, 30522)
GPT2_SMALL = Size(12, 768, 12, 3072, 50257)
GPT2_NARROW = Size(6, 384, 6, 1536, 50257)
"""GPT-2's vocabulary over MiniLM's layers: what a machine without a GPU can train with every baseline."""
VIT = Size(12, 384, 6, 1536, 0)
"""A vision transformer as DeiT small is."""
TINY = Size(2, 32, 2, 64, 500)

LABELS = 2
PATCH = 16
"""Pixels of a patch, each way."""
ADAPTED: dict[Family, tuple[str, ...]] = {"bert": ("query", "value"), "gpt2": ("c_attn",), "vit": ("q_proj", "v_proj")}
"""Attention's query and value in all layers; GPT-2 has them in one layer with the key."""


def make_model(family: Family, size: Size, positions: int, *, tied: bool = True) -> PreTrainedModel:
    """A classifier of texts (bert) or of square pictures (vit), or a causal language model (gpt2), float32, the same
    weights every time; no dropout.

    positions: tokens; pixels each way of a picture.
    tied: whether the language model's head is its embedding.
    """
    torch.manual_seed(0)
    if family == "bert":
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=size.vocabulary,
                hidden_size=size.width,
                num_hidden_layers=size.layers,
                num_attention_heads=size.heads,
                intermediate_size=size.inner,
                max_position_embeddings=max(512, positions),
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                num_labels=LABELS,
            )
        )
    if family == "vit":
        return ViTForImageClassification(
            ViTConfig(
                hidden_size=size.width,
                num_hidden_layers=size.layers,
                num_attention_heads=size.heads,
                intermediate_size=size.inner,
                image_size=positions,
                patch_size=PATCH,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                num_labels=LABELS,
            )
        )
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size.vocabulary,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
            n_inner=size.inner,
            n_positions=max(1024, positions),
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=tied,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def attach(model: PreTrainedModel, family: Family, method: str, *, everywhere: bool = True) -> nn.Module:
    """The service's own method on the model, in training mode, which Opacus needs; there is no dropout to tell.

    everywhere: LoRA on all layers; otherwise where the service puts it by default, a classifier's upper half.
    """
    lora = method.startswith("lora")
    options = {"target_modules": ADAPTED[family]} if lora and everywhere else {}
    task = "text" if family == "gpt2" else "classification"
    attached: nn.Module = get_trainer(method).attach(model, options, task=task, seed=0)
    return attached.train()


@dataclass(frozen=True)
class Batch:
    """Records without padding: ids int64 [m, T], or pixels float [m, 3, P, P]; labels int64 [m], which language models
    do not need."""

    ids: Tensor
    labels: Tensor

    @property
    def positions(self) -> Tensor:
        """int64 [m, T], each record's own: libraries with hooks cannot take positions that records share."""
        return torch.arange(self.ids.shape[1], device=self.ids.device).repeat(len(self.ids), 1)

    def cut(self, examples: int) -> list["Batch"]:
        """Micro-batches of so many records."""
        return [Batch(*pair) for pair in zip(self.ids.split(examples), self.labels.split(examples), strict=True)]


def tokens_of(family: Family, length: int) -> int:
    """What a record of this length is to a model: a picture is its patches and the token of its class."""
    return (length // PATCH) ** 2 + 1 if family == "vit" else length


def make_batch(family: Family, size: Size, examples: int, length: int, device: torch.device) -> Batch:
    """The same made-up records every time."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randn((examples, 3, length, length), generator=generator)
    if family != "vit":
        ids = torch.randint(1, size.vocabulary, (examples, length), generator=generator)
    return Batch(ids.to(device), (torch.arange(examples) % LABELS).to(device))


def record_losses(model: Callable[..., object], family: Family, batch: Batch, *, positions: bool = False) -> Tensor:
    """One loss for each record [m]: cross entropy of the label, or its mean over the record's own next tokens.

    positions: whether to pass each record's positions; otherwise the model makes one row for all.
    """
    if family == "vit":
        seen = model(pixel_values=batch.ids).logits  # type: ignore[attr-defined]
        return F.cross_entropy(seen, batch.labels, reduction="none")
    given = {"position_ids": batch.positions} if positions else {}
    mask = torch.ones_like(batch.ids)
    if family == "bert":
        segments = torch.zeros_like(batch.ids)
        output = model(input_ids=batch.ids, attention_mask=mask, token_type_ids=segments, **given)
        return F.cross_entropy(output.logits, batch.labels, reduction="none")  # type: ignore[attr-defined]
    output = model(input_ids=batch.ids, attention_mask=mask, use_cache=False, **given)
    following = torch.full_like(batch.ids, -100)
    following[:, :-1] = batch.ids[:, 1:]
    logits: Tensor = output.logits  # type: ignore[attr-defined]
    each = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
    return each.view_as(batch.ids).sum(1) / (batch.ids.shape[1] - 1)


def service_losses(model: nn.Module, family: Family, batch: Batch) -> Tensor:
    """The same [m], as the service computes it: behind a language model's frozen head, in pieces."""
    if family != "gpt2":
        return record_losses(model, family, batch)
    every = torch.ones_like(batch.ids)
    sums, counts = summed_losses(model, Padded(batch.ids, every, every))
    return sums / counts
