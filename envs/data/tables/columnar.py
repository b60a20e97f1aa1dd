"""Parquet files."""

from __future__ import annotations

from pathlib import Path

from .columns import Column
from .settings import TableFile


def scan_parquet(paths: list[Path], file: TableFile) -> tuple[list[Column], list[str]]:
    """Columns of a Parquet file."""
    raise NotImplementedError
