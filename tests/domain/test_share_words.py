"""Shares as people write and read them."""

import random
from fractions import Fraction

import pytest

from api.dashboard.shares import apart
from domain.kit.share_words import WHOLE, down, in_words, like_it, percent, share_of, up, written


@pytest.mark.parametrize("text", ["25 %", "25%", "0.25", " .25 ", "25.0 %", "25\u00a0%", "0025 %".removeprefix("0")])
def test_percent_and_part_are_the_same(text: str) -> None:
    assert share_of(text) == 0.25


@pytest.mark.parametrize(
    "text", ["", "0", "0 %", "-1 %", "1.5", "101 %", "25", "NaN", "inf", "1e-1", "a quarter", "1/4"]
)
def test_what_is_no_share_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=" %"):
        share_of(text)


def test_a_share_is_read_as_it_is_written() -> None:
    draws = random.Random(1)
    for _ in range(500):
        share = draws.choice([draws.random(), draws.random() / 1e6, round(draws.random(), 6), 1.0])
        assert share_of(written(share)) == share


def test_rounding_never_shows_less_used_or_more_left() -> None:
    draws = random.Random(2)
    for _ in range(500):
        share = round(draws.random(), 6)
        assert down(share) <= share * WHOLE + 1e-6
        assert up(share) >= share * WHOLE - 1e-6
        assert up(share) + down(round(1 - share, 6)) == WHOLE
        amounts = [Fraction(draws.randint(0, 999), 10**4) for _ in range(draws.randint(1, 9))]
        total = -(-sum(amounts) * WHOLE // 1)
        assert sum(shown := apart(int(total), amounts)) == total
        assert all(abs(part - amount * WHOLE) < 1 for part, amount in zip(shown, amounts, strict=True))


def test_a_share_is_told_in_plain_words() -> None:
    assert in_words(0.25) == "a quarter of the budget (25 %)"
    assert in_words(0.249999) == "a quarter of the budget (25 %)"
    assert in_words(0.2371) == "23.71 % of the budget"
    assert (like_it(4), like_it(1)) == ("four like it fit", "no second one like it fits")
    assert percent(-50) == "\u22120.5 %"
