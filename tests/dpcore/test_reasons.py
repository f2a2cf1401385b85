"""Words about public files are short, and tell no place of this machine."""

from pathlib import Path

from dpcore.terms.reasons import reason, shown


def test_no_place_of_this_machine_is_told() -> None:
    folder = Path("/srv/my models/tiny")
    error = OSError(f"\n{folder}/config.json differs from /usr/lib/mine.py\nand more")
    assert reason(error, folder) == "the folder/config.json differs from mine.py"
    assert reason(KeyError(), folder) == "KeyError"


def test_words_are_one_line_that_ends() -> None:
    assert shown("a\n b") == "a b"
    assert len(shown("a" * 999)) == 500
