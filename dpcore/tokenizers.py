"""Tokenizers from local folders, and the token that fills a batch up."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from dpcore.terms.folders import VOCABULARIES
from dpcore.terms.reasons import reason

_ORDINARY = "The quick brown fox, 12 and 3."
_UNKNOWN = "\u2603 \u0b9c \U0001f9ff \u0378 \x07"
"""Characters that a vocabulary without bytes seldom has."""
_OWN_WORDS = 64
_PUT_THERE = ("bos", "eos", "cls", "sep", "unk", "pad")
"""Special tokens that a tokenizer puts around texts and between them, by name."""


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the model in a folder.

    Raises OSError where the folder has none of its files, and ValueError where they cannot be read, or give a tokenizer
    to which every text is unknown. transformers would make an empty one up.
    """
    folder = Path(folder)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever a tokenizer's own code raises
        _require_files(folder, VOCABULARIES)
        raise ValueError(f"the tokenizer cannot be loaded: {reason(error, folder)}") from error
    # CANINE reads characters and has no files.
    if tokenizer.vocab_files_names:
        _require_files(folder, (*VOCABULARIES, *tokenizer.vocab_files_names.values()))
    if not _knows_text(tokenizer):
        raise ValueError("the tokenizer knows no word: it makes nothing, or the unknown token alone, of any text")
    return tokenizer


def choose_padding(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills a batch up: a decoder's classifier reads the last token before it, so no text may hold it.

    The first special token, which no text becomes, among: the configuration's, the tokenizer's, the configuration's end
    tokens from the last, the tokenizer's, any other. Raises ValueError where there is none with a row in the table.
    """
    rows, ends = table_rows(config), getattr(config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    special = {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}
    # An unknown character gives the unknown token, which is GPT-2's end token too; bytes leave nothing unknown.
    special -= set(tokenizer(_UNKNOWN, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    named = [padding_of(config), tokenizer.pad_token_id, *reversed(ends), tokenizer.eos_token_id]
    for token in (*named, *sorted(special, reverse=True)):
        if token in special and in_table(token, rows):
            return int(token)
    raise ValueError(
        f"no token can stand for padding: pad_token_id is {padding_of(config)}, the embedding table has {rows} rows, "
        "and the tokenizer has no special token among them"
    )


def with_padding(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> PreTrainedTokenizerBase:
    """The tokenizer itself, its padding token that of the model's configuration where that names one: what leaves with
    a GPT-2 classifier can then fill a batch up."""
    config: PreTrainedConfig = model.config
    padding = padding_of(config)
    if padding is not None and tokenizer.pad_token_id != padding:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding)
    return tokenizer


def padding_of(config: PreTrainedConfig) -> int | None:
    """A configuration's padding token; RWKV's has no such field."""
    token: int | None = getattr(config, "pad_token_id", None)
    return token


def require_rows(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ValueError where a token that a record may hold, an added one too, has no row in the embedding table.

    No record holds a special token that neither the tokenizer nor its chat template puts there, as Gemma 3's images.
    """
    rows = table_rows(config)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special -= {getattr(tokenizer, f"{name}_token_id") for name in _PUT_THERE}
    template = str(tokenizer.chat_template or "")
    beyond = [(i, token) for token, i in tokenizer.get_vocab().items() if not in_table(i, rows)]
    wanting = sorted((i, token) for i, token in beyond if i not in special or token in template)
    if wanting:
        last, token = wanting[-1]
        padding = " (pad_token_id)" if last == tokenizer.pad_token_id else ""
        raise ValueError(
            f"the tokenizer has token {last}{padding}, {token!r}, but the model's embedding table has {rows} rows; "
            "resize the model's embeddings or take the token away"
        )


def table_rows(config: PreTrainedConfig) -> int | None:
    """Rows of the embedding table; None for a model without one, as CANINE, which hashes characters."""
    rows: int | None = getattr(config.get_text_config(), "vocab_size", None)
    return rows


def in_table(token: int | None, rows: int | None) -> bool:
    """Whether a token has a row."""
    return token is not None and token >= 0 and (rows is None or token < rows)


def _require_files(folder: Path, names: Iterable[str]) -> None:
    """Raises OSError where a folder has no file that a tokenizer could be read from."""
    if not any((folder / name).is_file() for name in names if name != "tokenizer_config.json"):
        raise OSError("the model's folder has no tokenizer, such as tokenizer.json, vocab.txt or tokenizer.model")


def _knows_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether some text becomes tokens that stand for it: ordinary words, or for a narrow vocabulary its own."""
    return any(_known(tokenizer, text) for text in (_ORDINARY, *_own_words(tokenizer)))


def _own_words(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    ids = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    for token in ids[:: max(1, len(ids) // _OWN_WORDS)]:
        yield tokenizer.decode([token])


def _known(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    # T5's made-up one knows the space.
    return any(tokenizer.decode([i]).strip() for i in set(ids) - set(tokenizer.all_special_ids))
