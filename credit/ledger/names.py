"""Names that people give to cooperatives, members and payments: which are allowed, and how errors show them."""

from __future__ import annotations

import unicodedata

LONGEST = 200
"""Characters in a name, at most."""

_SHOWN = 60
_JOINERS = "\u200c\u200d"
_JOINING = {"ARABIC", "SYRIAC", "MONGOLIAN", "TIBETAN", "MYANMAR", "KHMER", "SINHALA", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI"}
_JOINING |= {"ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM"}  # scripts that cannot be spelt without joiners
_BLANK = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)}
_BLANK |= set(range(0xE0100, 0xE01F0))  # letters, marks and selectors that show nothing
_REFUSED = {
    "Cc": "a control character",
    "Cf": "an invisible formatting character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
    "Cs": "half of a surrogate pair",
    "Co": "a private-use character",
    "Cn": "an unassigned character",
}


def checked_name(kind: str, name: object) -> str:
    """A name in Unicode's composed form (NFC), if it can be stored, compared and printed safely.

    Letters of all scripts, quotes, ``<``, ``&`` and spaces inside are fine. Two names that look alike may still differ (Latin a and
    Cyrillic а): nobody is protected from that.

    Args:
        kind: What it names, in words, for the message.
        name: What came.

    Raises:
        ValueError: If it is not text, is empty or longer than 200 characters, has a space at an end, begins with ``=``, ``+``, ``-`` or
            ``@`` (a spreadsheet would read a formula), or has characters that do not print.
    """
    if not isinstance(name, str):
        raise ValueError(f"{kind} {shown(name)}: must be text, not {type(name).__name__}")
    text = unicodedata.normalize("NFC", name)
    if not 1 <= len(text) <= LONGEST:
        raise ValueError(f"{kind} {shown(name)} has {len(text):,} characters: must have 1 to {LONGEST}")
    for i, letter in enumerate(text):
        refused = "a character that shows nothing" if ord(letter) in _BLANK else _REFUSED.get(unicodedata.category(letter))
        if refused and not (letter in _JOINERS and _joins(text[i - 1 : i], text[i + 1 : i + 2])):
            raise ValueError(f"{kind} {shown(name)} has {refused}, U+{ord(letter):04X}: leave it out")
    if text != text.strip():
        raise ValueError(f"{kind} {shown(name)} begins or ends with a space: leave it out")
    if unicodedata.normalize("NFKC", text[0])[0] in "=+-@":  # full-width ones too
        raise ValueError(
            f"{kind} {shown(name)} begins with {text[0]!r}, which a spreadsheet would read as a formula: begin with another character"
        )
    return text


def _joins(before: str, after: str) -> bool:
    """Whether a joiner between two characters has an effect: within words of scripts that need it, and in composed pictures."""
    if not before or not after or after in _JOINERS:
        return False
    return unicodedata.category(before) == "So" or unicodedata.name(before, " ").split(" ")[0] in _JOINING


def shown(name: object) -> str:
    """A caller's value for an error message: in quotes, escaped, and no longer than 60 characters."""
    text = repr(name[: _SHOWN + 1] if isinstance(name, str) else name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
