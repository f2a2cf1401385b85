"""What two texts must share to be the same text, and what a text is made of."""

import re
import unicodedata

_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt)."""
_UNSEEN = re.compile(f"[{_IGNORABLE}]")
# What NFKC would turn into a blank with an accent on it, and what stands for a quote: `, ^, U+00A8, U+00B4 and their
# like.
_SPACING = re.compile(
    "[`^\u00a8\u00af\u00b4\u00b8\u02c2-\u02c5\u02d2-\u02df"
    "\u1fbd\u1fbf-\u1fc1\u1fcd-\u1fcf\u1fdd-\u1fdf\u1fed-\u1fef\u1ffd\u1ffe]"
)
_ASCII_DROPPED = bytes(
    c for c in range(128) if c <= 32 or c == 127 or unicodedata.category(chr(c)) in ("Pc", "Pd", "Ps", "Pe", "Po", "Sk")
)
_DROPPED = ("P", "Z", "C")
_WORD = re.compile(
    "[\u2e80-\u2fff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    "|[^\\W_\u2e80-\u2fff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
"""A run of letters and digits; where words are not divided, a character."""


def normal(text: str) -> str:
    """NFKC, without case, default-ignorable characters, punctuation, white space and controls. May be empty."""
    if text.isascii():
        return text.encode().lower().translate(None, _ASCII_DROPPED).decode()
    return _folded(text).translate(_KEPT)


def words(text: str) -> list[str]:
    """The words of a text in their order, written as `normal` writes."""
    return _WORD.findall(text.lower() if text.isascii() else _folded(text))


def visible(text: str) -> str:
    """NFKC, without case and default-ignorable characters; runs of white space are one blank."""
    return " ".join(_folded(text).split())


def _folded(text: str) -> str:
    seen = _SPACING.sub("", _UNSEEN.sub("", text))
    # Twice: folding may leave what composes again (UAX 15, 'NFKC_Casefold').
    return _UNSEEN.sub("", unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold()))


class _Kept(dict[int, int | None]):
    """For str.translate: what stays stays, the rest goes."""

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        self[code] = None if category[0] in _DROPPED or category == "Sk" else code
        return self[code]


_KEPT = _Kept()
