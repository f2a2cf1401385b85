"""Little models, once for all tests, and audits whose coins, draws and noise are the same each time."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers.utils import logging

from dpcore.audit import canaries, little
from dpcore.audit.finding import _ONE_RUN, bounds_of
from dpcore.audit.subject import Subject
from dpcore.mechanism.keystream import Streams

from .models import loud_head


class Repeatable(Streams):
    """Of several runs one after the other, each from its first step on."""

    def __init__(self, secret: bytes) -> None:
        super().__init__(test_secret=secret)

    def at(self, purpose, step):
        if step <= self._given.get(purpose, -1):
            self.__init__(self._secret)
        return super().at(purpose, step)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Callable[..., Path]:
    """The folder of a little model for a task."""
    made: dict[tuple[str, str], Path] = {}

    def of(task: str, how: str = "") -> Path:
        key = task, how
        if key not in made:
            place = tmp_path_factory.mktemp("little")
            if how == "loud head":
                made[key] = loud_head(place)
            else:
                made[key] = little.write(place, task, **({"wide": 16, "layers": 1} if how == "tiny" else {}))
        return made[key]

    return of


@pytest.fixture
def audit(folder):
    """audit(name, count, confidence, **subject): bounds (direct, gaussian, fitted), the claim, and the scores."""

    def run(name, count, *, confidence=0.95, seed=1, how="", **parts):
        subject = Subject(**parts)
        scored, ready = (canaries.scores if name == "canaries" else _ONE_RUN[name])(
            subject,
            folder(subject.task, how),
            count,
            coins=np.random.default_rng(seed),
            streams=Repeatable(bytes([seed])),
        )
        return bounds_of(name, scored, ready, 1 - confidence), ready.claim, scored

    return run
