"""Makes text from users safe for terminals, tables, pictures and pages, and ours fit for streams whose encoding lacks its characters."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Sequence
from os.path import commonprefix

_JOINERS = "\u200c\u200d"  # the spelling of some scripts needs them, and they move nothing

_HARMLESS = f"\n\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}{_JOINERS}"

_ASCII = {
    "−": "-",
    "–": "-",
    "—": "-",
    "±": "+/-",
    "×": "x",
    "·": "*",
    "•": "*",
    "●": "*",
    "○": "o",
    "■": "#",
    "□": "?",
    "✓": "yes",
    "✗": "no",
    "…": "...",
    "→": "->",
    "←": "<-",
    "↑": "^",
    "↓": "v",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "~",
    "∞": "inf",
    "√": "sqrt",
    "Σ": "sum",
    "∑": "sum",
    "∅": "{}",
    "∈": "in",
    "∪": "|",
    "∩": "&",
    "⌊": "[",
    "⌋": "]",
    "⌈": "[",
    "⌉": "]",
    "∖": "\\",
    "½": "1/2",
    "∂": "d",
    "∇": "grad",
    "∘": "o",
    "⊆": "subset of",
    "∉": "not in",
    "⟨": "<",
    "⟩": ">",
    "‖": "||",
    "°": " deg",
    "′": "'",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "«": '"',
    "»": '"',
    "\N{NO-BREAK SPACE}": " ",
    "\N{NARROW NO-BREAK SPACE}": " ",
    "─": "-",
    "│": "|",
    "├": "|",
    "└": "`",
}
"""What stands for a character of ours where an encoding lacks it. Greek letters are spelt out; 2 above the line is ^2, below it _2."""

_RAISED = {"<super>": "^", "<sub>": "_", "<font>": ""}


def printable(text: str) -> str:
    r"""The text with every character escaped that would not show as itself, such as ``\x1b`` and ``\u202e``. Line breaks and spaces stay.

    Control characters command a terminal. Characters that override the direction of writing show a line in another order than it has.
    """
    return "".join(letter if letter.isprintable() or letter in _HARMLESS else _escaped(letter) for letter in text)


def one_line(text: str) -> str:
    """The text as :func:`printable` shows it, on one line: each line break, tab or unusual space becomes a space."""
    return printable("".join(" " if letter.isspace() else letter for letter in text))


def fallback_errors() -> str:
    """The name of an error handler for encodings: characters of ours become ASCII (``−`` a hyphen, ``±`` a ``+/-``), others are escaped."""
    codecs.register_error("proxycoop", _fallback)
    return "proxycoop"


def encodable(text: str, encoding: str | None) -> str:
    """The text as it can be written in this encoding: see :func:`fallback_errors`. ``None`` is UTF-8."""
    return text.encode(encoding or "utf-8", fallback_errors()).decode(encoding or "utf-8")


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _fallback(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(letter: str) -> str:
    if letter in _ASCII:
        return _ASCII[letter]
    form, _, code = unicodedata.decomposition(letter).partition(" ")
    if form in _RAISED and " " not in code:
        return _RAISED[form] + _in_ascii(chr(int(code, 16)))
    if letter.isascii():
        return letter
    name = unicodedata.name(letter, "")
    if name.startswith("GREEK ") and " LETTER " in name:
        spelt = name.rpartition(" LETTER ")[2].partition(" ")[0]
        return spelt.title() if " CAPITAL " in name else spelt.lower()
    return _escaped(letter)


def shortened(names: Sequence[str], length: int) -> list[str]:
    """Names cut to a length, such that those that differ still differ.

    A name is cut at its end. Names that would then look the same are cut in the middle instead, so that they show their ends, or else the
    place from which on they differ. Where even that is not enough they are numbered.

    Args:
        names: The names, as they stand together in one table or picture.
        length: Characters of each, at most; at least 8.

    Returns:
        One text for each name; the same for the same name.
    """
    distinct = list(dict.fromkeys(names))
    short = {name: name if len(name) <= length else name[: length - 1] + "…" for name in distinct}
    for cut in list(dict.fromkeys(short.values())):
        alike = [name for name in distinct if short[name] == cut]
        if len(alike) == 1:
            continue
        head, rest = length // 3, length - length // 3 - 1
        begin = max(len(commonprefix(alike)) - 2, head)  # noqa: RUF071 (letters, not folders)
        for attempt in (
            [f"{name[:head]}…{name[-rest:]}" for name in alike],
            [f"{name[:head]}…{name[begin : begin + rest]}" for name in alike],
            [f"{name[: length - 1 - len(str(i))]}…{i}" for i, name in enumerate(alike, 1)],
        ):
            others = {short[name] for name in distinct if name not in alike}
            if len(set(attempt)) == len(alike) and not others & set(attempt):
                break
        short |= dict(zip(alike, attempt, strict=True))
    return [short[name] for name in names]
