"""`python -m worker check`: what it will try, then how each went, a JSON value a line."""

import json

import pytest
import sqlalchemy as sa

from domain.models import profiles
from domain.models.allow_list import describe
from dpcore.terms.methods import method_names
from tests.worker.service import Service
from worker import __main__ as program
from worker import profile

CLASSIFIERS = [name for name in method_names() if name != "federated-lm"]
"""Methods that train them."""


def test_what_fails_is_kept_and_what_cannot_be_told_is_not(
    service: Service, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = describe("tiny", service.model)
    measured = profiles.Measured("lora", "classification", "cpu", 32, 1.0, 1, 1)
    results = {"bitfit": "no biases", "full": None}
    monkeypatch.setattr(profile, "_in_own_process", lambda folder, method, *_: results.get(method, measured))
    assert program._check(engine, {"tiny": model}, "cpu") == 0
    wanted, *found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    trains = {one["method"]: result["trains"] for one, result in zip(wanted, found, strict=True)}
    assert trains == dict.fromkeys(CLASSIFIERS, True) | {"bitfit": False, "full": None}
    with service.api.connect() as connection:
        known = profiles.known(connection, model)
    others = set(CLASSIFIERS) - {"bitfit", "full"}
    tried = {(trial.method, trial.refusal) for trial in known.trials}
    assert tried == {("bitfit", "no biases"), *((method, None) for method in others)}
    assert known.profiles == [], "what is tried alone is no measurement"
    assert known.methods(model, "pair") == sorted({"full", *others})
