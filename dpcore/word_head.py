"""A classifier's head that starts from what the model already knows of its labels' words.

Labels and model are public, so that nothing of it costs anything. A head that starts at random must learn from noised
steps alone which label means what; where labels are many and rows few that is most of what there is to learn.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from dpcore.terms.label_words import words_of

SCALE = 16.0
"""What the cosine of a text's features and a label's is multiplied by to be a logit; measured in docs/defaults.md."""
_LONGEST = 16
"""Tokens of a label that are read, at most."""
_NEAR = 1e-4
"""Labels whose features differ by less, where their length is one, are one to the model: what is left is rounding."""


def start_from_words(model: nn.Module, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> bool:
    """Set the rows of a classifier's last layer to where the model puts the labels' words.

    With u the features of a label's words at length one, m their mean over the labels and L the mean length, a row is
    SCALE (u - m) / L and the bias takes off what a text of mean features would get. Draws nothing. False, and the head
    as it was, where the last layer is not one linear layer with a row for each label, or the model tells no labels
    apart. Leaves the model in the mode that it was in.
    """
    found = _features(model, tokenizer, [words_of(label) for label in labels])
    if found is None:
        return False
    last, features = found
    lengths = features.norm(dim=1, keepdim=True)
    if not torch.isfinite(features).all() or float(lengths.min()) == 0:
        return False
    unit = features / lengths
    centred = unit - unit.mean(dim=0)
    if float(torch.pdist(unit).min()) < _NEAR:
        return False
    rows = SCALE * centred / lengths.mean()
    with torch.no_grad():
        last.weight.copy_(rows)
        if last.bias is not None:
            last.bias.copy_(-(rows @ features.mean(dim=0)))
    return True


def _features(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[nn.Linear, Tensor] | None:
    """The layer that puts out the logits, and what it is given for each text, [texts, width] in float64; None where no
    linear layer puts them out."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Linear)
        calls.append((module, inputs[0], output))

    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == len(texts)]
    hooks = [head.register_forward_hook(keep) for head in heads]
    training, device = model.training, next(model.parameters()).device
    rows: list[Tensor] = []
    layers: set[nn.Linear] = set()
    model.eval()
    try:
        with torch.inference_mode():
            for text in texts:
                calls.clear()
                encoded = tokenizer(
                    text, return_tensors="pt", split_special_tokens=True, truncation=True, max_length=_LONGEST
                ).to(device)
                if not encoded["input_ids"].numel():
                    return None
                logits = model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
                # Each text is alone: a decoder's head is run at every token, and its answer is that of one of them.
                found = [
                    (layer, given.reshape(-1, given.shape[-1])[place])
                    for layer, given, put_out in calls
                    for place in torch.nonzero((put_out.reshape(-1, len(texts)) == logits[0]).all(dim=1)).flatten()
                ]
                if not found:
                    return None
                layer, row = found[-1]
                layers.add(layer)
                rows.append(row.double())
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return (layers.pop(), torch.stack(rows).clone()) if len(layers) == 1 else None
