"""All that commands write: text and tables. What people named is text in them, whatever characters it has.

Streams whose encoding lacks a character of ours get ASCII instead: see :func:`~proxycoop.text.fallback_errors`.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..text import fallback_errors, printable

WIDTH = 150
"""Width of tables, in letters, where standard output is no terminal."""


def prepare_streams() -> None:
    """Let standard output and standard error write any text in their encoding. Standard output is line-buffered no less than before."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=fallback_errors())


def say(text: str) -> None:
    """Write text to standard output, as it is, but for characters that would command the terminal: they are escaped."""
    sys.stdout.write(printable(text))


def complain(text: str) -> None:
    """Write text to standard error, as :func:`say` does to standard output."""
    sys.stderr.write(printable(text))


def console() -> Console:
    """Standard output. Where it is not a terminal, it is wide enough for every table."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def table_of(*titles: str) -> Table:
    """A table whose cells are broken over lines and never cut. Those of the first column, which names the row, stay on one line."""
    made = Table()
    for i, title in enumerate(titles):
        made.add_column(title, overflow="fold", no_wrap=i == 0)
    return made


def add_row(to: Table, *cells: str) -> None:
    """Add a row of text; nothing in it is read as markup."""
    to.add_row(*(Text(printable(cell)) for cell in cells))


def show(drawn: Table, spare: Sequence[str] = ()) -> None:
    """Print a table. No word in it is cut.

    Args:
        drawn: The table.
        spare: Titles of columns that a narrow terminal can do without, the first of them first. A line below says which were left out.
            Where the table is still too wide, its lines run on.
    """
    screen = console()
    wide = screen.options.update(max_width=100_000)
    left_out = []
    for title in spare:
        if Measurement.get(screen, wide, drawn).minimum <= screen.width:
            break
        drawn.columns = [column for column in drawn.columns if column.header != title]
        left_out.append(title)
    screen.width = max(screen.width, Measurement.get(screen, wide, drawn).minimum)
    screen.print(drawn)
    if left_out:
        say(f"a wider terminal, or a file, also gets: {', '.join(title.replace(chr(10), ' ') for title in left_out)}\n")
