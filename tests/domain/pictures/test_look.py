"""What looks like a picture: its copies are found, other pictures are not. The rates are those of sketches."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps

from domain.files.resemblance import CHANCE
from domain.ingest.pictures.look import look
from domain.ingest.sketch import Sketcher, Sketches, alike
from tests.made_pictures import drawing, encoded, picture

KEY = b"k" * 32
COUNT = 60
Change = Callable[[Image.Image], Image.Image]


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        w, h = image.size
        return image.crop((round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom))))

    return change


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def compressed(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=60))).convert("RGB")


CHANGES: dict[str, tuple[Change, float]] = {
    "half as large": (half, 1.0),
    "compressed": (compressed, 1.0),
    "mirrored": (ImageOps.mirror, 1.0),
    "brighter": (lambda image: Image.eval(image, lambda value: min(255, int(value * 0.7 + 60))), 1.0),
    "grey": (lambda image: image.convert("L").convert("RGB"), 1.0),
    "cropped by a twentieth": (cropped(0.025, 0.025, 0.025, 0.025), 0.8),
    "cropped at one side": (cropped(0.05, 0, 0, 0), 0.5),
    "all of it": (lambda image: compressed(half(ImageOps.mirror(cropped(0.025, 0.025, 0.025, 0.025)(image)))), 0.8),
}
"""What is done, and the share of pictures that must look alike."""
KINDS: dict[str, Callable[[int], Image.Image]] = {
    "photographs": lambda seed: picture(seed, 320, 240),
    "smooth": lambda seed: picture(seed, 320, 240, 1.5),
    "very smooth": lambda seed: picture(seed, 320, 240, 2.0),
    "drawings": drawing,
}


def sketches(images: list[Image.Image]) -> Sketches:
    sketcher, looks = Sketcher(KEY), [look(image) for image in images]
    assert None not in looks
    return sketcher.sketches_of_sets([sketcher.tokens(one) for one in looks if one is not None])


@pytest.mark.sampled(8)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found(kind: str, change: str) -> None:
    images = [KINDS[kind](seed) for seed in range(COUNT)]
    how, least = CHANGES[change]
    ours, theirs = sketches([how(image) for image in images]), sketches(images)
    degrees = np.array([alike(ours[i : i + 1], theirs[i : i + 1], 1)[0] for i in range(COUNT)])
    print(f"{kind}, {change}: {(degrees > 0).mean():.2f} alike, {(degrees > 1).mean():.2f} nearly the same")
    assert (degrees > 0).mean() >= least


@pytest.mark.parametrize("kind", KINDS)
def test_other_pictures_are_not_found(kind: str) -> None:
    every = [KINDS[kind](seed) for seed in range(400)]
    seen = [image for image in every if look(image) is not None]
    assert len(seen) >= 380
    known, other = sketches(seen[::2]), sketches(seen[1::2])
    degrees = alike(other, known, len(other) * len(known))
    print(
        f"{kind}, {len(other)} beside {len(known)}: {(degrees > 0).sum()} alike, {(degrees > 1).sum()} nearly the same"
    )
    assert (degrees > 0).sum() * CHANCE < len(other)  # or the steward would be asked
    assert (degrees > 1).sum() == 0


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (200, 100), "white"),
        Image.new("RGB", (8, 8)),
        Image.linear_gradient("L").convert("RGB"),
        Image.linear_gradient("L").rotate(90).convert("RGB"),
        Image.fromarray(np.random.default_rng(0).integers(120, 136, (300, 400, 3)).astype(np.uint8)),
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)),
    ],
    ids=["white", "black", "slanting", "slanting the other way", "faint noise", "noise"],
)
def test_what_shows_nothing_looks_like_nothing(image: Image.Image) -> None:
    assert look(image) is None


def test_a_picture_and_its_mirror_look_the_same() -> None:
    assert look(drawing(1)) == look(ImageOps.mirror(drawing(1)))
    assert look(drawing(1)) != look(ImageOps.flip(drawing(1)))
