"""Sampling from a released language model, with stock `generate`: records as a file of its task has them.

Everything that steers it is in the request. Rows of a batch begin with the same tokens, so that none is padded in
front, and one seed drives all draws in the order of the file: whoever has the model makes the same file.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from dpcore.machine.micro_batches import Stopped
from dpcore.models import seeded
from dpcore.tasks.causal_lm import CausalLM
from dpcore.tasks.records import device_of
from dpcore.terms.synthetic import Synthetic, SyntheticPrompt
from dpcore.terms.tasks import TaskKind

AT_ONCE = 64
"""Rows of a batch, at most."""
TOKENS_AT_ONCE = 16_384
"""Of a batch with all that is to be sampled, unless one row alone has more: what is kept of each token takes memory."""


def beginnings(
    wanted: Synthetic, kind: TaskKind, task: CausalLM, tokenizer: PreTrainedTokenizerBase, positions: int
) -> list[list[int]]:
    """The tokens that the records of each prompt begin with, as they stood in training; of the one beginning where
    there are no prompts. positions: of the model.

    Raises ValueError, in words for everybody, for a prompt that leaves no room, or none where there has to be one.
    """
    prompts: Sequence[SyntheticPrompt | None] = wanted.prompts or [None]
    found = []
    for number, prompt in enumerate(prompts, start=1):
        ids = _first(tokenizer) if prompt is None else task.beginning(_asked(kind, prompt), whole=True)
        if not ids:
            raise ValueError(f"prompt {number} has no token for this model")
        if len(ids) + wanted.max_new_tokens > positions:
            raise ValueError(
                f"prompt {number} has {len(ids)} tokens, and with {wanted.max_new_tokens} new ones that is more than "
                f"the model's {positions} positions"
            )
        found.append(ids)
    return found


def batches(wanted: Synthetic, beginning: Sequence[int], count: int) -> list[int]:
    """Rows of each batch of so many records with this beginning."""
    size = max(1, min(AT_ONCE, TOKENS_AT_ONCE // (len(beginning) + wanted.max_new_tokens)))
    return [min(size, count - start) for start in range(0, count, size)]


def settings(wanted: Synthetic, model: Any) -> GenerationConfig:
    """All that `generate` is told. Where a record ends is the model's own to say; of how tokens are drawn it says
    nothing, or the file would be steered by what nobody asked for."""
    own = model.generation_config
    drawn = {"temperature": wanted.temperature, "top_p": wanted.top_p, "top_k": 0} if wanted.temperature > 0 else {}
    return GenerationConfig(
        max_new_tokens=wanted.max_new_tokens,
        min_new_tokens=1,
        do_sample=wanted.temperature > 0,
        eos_token_id=own.eos_token_id,
        pad_token_id=0 if own.pad_token_id is None else own.pad_token_id,
        use_cache=own.use_cache,
        **drawn,
    )


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    wanted: Synthetic,
    kind: TaskKind,
    begin: Sequence[Sequence[int]],
    should_stop: Callable[[], bool],
) -> Iterator[dict[str, Any]]:
    """Records in the order of their prompts; those without a word are left out. begin: of `beginnings`.

    Raises Stopped within a token of `should_stop()`, and whatever the model raises.
    """
    model.generation_config = settings(wanted, model)
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    watch = StoppingCriteriaList([_Watch(should_stop)])
    with seeded(wanted.seed):
        for prompt, ids, count in zip(wanted.prompts or [None], begin, wanted.counts, strict=True):
            for rows in batches(wanted, ids, count):
                asked = torch.tensor([list(ids)] * rows, device=device_of(model))
                written = model.generate(
                    input_ids=asked, attention_mask=torch.ones_like(asked), stopping_criteria=watch
                )
                if should_stop():
                    raise Stopped
                for row in written[:, len(ids) :].tolist():
                    text = _text(tokenizer, ids, _until(row, ends))
                    if text.strip():
                        yield _record(kind, prompt, text)


class _Watch(StoppingCriteria):
    """Ends a batch where nobody waits for it any more."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def __call__(self, input_ids: Tensor, scores: Tensor, **more: Any) -> Tensor:
        return torch.full((len(input_ids),), self._should_stop(), dtype=torch.bool, device=input_ids.device)


def _first(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that a text begins with; where there is none, the one that parts texts from each other."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise ValueError("the tokenizer has no token that a text begins with: name prompts to go on from")
    return [first]


def _asked(kind: TaskKind, prompt: SyntheticPrompt) -> dict[str, str]:
    """The prompt as a record that is still to be written."""
    if kind == "chat":
        return {"messages": json.dumps(_turns(prompt), ensure_ascii=False)}
    assert prompt.prompt is not None
    return {"text": prompt.prompt} if kind == "text" else {"prompt": prompt.prompt, "completion": ""}


def _turns(prompt: SyntheticPrompt) -> list[dict[str, str]]:
    if prompt.messages is None:
        return [{"role": "user", "content": prompt.prompt or ""}]
    return [message.model_dump() for message in prompt.messages]


def _record(kind: TaskKind, prompt: SyntheticPrompt | None, text: str) -> dict[str, Any]:
    """As a file of this task has it."""
    if prompt is None:
        return {"text": text}
    if kind == "chat":
        return {"messages": [*_turns(prompt), {"role": "assistant", "content": text}]}
    if kind == "text":
        return {"text": f"{prompt.prompt}{text}"}
    return {"prompt": prompt.prompt, "completion": text}


def _until(row: Sequence[int], ends: set[int]) -> list[int]:
    """What stands before the first token that ends a record; behind it is padding."""
    return list(row[: next((place for place, token in enumerate(row) if token in ends), len(row))])


def _text(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], written: Sequence[int]) -> str:
    """What was written, with the space that it begins with: SentencePiece drops that of tokens that stand alone."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    head, whole = tokenizer.decode(list(before), **options), tokenizer.decode([*before, *written], **options)
    text: str = whole[len(head) :] if whole.startswith(head) else tokenizer.decode(list(written), **options)
    return text.replace("\0", "")
