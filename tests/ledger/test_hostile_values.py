"""A thief with a service's password writes odd values into every column that the login may write: each statement is
refused by something that has a name, or is accepted for a reason that stands in the table of reasons."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.ledger.hostile_matrix import ATTACKED, Attempt, Report, attempt, attempts, forgotten, run, valid_rows
from tests.ledger.hostile_reasons import REASONS
from tests.ledger.hostile_settings import NAMED, Life, every_setting, live
from tests.ledger.hostile_stage import LOGINS, Stage
from tests.regenerate import SCHEMA

EVERY = 251
"""The sample of each run: one attempt of so many, and all attacks."""
PARTS = {
    "api, ledger": ("tacit_api", "ledger.*|-"),
    "api, keys and files": ("tacit_api", "public.[a-f]*"),
    "api, jobs": ("tacit_api", "public.[i-z]*"),
    "worker": ("tacit_worker", "*"),
}
"""The whole matrix in pieces of a few minutes each: a login, and its tables."""


@pytest.fixture(scope="module")
def stage(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = databases.create()
    standing = Stage(made, tmp_path_factory.mktemp("blobs"))
    yield standing
    standing.close()
    databases.drop(made.name)


@pytest.fixture
def loose(databases: Databases, tmp_path: Path) -> Iterator[Stage]:
    """A stage for one test, which takes a guard away from it."""
    made = databases.create()
    standing = Stage(made, tmp_path)
    yield standing
    standing.close()
    databases.drop(made.name)


def show(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(report, *report.wrong[:20], sep="\n")


def test_every_time_that_a_login_may_write_is_one_that_readers_can_read() -> None:
    """Postgres knows years that Python does not."""
    written = SCHEMA.read_text()
    tables = dict(re.findall(r"CREATE TABLE (\w+\.\w+) \((.*?)\n\);", written, re.DOTALL))
    granted = {
        (table, column)
        for rights, table in re.findall(r"GRANT ([^;]*?) ON TABLE (\w+\.\w+) TO tacit_(?:api|worker);", written)
        for column in re.findall(r"(?:INSERT|UPDATE)\((\w+)\)", rights)
    }
    times = {
        (table, column)
        for table, body in tables.items()
        for column in re.findall(r"^\s+(\w+) timestamp with time zone", body, re.MULTILINE)
    }
    assert len(times & granted) > 15
    assert [f"{t}.{c}" for t, c in sorted(times & granted) if f"is_a_time({c})" not in tables[t]] == []


def test_every_column_that_a_login_may_write_is_thought_of(stage: Stage) -> None:
    assert forgotten(stage) == []


def test_a_column_that_nobody_has_thought_of_is_found(loose: Stage) -> None:
    loose.root.execute(
        "ALTER TABLE public.tenant ADD COLUMN odd text; GRANT UPDATE (odd) ON public.tenant TO tacit_api"
    )
    loose.root.execute("GRANT DELETE ON public.job TO tacit_worker")
    assert forgotten(loose) == [
        "tacit_api may update public.tenant.odd",
        "tacit_worker may delete from public.job",
    ]


def test_what_is_valid_is_accepted_in_every_form(stage: Stage) -> None:
    """Refused, it would prove nothing about the odd values."""
    for one in valid_rows():
        outcome = attempt(stage, one)
        assert outcome.refused is None, one
        assert outcome.changes, one
        stage.put_back(outcome.changes)


def within(name: str, tables: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in tables.split("|"))


def of(stage: Stage, login: str, tables: str) -> list[Attempt]:
    """A part of the matrix."""
    return [one for one in attempts(stage) if one.login == login and within(one.table, tables)]


def test_a_sample_of_odd_values_is_refused_or_harmless(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    rest = [one for one in attempts(stage) if one.table != "-"]
    report = run(stage, [*ATTACKED, *rest[::EVERY]])
    show(report, capsys)
    assert report.wrong == []
    for login in LOGINS:
        assert report.refused[login].total() > 0
        assert report.accepted[login].total() > 0


@pytest.mark.verify
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", PARTS)
def test_every_odd_value_is_refused_or_harmless(stage: Stage, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    login, tables = PARTS[part]
    report = run(stage, of(stage, login, tables))
    show(report, capsys)
    assert report.wrong == []
    # A reason that covers nothing any more is no longer true.
    told = {r for r in REASONS if r.login in (login, "*") and within(r.table, tables)}
    assert told - report.used == set()


def test_the_parts_are_the_whole(stage: Stage) -> None:
    parts = [one for login, tables in PARTS.values() for one in of(stage, login, tables)]
    assert len(parts) == len(list(attempts(stage)))


# -- the session's settings


@pytest.fixture(scope="module")
def settled(stage: Stage) -> Life:
    """A tenant whose sessions were as the service's are."""
    return live(stage, ("search_path", "DEFAULT"), "plain")


def require_same(stage: Stage, settings: list[tuple[str, str]], settled: Life) -> list[str]:
    """Lives under each setting are as the plain one, or refused whole. Answers what was refused."""
    refused = []
    for number, setting in enumerate(settings):
        life = live(stage, setting, f"set_{number}")
        stage.put_back(stage.changes())
        assert life.findings == [], life
        if life.refused is None:
            assert life.numbers == settled.numbers, life.setting
        else:
            refused.append(f"{life.setting}: {life.refused[:5]}")
    return refused


NOT_TAKEN = {"22023", "25006", "TC011"}
"""No value of the setting, a session that reads only, and a snapshot under which the ledger is not written."""


def test_what_a_login_sets_for_its_session_changes_nothing(stage: Stage, settled: Life) -> None:
    assert settled.refused is None
    assert require_same(stage, NAMED, settled) == [
        "default_transaction_read_only = 'on': 25006",
        "default_transaction_isolation = 'serializable': TC011",
        "default_transaction_isolation = 'repeatable read': TC011",
    ]


@pytest.mark.verify
@pytest.mark.timeout(1800)
def test_no_setting_that_the_server_knows_changes_anything(
    stage: Stage, settled: Life, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = list(every_setting(stage))
    refused = require_same(stage, settings, settled)
    with capsys.disabled():
        print(f"\n{len(settings)} settings; refused {len(refused)}:", *refused, sep="\n  ")
    assert {line[-5:] for line in refused} <= NOT_TAKEN


# -- the matrix itself can fail

LOOSE: dict[str, tuple[str, tuple[str, str, str], str]] = {
    "a CHECK": (
        "ALTER TABLE ledger.budget DROP CONSTRAINT weights_sum_to_one",
        ("tacit_api", "ledger.budget", "weight_numerators"),
        "another element",
    ),
    "a shape": (
        "ALTER DOMAIN ledger.weights DROP CONSTRAINT a_plain_list",
        ("tacit_api", "ledger.budget", "weight_numerators"),
        "other bounds",
    ),
    "a trigger": (
        "DROP TRIGGER authorise ON ledger.authorisation",
        ("tacit_worker", "ledger.authorisation", "steps"),
        "huge",
    ),
    "what Python can read": (
        "ALTER TABLE public.job_event DROP CONSTRAINT job_event_json",
        ("tacit_api", "public.job_event", "data"),
        "huge",
    ),
    "a name of a blob": (
        "ALTER TABLE public.checkpoint DROP CONSTRAINT a_checkpoint_lies_in_a_blob, DROP CONSTRAINT a_checkpoint_is_of_its_job",
        ("tacit_worker", "public.checkpoint", "blob"),
        "empty",
    ),
}
"""A guard, where its lack shows, and which kind of value is accepted then."""


@pytest.mark.parametrize("guard", LOOSE)
def test_a_guard_that_is_missing_is_found(loose: Stage, guard: str) -> None:
    change, where, kind = LOOSE[guard]
    tries = [
        one for one in attempts(loose, ["insert"]) if (one.login, one.table, one.column, one.kind) == (*where, kind)
    ]
    before = run(loose, tries)
    assert before.wrong == []
    loose.root.execute(change)
    report = run(loose, tries)
    assert report.wrong != []
    assert report.refused[where[0]].total() < before.refused[where[0]].total()
