"""How a model sees a picture: as the image processor of its folder makes it, on Pillow, one picture at a time."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoImageProcessor

from dpcore.terms.folders import PREPROCESSOR
from dpcore.terms.reasons import reason

_MADE_UP = (40, 60)
"""Pixels of the picture by which is seen what a processor makes."""


@dataclass(frozen=True)
class PictureReader:
    """name_or_path: the folder that it was loaded from. side: pixels each way of what the model gets. mean, deviation:
    of each channel, of values between 0 and 1."""

    name_or_path: str
    side: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    processor: Any = field(repr=False)

    def pixels(self, picture: str | Image.Image) -> np.ndarray:
        """uint8 [side, side, 3], before it is scaled. picture: as it is kept, the base64 of a PNG, or opened."""
        if isinstance(picture, str):
            with Image.open(io.BytesIO(base64.b64decode(picture, validate=True)), formats=["PNG"]) as opened:
                return self.pixels(opened.convert("RGB"))
        return _made(self.processor, picture.convert("RGB"))


def load_picture_reader(folder: str | Path) -> PictureReader:
    """The reader of the model in a folder. Raises OSError where it has no preprocessor_config.json, and ValueError for
    one that cannot be loaded or whose pictures are no squares of three channels."""
    folder = Path(folder)
    if not (folder / PREPROCESSOR).is_file():
        raise OSError(f"the model's folder has no {PREPROCESSOR}, which says how its pictures are made")
    try:
        # Pillow resizes as it did when most models were made; torchvision is not asked for.
        processor = AutoImageProcessor.from_pretrained(
            str(folder), backend="pil", local_files_only=True, trust_remote_code=False
        )
        made = _made(processor, Image.new("RGB", _MADE_UP))
        scale = float(processor.rescale_factor) * 255 if getattr(processor, "do_rescale", True) else 255.0
        mean, deviation = (
            (processor.image_mean, processor.image_std) if getattr(processor, "do_normalize", False) else (0.0, 1.0)
        )
    except Exception as error:  # whatever a processor's own code raises
        raise ValueError(f"{PREPROCESSOR} cannot be used: {reason(error, folder)}") from error
    if made.ndim != 3 or made.shape[0] != made.shape[1] or made.shape[2] != 3:
        raise ValueError(f"{PREPROCESSOR} makes no squares of three channels, but {list(made.shape)}")
    scaled = [tuple(float(v) / scale for v in np.broadcast_to(value, 3)) for value in (mean, deviation)]
    return PictureReader(str(folder), made.shape[0], scaled[0], scaled[1], processor)


def _made(processor: Any, picture: Image.Image) -> np.ndarray:
    """Resized and cut, still in bytes."""
    made = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    return np.ascontiguousarray(np.asarray(made, dtype=np.uint8).transpose(1, 2, 0))
