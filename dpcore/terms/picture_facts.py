"""Public facts about a base model that sees pictures, read from its folder without loading a weight."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from dpcore.terms.folders import PREPROCESSOR, read_object

_HIERARCHY = ("embed_dim", "hidden_sizes")
"""Where Swin and ConvNeXt say how wide they are: more from stage to stage, while they see less and less far apart."""
_SIDE, _PATCH = 224, 4
"""What transformers takes where a configuration does not say: pixels of a picture, and of what a hierarchy begins
with."""


def picture_values(config: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Sizes by the names of `ModelFacts`. A picture's tokens (`max_positions`) are patches; of a model in stages so
    many as cost as much at the width of its last. Raises ValueError naming what a file lacks, or where two
    disagree."""
    side, made_for = _side(folder), config.get("image_size")
    fixed = "depths" not in config and isinstance(made_for, int)
    if side is None:
        side = made_for if isinstance(made_for, int) else _SIDE
    if fixed and side != made_for:
        raise ValueError(f"{PREPROCESSOR} makes pictures of {side} pixels, and config.json says image_size {made_for}")
    if fixed:
        hidden, layers, patch = (_number(config, name) for name in ("hidden_size", "num_hidden_layers", "patch_size"))
        tokens = (side // patch) ** 2 + 1
    else:
        widths, depths = _stages(config)
        first = config.get("patch_size")
        far = side // (first if isinstance(first, int) else _PATCH)
        hidden, layers = widths[-1], sum(depths)
        work = sum(max(1, far >> i) ** 2 * d * w for i, (d, w) in enumerate(zip(depths, widths, strict=True)))
        tokens = -(-work // (layers * hidden))
    wide = config.get("intermediate_size")
    heads = config.get("num_attention_heads")
    return {
        "hidden_size": hidden,
        "intermediate_size": wide if isinstance(wide, int) else 4 * hidden,
        "layers": layers,
        "heads": heads if isinstance(heads, int) else 1,
        "vocab_size": 1,
        "max_positions": max(2, tokens),
        "side": side,
    }


def rows_bytes(count: int, side: int, resolution: int) -> int:
    """Of a worker's memory, at most: so many pictures as they are kept, the base64 of at most their own pixels, and as
    the model takes them."""
    return count * (4 * resolution**2 + 3 * side**2)


def _number(config: Mapping[str, Any], name: str) -> int:
    found = config.get(name)
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"config.json of the model gives no {name}")
    return found


def counted(shapes: Mapping[str, Sequence[int]] | None) -> int | None:
    """Weights of a folder's files; None where they are not at hand."""
    return None if shapes is None else sum(prod(shape) for shape in shapes.values())


def _side(folder: Path) -> int | None:
    """Pixels each way of what the processor of a folder makes; None where it does not say. Raises ValueError for a
    picture that is not square."""
    said = read_object(folder / PREPROCESSOR)
    sizes = [said.get("crop_size") if said.get("do_center_crop", True) else None, said.get("size")]
    for size in sizes:
        if isinstance(size, int):
            return size
        if isinstance(size, dict):
            ways = {size[name] for name in ("height", "width", "shortest_edge") if isinstance(size.get(name), int)}
            if len(ways) != 1:
                raise ValueError(
                    f"{PREPROCESSOR} makes pictures that are not square, which this service does not train"
                )
            return int(ways.pop())
    return None


def _stages(config: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Width and layers of each stage."""
    depths, widths = config.get("depths"), config.get("hidden_sizes")
    if widths is None and isinstance(config.get("embed_dim"), int) and isinstance(depths, list):
        widths = [config["embed_dim"] * 2**stage for stage in range(len(depths))]
    for found in (depths, widths):
        if not isinstance(found, list) or not found or not all(isinstance(n, int) and n > 0 for n in found):
            raise ValueError(
                f"config.json of the model gives no hidden_size, and no depths with {' or '.join(_HIERARCHY)}"
            )
    assert isinstance(depths, list)
    assert isinstance(widths, list)
    if len(depths) != len(widths):
        raise ValueError("config.json of the model gives as many depths as widths in no order")
    return widths, depths
