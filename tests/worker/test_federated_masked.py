"""Federated jobs behind masks: the coordinator comes to the mean of messages none of which it can read, and whoever dies,
leaves or lies on the way costs at most a round."""

import json
import random
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from domain.federated import invitations, masks, rounds, submitting
from domain.jobs.life import LIVE
from domain.kit.refusals import Invalid
from domain.kit.tables import federated_round, job, silo
from domain.storage.blobs import delete, get_bytes, put_bytes
from dpcore.federated import masked, server, tensors
from dpcore.federated.message import Message
from dpcore.federated.secure import grid
from dpcore.federated.server import State
from dpcore.terms.methods.federated_lora import Options
from ledger.tables import reservation
from tests.worker.books import lose, wrong
from tests.worker.federation import GUEST, Federation
from tests.worker.service import DECLARED
from worker.federated.coordinator import Coordinator
from worker.federated.masks import SiloMasks
from worker.federated.silo import SiloTraining
from worker.federated.sums import Sums
from worker.reconciler import reconcile

NAMES = ["silo-1", "silo-2", "silo-3", "silo-4"]


@pytest.fixture
def four(quick: Federation) -> Federation:
    """One silo more than a sum needs."""
    quick.files.append(quick.add_file("tenant_b", seed=13))
    return quick


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, str], Message]:
    """The messages before their masks, by round and silo."""
    kept: dict[tuple[int, str], Message] = {}
    real = SiloMasks.mask

    def mask(self: SiloMasks, now: Any, message: Message) -> bytes | None:
        kept[now.number, message.silo] = message
        return real(self, now, message)

    monkeypatch.setattr(SiloMasks, "mask", mask)
    return kept


def submit(federation: Federation, silos: int = 4, **options: Any) -> str:
    """A masked job whose silos have said their keys."""
    job_id = federation.submit(silos=silos, masked=True, **options)
    federation.go(job_id)
    assert federation.story(job_id) == []  # it waits for the keys
    for each in federation.silos(job_id).values():
        assert federation.due(each)
        federation.go(each)
        assert not federation.due(each)
    return job_id


def agree(federation: Federation, job_id: str, without: tuple[str, ...] = ()) -> None:
    """Until it is said whose messages are in."""
    federation.round(job_id, without=without)
    if without:
        federation.overdue(job_id)
    federation.go(job_id)
    assert federation.story(job_id)[-1]["agreed"]


def came(federation: Federation, job_id: str) -> list[list[str]]:
    return [r["came"] for r in federation.story(job_id)]


def require_mean(job_id: str, states: list[State], sent: Mapping[tuple[int, str], Message], names: list[str]) -> None:
    """Each state is what plain messages of these silos come to, on the masks' grid."""
    for before, after in pairwise(states):
        options = Options(rounds=len(states), server="fedavg")
        plain = server.aggregate(
            before, options, {n: sent[before.round, n] for n in names}, dict.fromkeys(NAMES, DECLARED)
        )
        for name, value in after.factors.items():
            torch.testing.assert_close(value, plain.factors[name], rtol=0, atol=2 * grid.STEP + 1e-7)
        assert after.job == job_id


def test_the_coordinator_adds_up_what_it_cannot_read(
    quick: Federation, states: list[State], sent: dict[tuple[int, str], Message], tmp_path: Path
) -> None:
    job_id = submit(quick, silos=3, server="fedavg")
    quick.round(job_id)
    for name, silo_job in quick.silos(job_id).items():
        (part,) = quick.parts(silo_job)
        named, about = tensors.loads(get_bytes(quick.service.store, part["blob"]))
        plain = masked.encoded(sent[0, name], DECLARED)
        assert about["silo"] == name
        assert named["masked"].numpy().view(np.uint64).shape == plain.shape
        hidden = named["masked"].numpy().view(np.uint64) - plain
        bits = np.unpackbits(hidden.view(np.uint8))
        assert abs(bits.mean() - 0.5) < 5 * 0.5 / bits.size**0.5
    assert quick.run(job_id) == "succeeded"
    assert came(quick, job_id) == [NAMES[:3]] * 2
    require_mean(job_id, states, sent, NAMES[:3])
    report = quick.service.released(job_id)["report"]
    assert json.loads(get_bytes(quick.service.store, report.blob))["masked"] is True
    for each in silos_of(quick, job_id):
        assert wrong(quick.service, each["job_id"]) == []
    # The secret keys went with the job.
    assert not [path for path in tmp_path.rglob("masks-*")]


@pytest.mark.verify
def test_a_silo_that_sends_nothing_is_left_out_of_the_sum_and_its_mask_stays_closed(
    four: Federation, states: list[State], sent: dict[tuple[int, str], Message]
) -> None:
    job_id = submit(four, server="fedavg", rounds=1)
    agree(four, job_id, without=("silo-4",))
    assert four.run(job_id) == "succeeded"
    assert came(four, job_id) == [NAMES[:3]]
    require_mean(job_id, states, sent, NAMES[:3])
    with four.service.api.connect() as c:
        opened = {name: part.opening for name, part in masks.parts(c, job_id, 0).items()}
    assert opened.keys() == set(NAMES[:3])
    assert all(opening["shared"].keys() == {"silo-4"} for opening in opened.values())  # type: ignore[index, union-attr]


@pytest.mark.verify  # a silo that died opens for no other list is in make test
def test_whoever_dies_between_two_moves_costs_nothing(
    four: Federation,
    states: list[State],
    sent: dict[tuple[int, str], Message],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A silo before it signs and before it opens, the coordinator before it says who is in, before it closes the round
    and before it keeps the next state."""
    deaths = {
        (SiloMasks, "go_on"): 2,
        (Sums, "agree"): 1,
        (Coordinator, "_tell"): 1,
        (Coordinator, "_mean"): 1,
    }
    left = dict(deaths)
    for place, name in deaths:
        real = getattr(place, name)

        def die(*args: Any, real: Any = real, at: Any = (place, name), **more: Any) -> Any:
            if left[at]:
                left[at] -= 1
                raise KeyboardInterrupt
            return real(*args, **more)

        monkeypatch.setattr(place, name, die)
    job_id = submit(four, server="fedavg", rounds=2)
    died = 0
    for _ in range(30):
        for each in [job_id, *four.silos(job_id).values()]:
            if four.status(each) in ("queued", "running") and four.due(each):
                try:
                    four.go(each)
                except KeyboardInterrupt:
                    died += 1
                    lose(four.service)
    assert died == sum(deaths.values())
    assert four.status(job_id) == "succeeded"
    assert came(four, job_id) == [NAMES] * 2
    require_mean(job_id, states, sent, NAMES)


POINTS: list[tuple[Any, str]] = [
    (SiloMasks, "mask"),
    (SiloMasks, "go_on"),
    (SiloTraining, "_send"),
    (masks, "say_keys"),
    (masks, "sign"),
    (masks, "open_masks"),
    (masks, "agree"),
    (Sums, "mean"),
    (rounds, "close_round"),
    (Coordinator, "_open"),
    (Coordinator, "_keep"),
    (Coordinator, "_publish"),
]
"""Calls at which a worker may die: before them, or right after."""


@pytest.mark.verify
@pytest.mark.timeout(1800)
def test_kills_at_random_moments_lose_no_round_and_charge_nothing_twice(
    four: Federation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, killed = random.Random(1), Counter[str]()
    odds = 0.0

    def at(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def dying(*args: Any, **more: Any) -> Any:
            strike(f"before {name}")
            made = real(*args, **more)
            strike(f"after {name}")
            return made

        monkeypatch.setattr(owner, name, dying)

    def strike(where: str) -> None:
        if chance.random() < odds and killed[where] < 2:
            killed[where] += 1
            raise KeyboardInterrupt

    for owner, name in POINTS:
        at(owner, name)
    jobs = 0
    while killed.total() < 40 and jobs < 12:
        jobs += 1
        odds = 0.0
        job_id = four.submit(silos=4, masked=True, rounds=4, patience_seconds=600.0)
        silos, odds = four.silos(job_id), 0.15
        for _ in range(200):
            ready = [each for each in (job_id, *silos.values()) if four.status(each) in LIVE and four.due(each)]
            if four.status(job_id) not in LIVE:
                break
            try:
                four.go(chance.choice(ready))
            except KeyboardInterrupt:
                lose(four.service)
        odds = 0.0
        assert four.status(job_id) == "succeeded"
        reconcile(four.engine, four.service.store, four.settings)
        for each in silos.values():
            assert wrong(four.service, each) == []
        lost = [r["number"] for r in four.story(job_id) if r["came"] != NAMES]
        assert lost == []
    with capsys.disabled():
        print("", *(f"{where:<30}{count:>4}" for where, count in sorted(killed.items())), f"jobs {jobs}", sep="\n")
    assert killed.total() >= 20


@pytest.mark.verify
def test_masks_that_are_not_opened_in_time_cost_the_round_and_the_next_one_goes_on(
    four: Federation, states: list[State]
) -> None:
    job_id = submit(four, rounds=2)
    agree(four, job_id)
    for name in NAMES[:3]:
        four.go(four.silos(job_id)[name])
    four.overdue(job_id)
    assert four.due(job_id)
    four.go(job_id)
    assert came(four, job_id)[0] == []
    assert all(torch.equal(states[0].factors[n], v) for n, v in states[1].factors.items())
    assert four.run(job_id) == "succeeded"
    assert came(four, job_id)[1] == NAMES
    assert all(four.authorised(each["job_id"]) == 2 for each in silos_of(four, job_id))


@pytest.mark.verify
def test_a_silo_that_leaves_before_it_opens_costs_the_round_at_once(four: Federation) -> None:
    job_id = submit(four, rounds=2)
    agree(four, job_id)
    with four.service.api.begin() as c:
        invitations.withdraw(c, GUEST, four.invited[-1])
    four.go(silos_of(four, job_id)[-1]["job_id"])
    assert four.due(job_id)
    four.go(job_id)
    assert came(four, job_id)[0] == []
    assert four.run(job_id) == "succeeded"
    assert came(four, job_id)[1] == NAMES[:3]


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "lie",
    [
        lambda agreed: {name: agreed[name] for name in NAMES[:2]},
        lambda agreed: {**agreed, "silo-1": "0" * 64},
        lambda agreed: {**agreed, "silo-9": "0" * 64},
        lambda agreed: {**agreed, "silo-1": "no digest"},
    ],
    ids=["two", "another message", "a stranger", "garbage"],
)
def test_a_silo_opens_for_no_list_that_could_give_it_away(four: Federation, lie: Any, caplog: Any) -> None:
    job_id = submit(four, rounds=1)
    agree(four, job_id)
    (now,) = four.story(job_id)
    rewrite(four, job_id, agreed=lie(now["agreed"]))
    silo_job = four.silos(job_id)["silo-1"]
    for _ in range(2):
        four.go(silo_job)
    assert "masks of round 0 stay closed" in caplog.text
    (part,) = four.parts(silo_job)
    assert (part["signature"], part["opening"], four.status(silo_job)) == (None, None, "running")


def test_a_silo_that_signed_one_list_opens_for_no_other_also_after_it_died(four: Federation, caplog: Any) -> None:
    job_id = submit(four, rounds=1)
    agree(four, job_id)
    (now,) = four.story(job_id)
    silos = four.silos(job_id)
    four.go(silos["silo-1"])
    rewrite(four, job_id, agreed={name: now["agreed"][name] for name in NAMES[:3]})
    for name in NAMES[1:3]:
        four.go(silos[name])
    four.go(silos["silo-1"])
    assert "another list was agreed on" in caplog.text
    assert four.parts(silos["silo-1"])[0]["opening"] is None
    four.go(silos["silo-2"])
    assert "silo-1 has not signed the same list" in caplog.text
    assert four.parts(silos["silo-2"])[0]["opening"] is None


def test_a_message_that_was_changed_in_the_store_is_neither_opened_nor_added(four: Federation, caplog: Any) -> None:
    job_id = submit(four, rounds=2)
    agree(four, job_id)
    silo_job = four.silos(job_id)["silo-1"]
    blob = four.parts(silo_job)[0]["blob"]
    put_bytes(four.service.store, blob, get_bytes(four.service.store, blob) + b" ")
    for each in four.silos(job_id).values():
        four.go(each)
    assert "not what was sent" in caplog.text
    four.overdue(job_id)
    four.go(job_id)
    assert came(four, job_id)[0] == []
    assert four.run(job_id) == "succeeded"


def test_keys_that_nobody_can_use_leave_a_silo_out_and_keys_that_are_lost_end_its_part(four: Federation) -> None:
    job_id = submit(four, rounds=2, patience_seconds=1.0)
    silos = four.silos(job_id)
    store = four.service.store
    with four.service.api.connect() as c:
        said = masks.own_keys(c, silos["silo-3"])
    assert said is not None
    with four.service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        low = {"mask_keys": "0" * 128}
        c.execute(sa.update(silo).where(silo.c.job_id == silos["silo-4"]).values(**low))
        c.execute(
            sa.update(job).where(job.c.id == job_id).values(started_at=sa.func.now() - sa.text("interval '1 day'"))
        )
    four.round(job_id, without=("silo-4",))
    four.go(job_id)
    assert four.story(job_id)[0]["silos"] == NAMES[:3]
    assert four.story(job_id)[0]["agreed"].keys() == set(NAMES[:3])
    delete(store, f"jobs/{silos['silo-3']}/checkpoints/masks-{said.fence}.bin")
    four.go(silos["silo-3"])
    assert four.status(silos["silo-3"]) == "failed"  # and charged in full, as whoever fails once it has begun
    four.go(job_id)
    assert came(four, job_id) == [[]]
    assert four.run(job_id) == "failed"  # two and one without keys are too few


def test_a_sum_needs_three_silos(quick: Federation) -> None:
    with pytest.raises(Invalid, match="a round needs 3 silos; there are 2"):
        quick.submit(silos=2, masked=True)


def test_declared_sizes_that_a_sum_has_no_room_for_are_refused_before_they_cost_anything(
    quick: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "MOST_MASKED", 3 * DECLARED - 1)
    with pytest.raises(Invalid, match="the silos declare 1200 units together"):
        quick.submit(masked=True)
    with quick.service.api.connect() as c:
        held = c.scalar(
            sa.select(sa.func.count())
            .select_from(reservation)
            .join(job, job.c.id == reservation.c.job_id)
            .where(job.c.tenant_id == "tenant_a")
        )
    assert held == 0


def silos_of(federation: Federation, job_id: str) -> list[Any]:
    with federation.service.api.connect() as c:
        return list(c.execute(sa.select(silo).where(silo.c.parent_id == job_id).order_by(silo.c.name)).mappings())


def rewrite(federation: Federation, job_id: str, **values: object) -> None:
    """What the round says, as the database's superuser."""
    with federation.service.admin.begin() as c:
        c.execute(sa.text("SET LOCAL session_replication_role = replica"))
        c.execute(sa.update(federated_round).where(federated_round.c.job_id == job_id).values(**values))
