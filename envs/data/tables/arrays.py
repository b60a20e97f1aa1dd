"""Arrays."""

from __future__ import annotations

from pathlib import Path

from .columns import Column
from .settings import TableFile


def scan_npz(paths: list[Path], file: TableFile) -> tuple[list[Column], list[str]]:
    """Columns of a npz file."""
    raise NotImplementedError


def scan_idx(paths: list[Path], file: TableFile) -> tuple[list[Column], list[str]]:
    """Columns of idx files."""
    raise NotImplementedError
