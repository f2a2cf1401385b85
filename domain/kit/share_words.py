"""Shares of a budget as people write and read them: a part, 0.25, or in percent, 25 %."""

import re
from decimal import Decimal
from fractions import Fraction

from dpcore.terms.accounting import SHARE_DIGITS

WHOLE = 10_000
"""100 %, in hundredths of a percent."""
_WORDS = {
    Fraction(1): "all",
    Fraction(3, 4): "three quarters",
    Fraction(2, 3): "two thirds",
    Fraction(1, 2): "half",
    Fraction(1, 3): "a third",
    Fraction(1, 4): "a quarter",
    Fraction(1, 5): "a fifth",
    Fraction(1, 6): "a sixth",
    Fraction(1, 8): "an eighth",
    Fraction(1, 10): "a tenth",
    Fraction(1, 20): "a twentieth",
    Fraction(1, 100): "a hundredth",
}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_SHARE = re.compile(r"([0-9]{1,3}|[0-9]{0,3}\.[0-9]{1,40})[ \u00a0]?(%?)")


def share_of(text: str) -> float:
    """The part of the whole that the text stands for, above 0 and at most 1: exactly the decimal that was written.
    Raises ValueError that says what to write."""
    found = _SHARE.fullmatch(text.strip())
    if found is None:
        raise ValueError("a share is written as a part, 0.25, or in percent, 25 %")
    share = Decimal(found[1]) / (100 if found[2] else 1)
    if share <= 0:
        raise ValueError("a share is more than nothing; write a part, 0.25, or percent, 25 %")
    if share > 1:
        percent = f"; for percent write {found[1]} %" if not found[2] and share <= 100 else ""
        raise ValueError(f"a share is at most the whole budget, 1 or 100 %{percent}")
    return float(share)


def written(share: float) -> str:
    """Exactly this share in percent, as `share_of` reads it: 25 %, 12.3456 %."""
    whole = f"{Decimal(str(share)) * 100:f}"
    return f"{whole.rstrip('0').rstrip('.') if '.' in whole else whole} %"


def up(share: float) -> int:
    """Used or asked for, never less than it is."""
    return -(-round(share * SHARE_DIGITS) * WHOLE // SHARE_DIGITS)


def down(share: float) -> int:
    """Still there, never more than it is."""
    return round(share * SHARE_DIGITS) * WHOLE // SHARE_DIGITS


def percent(hundredths: int) -> str:
    """12.34 %, 12.3 %, 12 %."""
    return f"{hundredths / 100:,.2f}".rstrip("0").rstrip(".").replace("-", "−") + " %"


def signed(hundredths: int) -> str:
    """By how much a total moved: +12.5 %, −3 %, 0 %."""
    return ("+" if hundredths > 0 else "") + percent(hundredths)


def in_words(share: float) -> str:
    """A quarter of the budget (25 %); only the percent where there is no plain word for it."""
    shown = percent(up(share))
    near = next((word for part, word in _WORDS.items() if abs(share - part) <= part / 500), None)
    return f"{shown} of the budget" if near is None else f"{near} of the budget ({shown})"


def like_it(jobs: int) -> str:
    """How many jobs like one fit, that one among them."""
    if jobs == 1:
        return "no second one like it fits"
    count = _NUMBERS[jobs] if jobs < len(_NUMBERS) else f"{jobs:,}"
    return f"{count} like it fit"
