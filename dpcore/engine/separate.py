"""Models in which records meet: refused, because no gradient there belongs to one record alone."""

from collections.abc import Callable

import torch
from torch import nn

from dpcore.engine.errors import MixedExamples

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def require_separate(model: nn.Module, forward: Callable[[], object]) -> None:
    """Raises MixedExamples, naming the module, for a mixture of experts, for a norm over the batch, and when
    `forward`, run on public records, changes a value that the model keeps.
    """
    config = getattr(model, "config", None)
    # Some keep these numbers in a part of their own.
    for part in () if config is None else (config, *vars(config).values()):
        for name in _EXPERTS:
            count = getattr(part, name, None)
            if isinstance(count, int) and count > 1:
                raise MixedExamples(
                    f"{name} = {count}: in a mixture of experts the tokens of several records share an expert's "
                    "places, and a record may leave an expert without a gradient"
                )
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise MixedExamples(f"{name}: a batch norm in training mode makes a record's loss depend on the others'")
    kept = dict((*model.named_parameters(), *model.named_buffers()))
    versions = {name: value._version for name, value in kept.items()}
    with torch.no_grad():
        forward()
    now = dict((*model.named_parameters(), *model.named_buffers()))
    changed = [n for n in now if now[n] is not kept.get(n) or now[n]._version != versions[n]]
    if changed:
        raise MixedExamples(f"the forward pass changes what the model keeps for later records: {', '.join(changed)}")
