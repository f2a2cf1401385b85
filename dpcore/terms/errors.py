"""What is wrong with a request, or with a file that is found by its name, and where."""


class HalfMade(TypeError):
    """A module that lacks a part of what its room asks of it."""


class FieldError(ValueError):
    """A value that does not go with the model, the file or another value. `field`: whose it is, below the method."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
