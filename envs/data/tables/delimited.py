"""Tables as text: CSV and its kin, in UTF-8, with a header.

The parser is Python's own, and strict: a row with too few or too many fields, or a quote that is not closed, is refused with its line.
A column holds numbers if all its entries do. Columns are put together piece by piece, so that memory holds the numbers and not their text.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Column, numbers_in, require_names
from .digests import opened
from .settings import TableFile

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_HEAD = 2**16  # bytes from which the delimiter is guessed
_LONGEST_LINE = 2**26
_CELLS = 200_000  # of a piece that is converted at once
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_GZIP, _ZIP, _PARQUET = b"\x1f\x8b", b"PK\x03\x04", b"PAR1"


def scan_csv(paths: list[Path], file: TableFile) -> tuple[list[Column], list[str]]:
    """The columns of a table of text, and what was guessed.

    Raises:
        ValueError: If it is no such table. The message names the line.
    """
    (path,) = paths
    what = f"data file {file.name!r}"
    delimiter, told = _delimiter(path, what, file)
    words = file.words()
    while True:  # at most twice: a column may turn out to hold words when its numbers have been read
        columns, late = _read(path, what, file, delimiter, words)
        if not late:
            return columns, told
        words |= late


def _read(path: Path, what: str, file: TableFile, delimiter: str, words: frozenset[str]) -> tuple[list[Column], frozenset[str]]:
    """The columns; or the names of those that hold words behind numbers."""
    with _text(path, what) as text:
        reader = csv.reader(_lines(text, what), delimiter=delimiter, strict=True)
        try:
            names = _header(next(reader, []), what, delimiter, file)
            wanted = [j for j, name in enumerate(names) if name not in file.drop]
            pieces = [_Pieces(names[j], file, names[j] in words) for j in wanted]
            for rows in _pieces_of_rows(reader, len(names), what, delimiter):
                fields = list(zip(*rows, strict=True))
                for piece, j in zip(pieces, wanted, strict=True):
                    piece.add(fields[j])
        except csv.Error as error:
            hint = ": a quote is not closed, or stands within a field" if "data" in str(error) or "expected" in str(error) else ""
            hint = ": a quote is probably not closed" if "limit" in str(error) else hint
            raise ValueError(f"{what}, line {reader.line_num}: {error}{hint}") from None
        except UnicodeDecodeError:
            raise _not_utf8(path, what, file) from None
    if not pieces or not len(pieces[0]):
        raise ValueError(f"{what} has a header and no rows" if wanted else f"{what}: data.file.drop leaves no column")
    late = frozenset(piece.name for piece in pieces if piece.is_late)
    return [] if late else [piece.column() for piece in pieces], late


class _Pieces:
    """A column, put together piece by piece."""

    def __init__(self, name: str, file: TableFile, words: bool) -> None:
        self.name = name
        self.is_late = False  # it turned out to hold words, and its first numbers' text is gone
        self._decimal = file.decimal
        self._marks = frozenset(file.missing_marks)
        as_numbers = [numbers_in([mark], file.decimal) for mark in file.missing_marks]
        self._number_marks = [one[0] for one in as_numbers if one is not None and np.isfinite(one[0])]  # such as -999
        self._parts: list[NDArray[Any]] = []
        self._known: dict[str, int] | None = {} if words else None

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, fields: Sequence[str]) -> None:
        """The next rows' fields."""
        if self.is_late:
            return
        numbers = None if self._known is not None else self._numbers(fields)
        if numbers is None and self._known is None:
            if self._parts:
                self.is_late = True
                self._parts = [np.zeros(1)]
                return
            self._known = {}
        self._parts.append(self._codes(fields) if numbers is None else numbers)

    def _numbers(self, fields: Sequence[str]) -> NDArray[np.float64] | None:
        numbers = numbers_in(fields, self._decimal)
        if numbers is None:
            numbers = numbers_in(["nan" if field.strip() in self._marks else field for field in fields], self._decimal)
        if numbers is not None and self._number_marks:
            numbers[np.isin(numbers, self._number_marks)] = np.nan
        return numbers

    def _codes(self, fields: Sequence[str]) -> NDArray[np.int32]:
        known = self._known
        assert known is not None
        codes = np.empty(len(fields), dtype=np.int32)
        for i, field in enumerate(fields):
            word = field.strip()
            codes[i] = -1 if word in self._marks else known.setdefault(word, len(known))
        return codes

    def column(self) -> Column:
        """The whole column. Its pieces are given up."""
        numbers, self._parts = np.concatenate(self._parts), []
        return Column(self.name, numbers, None if self._known is None else tuple(self._known))


def _pieces_of_rows(reader: Iterator[list[str]], n_fields: int, what: str, delimiter: str) -> Iterator[list[list[str]]]:
    """The rows, some at a time, each with as many fields as the header. Empty lines are left out."""
    size, rows = max(1, _CELLS // n_fields), list[list[str]]()
    for row in reader:
        if len(row) != n_fields:
            if not row:
                continue
            line: int = reader.line_num  # type: ignore[attr-defined]  # the class of csv.reader has no name
            raise ValueError(
                f"{what}, line {line}: {_fields(len(row))}, but the header has {n_fields}, between "
                f"{_DELIMITERS.get(delimiter, delimiter)}s: "
                "correct the line, or put quotes around entries that contain the delimiter"
            )
        rows.append(row)
        if len(rows) == size:
            yield rows
            rows = []
    if rows:
        yield rows


def _header(names: Sequence[str], what: str, delimiter: str, file: TableFile) -> list[str]:
    """The columns' names, each once."""
    names = [name.strip() for name in names]
    if not any(names):
        raise ValueError(f"{what}: its first line is empty, and must name the columns")
    if len(names) == 1 and file.delimiter is not None:
        raise ValueError(f"{what} has one column where data.file.delimiter={delimiter!r}: leave the delimiter out, and it is guessed")
    if numbers_in(names) is not None:
        raise ValueError(f"{what}: its first line holds numbers, and must name the columns: add a line with their names")
    require_names(names, what)
    return names


def _delimiter(path: Path, what: str, file: TableFile) -> tuple[str, list[str]]:
    """What stands between columns: as it is said, or as most lines at the beginning agree."""
    with _text(path, what) as text:
        try:
            head = text.read(_HEAD)
        except UnicodeDecodeError:
            head = ""  # the line is found when the rows are read
    if "\0" in head:
        raise ValueError(f"{what} is no text: it holds zero bytes. Is it a file of another kind, or of a spreadsheet?")
    if file.delimiter is not None:
        return file.delimiter, []
    lines = head.splitlines()[:50]
    lines = lines[:-1] if len(lines) > 1 and len(head) == _HEAD else lines  # the last one may be cut off

    def agreement(delimiter: str) -> tuple[float, int]:
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        except csv.Error:
            return 0.0, 0
        return (counts.count(counts[0]) / len(counts), counts[0]) if counts and counts[0] > 1 else (0.0, 0)

    best = max((one for one in _DELIMITERS if one != file.decimal), key=agreement)
    if agreement(best) == (0.0, 0):
        return ("," if file.decimal == "." else ";"), []
    return best, [f"columns are separated by {_DELIMITERS[best]}s, as was guessed"]


@contextmanager
def _text(path: Path, what: str) -> Iterator[io.TextIOWrapper]:
    """A file as text, decompressed if its name says so.

    Raises:
        ValueError: If its first bytes are those of another kind of file, or it is compressed and damaged.
    """
    with opened(path) as raw:
        head, is_gz = raw.read(4), path.suffix == ".gz"
        raw.seek(0)
        other = ""
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:2]:
            other = "is UTF-16 or UTF-32 text: save it as UTF-8"
        elif head.startswith(_GZIP) and not is_gz:
            other = f"is compressed by gzip, though its name does not end in .gz: rename it to {path.name}.gz, or decompress it"
        elif is_gz and not head.startswith(_GZIP):
            other = "is not compressed by gzip, though its name ends in .gz: rename it"
        elif head.startswith(_ZIP):
            other = "is a zip archive, or the workbook of a spreadsheet: save the table as CSV"
        elif head.startswith(_PARQUET):
            other = "is a Parquet file: use data.source: parquet"
        if other:
            raise ValueError(f"{what} {other}")
        binary: Any = gzip.GzipFile(fileobj=raw) if is_gz else raw
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            try:
                yield text
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(f"{what} is a gzip file that is damaged or cut off ({error})") from None


def _lines(text: io.TextIOWrapper, what: str) -> Iterator[str]:
    """The lines, each of bounded length."""
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE and not line.endswith(("\n", "\r")):
            raise ValueError(f"{what} has a line of more than {_LONGEST_LINE:,} characters: is it a table?")
        yield line


def _not_utf8(path: Path, what: str, file: TableFile) -> ValueError:
    """What to say of a file that is not UTF-8: text in another encoding, or no text."""
    with opened(path) as raw, gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw as binary:
        for i, line in enumerate(binary, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                if _CONTROLS.search(line):
                    return ValueError(f"{what} is no text: line {i} holds bytes that no text has. Is it a file of another kind?")
                return ValueError(
                    f"{what}, line {i}: byte 0x{line[error.start]:02x} is not UTF-8, so the text may be in Latin-1 or Windows-1252: save "
                    f"it as UTF-8, as in iconv -f WINDOWS-1252 -t UTF-8 {file.name}"
                )
    return ValueError(f"{what} is not UTF-8")  # it has changed meanwhile


def _fields(n: int) -> str:
    return "1 field" if n == 1 else f"{n} fields"
