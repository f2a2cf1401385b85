"""Why a model cannot be trained exactly. All are found before the first step, on public stand-in records."""


class UnseenParameter(RuntimeError):
    """A trainable parameter is used in a way that gives no per-example gradient; training on would not be private."""


class BatchShape(RuntimeError):
    """A layer's input does not have the examples in its first dimension."""


class InexactGradient(RuntimeError):
    """The engine's gradients are not those of each example alone."""


class MixedExamples(RuntimeError):
    """Records meet inside the model, or it remembers earlier ones."""
