"""Tiny random models of many types as folders like public ones, with tokenizers of words and of bytes."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from dpcore.models import seeded

POSITIONS = 40
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = tuple(f"w{i}" for i in range(60))
_ALL: dict[str, Any] = {"vocab_size": 70, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
_BERT = _ALL | {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
}
_LLAMA = _BERT | {"num_key_value_heads": 1}
_GPT = _ALL | {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}
_DEBERTA = _BERT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
_XLNET = _ALL | {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}
_OPT = _ALL | {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 64,
    "max_position_embeddings": POSITIONS,
}
_BART = _ALL | {"d_model": 32, "max_position_embeddings": POSITIONS}
for _part in ("encoder", "decoder"):
    _BART |= {f"{_part}_layers": 2, f"{_part}_attention_heads": 2, f"{_part}_ffn_dim": 64}

_CONFIGS: dict[str, dict[str, Any]] = {
    "albert": _BERT | {"embedding_size": 16},
    "bart": _BART,
    "bert": _BERT,
    "big_bird": _BERT | {"attention_type": "original_full"},
    "bloom": _ALL | {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "camembert": _BERT,
    "canine": _BERT
    | {"max_position_embeddings": 64, "downsampling_rate": 2, "local_transformer_stride": 8, "num_hash_buckets": 64}
    | {"num_hash_functions": 2, "upsampling_kernel_size": 2},
    "data2vec-text": _BERT,
    "deberta": _DEBERTA | {"max_relative_positions": 16},
    "deberta-v2": _DEBERTA | {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True},
    "distilbert": _ALL
    | {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": POSITIONS},
    "electra": _BERT | {"embedding_size": 16},
    "esm": _BERT | {"mask_token_id": 4},
    "esm-rotary": _BERT | {"mask_token_id": 4, "position_embedding_type": "rotary"},
    "falcon": _BERT,
    "funnel": _ALL
    | {"d_model": 32, "block_sizes": [1, 1], "num_decoder_layers": 1, "n_head": 2, "d_head": 16, "d_inner": 64},
    "gemma": _LLAMA | {"head_dim": 16},
    "gpt2": _GPT,
    "gpt_neo": _ALL
    | {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_position_embeddings": POSITIONS, "window_size": 8}
    | {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": _BERT,
    "ibert": _BERT,
    "llama": _LLAMA,
    "longformer": _BERT | {"attention_window": 8},
    "luke": _BERT | {"entity_vocab_size": 10, "entity_emb_size": 16},
    "mamba": _ALL | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "intermediate_size": 64},
    "mistral": _LLAMA,
    "modernbert": _BERT | {"cls_token_id": 0, "sep_token_id": 2, "global_attn_every_n_layers": 2, "local_attention": 8},
    "mpnet": _BERT,
    "mpt": _ALL | {"d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": POSITIONS},
    "opt": _OPT | {"word_embed_proj_dim": 32},
    "opt-narrow": _OPT | {"word_embed_proj_dim": 16, "do_layer_norm_before": False},  # as OPT-350m
    "phi3": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | {"head_dim": 16},
    "roberta": _BERT,
    "roformer": _BERT | {"embedding_size": 32},
    "rwkv": _ALL
    | {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "context_length": POSITIONS},
    "t5": _ALL | {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 1},
    "xlm-roberta": _BERT,
    "xlnet": _XLNET,
    "xmod": _BERT | {"languages": ["en_XX"], "default_language": "en_XX"},
}
_WRITES = {
    *("bloom", "falcon", "gemma", "gpt2", "gpt_neo", "gpt_neox", "llama", "mamba", "mistral", "mpt", "opt"),
    *("opt-narrow", "phi3", "qwen2", "qwen3", "rwkv"),
}
_NO_CLASSIFIER = {"mamba", "rwkv"}
CLASSIFIERS = tuple(sorted(_CONFIGS.keys() - _NO_CLASSIFIER))
WRITERS = tuple(sorted(_WRITES))


def config(name: str, **more: Any) -> PreTrainedConfig:
    """Two layers of 32, 70 words, 40 positions."""
    return AutoConfig.for_model(name.removesuffix("-rotary").removesuffix("-narrow"), **_CONFIGS[name] | more)


def build(name: str, task: str, **more: Any) -> PreTrainedModel:
    """A random model, without a folder: a classifier of three labels or a language model."""
    auto, labels = (
        (AutoModelForCausalLM, {}) if task == "completion" else (AutoModelForSequenceClassification, {"num_labels": 3})
    )
    with seeded(7):
        return auto.from_config(config(name, **labels | more)).float().eval()


def save(name: str, folder: Path, *, task: str = "classification", **more: Any) -> Path:
    """A base model without a head, or a language model, as a public folder; words as its tokenizer."""
    if task == "completion":
        build(name, task, **more).save_pretrained(folder)
    else:
        with seeded(7):
            AutoModel.from_config(config(name, **more)).save_pretrained(folder)
    words().save_pretrained(folder)
    return folder


def words() -> PreTrainedTokenizerFast:
    """w0 to w59 from token 5 on."""
    core = Tokenizer(WordLevel({w: i for i, w in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    core.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def letters(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """Bytes, as GPT-2 and Llama 3 read them: token 0 is an exclamation mark; special tokens from 256 on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=core, **named)


def step_ids(count: int = 3, length: int = 8) -> torch.Tensor:
    """Records of words, each with the end token last: BART and T5 look for it."""
    ids = 5 + torch.arange(count * length).view(count, length) % 60
    ids[:, -1] = 2
    return ids
