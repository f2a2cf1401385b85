"""The small model that sees, made again: a vision transformer, trained on drawings of shapes that this makes up.

python -m cli.small_seer NEW-FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import ViTConfig, ViTForImageClassification

from cli.drawings import SIDE, shapes
from dpcore.models import seeded

STEPS, BATCH, RATE, WARM = 2500, 64, 1e-3, 200
_APART = 600
"""Drawings that it is tried on at the end."""


def make_seer(folder: Path, *, steps: int = STEPS, seed: int = 0) -> float:
    """Write config.json, model.safetensors and preprocessor_config.json; how often it is right about other drawings.
    Raises FileExistsError for a folder that is there."""
    folder.mkdir(parents=True)
    config = ViTConfig(
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=192,
        image_size=SIDE,
        patch_size=6,
        num_labels=10,
    )
    with seeded(seed):
        model = ViTForImageClassification(config)
        optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
        paced = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / WARM, (steps - step) / max(1, steps - WARM))
        )
        for step in range(steps):
            pictures, kinds = shapes(BATCH, seed=seed + 1 + step)
            loss = cross_entropy(model(_scaled(pictures)).logits, torch.from_numpy(kinds))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            paced.step()
            if step % 100 == 0:
                sys.stderr.write(f"step {step}: {float(loss.detach()):.3f}\n")
    model.eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "ViTImageProcessor",
                "do_resize": True,
                "size": {"height": SIDE, "width": SIDE},
                "resample": 2,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
            },
            indent=2,
        )
        + "\n"
    )
    with torch.no_grad():
        pictures, kinds = shapes(_APART, seed=10**6)
        return float((model(_scaled(pictures)).logits.argmax(1).numpy() == kinds).mean())


def _scaled(pictures: np.ndarray) -> Tensor:
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


if __name__ == "__main__":
    sys.stdout.write(f"right about {make_seer(Path(sys.argv[1])):.3f} of other drawings\n")
