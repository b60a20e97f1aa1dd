r"""A comparison's summary as a LaTeX table, for papers. It needs the package ``booktabs``, and prints with pdfLaTeX, XeLaTeX and LuaLaTeX.

Letters that are not on a Western keyboard, such as 漢, need a font that has them, and with pdfLaTeX a package for their script.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ...text import one_line
from .summary import UNDEFINED, Table, cells, columns, wrapped

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "'": r"\textquotesingle{}",
    '"': r"\char34{}",
    "`": r"\textasciigrave{}",
    "-": "{-}",  # two of them would join into a dash
    "…": r"\ldots{}",
    "–": "--",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
_WIDTH = 28
"""Most letters of a line of a row's name."""


def escaped(text: str) -> str:
    """Text as LaTeX prints it literally, on one line."""
    return "".join(_SPECIAL.get(letter, letter) for letter in one_line(text))


def latex(table: Table) -> str:
    r"""The summary as a ``tabular``, without a caption: put it into a ``table`` with ``\input``."""
    described = columns(table)
    lines = [
        f"% {one_line(table.name)}: written by proxycoop report. Needs \\usepackage{{booktabs}}; \\small makes it narrower.",
        f"% {one_line(table.meaning_of_intervals)}",
        *(f"% {column.short}: {column.meaning}" for column in described),
        f"\\begin{{tabular}}{{l{'r' * len(described)}}}",
        r"\toprule",
        " & ".join(["agents", *(_stacked(column.short.split(" "), "[b]{@{}r@{}}") for column in described)]) + r" \\",
    ]
    for learned, rows in groupby(zip(table.rows, cells(table, decimals=0), strict=True), key=lambda one: one[0].learned):
        lines += [r"\midrule", rf"\multicolumn{{{len(described) + 1}}}{{l}}{{\itshape {'learned under' if learned else 'scripted'}}} \\"]
        for row, texts in rows:
            name = _stacked(wrapped(row.name, _WIDTH).split("\n"), "[t]{@{}l@{}}")
            lines.append(" & ".join([name, *map(_number, texts)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _number(text: tuple[str, str]) -> str:
    """A mean and its half-width."""
    mean, half_width = text
    if mean == UNDEFINED:
        return "--"
    return f"${mean.replace('−', '-')}" + (rf" \pm {half_width}$" if half_width else "$")


def _stacked(lines: Sequence[str], how: str) -> str:
    """Lines above each other, in one cell. In braces, so that a bracket at their start is no argument of the row before."""
    texts = [f"{{{escaped(line)}}}" for line in lines]
    return texts[0] if len(texts) == 1 else rf"\begin{{tabular}}{how}" + r" \\ ".join(texts) + r"\end{tabular}"
