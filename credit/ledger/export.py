"""Exports of a ledger: its rows as CSV or Parquet, one file for each table, and as a JSON audit bundle that anybody can verify.

Rows are read and written one after the other, so a ledger need not fit into memory. A file is complete or absent. All three formats hold
the same rows: those up to the head that the ledger had at the start. Amounts are in minor units and times in UTC. Credit and standings are
written with the fewest digits that read back as the same float64.

Spreadsheets take a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula. No text here begins so: ledgers refuse such names and
keys, all other text is the ledger's own, and text that was tampered with is not written. Negative numbers are numbers.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa

from ...files import output_folder, write_atomically
from .chain import CHAINED, Entry, Head, Value
from .ledger import Ledger
from .schema import COLUMNS

Progress = Callable[[int, int], object]
"""A function that is called with the number of rows done and the number of all rows."""

FORMAT = 1
"""Version of the audit bundle's format."""

SCRIPT = "verify_bundle.py"
"""The script that verifies a bundle; a copy is written beside each bundle."""

_MEMBER = ("credits", "payouts")  # tables that refer to members by position; their files hold names as well
_AT_ONCE = 10_000  # rows of a table that go into a Parquet file at a time
_EVERY = 1000  # rows between two calls of progress
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_HEAD = re.compile(r"([1-9][0-9]{0,18}):([0-9a-f]{64})", re.ASCII)


def columns(table: str) -> list[str]:
    """The columns of a table's file: cooperative, the table's own columns, the member's name if the row is about one, and hash."""
    return ["cooperative", *COLUMNS[table], *(["member"] if table in _MEMBER else []), "hash"]


def write_csv(ledger: Ledger, cooperative: str, folder: str | Path, progress: Progress | None = None) -> list[Path]:
    """Write a CSV file for each table: ``members.csv``, ``rounds.csv``, ``credits.csv`` and so on.

    The files are UTF-8 and comma-separated, with the columns' names in the first line. Null is empty.

    Args:
        ledger: The ledger.
        cooperative: Name of the cooperative.
        folder: The folder. It is created, and files of these names are replaced.
        progress: Called now and then, with the number of rows done and of all rows.

    Returns:
        Paths of the files.

    Raises:
        ValueError: If there is no such cooperative, the ledger cannot be read, or the files cannot be written. Also if text was tampered
            with, so that a spreadsheet would take it for a formula.
    """
    paths = [output_folder(folder) / f"{table}.csv" for table in CHAINED]

    def write(files: Sequence[BinaryIO]) -> None:
        with ExitStack() as stack:
            texts = [io.TextIOWrapper(file, encoding="utf-8", newline="") for file in files]
            for text in texts:
                stack.callback(text.detach)  # flushes, and leaves the file open for the code that opened it
            writers = {table: csv.writer(text, lineterminator="\n") for table, text in zip(CHAINED, texts, strict=True)}
            for table, writer in writers.items():
                writer.writerow(columns(table))
            for table, row in _named(_entries(ledger, cooperative, progress)):
                if any(isinstance(cell, str) and cell.startswith(_FORMULA) for cell in row.values()):
                    raise ValueError(
                        f"ledger {ledger.name} is damaged: row {row['seq']} of {table} has text that a spreadsheet would take for a "
                        "formula: run proxycoop ledger verify"
                    )
                writers[table].writerow(row.values())

    _write_together(paths, write)
    return paths


def require_parquet() -> None:
    """Make sure that Parquet can be written, before long work begins.

    Raises:
        ValueError: If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ValueError("Parquet files need pyarrow: pip install 'proxycoop[parquet]'") from error


def write_parquet(ledger: Ledger, cooperative: str, folder: str | Path, progress: Progress | None = None) -> list[Path]:
    """Write a Parquet file for each table, as :func:`write_csv` does: counts and amounts as int64, credit and standings as float64.

    Args:
        ledger: The ledger.
        cooperative: Name of the cooperative.
        folder: The folder. It is created, and files of these names are replaced.
        progress: Called now and then, with the number of rows done and of all rows.

    Returns:
        Paths of the files.

    Raises:
        ValueError: As :func:`write_csv` does, and if pyarrow is not installed or a row is damaged.
    """
    require_parquet()
    import pyarrow as pa
    from pyarrow import parquet

    paths = [output_folder(folder) / f"{table}.parquet" for table in CHAINED]

    def kind(table: str, column: str) -> Any:
        own = COLUMNS[table].get(column)
        return pa.int64() if isinstance(own, sa.BigInteger) else pa.float64() if isinstance(own, sa.Float) else pa.string()

    def write(files: Sequence[BinaryIO]) -> None:
        with ExitStack() as stack:
            schemas = {table: pa.schema([(column, kind(table, column)) for column in columns(table)]) for table in CHAINED}
            writers = {
                table: stack.enter_context(parquet.ParquetWriter(file, schemas[table])) for table, file in zip(CHAINED, files, strict=True)
            }
            waiting: dict[str, list[Mapping[str, Value]]] = {table: [] for table in CHAINED}

            def flush(table: str) -> None:
                writers[table].write_table(pa.Table.from_pylist(waiting[table], schemas[table]))
                waiting[table].clear()

            for table, row in _named(_entries(ledger, cooperative, progress)):
                waiting[table].append(row)
                if len(waiting[table]) == _AT_ONCE:
                    flush(table)
            for table in CHAINED:
                flush(table)

    try:
        _write_together(paths, write)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"ledger {ledger.name} is damaged ({error}): run proxycoop ledger verify") from error
    return paths


def write_bundle(ledger: Ledger, cooperative: str, path: str | Path, progress: Progress | None = None) -> Path:
    """Write an audit bundle, and beside it the script that verifies it without proxycoop.

    A bundle is a JSON object with ``format``, ``cooperative``, ``head`` (``seq`` and ``hash``), ``verified_with`` and ``entries``. Each
    entry is a line with ``table``, ``seq``, ``fields`` (all that the hash covers) and ``hash``.

    Args:
        ledger: The ledger.
        cooperative: Name of the cooperative.
        path: The file. Its folder is created.
        progress: Called now and then, with the number of rows done and of all rows.

    Raises:
        ValueError: If there is no such cooperative, the ledger cannot be read, a row holds a value that JSON does not have, the file has
            the script's name, or it cannot be written.
    """
    path = Path(path)
    if path.name == SCRIPT:
        raise ValueError(f"bundle {str(path)!r}: {SCRIPT} is the script that will be written beside it: choose another name")
    output_folder(path.parent)
    name, head = ledger.cooperative(cooperative).name, ledger.head(cooperative)

    def line(entry: Entry) -> str:
        try:
            return json.dumps({"table": entry.table, "seq": entry.seq, "fields": entry.fields, "hash": entry.hash}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"ledger {ledger.name} is damaged: row {entry.seq} of {entry.table} holds a value that JSON does not have ({error}): "
                "run proxycoop ledger verify"
            ) from error

    def write(file: BinaryIO) -> None:
        about = {"format": FORMAT, "cooperative": name, "head": vars(head), "verified_with": SCRIPT}
        file.write(f'{json.dumps(about)[:-1]}, "entries": ['.encode())
        between = "\n"
        for entry in _entries(ledger, cooperative, progress, head):
            file.write(f"{between}{line(entry)}".encode())
            between = ",\n"
        file.write(b"\n]}\n")

    _write_together([path], lambda files: write(files[0]))
    _write_together([path.with_name(SCRIPT)], lambda files: files[0].write(script()))
    return path


def script() -> bytes:
    """The text of the script that verifies a bundle."""
    return (resources.files(__package__) / SCRIPT).read_bytes()


def write_heads(heads: Mapping[str, Head], path: str | Path) -> Path:
    """Write the heads of cooperatives to a JSON file, to be kept where the ledger is not.

    Raises:
        ValueError: If the file cannot be written.
    """
    path = Path(path)
    output_folder(path.parent)
    text = json.dumps({"format": FORMAT, "heads": {name: vars(head) for name, head in heads.items()}}, indent=1)
    _write_together([path], lambda files: files[0].write(f"{text}\n".encode()))
    return path


def read_heads(path: str | Path) -> dict[str, Head]:
    """The heads, by cooperative, in a file of :func:`write_heads` or in an audit bundle.

    Raises:
        ValueError: If the file cannot be read, is neither of the two, or holds no head.
    """
    name = repr(str(path))
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"head file {name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"head file {name} is no JSON: {error}") from error
    try:
        found = data["heads"] if "heads" in data else {data["cooperative"]: data["head"]}
        heads = {cooperative: head_of(f"{head['seq']}:{head['hash']}") for cooperative, head in found.items()}
    except ValueError as error:
        raise ValueError(f"head file {name}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} is neither an audit bundle nor a file of heads, as verify --save-head writes them") from error
    if not heads:
        raise ValueError(f"head file {name} holds no heads: there is nothing to compare with")
    return heads


def head_of(text: str) -> Head:
    """A head that is written as SEQ:HASH.

    Raises:
        ValueError: If the text is not of that form.
    """
    match = _HEAD.fullmatch(text)
    if match is None:
        raise ValueError(f"head {text[:80]!r}: write a row's number and its hash, SEQ:HASH, the latter in 64 digits 0–9 and a–f")
    return Head(int(match[1]), match[2])


def _entries(ledger: Ledger, cooperative: str, progress: Progress | None, head: Head | None = None) -> Iterator[Entry]:
    """The rows up to a head: the given one, or the one that the ledger has now."""
    head = head or ledger.head(cooperative)
    for done, entry in enumerate(ledger.entries(cooperative)):
        if not isinstance(entry.seq, int) or entry.seq > head.seq:  # rows without a place in the chain come last
            break
        if progress is not None and done % _EVERY == 0:
            progress(done, head.seq)
        yield entry
    if progress is not None:
        progress(head.seq, head.seq)


def _named(entries: Iterator[Entry]) -> Iterator[tuple[str, dict[str, Value]]]:
    """Rows as they are written to files, each with its table."""
    names: dict[Value, Value] = {}
    for entry in entries:
        if entry.table == "members":
            names[entry.fields["position"]] = entry.fields["name"]
        row = {**entry.fields, "hash": entry.hash}
        if entry.table in _MEMBER:
            row["member"] = names.get(entry.fields["position"])
        yield entry.table, {column: row[column] for column in columns(entry.table)}


def _write_together(paths: Sequence[Path], write: Callable[[Sequence[BinaryIO]], object], files: Sequence[BinaryIO] = ()) -> None:
    """Write several files atomically: none appears before all are written.

    Raises:
        ValueError: If one cannot be written.
    """
    try:
        if len(files) == len(paths):
            write(files)
        else:
            write_atomically(paths[len(files)], lambda file: _write_together(paths, write, [*files, file]))
    except OSError as error:
        raise ValueError(f"{str(paths[min(len(files), len(paths) - 1)])!r} cannot be written: {error.strerror or error}") from error
