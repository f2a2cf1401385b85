"""Named tensors as safetensors with one JSON object of metadata, never pickle. Equal contents are equal bytes."""

import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_KEY = "tacit"  # one, for safetensors keeps no order among several; tensors it sorts by itself


def dumps(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """The tensors as bytes."""
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data: bytes = save(contiguous, metadata={_KEY: json.dumps(dict(metadata), sort_keys=True)})
    return data


def loads(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `dumps` wrote. Raises ValueError for anything else."""
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_KEY])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("these bytes are not what Tacit writes as safetensors") from error
    if not isinstance(metadata, dict):
        raise ValueError("the metadata is no object")
    return tensors, metadata
