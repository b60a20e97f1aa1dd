"""The data sources that read a file, by name."""

from __future__ import annotations

from ..dataset import DATA, Dataset
from .arrays import scan_idx, scan_npz
from .columnar import scan_parquet
from .columns import Column
from .delimited import scan_csv
from .digests import files_in, require_unchanged
from .encoding import Table, encode
from .settings import TableFile

_SCANS = {"csv": scan_csv, "parquet": scan_parquet, "npz": scan_npz, "idx": scan_idx}


def scan(source: str, file: TableFile) -> tuple[list[Column], list[str]]:
    """The columns of a file, without those that are dropped, and what was guessed, in words. Nothing is encoded or left out yet.

    Args:
        source: One of :data:`SOURCES`.
        file: The file.

    Raises:
        ValueError: If the file cannot be read, or is damaged.
    """
    try:
        return _SCANS[source](files_in(source, file), file)
    except MemoryError:
        raise ValueError(f"data file {file.name!r} does not fit into memory: leave columns out with data.file.drop, or rows") from None


def read(source: str, file: TableFile) -> Table:
    """Read a file as a data set.

    Args:
        source: One of :data:`SOURCES`.
        file: The file.

    Raises:
        ValueError: If the file has changed since its digest was recorded, cannot be read, or does not fit what is said of it. The message
            names the file, and the column or the line.
    """
    require_unchanged(source, file)
    return encode(*scan(source, file), file)


@DATA.register("csv")
def csv(file: TableFile) -> Dataset:
    """A table of your own as text: comma-separated values, or with semicolons or tabs; ``data.file`` says which file and what is in it."""
    return read("csv", file).dataset


@DATA.register("parquet")
def parquet(file: TableFile) -> Dataset:
    """A table of your own as a Parquet file (extra ``parquet``); ``data.file`` says which file and what is in it."""
    return read("parquet", file).dataset


@DATA.register("npz")
def npz(file: TableFile) -> Dataset:
    """Arrays of your own in an archive of ``numpy.savez``; ``data.file`` says which file and what is in it."""
    return read("npz", file).dataset


@DATA.register("idx")
def idx(file: TableFile) -> Dataset:
    """Images of your own as IDX files, as MNIST and Fashion-MNIST have them; ``data.file`` says which file or folder."""
    return read("idx", file).dataset
