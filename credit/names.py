"""Names that people give to cooperatives, members and payments: what is allowed, and how an error shows one."""

from __future__ import annotations

import unicodedata

LONGEST = 200
"""Characters in a name, at most."""

_SHOWN = 60
_JOINERS = "\u200c\u200d"  # Persian, Hindi and others cannot be spelt without them
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
    """A name in Unicode's composed form (NFC), if it is one that can be stored, compared and printed safely.

    Letters of all scripts, quotes, ``<``, ``&`` and spaces inside are fine. Two names that look alike may still differ (Latin a and
    Cyrillic а): nobody is protected from that.

    Args:
        kind: What it names, in words, for the message.
        name: What came.

    Raises:
        ValueError: If it is no text, is empty or longer than 200 characters, has a space at an end, begins with ``=``, ``+``, ``-`` or
            ``@`` (a spreadsheet would read a formula), or has characters that do not print.
    """
    if not isinstance(name, str):
        raise ValueError(f"{kind} {shown(name)}: must be text, not {type(name).__name__}")
    text = unicodedata.normalize("NFC", name)
    if not 1 <= len(text) <= LONGEST:
        raise ValueError(f"{kind} {shown(name)} has {len(text):,} characters: must have 1 to {LONGEST}")
    for letter in text:
        category = unicodedata.category(letter)
        if category in _REFUSED and letter not in _JOINERS:
            raise ValueError(f"{kind} {shown(name)} has {_REFUSED[category]}, U+{ord(letter):04X}: leave it out")
    if text != text.strip():
        raise ValueError(f"{kind} {shown(name)} begins or ends with a space: leave it out")
    if text[0] in "=+-@":
        raise ValueError(
            f"{kind} {shown(name)} begins with {text[0]!r}, which a spreadsheet would read as a formula: begin with another character"
        )
    return text


def shown(name: object) -> str:
    """Something that a caller gave, for an error message: in quotes, escaped, and no longer than 60 characters."""
    text = repr(name[: _SHOWN + 1] if isinstance(name, str) else name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
