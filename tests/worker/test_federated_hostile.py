"""Federated jobs beside a silo or a coordinator that sends what nobody can use: it costs the others nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
import torch

from domain.kit.tables import federated_round
from domain.storage.blobs import delete, get_bytes, put_bytes
from dpcore.federated import message, server, tensors
from dpcore.federated.message import Message
from dpcore.federated.server import State
from tests.worker.federation import Federation
from worker.federated.silo import SiloTraining


def scaled(made: Message, factor: float) -> Message:
    return replace(made, delta={name: value * factor for name, value in made.delta.items()})


BAD_MESSAGES: dict[str, Callable[[Message], Message]] = {
    "not of round": lambda made: replace(made, round=made.round + 1),
    "of another job": lambda made: replace(made, job="ftjob-another"),
    "began at other weights": lambda made: replace(made, began="0" * 64),
    "is there already": lambda made: replace(made, silo="silo-1"),
    "takes no part": lambda made: replace(made, silo="silo-9"),
    "in place of [": lambda made: replace(made, delta={name: value[:1] for name, value in made.delta.items()}),
    "not those that this round trains": lambda made: replace(made, delta=dict(list(made.delta.items())[1:])),
    "not finite": lambda made: scaled(made, float("nan")),
    "which no message of this silo can be": lambda made: scaled(made, 1e6),
}


def test_a_message_that_cannot_be_used_counts_as_one_that_has_not_come(
    quick: Federation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In words of public values alone; the job goes on, and only the others' messages are added."""
    bytes_of: list[Callable[[Message], bytes]] = [
        *(lambda made, bad=bad: message.dumps(bad(made)) for bad in BAD_MESSAGES.values()),
        lambda made: b"garbage",
        lambda made: message.dumps(made) + bytes(10**6),
        message.dumps,
        message.dumps,
    ]
    job_id = quick.submit(silos=2, rounds=len(bytes_of) + 1, least_silos=1)
    bad_silo = quick.silos(job_id)["silo-2"]
    real = SiloTraining._send

    def send(self: SiloTraining, part: Any, number: int, fence: int, data: bytes) -> bool:
        if part.member.name == "silo-2" and number < len(bytes_of):
            data = bytes_of[number](message.loads(data, anything(data)))
        return real(self, part, number, fence, data)

    monkeypatch.setattr(SiloTraining, "_send", send)
    for number in range(len(bytes_of)):
        quick.round(job_id)
        blob = quick.parts(bad_silo)[number]["blob"]
        if number == len(bytes_of) - 2:  # changed after it was sent
            put_bytes(quick.service.store, blob, get_bytes(quick.service.store, blob) + b" ")
        elif number == len(bytes_of) - 1:
            delete(quick.service.store, blob)
    assert quick.run(job_id) == "succeeded"
    assert [r["came"] for r in quick.story(job_id)] == [["silo-1"]] * len(bytes_of) + [["silo-1", "silo-2"]]
    words = [*BAD_MESSAGES, "not what Tacit writes", "bytes, and a round's message at most", *["it sent"] * 2]
    for number, said in enumerate(words):
        found = [r.getMessage() for r in caplog.records if f"round {number}, silo-2: " in r.getMessage()]
        assert found, (number, said)
        assert all(said in line for line in found)


def anything(data: bytes) -> message.Expected:
    """What lets every message pass."""
    delta, about = tensors.loads(data)
    shapes = {name: value.shape for name, value in delta.items()}
    return message.Expected(about["job"], about["round"], [about["silo"]], about["began"], shapes)


BAD_FACTORS: dict[str, Callable[[State], State]] = {
    "not finite": lambda s: replace(s, factors={n: v * float("inf") for n, v in s.factors.items()}),
    "too large for the weights": lambda s: replace(s, factors={n: v.double() + 1e300 for n, v in s.factors.items()}),
    "of another job": lambda s: replace(s, job="ftjob-another"),
    "of another round": lambda s: replace(s, round=1),
    "of other shapes": lambda s: replace(s, factors={n: v[:1] for n, v in s.factors.items()}),
    "some are missing": lambda s: replace(s, factors=dict(list(s.factors.items())[1:])),
    "the base model's": lambda s: replace(s, factors={**s.factors, "base_model.model.classifier.x": torch.zeros(1)}),
}


def test_factors_that_begin_no_round_cost_a_silo_nothing(
    quick: Federation, states: list[State], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a coordinator sends: the silo begins nothing, pays nothing, does not fail, and goes on with good ones."""
    job_id = quick.submit(silos=2, rounds=2)
    silo_job = quick.silos(job_id)["silo-2"]
    quick.go(job_id)
    (good,) = quick.story(job_id)
    (begun,) = states
    sent = [(server.start(change(begun)), None, 0) for change in BAD_FACTORS.values()]
    sent += [(b"garbage", None, 0), (server.start(begun), "0" * 64, 0), (b"", "missing", 0)]
    sent += [(server.start(replace(begun, round=7)), None, 7)]  # a round that the job has not
    for data, sha256, number in sent:
        blob = f"exchange/{job_id}/0/bad.safetensors"
        put_bytes(quick.service.store, blob, data)
        if sha256 == "missing":
            delete(quick.service.store, blob)
            sha256 = good["sha256"]
        rewrite(quick, job_id, blob=blob, sha256=sha256 or message.sha256(data), number=number)
        caplog.clear()
        quick.go(silo_job)
        assert "are not this job's" in caplog.text
        assert (quick.status(silo_job), quick.authorised(silo_job), quick.parts(silo_job)) == ("running", 0, [])
    rewrite(quick, job_id, blob=good["blob"], sha256=good["sha256"], number=0)
    assert quick.run(job_id) == "succeeded"
    assert [r["came"] for r in quick.story(job_id)] == [["silo-1", "silo-2"]] * 2


def rewrite(federation: Federation, job_id: str, **values: object) -> None:
    """What the round says that it begins at, as the database's superuser."""
    with federation.service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.update(federated_round).where(federated_round.c.job_id == job_id).values(**values))
