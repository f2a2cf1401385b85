"""Why a model cannot be trained exactly. All are found before the first step, on public stand-in records."""


class NotTrainable(RuntimeError):
    """The model cannot be trained privately. The reason follows from public values alone, and may be shown."""


class UnseenParameter(NotTrainable):
    """A trainable parameter is used in a way that gives no per-example gradient; training on would not be private."""


class BatchShape(NotTrainable):
    """A layer's input does not have the examples in its first dimension."""


class InexactGradient(NotTrainable):
    """The engine's gradients are not those of each example alone."""


class MixedExamples(NotTrainable):
    """Records meet inside the model, or it remembers earlier ones."""


class Packed(MixedExamples):
    """What the model computes is laid out by which values all records of a batch have. One alone has its own layout."""


class LooksAhead(NotTrainable):
    """A causal language model reads the words that it is to write."""


class Regrouped(InexactGradient):
    """Rounding among other records moves a gradient by more than the sensitivity has room for."""


class OutsideTable(NotTrainable):
    """A token that records may hold, or padding, lies outside the model's table of embeddings."""


class HalfPrecision(NotTrainable):
    """A weight has too few digits to tell records apart."""


class Unrunnable(NotTrainable):
    """The model cannot be run on records that a file may hold."""
