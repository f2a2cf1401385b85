"""Files from before records were known by their texts, and a fingerprint key that is lost."""

from collections.abc import Callable
from itertools import count
from threading import enumerate as threads
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from domain.files import resemblance
from domain.files.fingerprints import OtherFingerprintKey, go_on_with, mark_of
from domain.files.recognise import known, recognise_old
from domain.ingest.fingerprint import fingerprint, tenant_key
from domain.kit.settings import secret_bytes
from domain.kit.tables import identity, keeper_watch, sketch
from domain.storage.blobs import open_store
from tests.api.conftest import World, wait_for
from tests.api.test_questions import edited, put
from tests.api.test_variants import INLINE, SAME, outcome, sentences
from tests.superuser import past_triggers

pytestmark = pytest.mark.usefixtures("quick_checks")

SEEDS = count(2000)
NEW_KEY = "5a" * 32


@pytest.fixture(autouse=True)
def started(world: World) -> None:
    wait_for_start()
    wait_for(lambda: verified(world))


def verified(world: World) -> bool:
    """Whether the service's first verification is over: it would freeze what these tests make of a file."""
    with world.engine("api").connect() as c:
        return c.execute(sa.select(keeper_watch).where(keeper_watch.c.duty == "verification")).first() is not None


def wait_for_start() -> None:
    """A service that starts reads old files again on a thread of its own, and a file is read by one at a time."""
    for thread in threads():
        if thread.name == "recognise":
            thread.join()


def as_before(world: World, made: dict[str, Any], texts: list[str]) -> None:
    """As an earlier version left a file: known by whole records, as they were spelled."""
    key = tenant_key(secret_bytes(world.settings.fingerprint_key), "tenant_one")
    with past_triggers(world.database) as c:
        for table in (identity, sketch):
            c.execute(sa.delete(table).where(table.c.file_id == made["id"]))
        c.execute(sa.text("DELETE FROM fingerprint WHERE budget_id = :b"), {"b": made["budget"]})
        c.execute(sa.text("DELETE FROM ledger.population WHERE budget_id = :b"), {"b": made["budget"]})
    with world.engine("api").begin() as c:
        insert = "INSERT INTO fingerprint (tenant_id, kind, mac, budget_id) VALUES ('tenant_one', 'record', :m, :b)"
        c.execute(sa.text(insert), [{"m": fingerprint([text], key), "b": made["budget"]} for text in texts])


@pytest.fixture
def old(world: World) -> tuple[dict[str, Any], list[str]]:
    texts = sentences(next(SEEDS))
    made = put(world, texts)
    as_before(world, made, texts)
    return made, texts


@pytest.fixture
def again(world: World) -> Callable[[], int]:
    def run(key: str | None = None) -> int:
        engine = world.engine("api")
        secret = secret_bytes(world.settings.fingerprint_key) if key is None else bytes.fromhex(key)
        return recognise_old(engine, open_store(world.settings, engine), secret)

    return run


def state(world: World, budget: str) -> list[tuple[str, bool, int]]:
    with world.engine("api").connect() as c:
        found = known(c, budget, secret_bytes(world.settings.fingerprint_key))
        return [(one.by, one.users, one.elsewhere) for one in found]


def test_an_old_file_is_known_as_it_was_until_it_is_read_again(
    world: World, old: tuple[dict[str, Any], list[str]], again: Callable[[], int]
) -> None:
    made, texts = old
    assert put(world, [text.upper() for text in texts])["budget"] == made["budget"]
    assert state(world, made["budget"])[-1] == ("whole records", False, 0)
    before = world.get(f"/v1/budgets/{made['budget']}", "steward").json()["ledger"]["seq"]
    assert again() == 1
    assert world.get(f"/v1/budgets/{made['budget']}", "steward").json()["ledger"]["seq"] == before + 1
    assert state(world, made["budget"])[-1] == ("texts", True, 0)
    assert again() == 0
    for variant in ("as a completion", "as an answer after a template", "soft hyphens", "full width"):
        assert outcome(world, SAME[variant](texts), made["budget"]) == "same"
    assert put(world, edited(texts))["question"] is not None
    assert world.post(f"/v1/budgets/{made['budget']}/verify", scope="auditor").json()["ok"] is True


def test_whoever_is_killed_while_it_reads_leaves_the_file_as_it_was(
    world: World,
    old: tuple[dict[str, Any], list[str]],
    again: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, texts = old

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resemblance, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert state(world, made["budget"]) == [("whole records", False, 0)]
    with world.engine("api").connect() as c:
        assert c.execute(
            sa.text("SELECT count(*) FROM fingerprint WHERE budget_id = :b"), {"b": made["budget"]}
        ).scalar_one() == len(texts)
    assert again() == 1
    assert state(world, made["budget"]) == [("texts", True, 0)]


def test_what_two_old_budgets_share_is_counted_and_stays_where_it_was(
    world: World, old: tuple[dict[str, Any], list[str]], again: Callable[[], int]
) -> None:
    made, texts = old
    chat = SAME["as a user's message"](texts)
    with past_triggers(world.database) as c:
        c.execute(sa.text("DELETE FROM fingerprint WHERE budget_id = :b"), {"b": made["budget"]})
    other = world.upload(chat[1], {k: v for k, v in (INLINE | chat[2]).items() if v}, name=chat[0]).json()
    assert other["budget"] != made["budget"]
    before = world.get(f"/v1/budgets/{made['budget']}", "steward").json()["ledger"]["seq"]
    assert again() == 1
    # One line, as where everything is new: the length of the chain tells nothing.
    assert world.get(f"/v1/budgets/{made['budget']}", "steward").json()["ledger"]["seq"] == before + 1
    assert state(world, made["budget"]) == [("texts", True, len(texts))]


def test_rows_that_are_gone_are_said_to_be_known_as_before(
    world: World, old: tuple[dict[str, Any], list[str]], again: Callable[[], int]
) -> None:
    made, texts = old
    world.call("DELETE", f"/v1/files/{made['id']}", "steward")
    assert again() == 0
    assert state(world, made["budget"]) == [("whole records", False, 0)]
    assert put(world, texts)["budget"] == made["budget"]
    shown = world.get(f"/v1/budgets/{made['budget']}/recognition", "steward").json()["data"]
    assert [(one["id"], one["by"]) for one in shown][-1] == (made["id"], "whole records")
    assert world.get(f"/v1/budgets/{made['budget']}/recognition", "analyst").status_code == 403


def test_a_lost_key_is_replaced_by_the_operator_alone_and_what_then_holds_is_asked(world: World) -> None:
    """The last of this file: the key of its database changes."""
    texts, gone = sentences(next(SEEDS)), sentences(next(SEEDS))
    kept, deleted = put(world, texts), put(world, gone)
    world.call("DELETE", f"/v1/files/{deleted['id']}", "steward")
    changed = world.settings.model_copy(update={"fingerprint_key": SecretStr(NEW_KEY)})
    with pytest.raises(OtherFingerprintKey, match="new-fingerprint-key"), TestClient(create_app(changed)):
        pass
    with world.engine("api").begin() as c:
        c.execute(sa.text("INSERT INTO fingerprint_key (mark) VALUES (:m)"), {"m": mark_of(bytes.fromhex(NEW_KEY))})
    with pytest.raises(OtherFingerprintKey), TestClient(create_app(changed)):
        pass  # no service's login can
    with world.engine("admin").begin() as c:
        go_on_with(c, bytes.fromhex(NEW_KEY), "the host burnt down")
    with TestClient(create_app(changed)) as client:
        engine = world.engine("api")
        wait_for_start()
        recognise_old(engine, open_store(changed, engine), bytes.fromhex(NEW_KEY))
        after = World(world.database, changed, client, world.keys)
        assert put(after, texts)["budget"] == kept["budget"]  # read again from its rows
        asked = put(after, sentences(next(SEEDS)))["question"]
        assert {"budget": deleted["budget"], "records": None, "files": []} in asked["budgets"]
        assert kept["budget"] not in [one["budget"] for one in asked["budgets"]]
        assert "key was lost" in asked["message"]
        others = {"answer": "different_population", "reason": "a ward that was never here"}
        made = after.post(f"/v1/files/{asked['id']}/answer", others, "steward").json()
        assert made["budget"] not in (kept["budget"], deleted["budget"])
