"""A picture, and one of a public set of labels."""

from collections.abc import Sequence

from dpcore.pictures import PictureReader
from dpcore.tasks.image_classification import ImageClassification


def make(reader: PictureReader, *, labels: Sequence[str], max_length: int) -> ImageClassification:
    """max_length: what a picture is to the model, in tokens. Raises ValueError for a repeated label, or fewer than
    two."""
    return ImageClassification(
        labels, reader.side, tokens=max_length, mean=reader.mean, deviation=reader.deviation, read=reader.pixels
    )
