"""Bytes that training needs beside the process itself, from public sizes alone; all float32 but the clipped sum."""

from dpcore.terms.facts import ModelFacts

TOKENS = 2048
"""Padded tokens of a micro-batch on a processor; on a GPU there are more as long as its memory lasts."""

SCORES_AT_ONCE = 2**23
"""A language model's scores of words that are there at once behind a frozen head; those of one token at least."""


def layer(facts: ModelFacts, *, max_length: int) -> int:
    """Numbers for each token that one layer keeps for the backward pass: the inputs of what it is made of."""
    return 12 * facts.hidden_size + 3 * facts.intermediate_size + facts.heads * max_length


def head(facts: ModelFacts, *, max_length: int, labels: int, trains: bool = False, tokens: int = TOKENS) -> int:
    """Bytes for a causal language model's head in one micro-batch; a model with labels has a small one.

    One that trains: logits, softmax and its gradient of every token. A frozen one: what it reads and the gradient of
    that, and the scores of a few tokens, three times.
    """
    if labels:
        return 0
    places = max(tokens, max_length)
    scores = 3 * facts.vocab_size * places
    return 4 * scores if trains else 4 * (2 * facts.hidden_size * places + min(scores, 3 * SCORES_AT_ONCE))


def of_tokens(numbers: int, *, max_length: int, tokens: int = TOKENS) -> int:
    """Bytes of one micro-batch with so many numbers for each token."""
    return 4 * max(tokens, max_length) * numbers


def activations(
    facts: ModelFacts, *, max_length: int, labels: int, head_trains: bool = False, tokens: int = TOKENS
) -> int:
    """What one micro-batch keeps for a backward pass through the whole model."""
    layers = of_tokens(facts.layers * layer(facts, max_length=max_length), max_length=max_length, tokens=tokens)
    return layers + head(facts, max_length=max_length, labels=labels, trains=head_trains, tokens=tokens)


def values(train: int, facts: ModelFacts, *, max_length: int, tokens: int = TOKENS) -> int:
    """The frozen weights, and for `train` trainable values their gradients for each example of a micro-batch, the sum
    (float64) with its noise, the gradient and Adam's moments."""
    copies = max(1, tokens // max_length) + 7
    return 4 * (facts.parameters + copies * train)


def by_example(train: int, facts: ModelFacts, *, max_length: int, labels: int, tokens: int = TOKENS) -> int:
    """A job of `train` trainable values whose gradients are kept for each example of a micro-batch."""
    kept = activations(facts, max_length=max_length, labels=labels, tokens=tokens)
    return values(train, facts, max_length=max_length, tokens=tokens) + kept
