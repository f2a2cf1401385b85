"""Tiny random models of many architectures, by transformers' name of the type: as a classifier, as a causal language
model where the type has one, and as a folder like a public model's."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from dpcore.models import seeded

Kind = Literal["classification", "completion"]

VOCABULARY = 64
POSITIONS = 64
LABELS = ("no", "yes", "perhaps")
SPECIAL = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
UNKNOWN, PAD, START, END, _MASKED = range(len(SPECIAL))
"""MPNet has padding at 1 whatever its configuration says."""
_SPACE = "Ġ"
_LETTERS = "abcdefghi"
_PAIRS = tuple(product("abcdefg", repeat=2))
WORDS = tuple(map("".join, _PAIRS))
"""Each is one token, and so is the space before it."""

_ALL: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
}
_WIDE: Mapping[str, Any] = {**_ALL, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": POSITIONS}
_BERT: Mapping[str, Any] = {**_WIDE, "num_attention_heads": 2, "intermediate_size": 48}
_LLAMA: Mapping[str, Any] = {**_BERT, "num_key_value_heads": 1}
_GPT: Mapping[str, Any] = {**_ALL, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}
_DEBERTA: Mapping[str, Any] = {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}

_ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "albert": {**_BERT, "embedding_size": 16},  # its layers share their weights
    "bart": {**_ALL, "d_model": 32, "max_position_embeddings": POSITIONS, "decoder_start_token_id": END}
    | {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}
    | {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 48},
    "bert": _BERT,
    "big_bird": {**_BERT, "attention_type": "original_full", "sep_token_id": END},
    "camembert": _BERT,
    "canine": {**_BERT, "num_hash_buckets": 64, "downsampling_rate": 2, "upsampling_kernel_size": 2}
    | {"local_transformer_stride": 16},  # reads characters, and hashes them
    "convbert": {**_BERT, "embedding_size": 32, "conv_kernel_size": 3, "num_attention_heads": 4},
    "data2vec-text": _BERT,
    "deberta": _DEBERTA,
    "deberta-v2": {**_DEBERTA, "position_biased_input": False, "share_att_key": True, "position_buckets": 8},
    "distilbert": {**_ALL, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
    | {"max_position_embeddings": POSITIONS},
    "electra": {**_BERT, "embedding_size": 16},
    "ernie": _BERT,
    "esm": {**_BERT, "mask_token_id": _MASKED},
    "fnet": {**_WIDE, "intermediate_size": 48},
    "funnel": {**_ALL, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32, "n_head": 2, "d_head": 16}
    | {"d_inner": 48},
    "ibert": _BERT,
    "longformer": {**_BERT, "attention_window": 4, "sep_token_id": END},
    "luke": {**_BERT, "entity_vocab_size": 8, "entity_emb_size": 16},
    "megatron-bert": _BERT,
    "modernbert": {**_BERT, "cls_token_id": START, "sep_token_id": END, "local_attention": 8},
    "mpnet": _BERT,
    # Takes a maximum over the whole batch, no other length than this, and no padding.
    "nystromformer": {**_BERT, "num_landmarks": 4, "segment_means_seq_len": 16, "conv_kernel_size": 3},
    "rembert": {**_BERT, "input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": _BERT,
    "roc_bert": {**_BERT, "pronunciation_vocab_size": 8, "shape_vocab_size": 8}
    | {f"{part}_embed_dim": 16 for part in ("pronunciation", "shape")},
    "roformer": {**_BERT, "embedding_size": 32},
    "squeezebert": {**_BERT, "embedding_size": 32},
    "t5": {**_ALL, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
    | {"decoder_start_token_id": PAD},
    "xlm-roberta": _BERT,
    "xlnet": {**_ALL, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48},
}
_DECODERS: Mapping[str, Mapping[str, Any]] = {
    "bloom": {**_ALL, "hidden_size": 32, "n_layer": 2, "n_head": 2},
    "codegen": {**_GPT, "n_ctx": POSITIONS, "n_head": 4, "rotary_dim": 4},
    "cohere": _LLAMA,
    "ctrl": {**_GPT, "dff": 48},
    "falcon": {**_WIDE, "num_attention_heads": 2},
    "gemma": {**_LLAMA, "head_dim": 16},
    "gemma2": {**_LLAMA, "head_dim": 16, "sliding_window": 16},  # caps its scores and its head's output
    "gemma3_text": {**_LLAMA, "head_dim": 16, "sliding_window": 16},
    "gpt2": _GPT,
    "gpt_neo": {**_WIDE, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "gpt_neox": _BERT,
    "gptj": {**_GPT, "rotary_dim": 8},
    "granite": _LLAMA,
    "llama": _LLAMA,
    "mamba": {**_ALL, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {**_ALL, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4, "head_dim": 16}
    | {"n_groups": 2, "chunk_size": 8},
    "mistral": {**_LLAMA, "head_dim": 16, "sliding_window": 16},
    "mpt": {**_ALL, "d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": POSITIONS},
    "olmo": _LLAMA,
    "openai-gpt": _GPT,
    "opt": {**_WIDE, "num_attention_heads": 2, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": _BERT,
    "phi3": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 16},
    "rwkv": {**_ALL, "hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 48}
    | {"context_length": POSITIONS},
    "smollm3": {**_LLAMA, "no_rope_layers": [1, 0]},
    "stablelm": _LLAMA,
    "starcoder2": _LLAMA,
}
_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "esm-rotary": {**_ENCODERS["esm"], "position_embedding_type": "rotary"},
    "opt-narrow": {**_DECODERS["opt"], "word_embed_proj_dim": 16, "do_layer_norm_before": False},  # as OPT-350m
    "xmod": {**_BERT, "languages": ["en_XX"], "default_language": "en_XX"},
}
_NO_CLASSIFIER = ("codegen", "cohere", "granite", "mamba", "mamba2", "rwkv")
_ENCODERS_THAT_WRITE = ("bart", "bert", "big_bird", "electra", "roberta", "xlnet")
"""Encoders of which transformers has a causal language model too; others of their kind are alike."""

CLASSIFIERS: tuple[str, ...] = tuple(sorted({*_ENCODERS, *_DECODERS} - {*_NO_CLASSIFIER}))
CAUSAL: tuple[str, ...] = tuple(sorted({*_DECODERS, *_ENCODERS_THAT_WRITE}))
KINDS: Mapping[Kind, tuple[str, ...]] = {"classification": CLASSIFIERS, "completion": CAUSAL}
DECODERS: tuple[str, ...] = tuple(sorted({*_DECODERS, "opt-narrow"}))
EVERY: tuple[str, ...] = tuple(sorted({*_ENCODERS, *_DECODERS, *_VARIANTS}))
"""With what a type can be besides, which is in no kind above."""


def config(name: str, kind: Kind, **more: Any) -> PreTrainedConfig:
    """The configuration of a type: 2 layers of 32, 64 words, 64 positions, 3 labels; and what more is named."""
    values = {**_ENCODERS, **_DECODERS, **_VARIANTS}[name]
    writes = kind == "completion" and name in _ENCODERS and name != "xlnet"
    model_type = name.removesuffix("-rotary").removesuffix("-narrow")
    own = {**values, "num_labels": len(LABELS), **({"is_decoder": True} if writes else {})}
    return AutoConfig.for_model(model_type, **own | more)


def build(name: str, kind: Kind, **more: Any) -> PreTrainedModel:
    """A random classifier of three labels or language model, float32, in evaluation mode."""
    auto = AutoModelForCausalLM if kind == "completion" else AutoModelForSequenceClassification
    with seeded(7):
        return auto.from_config(config(name, kind, **more)).float().eval()


def step_ids(count: int = 3, length: int = 8) -> Tensor:
    """Records of words, each with the end token last: BART and T5 look for it. int64 [count, length]."""
    ids = len(SPECIAL) + torch.arange(count * length).view(count, length) % (VOCABULARY - len(SPECIAL))
    ids[:, -1] = END
    return ids


def tokenizer(name: str, kind: Kind) -> PreTrainedTokenizerFast:
    """Words, spaces and letters; an encoder's puts its start and end around a text, a decoder's nothing.

    Pairs of bytes, because transformers makes such a one of whatever tokenizer a Qwen2 brings.
    """
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, _SPACE, *_LETTERS, *WORDS))}
    core = Tokenizer(BPE(vocabulary, list(_PAIRS), unk_token=SPECIAL[UNKNOWN]))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevelDecoder()
    if kind == "classification" and name in _ENCODERS:
        core.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(SPECIAL[START], START), (SPECIAL[END], END)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=SPECIAL[PAD],
        unk_token=SPECIAL[UNKNOWN],
        bos_token=SPECIAL[START],
        eos_token=SPECIAL[END],
        cls_token=SPECIAL[START],
        sep_token=SPECIAL[END],
        mask_token=SPECIAL[_MASKED],
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save(name: str, kind: Kind, folder: Path, **more: Any) -> Path:
    """Write a folder as a public model's: configuration, safetensors, tokenizer. An encoder for a classifier has no
    head, as it was before it was one; a decoder has its language model's."""
    whole = name in DECODERS or (kind == "completion" and name in CAUSAL)
    model = build(name, "completion", **more) if whole else build(name, "classification", **more).base_model
    model.save_pretrained(folder)
    tokenizer(name, kind).save_pretrained(folder)
    return folder
