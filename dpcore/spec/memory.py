"""Bytes that training needs beside the process itself, from public sizes alone; all float32 but the clipped sum."""

from dpcore.spec.facts import ModelFacts

TOKENS = 2048
"""Padded tokens of a micro-batch on a processor; on a GPU there are more as long as its memory lasts."""


def layer(facts: ModelFacts, *, max_length: int) -> int:
    """Numbers for each token that one layer keeps for the backward pass: the inputs of what it is made of."""
    return 12 * facts.hidden_size + 3 * facts.intermediate_size + facts.heads * max_length


def logits(facts: ModelFacts, *, labels: int) -> int:
    """Numbers for each token of a causal language model, which has no labels: logits, softmax and its gradient."""
    return 0 if labels else 3 * facts.vocab_size


def of_tokens(numbers: int, *, max_length: int, tokens: int = TOKENS) -> int:
    """Bytes of one micro-batch with so many numbers for each token."""
    return 4 * max(tokens, max_length) * numbers


def activations(facts: ModelFacts, *, max_length: int, labels: int, tokens: int = TOKENS) -> int:
    """What one micro-batch keeps for a backward pass through the whole model."""
    numbers = facts.layers * layer(facts, max_length=max_length) + logits(facts, labels=labels)
    return of_tokens(numbers, max_length=max_length, tokens=tokens)


def values(train: int, facts: ModelFacts, *, max_length: int, tokens: int = TOKENS) -> int:
    """The frozen weights, and for `train` trainable values their gradients for each example of a micro-batch, the sum
    (float64) with its noise, the gradient and Adam's moments."""
    copies = max(1, tokens // max_length) + 7
    return 4 * (facts.parameters + copies * train)


def by_example(train: int, facts: ModelFacts, *, max_length: int, labels: int, tokens: int = TOKENS) -> int:
    """A job of `train` trainable values whose gradients are kept for each example of a micro-batch."""
    kept = activations(facts, max_length=max_length, labels=labels, tokens=tokens)
    return values(train, facts, max_length=max_length, tokens=tokens) + kept
