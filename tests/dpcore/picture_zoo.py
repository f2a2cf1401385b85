"""Narrow models that see pictures, of random weights, as folders; and pictures as the service keeps them."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    BeitConfig,
    BitConfig,
    ConvNextConfig,
    DeiTConfig,
    PreTrainedConfig,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)

SIDE = 32
_NARROW = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_PATCHES = {"image_size": SIDE, "patch_size": 8}
SEERS: dict[str, PreTrainedConfig] = {
    "vit": ViTConfig(**_NARROW, **_PATCHES),
    "deit": DeiTConfig(**_NARROW, **_PATCHES, architectures=["DeiTForImageClassification"]),
    "beit": BeitConfig(**_NARROW, **_PATCHES, vocab_size=100, use_relative_position_bias=True),
    "swin": SwinConfig(image_size=SIDE, patch_size=2, embed_dim=16, depths=[1, 2], num_heads=[2, 2], window_size=4),
    "convnext": ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2, layer_scale_init_value=0.1),
    "bit": BitConfig(hidden_sizes=[32, 64], depths=[1, 1], embedding_size=32, num_groups=4),
}
WITH_BATCH_NORM = ResNetConfig(hidden_sizes=[16, 32], depths=[1, 1], embedding_size=8)
_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
}


def save_seer(config: PreTrainedConfig, folder: Path, **processor: object) -> Path:
    """A folder with a model of ten labels of its own. processor: what its preprocessor_config.json says besides."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config.num_labels = 10
        AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PROCESSOR | processor))
    return folder


def drawings(count: int, *, width: int = 50, height: int = 40) -> list[Image.Image]:
    """Pictures of no particular size, each another."""
    draws = np.random.default_rng(count)
    small = draws.integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC) for one in small]


def kept(picture: Image.Image) -> str:
    """As a row holds it."""
    with io.BytesIO() as file:
        picture.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()
