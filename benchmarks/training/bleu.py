"""BLEU of what a language model writes for prompts, against all references of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from dpcore.synthetic import beginnings, sample
from dpcore.terms.synthetic import Synthetic

MOST_TOKENS = 64


def bleu(
    model: Any, task: Any, tokenizer: PreTrainedTokenizerBase, public: Mapping[str, Sequence[str]], prompts: int
) -> float:
    """Of the first so many different prompts, the likeliest token each time; sacrebleu's own tokenisation, 0 to 100."""
    from sacrebleu import corpus_bleu

    asked: dict[str, list[str]] = {}
    for prompt, reference in zip(public["prompt"], public["completion"], strict=True):
        if prompt in asked or len(asked) < prompts:
            asked.setdefault(prompt, []).append(reference)
    wanted = Synthetic.model_validate(
        {"records": len(asked), "prompts": [*asked], "temperature": 0, "max_new_tokens": MOST_TOKENS}
    )
    begin = beginnings(wanted, "completion", task, tokenizer, task.max_length + MOST_TOKENS)
    rows = sample(model, tokenizer, wanted, "completion", begin, _never)
    written = {row["prompt"]: row["completion"] for row in rows}
    most = max(map(len, asked.values()))
    # sacrebleu takes as many references of each, and leaves out those that are empty.
    references = [[(found[place] if place < len(found) else "") for found in asked.values()] for place in range(most)]
    return float(corpus_bleu([written.get(prompt, "") for prompt in asked], references).score)


def _never() -> bool:
    return False
