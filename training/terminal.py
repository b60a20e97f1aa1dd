"""All that commands write: text and tables. What people named is text in them, whatever characters it has.

Streams whose encoding lacks a character of ours get ASCII instead: see :func:`~proxycoop.text.fallback_errors`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..text import fallback_errors, printable

WIDTH = 150
"""Width of tables, in letters, where standard output is no terminal."""


_failures: list[OSError] = []
_remarks: set[str] = set()


def prepare_streams() -> None:
    """Let standard output and standard error write any text in their encoding. Standard output is line-buffered no less than before.

    Streams that the shell closed (``>&-``) take text and drop it. ``COLUMNS=0``, which some programs set for "unknown", counts as not set.
    """
    _failures.clear()
    _remarks.clear()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (it stays open)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=fallback_errors())
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]


def say(text: str) -> None:
    """Write text to standard output, as it is, but for characters that would command the terminal: they are escaped.

    Where standard output cannot be written any more, text is dropped, so that a command still writes its files: see :func:`finish`.
    """
    _or_drop(lambda: sys.stdout.write(printable(text)))


def finish() -> OSError | None:
    """Write what waits in standard output's buffer, and give the first reason why something could not be written, or ``None``."""
    _or_drop(sys.stdout.flush)  # here, where a failure can still be reported, not when Python ends
    return _failures[0] if _failures else None


def _or_drop(write: Callable[[], object]) -> None:
    """Write to standard output. If that fails, it and all that follows is dropped, and the reason is kept."""
    try:
        write()
    except OSError as error:
        _drop(error)


def _drop(error: OSError) -> None:
    _failures.append(error)
    with suppress(io.UnsupportedOperation):  # the stream is not a file
        # the rest of the buffer cannot be written, and Python would try again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    """Write text to standard error, as :func:`say` does to standard output."""
    sys.stderr.write(printable(text))


def remark(text: str) -> None:
    """Write a line ``note: …`` to standard error about what was given, the same one only once in a command."""
    if text not in _remarks:
        _remarks.add(text)
        complain(f"note: {text}\n")


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        """Go on: by default, rich ends the process, and files that a command has yet to write would be lost."""
        _drop(BrokenPipeError())


def console() -> Console:
    """Standard output. Where it is not a terminal, it is wide enough for every table."""
    return _Screen() if sys.stdout.isatty() else _Screen(width=WIDTH)


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
    _or_drop(lambda: screen.print(drawn))
    if left_out:
        say(f"a wider terminal, or a file, also gets: {', '.join(title.replace(chr(10), ' ') for title in left_out)}\n")
