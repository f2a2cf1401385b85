"""Public facts about a base model, read from its folder without loading a weight."""

import json
import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field

from dpcore.terms.folders import read_header, sees_pictures, weights_found
from dpcore.terms.picture_facts import counted, picture_values
from dpcore.terms.tasks import KINDS, TaskKind


class ModelFacts(BaseModel):
    """Sizes and abilities that defaults, memory formulas and checks rest on. All are properties of a public model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    hidden_size: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    max_positions: int = Field(ge=1)
    causal_lm: bool = Field(default=False, description="whether the folder holds a causal language model with its head")
    pictures: bool = Field(default=False, description="whether it sees pictures in place of reading texts")
    side: int | None = Field(default=None, description="pixels each way of what it sees")
    chat_template: bool = Field(default=False, description="whether the tokenizer brings one")
    begins: bool = Field(default=True, description="whether it has a token that texts begin with or are parted by")
    biases: int | None = Field(default=None, description="values in biases; None where the weights are not at hand")
    linear: tuple[str, ...] | None = Field(default=None, description="linear layers by name; None where not known")
    tied_head: str | None = Field(default=None, description="the head's name where it is one with the embedding")
    counted: int | None = Field(default=None, description="weights of a model whose shape tells little of their number")
    student: "ModelFacts | None" = Field(default=None, description="of another model that is to learn from this one")

    @property
    def tasks(self) -> tuple[TaskKind, ...]:
        """The kinds of task that the model can be trained for: any gets a classifier's head."""
        return tuple(
            name
            for name, kind in KINDS.items()
            if kind.of_pictures == self.pictures
            and (self.causal_lm or not kind.causal_lm)
            and (self.chat_template or not kind.chat_template)
        )

    @property
    def parameters(self) -> int:
        """Weights of a transformer of this shape, biases and norms left out."""
        if self.counted is not None:
            return self.counted
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        return self.layers * layer + (self.vocab_size + self.max_positions) * self.hidden_size


def require_texts(method: str, facts: ModelFacts) -> None:
    """Raises ValueError, for a method that reads texts alone, for a model that sees pictures."""
    if facts.pictures:
        raise ValueError(f"{method} is for texts, and this model ({facts.model_type}) sees pictures; lora fits both")


# Configurations name the same thing differently: BERT, RoBERTa and Llama first, then others.
_NAMES = {
    "hidden_size": ("hidden_size", "dim", "n_embd", "d_model", "emb_dim", "n_embed"),
    "intermediate_size": (
        *("intermediate_size", "hidden_dim", "n_inner", "ffn_dim", "encoder_ffn_dim", "d_ff", "d_inner", "dff"),
        *("ffn_hidden_size", "inner_dim"),
    ),
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers"),
    "heads": ("num_attention_heads", "n_heads", "n_head", "num_heads", "attention_heads", "encoder_attention_heads"),
    "vocab_size": ("vocab_size", "n_words", "num_hash_buckets"),  # CANINE hashes characters
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len", "context_length", "seq_length"),
}
_MOST_POSITIONS = 2048
"""Of a model that knows no bound, and whose tokenizer names none: BLOOM, Mamba and Falcon are trained so far."""
_HUGE = 10**6
"""A tokenizer that knows no bound names one beyond this."""
_UNBOUNDED = {
    *("bloom", "falcon", "falcon_mamba", "funnel", "mamba", "mamba2", "mt5", "rwkv", "t5", "xlnet"),
}
"""Models whose positions are relative, or that read one token after the other."""
_WITHOUT_ATTENTION = {"falcon_mamba", "fnet", "mamba", "mamba2", "rwkv"}
_COUNT_FROM_PADDING = {
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
}
"""Models whose first position comes after that of the padding token: RoBERTa's 514 positions hold 512 tokens."""
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_HEADS = {
    **dict.fromkeys(
        ("bert", "big_bird", "ernie", "megatron-bert", "rembert", "roc_bert", "roformer"), "cls.predictions.decoder"
    ),
    **dict.fromkeys(("camembert", "data2vec-text", "roberta", "xlm-roberta", "xmod"), "lm_head.decoder"),
    **{"biogpt": "output_projection", "electra": "generator_lm_head", "rwkv": "head", "xlnet": "lm_loss"},
}
"""Language models' heads that are not called lm_head."""
_NAMED_AS_IN_FILE = {
    *("albert", "bert", "big_bird", "camembert", "canine", "convbert", "data2vec-text", "deberta", "deberta-v2"),
    *("distilbert", "electra", "ernie", "esm", "fnet", "longformer", "luke", "megatron-bert", "mobilebert"),
    *("modernbert", "mpnet", "nystromformer", "rembert", "roberta", "roc_bert", "roformer", "squeezebert"),
    *("xlm-roberta", "xlnet", "xmod"),
    *("biogpt", "bloom", "codegen", "cohere", "ctrl", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2"),
    *("gpt_bigcode", "gpt_neo", "gptj", "granite", "llama", "mamba", "mamba2", "mistral", "mpt", "olmo", "olmo2"),
    *("openai-gpt", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen3", "rwkv", "smollm3", "stablelm"),
    *("starcoder2", "xglm"),
}
"""Models whose layers are called as their weights are in the file. transformers renames others' as it loads them."""
_TABLES = {"embed_tokens", "embed_positions", "embed_in", "relative_attention_bias", "shared", "w", "wpe", "wte"}
_TABLE = re.compile(r".*(_embed|embedding|embeddings|Embedder_\d+)")
"""Matrices of these names are no linear layers."""
_LAYER = re.compile(r"\.\d+\.")


def read_facts(folder: str | Path) -> ModelFacts:
    """Facts of the model in a folder. Raises ValueError naming the first value that its config.json lacks."""
    folder = Path(folder)
    whole: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if sees_pictures(whole, folder):
        return _of_pictures(whole, folder)
    # A model of several kinds of input has its language's numbers in a part of their own.
    config: dict[str, Any] = whole | (whole.get("text_config") or {})
    values: dict[str, Any] = {"model_type": whole.get("model_type", "unknown")}
    for name, spellings in _NAMES.items():
        found = next((config[s] for s in spellings if isinstance(config.get(s), int)), None)
        if found is None:
            found = _missing(name, config, values, folder)
        if found is None:
            raise ValueError(f"config.json of the model gives no {name}")
        values[name] = found
    # ESM with rotary positions counts none.
    if values["model_type"] in _COUNT_FROM_PADDING and config.get("position_embedding_type") in (None, "absolute"):
        padding = config.get("pad_token_id")
        values["max_positions"] -= (1 if padding is None else padding) + 1
    causal_lm = any(str(name).endswith(_CAUSAL) for name in whole.get("architectures") or ())
    shapes = _read_shapes(folder)
    linear = _linear(shapes) if shapes and values["model_type"] in _NAMED_AS_IN_FILE else None
    tied = None
    if linear is not None and causal_lm:
        head = _HEADS.get(values["model_type"], "lm_head")
        tied = None if head in linear else head  # one that is one with the embedding is not in the file
        linear = tuple(sorted({*linear, head}))
    return ModelFacts(
        **values,
        causal_lm=causal_lm,
        chat_template=_has_chat_template(folder),
        begins=_begins(config, folder),
        biases=None if shapes is None else _biases(shapes),
        linear=linear,
        tied_head=tied,
    )


def _of_pictures(config: Mapping[str, Any], folder: Path) -> ModelFacts:
    """Raises ValueError as `picture_values` does."""
    shapes, values = _read_shapes(folder), cast(dict[str, Any], picture_values(config, folder))
    return ModelFacts(
        model_type=config.get("model_type", "unknown"),
        pictures=True,
        biases=None if shapes is None else _biases(shapes),
        counted=counted(shapes),
        **values,
    )


def _missing(name: str, config: Mapping[str, Any], known: Mapping[str, Any], folder: Path) -> int | None:
    """What a value is where the configuration leaves it out; None where that cannot be."""
    if name == "intermediate_size":
        return 4 * int(known["hidden_size"])  # GPT-2's rule for a missing n_inner
    if name == "heads" and config.get("model_type") in _WITHOUT_ATTENTION:
        return 1
    if name == "layers" and isinstance(config.get("block_sizes"), list):
        return int(sum(config["block_sizes"]) + config.get("num_decoder_layers", 0))  # Funnel's
    if name == "max_positions" and config.get("model_type") in _UNBOUNDED:
        return _tokens_at_most(folder)
    return None


def _tokens_at_most(folder: Path) -> int:
    """The tokenizer's own bound, where it names one."""
    config = folder / "tokenizer_config.json"
    named: Any = json.loads(config.read_text(encoding="utf-8")).get("model_max_length") if config.is_file() else None
    return int(named) if isinstance(named, int) and 0 < named <= _HUGE else _MOST_POSITIONS


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get("chat_template"))


def _begins(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether the configuration or the tokenizer's names a token for the beginning of a text or for its end."""
    path = folder / "tokenizer_config.json"
    named: Any = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return any(
        config.get(f"{end}_token_id") is not None or named.get(f"{end}_token") is not None for end in ("bos", "eos")
    )


def _biases(shapes: Mapping[str, Sequence[int]]) -> int:
    """Values in biases; none where no layer has one: that of a masked language model's head is not the base's."""
    biases = {name: prod(shape) for name, shape in shapes.items() if name.endswith(".bias")}
    return sum(biases.values()) if any(_LAYER.search(name) for name in biases) else 0


def _linear(shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Layers whose weight is a matrix and no table."""
    layers = (name.removesuffix(".weight") for name, s in shapes.items() if name.endswith(".weight") and len(s) == 2)
    leaves = ((layer, layer.rpartition(".")[2]) for layer in layers)
    return tuple(sorted(layer for layer, leaf in leaves if leaf not in _TABLES and not _TABLE.fullmatch(leaf)))


def _read_shapes(folder: Path) -> dict[str, list[int]] | None:
    """Shapes of tensors by name, from the headers of a folder's safetensors files; None where it has none."""
    files = weights_found(folder)
    return {name: tensor["shape"] for file in files for name, tensor in read_header(file).items()} if files else None
