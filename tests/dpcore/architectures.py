"""Tiny random models of the usual architectures, each with three sets of trainable parameters, and records for them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

VOCABULARY = 40
_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "num_labels": 3,
}


def _bert() -> nn.Module:
    return BertForSequenceClassification(BertConfig(**_ENCODER))


def _roberta() -> nn.Module:
    return RobertaForSequenceClassification(RobertaConfig(**_ENCODER, pad_token_id=0))


def _albert() -> nn.Module:
    return AlbertForSequenceClassification(AlbertConfig(**_ENCODER, embedding_size=8))


def _distilbert() -> nn.Module:
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=32, num_labels=3
    )
    return DistilBertForSequenceClassification(config)


def _gpt2() -> nn.Module:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=1
    )
    return GPT2LMHeadModel(config)


def _llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**_ENCODER, num_key_value_heads=1, tie_word_embeddings=True))


@dataclass(frozen=True)
class _Architecture:
    build: Callable[[], nn.Module]
    adapted: list[str]
    causal: bool = False


ARCHITECTURES = {
    "bert": _Architecture(_bert, ["query", "value"]),
    "distilbert": _Architecture(_distilbert, ["q_lin", "v_lin"]),
    "roberta": _Architecture(_roberta, ["query", "value"]),
    "albert": _Architecture(_albert, ["query", "value"]),  # its layers share their weights
    "gpt2": _Architecture(_gpt2, ["c_attn"], causal=True),  # Conv1D; embedding and head are one
    "llama": _Architecture(_llama, ["q_proj", "v_proj"], causal=True),  # RMS norms; embedding and head are one
}
TRAINING = ("lora", "bitfit", "full")


def make(name: str, training: str, *, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A random model in evaluation mode; every trainable parameter has random values, so that none has zero gradient."""
    known = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = known.build()
        if training == "lora":
            config = LoraConfig(r=2, target_modules=known.adapted, fan_in_fan_out=name == "gpt2")
            model = get_peft_model(model, config)
        for parameter_name, p in model.named_parameters():
            if training != "lora":
                kinds = ("bias", "norm", "ln_", "LayerNorm", "classifier")
                p.requires_grad_(training == "full" or any(kind in parameter_name for kind in kinds))
            if p.requires_grad:
                p.data += 0.2 * torch.randn(p.shape)
    return model.to(dtype).eval()


class Examples:
    """Random records of one padded length, with repeated tokens and different numbers of padding tokens (0)."""

    def __init__(self, count: int, length: int, *, causal: bool, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(1, VOCABULARY, (count, length), generator=generator)
        self.ids[:, 1] = self.ids[:, 2]
        self.mask = torch.ones_like(self.ids)
        for row in range(1, count, 2):
            padding = row % (length - 3)
            self.ids[row, length - padding :] = 0
            self.mask[row, length - padding :] = 0
        self.labels = torch.randint(3, (count,), generator=generator)
        self._causal = causal

    def losses(self, model: nn.Module, indices: np.ndarray) -> Tensor:
        """One loss for each record: cross entropy of its label, or mean over its own next tokens."""
        now = torch.from_numpy(indices)
        ids, mask = self.ids[now], self.mask[now]
        logits = model(input_ids=ids, attention_mask=mask).logits
        if not self._causal:
            return F.cross_entropy(logits, self.labels[now], reduction="none")
        each = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        return (each * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1)


def alone(model: nn.Module, losses: Callable[[np.ndarray], Tensor], count: int) -> dict[str, Tensor]:
    """Gradient of each record by plain autograd, one by one: [count, *shape] by trainable parameter."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rows = [torch.autograd.grad(losses(np.array([i]))[0], list(parameters.values())) for i in range(count)]
    return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(parameters)}
