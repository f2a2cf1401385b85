"""A classifier's head: the modules that are new, and train whatever the method."""

from transformers import PreTrainedModel

from dpcore.models import beside_base, fresh_in_base


def head_modules(model: PreTrainedModel) -> list[str]:
    """Names of a classifier's modules beside its base model, DistilBERT has two, and of a pooler that was drawn anew.

    Raises ValueError where the classifier has no base model inside.
    """
    return [*beside_base(model), *fresh_in_base(model)]
