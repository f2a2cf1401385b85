"""Tiny random models of the usual architectures, each with four sets of trainable parameters, and records for them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BeitConfig,
    BeitForImageClassification,
    BertConfig,
    BertForSequenceClassification,
    BitConfig,
    BitForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    SwinConfig,
    SwinForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
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


def _gpt2(*, tied: bool) -> nn.Module:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=1,
        eos_token_id=1,
        tie_word_embeddings=tied,
    )
    return GPT2LMHeadModel(config)


def _llama(*, tied: bool) -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**_ENCODER, num_key_value_heads=1, tie_word_embeddings=tied))


def _qwen2(*, tied: bool) -> nn.Module:
    return Qwen2ForCausalLM(Qwen2Config(**_ENCODER, num_key_value_heads=1, tie_word_embeddings=tied))


def _qwen3(*, tied: bool) -> nn.Module:
    return Qwen3ForCausalLM(Qwen3Config(**_ENCODER, num_key_value_heads=1, head_dim=8, tie_word_embeddings=tied))


_PATCHES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 2,
    "num_labels": 3,
}


def _vit() -> nn.Module:
    return ViTForImageClassification(ViTConfig(**_PATCHES))


def _deit() -> nn.Module:
    return DeiTForImageClassification(DeiTConfig(**_PATCHES))


def _beit() -> nn.Module:
    return BeitForImageClassification(BeitConfig(**_PATCHES, use_relative_position_bias=True, drop_path_rate=0.0))


def _swin() -> nn.Module:
    config = SwinConfig(
        image_size=8, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=2, num_labels=3
    )
    return SwinForImageClassification(config)


def _convnext() -> nn.Module:
    config = ConvNextConfig(image_size=8, patch_size=2, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)
    return ConvNextForImageClassification(config)


def _bit() -> nn.Module:
    config = BitConfig(
        embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], num_groups=2, layer_type="preactivation", num_labels=3
    )
    return BitForImageClassification(config)


def _t5(*, tied: bool) -> nn.Module:
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        tie_word_embeddings=tied,
    )
    return T5ForConditionalGeneration(config)


@dataclass(frozen=True)
class _Architecture:
    build: Callable[[], nn.Module]
    adapted: list[str]
    kind: Literal["classifier", "causal", "seq2seq", "image"] = "classifier"


ARCHITECTURES = {
    "bert": _Architecture(_bert, ["query", "value"]),
    "distilbert": _Architecture(_distilbert, ["q_lin", "v_lin"]),
    "roberta": _Architecture(_roberta, ["query", "value"]),
    "albert": _Architecture(_albert, ["query", "value"]),  # its layers share their weights
    "vit": _Architecture(_vit, ["q_proj", "v_proj"], "image"),  # convolution, class token, table of positions
    "deit": _Architecture(_deit, ["q_proj", "v_proj"], "image"),
    "beit": _Architecture(_beit, ["q_proj", "v_proj"], "image"),
    "swin": _Architecture(_swin, ["q_proj", "v_proj"], "image"),
    "convnext": _Architecture(_convnext, ["pwconv1", "pwconv2"], "image"),
    "bit": _Architecture(_bit, ["classifier.1"], "image"),
    "gpt2": _Architecture(partial(_gpt2, tied=True), ["c_attn"], "causal"),  # Conv1D; embedding and head are one
    "gpt2-untied": _Architecture(partial(_gpt2, tied=False), ["c_attn"], "causal"),
    "llama": _Architecture(partial(_llama, tied=True), ["q_proj", "v_proj"], "causal"),  # RMS norms
    "llama-untied": _Architecture(partial(_llama, tied=False), ["q_proj", "v_proj"], "causal"),
    "qwen2": _Architecture(partial(_qwen2, tied=True), ["q_proj", "v_proj"], "causal"),
    "qwen2-untied": _Architecture(partial(_qwen2, tied=False), ["q_proj", "v_proj"], "causal"),
    "qwen3": _Architecture(partial(_qwen3, tied=True), ["q_proj", "v_proj"], "causal"),  # norms in each head
    "t5": _Architecture(partial(_t5, tied=True), ["q", "v"], "seq2seq"),  # its positions are shared by all examples
    "t5-untied": _Architecture(partial(_t5, tied=False), ["q", "v"], "seq2seq"),
}
WITHOUT_ATTENTION = ("convnext", "bit")
TRAINING = ("lora", "lora-fa", "bitfit", "full")


def make(
    name: str, training: str, *, dtype: torch.dtype = torch.float64, attention: str = "sdpa", dropout: float = 0.0
) -> nn.Module:
    """A random model in evaluation mode; every trainable parameter has random values, so that none has zero gradient."""
    known = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = known.build()
        if name not in WITHOUT_ATTENTION:
            model.set_attn_implementation(attention)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
            for attribute in ("attention_dropout", "dropout"):
                if isinstance(getattr(module, attribute, None), float):
                    setattr(module, attribute, dropout)
        if training.startswith("lora"):
            config = LoraConfig(
                r=2, target_modules=known.adapted, fan_in_fan_out=name.startswith("gpt2"), lora_dropout=dropout
            )
            model = get_peft_model(model, config)
            if training == "lora-fa":
                for parameter_name, p in model.named_parameters():
                    p.requires_grad_("lora_B" in parameter_name)
        for parameter_name, p in model.named_parameters():
            if not training.startswith("lora"):
                kinds = ("bias", "norm", "ln_", "classifier")
                trained = any(kind in parameter_name.lower() for kind in kinds)
                p.requires_grad_(training == "full" or (trained and "attention_bias" not in parameter_name))
            if p.requires_grad:
                p.data += 0.2 * torch.randn(p.shape)
    return model.to(dtype).eval()


IMAGE = 8
_IGNORED = -100


class Examples:
    """Random records of one padded length, with repeated tokens, different numbers of padding tokens (0) and, for
    language models, of masked labels (-100)."""

    def __init__(self, count: int, length: int, *, kind: str, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(1, VOCABULARY, (count, length), generator=generator)
        self.ids[:, 1] = self.ids[:, 2]
        self.mask = torch.ones_like(self.ids)
        self.targets = self.ids.clone()
        for row in range(count):
            self.targets[row, : row % 3] = _IGNORED
            if row % 2:
                padding = row % (length - 3)
                self.ids[row, length - padding :] = 0
                self.mask[row, length - padding :] = 0
                self.targets[row, length - padding :] = _IGNORED
        self.labels = torch.randint(3, (count,), generator=generator)
        self.pixels = torch.randn((count, 3, IMAGE, IMAGE), generator=generator)
        self._kind = kind

    def losses(self, model: nn.Module, indices: np.ndarray) -> Tensor:
        """One loss for each record: cross entropy of its label, or mean over its own labels that are not masked."""
        now = torch.from_numpy(indices)
        ids, mask, targets = self.ids[now], self.mask[now], self.targets[now]
        if self._kind == "image":
            pixels = self.pixels[now].to(next(model.parameters()).dtype)
            return F.cross_entropy(model(pixel_values=pixels).logits, self.labels[now], reduction="none")
        if self._kind == "classifier":
            logits = model(input_ids=ids, attention_mask=mask).logits
            return F.cross_entropy(logits, self.labels[now], reduction="none")
        if self._kind == "seq2seq":
            # One token shorter than the input, so that no dimension stands for another.
            targets = targets[:, 1:].contiguous()
            logits = model(input_ids=ids, attention_mask=mask, labels=targets).logits
        else:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            targets = targets[:, 1:].contiguous()
        each = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=_IGNORED)
        return each.sum(1) / (targets != _IGNORED).sum(1)


def alone(model: nn.Module, losses: Callable[[np.ndarray], Tensor], count: int) -> dict[str, Tensor]:
    """Gradient of each record by plain autograd, one by one: [count, *shape] by trainable parameter."""
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rows = [torch.autograd.grad(losses(np.array([i]))[0], list(parameters.values())) for i in range(count)]
    return {name: torch.stack([row[k] for row in rows]) for k, name in enumerate(parameters)}
