"""Types of numbers. Under torch.autocast layers compute in bfloat16; what examples are told apart by stays float32."""

import torch
from torch import Tensor


def as_product_input(x: Tensor) -> Tensor:
    """The input of a matrix product as autocast would cast it: what replaces a torch function comes before autocast."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or not x.is_floating_point() or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


def as_norm_input(x: Tensor) -> Tensor:
    """The same for a norm: float32 on a GPU; on a CPU autocast leaves it alone."""
    lowered = x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if lowered and x.is_cuda and torch.is_autocast_enabled("cuda") else x


def summed(terms: Tensor) -> Tensor:
    """Terms [m, T, ...] summed over the tokens, in float32 or better."""
    return terms.sum(1, dtype=torch.promote_types(terms.dtype, torch.float32))
