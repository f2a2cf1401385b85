"""A classifier's head: the modules that are new, and train whatever the method."""

from transformers import PreTrainedModel


def head_modules(model: PreTrainedModel) -> list[str]:
    """Names of a classifier's modules beside its base model: all of them are new, and DistilBERT has two."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]
