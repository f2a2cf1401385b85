"""What a hostile login writes into a column, by the column's type: each value as an SQL expression, and its kind."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.ledger.hostile_stage import as_json, quoted


class Value(NamedTuple):
    """kind: what is odd about it, for the table of reasons. sql: the expression."""

    kind: str
    sql: str


ALWAYS = [Value("null", "NULL"), Value("default", "DEFAULT")]
LONG = 100_000

TEXTS = [
    Value("empty", "''"),
    Value("long", f"repeat('x', {LONG})"),
    Value("long", "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) AS i)"),  # nothing to compress
    Value("control characters", r"E'a\x01\b\r\n\t\x7f\u200b\u202e<script>\'\";--\x1b[2J'"),
    Value("a number", "'1e3'"),
    Value("nobody's id", "'nothing_of_this_name'"),
]
OTHERS = {
    "tenant": "tenant_b",
    "budget": "budget_b",
    "file": "file_b",
    "result": "result_b",
    "job": "job_b_running",
    "key": "key_b",
    "grant": "grant_b",
    "reservation": "resv_b_running",
    "invitation": "invitation_b",
}
"""Things of the other tenant."""
OWN = {
    "budget": "budget_a_spare",
    "file": "eval_a",
    "job": "job_a_done",
    "key": "analyst_a",
    "reservation": "resv_a_done",
}
"""Things of the same tenant that a row need not be about."""
TEXTS += [Value(f"another's {what}", quoted(id)) for what, id in OTHERS.items()]
TEXTS += [Value(f"own {what}", quoted(id)) for what, id in OWN.items()]

_DIGITS = "0." + "0" * 900 + "1" + "7" * 99
NUMBERS = [
    Value("zero", "0"),
    Value("negative", "-1"),
    Value("one", "1"),
    Value("a fraction", "0.5"),
    Value("huge", "2147483647"),
    Value("huge", "2147483648"),
    Value("huge", "9223372036854775807"),
    Value("huge", "9223372036854775808"),
    Value("huge", "-9223372036854775808"),
]
FLOATS = [
    *NUMBERS,
    Value("nan", "'NaN'"),
    Value("infinite", "'Infinity'"),
    Value("infinite", "'-Infinity'"),
    Value("huge", "1e308"),
    Value("tiny", "1e-300"),
    Value("tiny", "5e-324"),
    Value("tiny", "-1e-300"),
]
NUMERICS = [
    *FLOATS,
    Value("tiny", "1e-1000"),
    Value("tiny", _DIGITS),
    Value("digits", "0.000011" + "7" * 990),
    Value("digits", "5." + "3" * 1000),
    Value("digits", "99" + "9" * 1000),
    Value("digits", "0." + "9" * 1000),
    Value("huge", "1e131000"),
    Value("limit", "1e-6"),
    Value("limit", "1e-30"),
    Value("limit", "100"),
    Value("limit", "100.000001"),
]
BOOLEANS = [Value("true", "true"), Value("false", "false")]
TIMES = [
    Value("infinite", "'infinity'"),
    Value("infinite", "'-infinity'"),
    Value("year 1", "'0001-01-01 00:00:00+00'"),
    Value("year 1", "'4713-01-01 00:00:00+00 BC'"),
    Value("year 200000", "'200000-01-01 00:00:00+00'"),
    Value("limit", "'1999-12-31 23:59:59.999999+00'"),
    Value("past", "'2001-01-01 00:00:00+00'"),
    Value("future", "'8999-12-31 23:59:59.999999+00'"),
    Value("limit", "'9000-01-01 00:00:00+00'"),
    Value("now", "clock_timestamp()"),
    Value("soon", "clock_timestamp() + interval '9 minutes'"),
]
BYTES = [
    Value("empty", r"'\x'"),
    Value("31 bytes", "substring(sha256('31') FOR 31)"),
    Value("32 bytes", "sha256('32')"),
    Value("33 bytes", r"sha256('33') || '\x00'"),
    Value("long", f"decode(repeat('00', {LONG}), 'hex')"),
]


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


JSON = [
    Value("json null", "'null'"),
    Value("a scalar", "'1'"),
    Value("a scalar", "'true'"),
    Value("a scalar", "'\"text\"'"),
    Value("an array", "'[]'"),
    Value("an array", "'[{}]'"),
    Value("an empty object", "'{}'"),
    Value("unknown keys", '\'{"unknown": 1, "": null}\''),
    Value("deep", quoted(f'{{"deep": {deep(31)}}}')),
    Value("deep", quoted(f'{{"deep": {deep(1500)}}}')),
    Value("deep", quoted(deep(5000))),
    Value("huge", "'{\"n\": 1e400}'"),
    Value("huge", "'{\"n\": 1e5000}'"),
    Value("huge", "'{\"n\": -1e131000}'"),
    Value("long", f"jsonb_build_object('n', repeat('x', {LONG}))"),
]
_INNER: list[tuple[str, Any]] = [
    ("null", None),
    ("a scalar", True),
    ("zero", 0),
    ("negative", -1),
    ("a fraction", 0.1),
    ("a fraction", 1.5),
    ("a number", 7),
    ("huge", 10**400),
    ("huge", 2**63),
    ("tiny", 1e-320),
    ("text", "0x10"),
    ("text", "1_000"),
    ("text", " 0.5 "),
    ("text", "NaN"),
    ("text", "Infinity"),
    ("text", "-1"),
    ("text", "1e1000"),
    ("text", "1e-1000"),
    ("text", "\u0661"),
    ("empty", ""),
    ("another's", "budget_b"),
    ("another's", "key_b"),
    ("another's", "grant_b"),
    ("an array", ["x"]),
    ("an empty object", {}),
]
_FEW: list[tuple[str, Any]] = [
    ("null", None),
    ("negative", -1),
    ("huge", 10**400),
    ("text", "NaN"),
    ("an array", ["x"]),
]


def json_values(valid: Any) -> Iterator[Value]:
    """Besides `JSON`: the known keys of a valid object, each with other things in it, or left out."""
    yield from JSON
    paths = list(_paths(valid))
    for path in paths:
        name = ".".join(path)
        yield Value(f"{name} is left out", as_json(_with(valid, path, None, leave_out=True)))
        for kind, inner in _INNER if len(paths) < 6 else _FEW:
            yield Value(f"{name}: {kind}", as_json(_with(valid, path, inner)))
        yield Value(f"{name}: tiny", quoted(_marked(valid, path, "1e-1000")))


def _paths(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from _paths(inner, (*at, key))


def _with(value: Any, path: tuple[str, ...], new: Any, *, leave_out: bool = False) -> Any:
    if not path:
        return new
    first, *rest = path
    if leave_out and not rest:
        return {k: v for k, v in value.items() if k != first}
    return {k: _with(v, tuple(rest), new, leave_out=leave_out) if k == first else v for k, v in value.items()}


def _marked(value: Any, path: tuple[str, ...], number: str) -> str:
    """As JSON text, with a number that Python does not write."""
    return json.dumps(_with(value, path, "@")).replace('"@"', number)


def array_values(items: list[str], odd: str) -> Iterator[Value]:
    """Other writings of a list, and other lists. odd: an element that does not belong in one."""

    def written(*elements: str) -> str:
        return "{" + ",".join(elements) + "}"

    n, whole = len(items), written(*items)
    yield Value("empty", "'{}'")
    yield Value("other bounds", quoted(f"[0:{n - 1}]={whole}"))
    yield Value("other bounds", quoted(f"[2:{n + 1}]={whole}"))
    yield Value("other bounds", quoted(f"[-2147483648:{-2147483648 + n - 1}]={whole}"))
    yield Value("two dimensions", quoted(written(whole)))
    yield Value("two dimensions", quoted(written(*(written(i) for i in items))))
    yield Value("two dimensions", quoted(f"[0:0][5:{n + 4}]={written(whole)}"))
    yield Value("a null inside", quoted(written(*items[:-1], "NULL")))
    yield Value("a null inside", quoted(written("NULL", *items)))
    yield Value("only nulls", quoted(written(*["NULL"] * n)))
    yield Value("too short", quoted(written(*items[:-1])))
    yield Value("one too many", quoted(written(*items, items[-1])))
    yield Value("65 elements", f"array_fill({quoted(items[0])}::text, ARRAY[65])::text[]::{{type}}")
    yield Value("65 elements", "(SELECT array_agg((i + 1)::text) FROM generate_series(1, 65) AS i)::text[]::{type}")
    yield Value("duplicates", quoted(written(*[items[0]] * n)))
    yield Value("unsorted", quoted(written(*reversed(items))))
    yield Value("another element", quoted(written(odd, *items[1:])))
    yield Value("another element", quoted(written(*items[:-1], odd)))
    yield Value("huge", quoted(written("2147483647", *items[1:])))
    yield Value("huge", quoted(written("9223372036854775807", *items[1:])))
    yield Value("zero", quoted(written("0", *items[1:])))
    yield Value("negative", quoted(written("-1", *items[1:])))
    yield Value("negative", quoted(written("-2147483648", *items[1:-1], items[-1])))


BY_TYPE = {
    "text": TEXTS,
    "bigint": NUMBERS,
    "integer": NUMBERS,
    "smallint": NUMBERS,
    "double precision": FLOATS,
    "numeric": NUMERICS,
    "boolean": BOOLEANS,
    "timestamp with time zone": TIMES,
    "bytea": BYTES,
}
ARRAYS = {"ledger.order_list": "1", "ledger.weights": "13", "public.words": "admin"}
"""Element that does not belong in a list of each type."""


def values(type_: str, valid: str) -> Iterator[Value]:
    """What is tried in a column of this type whose valid value is `valid`. Raises KeyError for a type that nobody has
    thought of."""
    yield from ALWAYS
    if type_ == "jsonb":
        yield from json_values({} if valid in ("NULL", "DEFAULT") else json.loads(valid.strip("'").replace("''", "'")))
    elif type_ in ARRAYS:
        items = valid.strip("'{}").split(",") if valid != "NULL" else ["a"]
        for value in array_values(items, ARRAYS[type_]):
            yield Value(value.kind, value.sql.replace("{type}", type_))
    else:
        yield from BY_TYPE[type_]
