"""Parquet files, by pyarrow (extra ``parquet``). Columns are read one by one, and those that are dropped are not read at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .columns import Column, require_names
from .digests import opened
from .settings import TableFile

_SMALL = ("bool", "int8", "uint8", "int16", "uint16", "halffloat", "float")  # single precision holds their numbers


def scan_parquet(paths: list[Path], file: TableFile) -> tuple[list[Column], list[str]]:
    """The columns of a Parquet file. Nothing is guessed.

    Raises:
        ValueError: If it is none, is damaged, or a column holds neither numbers nor words; or pyarrow is not installed.
    """
    what = f"data file {file.name!r}"
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(
            "data.source=parquet needs pyarrow, which is not installed: pip install 'proxycoop[parquet]', or save the table as CSV"
        ) from None
    with opened(paths[0]) as raw:
        try:
            table = pq.ParquetFile(raw)
            schema = table.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{what} is no Parquet file, or is damaged or cut off ({_first_line(error)})") from None
        require_names(schema.names, what)
        wanted = [field for field in schema if field.name not in file.drop]
        for field in wanted:
            if pa.types.is_nested(field.type):
                raise ValueError(
                    f"{what}: column {field.name!r} is nested ({str(field.type)[:60]}), and must hold one entry a row: make columns of its "
                    "parts, or leave it out with data.file.drop"
                )
        columns = []
        for field in wanted:
            try:
                column = _column(field.name, table.read(columns=[field.name]).column(0), pa)
            except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
                raise ValueError(f"{what}: column {field.name!r} cannot be read: {_first_line(error)}") from None
            if column is None:
                raise ValueError(
                    f"{what}: column {field.name!r} holds {field.type}, neither numbers nor text: leave it out with data.file.drop"
                )
            columns.append(column)
    if not columns:
        raise ValueError(f"{what}: data.file.drop leaves no column")
    if not len(columns[0].numbers):
        raise ValueError(f"{what} has no rows")
    return columns, []


def _column(name: str, read: Any, pa: Any) -> Column | None:
    """One column, which pyarrow has read; ``None`` if it holds neither numbers nor text."""
    types = pa.types
    if types.is_dictionary(read.type):
        read = read.cast(read.type.value_type)
    kind = read.type
    if types.is_null(kind):
        return Column(name, np.full(len(read), np.nan))
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        small = str(kind) in _SMALL
        whole = read.cast(pa.uint8()) if types.is_boolean(kind) else read
        return Column(name, whole.cast(pa.float32() if small else pa.float64(), safe=False).to_numpy().copy())
    if types.is_temporal(kind) and not types.is_duration(kind):
        read = read.cast(pa.string())
    elif not (types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view"):
        return None
    coded = read.cast(pa.large_string()).combine_chunks().dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Column(name, codes, tuple(str(word) for word in coded.dictionary.to_pylist()))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
