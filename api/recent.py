"""A look that many may ask for and that is not cheap: taken by one at a time, and shared for a moment."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Calling it answers what `look` saw at most `seconds` ago."""

    def __init__(self, look: Callable[[], T], seconds: float) -> None:
        self._look, self._seconds = look, seconds
        self._lock = threading.Lock()
        self._seen: tuple[float, T] | None = None

    def __call__(self) -> T:
        with self._lock:
            if self._seen is None or time.monotonic() - self._seen[0] >= self._seconds:
                self._seen = time.monotonic(), self._look()
            return self._seen[1]
