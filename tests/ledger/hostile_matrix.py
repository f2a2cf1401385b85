"""Every column that a service login may write x every odd value x the forms of a statement: refused by something that
has a name, or accepted, harmless, and in the table of reasons."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from tests.ledger.hostile_attacks import ATTACKS
from tests.ledger.hostile_judge import Judge
from tests.ledger.hostile_recipes import DELETES, INSERTS, UPDATES, Row, words
from tests.ledger.hostile_report import UNKNOWN, Attempt, Outcome, Report
from tests.ledger.hostile_stage import LOGINS, Stage, insert
from tests.ledger.hostile_values import Value, values

FORMS = ("insert", "copy", "merge", "insert of a selection")
"""How a row with an odd value is written."""


Rights = dict[tuple[str, str], dict[str, str]]
"""(login, table) -> column -> its type."""


def rights(stage: Stage, privilege: str) -> Rights:
    """What the catalogue lets the services write, of every table in `ledger` and `public`."""
    found: Rights = {}
    for login, table, column, type_ in stage.root.execute(
        _RIGHTS, {"right": privilege, "logins": list(LOGINS)}
    ).fetchall():
        found.setdefault((login, table), {})[column] = type_
    return found


def deletable(stage: Stage) -> set[tuple[str, str]]:
    rows = stage.root.execute(_DELETES, {"logins": list(LOGINS)}).fetchall()
    return {(login, table) for login, table in rows}


_RELATIONS = """
FROM unnest(%(logins)s::text[]) AS login, pg_class c
WHERE c.relkind IN ('r', 'p', 'v', 'f') AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)"""
_RIGHTS = (
    "SELECT login, c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod)"
    + _RELATIONS.replace(
        "pg_class c\n", "pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped\n"
    )
    + " AND has_column_privilege(login, c.oid, a.attnum, %(right)s) ORDER BY 1, 2, a.attnum"
)
_DELETES = "SELECT login, c.oid::regclass::text" + _RELATIONS + " AND has_table_privilege(login, c.oid, 'DELETE')"


def forgotten(stage: Stage) -> list[str]:
    """Columns and tables that a login may write and nobody has thought of."""
    found = []
    for (login, table), columns in rights(stage, "INSERT").items():
        known = set().union(*(row.columns for row in INSERTS.get((login, table), [])))
        found += [f"{login} may insert {table}.{column}" for column in columns.keys() - known]
    for (login, table), columns in rights(stage, "UPDATE").items():
        known = set().union(*(victim.columns for victim in UPDATES.get((login, table), [])))
        found += [f"{login} may update {table}.{column}" for column in columns.keys() - known]
    return found + [f"{login} may delete from {table}" for login, table in sorted(deletable(stage) - DELETES.keys())]


def valid_rows() -> Iterator[Attempt]:
    """What the recipes say is valid: refused, it would prove nothing."""
    for (login, table), rows in INSERTS.items():
        for row in rows:
            for form in FORMS:
                yield _inserted(login, table, row, row.columns, row.name, "valid", form)


def attempts(stage: Stage, forms: Sequence[str] = FORMS) -> Iterator[Attempt]:
    """All of them, in a fixed order."""
    yield from ATTACKED
    insertable, updatable = rights(stage, "INSERT"), rights(stage, "UPDATE")
    for (login, table), rows in INSERTS.items():
        types = insertable.get((login, table), {})
        for row in rows:
            yield from _conflicts(login, table, row)
            for column in filter(types.__contains__, row.columns):
                for value in [*values(types[column], row.columns[column]), *words(table, column)]:
                    changed = {**row.columns, column: value.sql}
                    for form in forms:
                        if not (value.sql == "DEFAULT" and form == "insert of a selection"):
                            yield _inserted(login, table, row, changed, column, value.kind, form)
    for (login, table), victims in UPDATES.items():
        types = updatable.get((login, table), {})
        for victim in victims:
            for column in filter(types.__contains__, victim.columns):
                for value in [*values(types[column], victim.columns[column]), *words(table, column), _more(column)]:
                    yield _updated(login, table, victim.where, column, value)
    for (login, table), wheres in DELETES.items():
        for where in wheres:
            yield Attempt(login, table, "*", "delete", "delete", (f"DELETE FROM {table} WHERE {where}",))


ATTACKED = [Attempt(login, "-", name, "attack", "attack", tuple(statements)) for login, name, statements in ATTACKS]


def _more(column: str) -> Value:
    """One more than there is, where it is a number."""
    return Value("one more", f"{column} + 1") if column in ("fence", "seconds") else Value("the same", column)


def _inserted(
    login: str, table: str, row: Row, columns: Mapping[str, str], column: str, kind: str, form: str
) -> Attempt:
    before, after = row.before(columns), row.after(columns)
    given = ", ".join(columns.values())
    if form == "copy":
        return Attempt(login, table, column, kind, form, ("; ".join(before), *after), columns, f"{row.name} {given}")
    names = ", ".join(columns)
    statement = {
        "insert": insert(table, columns),
        "merge": f"MERGE INTO {table} USING (SELECT 1) AS s ON false WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({given})",
        "insert of a selection": f"INSERT INTO {table} ({names}) SELECT {given} WHERE true",
    }[form]
    return Attempt(login, table, column, kind, form, (*before, statement, *after), row=f"{row.name} {given}")


def _conflicts(login: str, table: str, row: Row) -> Iterator[Attempt]:
    """The valid row where it is one too many, or none at all."""
    plain, before, after = insert(table, row.columns), row.before(row.columns), row.after(row.columns)
    column = next(iter(row.columns))
    forms = {
        "do nothing": (*before, f"{plain} ON CONFLICT DO NOTHING", *after),
        "do nothing twice": (*before, plain, *after, f"{plain} ON CONFLICT DO NOTHING"),
        "do nothing at once": (*before, f"{plain}, ({', '.join(row.columns.values())}) ON CONFLICT DO NOTHING", *after),
        "do update": (*before, f"{plain} ON CONFLICT ({column}) DO UPDATE SET {column} = EXCLUDED.{column}", *after),
        "twice": (*before, plain, *after, plain),
        "no rows": (
            f"INSERT INTO {table} ({', '.join(row.columns)}) SELECT {', '.join(row.columns.values())} WHERE false",
        ),
        "in a block that fails": (*before, _failing(plain)),
    }
    for form, statements in forms.items():
        yield Attempt(login, table, row.name, "valid", form, statements)


def _failing(statement: str) -> str:
    """What the statement did is undone by an error that is caught."""
    return (
        f"DO $block$ BEGIN {statement}; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $block$"
    )


def _updated(login: str, table: str, where: str, column: str, value: Value) -> Attempt:
    return Attempt(
        login,
        table,
        column,
        value.kind,
        f"update where {where}",
        (f"UPDATE {table} SET {column} = {value.sql} WHERE {where}",),
    )


def attempt(stage: Stage, one: Attempt) -> Outcome:
    """Try, and really commit; answers what came of it. What was accepted stays until it is put back."""
    connection = stage.logins[one.login]
    try:
        if one.copy is None:
            connection.execute("; ".join(one.statements).encode())
        else:
            _copied(connection, one, one.copy)
    except psycopg.Error as error:
        connection.rollback()  # of an attempt that began a block
        return Outcome(one, _by(error))
    return Outcome(one, None, stage.changes())


def _copied(connection: psycopg.Connection[Any], one: Attempt, row: Mapping[str, str]) -> None:
    before, *after = one.statements
    row = {column: expression for column, expression in row.items() if expression != "DEFAULT"}
    # What the values are as text; an expression that is none is refused here already.
    texts = connection.execute(f"SELECT {', '.join(f'({e})::text' for e in row.values())}".encode()).fetchone()
    assert texts is not None
    with connection.transaction(), connection.cursor() as cursor:
        if before:
            cursor.execute(before.encode())
        with cursor.copy(f"COPY {one.table} ({', '.join(row)}) FROM STDIN".encode()) as copy:
            copy.write_row(texts)
        if after:
            cursor.execute("; ".join(after).encode())


_FUNCTION = re.compile(r"PL/pgSQL function (\S+?)\(|SQL function \"(\w+)\"")


def _by(error: psycopg.Error) -> tuple[str, str]:
    """What refused, and its name."""
    state, context = error.sqlstate or "", error.diag.context or ""
    if error.diag.constraint_name:
        return "constraint", error.diag.constraint_name
    if state == "23502":
        return "constraint", f"{error.diag.table_name}.{error.diag.column_name} is not null"
    found = _FUNCTION.search(context)
    if found is not None and "inline_code_block" not in found[0]:
        return "trigger", f"{found[1] or found[2]} {state}"
    if state == "42501":
        return "privilege", error.diag.message_primary or ""
    return ("type" if state[:2] in ("22", "42", "54", "0A") else UNKNOWN), state


def run(stage: Stage, tries: Sequence[Attempt]) -> Report:
    """All attempts, each on the stage as it was."""
    report, judge = Report(), Judge(stage)
    for number, one in enumerate(tries):
        if number % 1000 == 0:
            stage.keep_leases()
        outcome = attempt(stage, one)
        if outcome.refused is None and outcome.changes:
            outcome = judge.judge(outcome)
            stage.put_back(outcome.changes)
        report.add(outcome)
    assert stage.changes() == []
    return report
