"""What is wrong with a picture, in words that hold nothing of it."""

from domain.ingest.pictures.bounds import LEAST_SIDE, MOST_BYTES, MOST_PIXELS

ACCEPTED = "JPEG, PNG and WebP are taken"


class BadPicture(ValueError):
    """A picture that cannot be used, for a reason that is a problem of its row."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def no_picture(what: str = "it is another kind of file") -> BadPicture:
    """What is none of the kinds that are taken, by its content."""
    return BadPicture("not_a_picture", f"{ACCEPTED}, told by their content, and {what}: save it as one of them")


def broken() -> BadPicture:
    """What begins like a picture and cannot be read to its end."""
    return BadPicture("broken_picture", "the picture is cut off or broken, and cannot be decoded whole")


def moves() -> BadPicture:
    """What has several frames."""
    return BadPicture("animated", "the picture has several frames: save one of them as a picture")


def too_many_bytes() -> BadPicture:
    """What is too large as it is sent."""
    return BadPicture("picture_too_large", f"the picture has more than {MOST_BYTES} bytes: scale it down")


def too_many_pixels() -> BadPicture:
    """What is too large when it is decoded."""
    return BadPicture("picture_too_large", f"the picture has more than {MOST_PIXELS} pixels: scale it down")


def too_small() -> BadPicture:
    """What is too small to show anything."""
    return BadPicture("picture_too_small", f"a side of the picture is shorter than {LEAST_SIDE} pixels")


def other_colours() -> BadPicture:
    """What is stored in colours that nothing here knows."""
    return BadPicture(
        "bad_colours", "the picture's colours are stored in a way that is not taken: save it as 8-bit RGB"
    )
