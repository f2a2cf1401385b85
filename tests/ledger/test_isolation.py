"""Whatever level and order two sessions choose, the ledger refuses the level or does as if one had come after the other."""

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import sqlalchemy as sa

from tests.conftest import Databases
from tests.ledger.isolation.cases import CASES
from tests.ledger.isolation.matrix import ALL_LEVELS, LEVELS, RC, RR, SR, Cell, Levels, Stage, cells
from tests.ledger.isolation.sessions import Site

FUNCTIONS = sorted({case.function for case in CASES})
DECIDE_NOTHING = {
    "public.result_time": "cuts a time to the minute",
    "ledger.append_only": "refuses whatever comes",
    "ledger.read_committed": "refuses a level, which every cell asks for",
}
HEADER = (
    "The other act commits before (b), has its locks while the decision is sent and commits (h) or rolls back (H), is sent"
    "\nwhile the decision is not committed, which then commits (d) or rolls back (D), comes after (a), or before each"
    "\nstatement of the decision (0, 1, ...). = as serial, r the level was refused, ! wrong."
)


@pytest.fixture
def stage(databases: Databases) -> Iterator[Stage]:
    database = databases.create()
    site = Site(database)
    yield Stage(site)
    site.close()
    databases.drop(database.name)


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest) -> Iterator[list[Cell]]:
    """Every cell of the matrix; printed with what they come to whether or not output is captured."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    found: list[Cell] = []
    yield found
    with capture.global_and_fixture_disabled():
        print("", HEADER, sep="\n")
        show(found)


def show(found: Sequence[Cell]) -> None:
    """A line for each case, the interleavings of each level in one word; then how many there are of what."""
    for case in dict.fromkeys(cell.case for cell in found):
        words: dict[Levels, str] = {}
        for cell in found:
            if cell.case is case:
                words[cell.levels] = words.get(cell.levels, "") + cell.verdict
        print(f"{case!s:<100}", *(f"{w:<{18 if levels == (RC, RC) else 8}}" for levels, w in words.items()))
    of = Counter(cell.verdict for cell in found)
    cases = {cell.case for cell in found}
    print(
        f"functions {len({case.function for case in cases})}, cases {len(cases)}, cells {len(found)}:"
        f" as serial {of['=']}, refused {of['r']}, wrong {of['!']}"
    )


def wrong(found: Sequence[Cell]) -> list[str]:
    return [str(cell) for cell in found if cell.verdict == "!"]


def in_the_sample(levels: Levels, interleaving: str) -> bool:
    return interleaving in ("held, committed", "between 0")


@pytest.mark.slow
def test_of_each_function_the_first_decision_is_serial_or_its_level_refused(stage: Stage) -> None:
    firsts = [next(case for case in CASES if case.function == function) for function in FUNCTIONS]
    found = [cell for case in firsts for cell in cells(stage, case, LEVELS, in_the_sample)]
    print(HEADER)
    show(found)
    assert wrong(found) == []


@pytest.mark.verify
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_decision_is_serial_or_its_level_refused(stage: Stage, whole: list[Cell], function: str) -> None:
    of_function = [case for case in CASES if case.function == function]
    found = [cell for case in of_function for cell in cells(stage, case, ALL_LEVELS, lambda *_: True)]
    whole.extend(found)
    assert wrong(found) == []


def test_no_function_decides_without_a_case(stage: Stage) -> None:
    root = stage.site.root
    functions = root.execute(_DECIDING).scalars().all()
    covered = {function.split()[0] for function in FUNCTIONS}
    assert set(functions) == covered | DECIDE_NOTHING.keys()
    kinds = root.execute(_KINDS).scalars().all()
    assert len(kinds) > 10
    assert set(kinds) <= {function.split()[1] for function in FUNCTIONS if " " in function}
    assert root.execute(_UNGUARDED).scalars().all() == ["alembic_version"]


# The matrix itself can fail.


def change(c: sa.Connection, function: str, line: str, instead: str) -> None:
    body: str = c.execute(_DEFINITION, {"function": function}).scalar_one()
    assert body.count(line) == 1
    c.exec_driver_sql(body.replace(line, instead).replace("%", "%%"))


def loosened(stage: Stage, *changes: tuple[str, str, str]) -> None:
    """Whoever owns the ledger lets every level pass and takes these lines out of functions."""
    with stage.site.engines["root"].begin() as c:
        for table in c.execute(_GUARDED).scalars().all():
            c.exec_driver_sql(f"DROP TRIGGER a_read_committed ON {table}")
        for function, line, instead in changes:
            change(c, function, line, instead)


def verdicts(stage: Stage, function: str, decision: str, other: str) -> dict[tuple[Levels, str], str]:
    (case,) = [
        case for case in CASES if (case.function, case.decision.name, case.other.name) == (function, decision, other)
    ]
    found = list(cells(stage, case, ALL_LEVELS, in_the_sample))
    show(found)
    print(*wrong(found), sep="\n")
    return {(cell.levels, cell.interleaving): cell.verdict for cell in found}


STALE = [(levels, moment) for levels in ((RR, RC), (SR, RC), (RR, RR)) for moment in ("held, committed", "between 0")]
"""Where the decision's snapshot is older than what the other act committed."""
SETTLEMENT = "ledger.post settle", "settle as succeeded under fence 1", "authorise 10 steps"
BINDING = "ledger.one_population", "bind 1, 2 to a", "bind 2, 3 to b"
SEALING = "ledger.attest_records", "records", "bind 1 to a and seal at once"


def test_a_settlement_from_an_old_snapshot_is_found(stage: Stage) -> None:
    """Neither the level asked for nor the steps locked: what was authorised meanwhile costs nothing."""
    loosened(stage, ("ledger.post()", "PERFORM FROM ledger.phase p", "PERFORM FROM ledger.phase p WHERE false; --"))
    found = verdicts(stage, *SETTLEMENT)
    assert [where for where, verdict in found.items() if verdict == "!"] == STALE


def test_one_person_in_two_budgets_is_found(stage: Stage) -> None:
    loosened(
        stage,
        (
            "ledger.lock_population(text)",
            "NOT IN ('read committed',",
            "NOT IN ('read committed', 'repeatable read', 'serializable',",
        ),
    )
    found = verdicts(stage, *BINDING)
    assert [where for where, verdict in found.items() if verdict == "!"] == STALE


def test_a_seal_over_what_was_there_before_the_lock_is_found(stage: Stage) -> None:
    """At the level that everybody has: the digest is taken first, and the budget locked after it."""
    lock = "PERFORM FROM ledger.budget b WHERE b.id = NEW.budget_id FOR NO KEY UPDATE;"
    with stage.site.engines["root"].begin() as c:
        change(c, "ledger.attest_records()", lock, "")
    found = verdicts(stage, *SEALING)
    assert [where for where, verdict in found.items() if verdict == "!"] == [((RC, RC), "held, committed")]


def test_a_settlement_and_a_binding_refuse_an_old_snapshot_by_themselves(stage: Stage) -> None:
    """The second defence, behind the one that asks every statement for its level."""
    loosened(stage)
    for case in (SETTLEMENT, BINDING):
        found = verdicts(stage, *case)
        assert {found[where] for where in STALE} == {"r"}
        assert "!" not in found.values()


_DECIDING = sa.text(
    "SELECT DISTINCT n.nspname || '.' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
    " WHERE n.nspname IN ('ledger', 'public') AND (p.prosecdef OR p.prorettype = 'trigger'::regtype)"
)
_KINDS = sa.text(
    "SELECT m[1] FROM pg_constraint, regexp_matches(pg_get_constraintdef(oid), '''([a-z]+)''', 'g') AS m"
    " WHERE conname = 'entry_kind' AND conrelid = 'ledger.entry'::regclass"
)
_GUARDED = sa.text(
    "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'a_read_committed' AND tgenabled = 'O'"
)
_UNGUARDED = sa.text(
    "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)"
    f" AND oid::regclass::text NOT IN ({_GUARDED.text})"
)
_DEFINITION = sa.text("SELECT pg_get_functiondef(CAST(:function AS regprocedure))")
