"""Bytes that training needs beside the process itself, from public sizes alone; all float32 but the clipped sum."""

from dpcore.spec.facts import ModelFacts

TOKENS = 2048
"""Padded tokens of a micro-batch, as `Speed` has them by default."""


def activations(facts: ModelFacts, *, max_length: int, labels: int, tokens: int = TOKENS) -> int:
    """What one micro-batch keeps for the backward pass: inputs of the layers and, without labels, as a causal language
    model, the logits, their softmax and its gradient."""
    logits = 0 if labels else 3 * facts.vocab_size
    layer = 12 * facts.hidden_size + 3 * facts.intermediate_size + facts.heads * max_length
    return 4 * max(tokens, max_length) * (facts.layers * layer + logits)


def by_example(train: int, facts: ModelFacts, *, max_length: int, labels: int, tokens: int = TOKENS) -> int:
    """A job of `train` trainable values whose gradients are kept for each example of a micro-batch: beside those the
    sum (float64) with its noise, the gradient and Adam's moments; the frozen weights; the activations."""
    copies = max(1, tokens // max_length) + 7
    kept = activations(facts, max_length=max_length, labels=labels, tokens=tokens)
    return 4 * (facts.parameters + copies * train) + kept
