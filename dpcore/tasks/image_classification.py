"""Image classification: a picture in, one of a public set of labels out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpcore.engine.errors import MixedExamples
from dpcore.tasks.accuracy import accuracy, are_right, places, require_names
from dpcore.tasks.losses import Loss, label_losses
from dpcore.tasks.records import device_of

IMAGE = "image"
"""The column of a record's picture."""
_AT_ONCE = 64


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size. pixels: uint8 [n, channels, side, side]; labels: int64 [n], places in the public label
    set; tokens: what each is to a model."""

    pixels: np.ndarray
    labels: np.ndarray
    tokens: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each record: int64 [n], all the same."""
        return np.full(len(self), self.tokens, dtype=np.int64)


class ImageClassification:
    """Encoding, loss and prediction. Holds public values only: the label set, the size of a picture, and how its values
    are scaled. A record's loss depends on its own pixels alone."""

    def __init__(
        self,
        labels: Sequence[str],
        side: int,
        *,
        tokens: int,
        channels: int = 3,
        mean: float | Sequence[float] = 0.5,
        deviation: float | Sequence[float] = 0.5,
        read: Callable[[Any], np.ndarray] = np.asarray,
    ) -> None:
        """side: pixels each way. tokens: what a picture is to the model, as its patches are; it decides how many are
        taken at once. mean, deviation: of values between 0 and 1, for each channel. read: makes pixels
        of what a column holds. Raises ValueError for a repeated label, or fewer than two."""
        self.labels = require_names(labels)
        self.side, self.channels = side, channels
        self.max_length = tokens
        self._read = read
        self._mean, self._deviation = (
            torch.as_tensor(of, dtype=torch.float32).expand(channels).view(channels, 1, 1) for of in (mean, deviation)
        )

    def encode(self, columns: Mapping[str, Sequence[Any]], labels: Sequence[int]) -> Pictures:
        """columns: {"image": what is read as uint8 [side, side, channels] each, or [side, side] of one channel}.

        Raises ValueError for a label outside the public set, and for a picture of another size.
        """
        targets = places(labels, self.labels).numpy()
        if len(columns[IMAGE]) != len(targets):
            raise ValueError(f"{len(columns[IMAGE])} pictures but {len(targets)} labels")
        wanted = (self.side, self.side, self.channels)
        pixels = np.empty((len(targets), *wanted), dtype=np.uint8)
        for place, picture in enumerate(columns[IMAGE]):
            own = self._read(picture)
            own = own[..., None] if own.ndim == 2 else own
            if own.shape != wanted or own.dtype != np.uint8:
                raise ValueError(f"a picture is not of {wanted} bytes")
            pixels[place] = own
        return Pictures(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), targets, self.max_length)

    @property
    def shortest(self) -> int:
        """All records have as many tokens."""
        return self.max_length

    def synthetic(self, count: int, length: int) -> Pictures:
        """Public stand-in records: noise, the brightest and the darkest value among it. length: of none but this task's
        pictures."""
        draws = np.random.default_rng(0)
        pixels = draws.integers(0, 256, (count, self.channels, self.side, self.side), dtype=np.uint8)
        return Pictures(pixels, np.arange(count, dtype=np.int64) % len(self.labels), self.max_length)

    mixed = synthetic

    def require_fit(self, model: nn.Module) -> None:
        """Raises MixedExamples for a batch norm: its means are of many pictures together."""
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise MixedExamples(
                    f"{name} is a batch norm, which scales a picture by others; take a model with group norms, as BiT, "
                    "or layer norms, as ViT, DeiT, BEiT, Swin or ConvNeXt"
                )

    def losses(
        self, model: nn.Module, records: Pictures, indices: np.ndarray, length: int, *, loss: Loss = label_losses
    ) -> Tensor:
        """Cross entropy of each record, or another loss of its label: float [m]."""
        labels = torch.from_numpy(records.labels[indices]).to(device_of(model))
        run = partial(self._run, model, records, indices)
        return loss(model, run, torch.ones_like(labels, dtype=torch.bool), labels)

    def right(self, model: nn.Module, records: Pictures, indices: np.ndarray, length: int) -> Tensor:
        """Whether each record gets its own label: bool [m]."""
        logits = self._run(model, records, indices).logits.float().cpu()
        return are_right(logits, torch.from_numpy(records.labels[indices]))

    def _run(self, model: nn.Module, records: Pictures, indices: np.ndarray, **more: Any) -> Any:
        weight = next(model.parameters())
        scaled = (torch.from_numpy(records.pixels[indices]).float() / 255 - self._mean) / self._deviation
        return model(pixel_values=scaled.to(weight.device, weight.dtype), **more)

    @torch.no_grad()
    def logits(self, model: nn.Module, columns: Mapping[str, Sequence[Any]]) -> Tensor:
        """Logits [n, labels] in the order of the records."""
        records = self.encode(columns, [0] * len(columns[IMAGE]))
        out = torch.empty(len(records), len(self.labels))
        for now in np.split(np.arange(len(records)), range(_AT_ONCE, len(records), _AT_ONCE)):
            out[torch.from_numpy(now)] = self._run(model, records, now).logits.float().cpu()
        return out

    def metrics(self, model: nn.Module, columns: Mapping[str, Sequence[Any]], labels: Sequence[int]) -> dict[str, Any]:
        """What `dpcore.tasks.accuracy` has. For public files: on a private one none of it is private."""
        return accuracy(self.logits(model, columns), labels, self.labels)
