"""Why a model cannot be trained exactly. All are found before the first step, on public stand-in records."""


class NotTrainable(RuntimeError):
    """What all of these are: the message names parts of the model and never holds a value of a record."""


class UnseenParameter(NotTrainable):
    """A trainable parameter is used in a way that gives no per-example gradient; training on would not be private."""


class BatchShape(NotTrainable):
    """A layer's input does not have the examples in its first dimension."""


class InexactGradient(NotTrainable):
    """The engine's gradients are not those of each example alone."""


class MixedExamples(NotTrainable):
    """Records meet inside the model, or it remembers earlier ones."""
