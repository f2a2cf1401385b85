"""Whose id is whose: ids are compared as what they mean, whatever program wrote them.

To take two people for one is the safe direction: they then share one bound on what they contribute. To take one for two
is not, so what may be a number is read as one.
"""

import re
import unicodedata
from decimal import Decimal
from typing import Any

from domain.ingest.normal import visible
from domain.ingest.values import is_text

LONGEST = 1000
"""Characters of an id."""
EXACT = 2**53
"""From here on a float may stand for several whole numbers."""
MOST_DIGITS = 60
_AROUND = re.compile(r"^[\s'\"#=+\u2116]+|[\s'\"]+$")
_EXPONENT = re.compile(r"(-?\d+(?:[.,]\d*)?)e([+-]?\d{1,3})")
_GROUPED = re.compile(r"(-?[1-9]\d{0,2}(?:([.,' _])\d{3})(?:\2\d{3})*|-?[1-9]\d{0,2}(?:,\d{2})+,\d{3})(?:[.,](\d+))?")
_PLAIN = re.compile(r"(-?\d+)(?:[.,](\d*))?")
_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)[ t]00:00(?::00(?:\.0+)?)?(?:z|[+-]00:?00)?")
_UUID = re.compile(r"\{?(?:urn:uuid:)?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?")
_DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
_QUOTES = re.compile("[\u2018\u2019\u201a\u201b\u201c\u201d\u2032\uff07]")


def spelled(value: Any) -> str | None:
    """An id as text: whole numbers are written out, anything else but a short text is None, and so is a float that may
    stand for several whole numbers."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        if (digits := getattr(value, "digits", None)) is None and not abs(value) < EXACT:
            return None
        value = Decimal(digits or value)
    if isinstance(value, int | Decimal):
        text = _plain(Decimal(value))
        return text if text is not None and "." not in text else None
    return value if is_text(value) and len(value) <= LONGEST else None


def canonical(id: str) -> str:
    """The one writing of all ids that mean the same: 4711, 0004711, 4711.0, 4,711, 4.711e3 are one; so are texts that
    differ in case, width, invisible characters, kinds of dashes or runs of white space. Without a letter or digit: as
    it is."""
    seen = _QUOTES.sub("'", _DASHES.sub("-", visible(_digits(id))))
    bare = _AROUND.sub("", "".join(c for c in seen if unicodedata.category(c) != "Sc"))
    if (number := _number(bare)) is not None:
        return number
    if (uuid := _UUID.fullmatch(bare)) is not None:
        return "-".join(uuid.groups())
    if (day := _MIDNIGHT.fullmatch(bare)) is not None:
        return day[1]
    return bare or seen or id


def _number(text: str) -> str | None:
    if (found := _EXPONENT.fullmatch(text)) is not None and abs(int(found[2])) <= MOST_DIGITS:
        return _plain(Decimal(found[1].replace(",", ".")).scaleb(int(found[2])))
    if (found := _GROUPED.fullmatch(text)) is not None:
        whole = re.sub(r"[^\d-]", "", found[1])
        return _plain(Decimal(f"{whole}.{found[3] or 0}"))
    if (found := _PLAIN.fullmatch(text)) is not None:
        return _plain(Decimal(f"{found[1]}.{found[2] or 0}"))
    return None


def _plain(number: Decimal) -> str | None:
    """Without leading and trailing zeros, and without an exponent; None for what is no number or has no end."""
    if not number.is_finite() or number.adjusted() > LONGEST or -number.adjusted() > LONGEST:
        return None
    whole, _, fraction = f"{number:f}".partition(".")
    sign, whole, fraction = "-" if whole.startswith("-") else "", whole.lstrip("-0"), fraction.rstrip("0")
    text = (whole or "0") + ("." + fraction if fraction else "")
    return text if text == "0" else sign + text


def _digits(text: str) -> str:
    """Decimal digits of any script as those of ASCII."""
    if text.isascii():
        return text
    return "".join(str(d) if (d := unicodedata.decimal(c, None)) is not None else c for c in text)
