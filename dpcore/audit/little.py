"""Little public models to audit with, written as folders like any other base model: random weights, a vocabulary of
made-up words. Nothing is downloaded, and nothing has been learnt."""

import json
from pathlib import Path

from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from dpcore.models import seeded
from dpcore.terms.tasks import CAUSAL_LM, TaskKind

WORDS = tuple(f"w{i}" for i in range(192))
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[USER]", "[ASSISTANT]", "[END]")
POSITIONS = 64
_WIDE, _INNER, _LAYERS, _HEADS = 72, 128, 2, 4
"""Wider than 64, so that the engine takes whole matrices for wide ones (`dpcore/engine/layout.py`)."""
_SPREAD = 0.3
"""Of random weights: so large that a text's words decide its gradient, which then is another for each text."""
_TEMPLATE = "{% for message in messages %}[{{ message['role'] | upper }}] {{ message['content'] }} [END]{% endfor %}"
_SEED = 7


def write(folder: Path, task: TaskKind, *, wide: int = _WIDE, layers: int = _LAYERS) -> Path:
    """A model for tasks of this kind: an encoder, or a writer whose head is its embedding; its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with seeded(_SEED):
        model = _writer(wide, layers) if task in CAUSAL_LM else _encoder(wide, layers)
    model.save_pretrained(folder)
    _write_tokenizer(folder, around=task not in CAUSAL_LM)
    return folder


def _encoder(wide: int, layers: int) -> PreTrainedModel:
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=_HEADS,
        intermediate_size=_INNER,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        initializer_range=_SPREAD,
    )
    model: PreTrainedModel = BertModel(config)
    return model


def _writer(wide: int, layers: int) -> PreTrainedModel:
    end = SPECIAL.index("[END]")
    config = GPT2Config(
        vocab_size=len(SPECIAL) + len(WORDS),
        n_embd=wide,
        n_layer=layers,
        n_head=_HEADS,
        n_inner=_INNER,
        n_positions=POSITIONS,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=0,
        initializer_range=_SPREAD,
    )
    model: PreTrainedModel = GPT2LMHeadModel(config)
    return model


def _write_tokenizer(folder: Path, *, around: bool) -> None:
    """One token a word. around: whether it puts tokens of its own before and after a text."""
    numbers = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    added = [
        {"id": numbers[word], "content": word, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for word in SPECIAL
    ]
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": _put_around(numbers) if around else None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": numbers, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS, "unk_token": "[UNK]"}
    if around:
        config |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        config |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    else:
        config |= {"bos_token": "[END]", "eos_token": "[END]", "chat_template": _TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def _put_around(numbers: dict[str, int]) -> dict[str, object]:
    """As BERT's tokenizer does."""

    def special(token: str, kind: int) -> dict[str, object]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, object]:
        return {"Sequence": {"id": name, "type_id": kind}}

    first = [special("[CLS]", 0), text("A", 0), special("[SEP]", 0)]
    known = {name: {"id": name, "ids": [numbers[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, text("B", 1), special("[SEP]", 1)],
        "special_tokens": known,
    }
