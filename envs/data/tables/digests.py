"""Opening the files that scenarios name, and noticing that one has changed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from .settings import TableFile

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""The files of a folder in the layout of MNIST, each plain or with ``.gz``. The last two may be missing."""
_BLOCK = 2**20


def files_in(source: str, file: TableFile) -> list[Path]:
    """The files that a source reads.

    Raises:
        ValueError: If there is no such file, or it is nothing that can be read. The message says which, and why.
    """
    path = Path(file.path)
    if source != "idx":
        return [_regular(path)]
    if not path.is_dir():
        return [_regular(path)] + ([_regular(path.parent / file.label)] if file.label is not None else [])
    found = [idx_file(path, name) for name in IDX]
    if found[0] is None or found[1] is None or (found[2] is None) != (found[3] is None):
        lacking = next(name for name, one in zip(IDX, found, strict=True) if one is None)
        raise ValueError(f"folder {str(path)!r} has no {lacking}, nor {lacking}.gz: it must hold MNIST's files, or name the file of images")
    return [_regular(one) for one in found if one is not None]


def idx_file(folder: Path, name: str) -> Path | None:
    """An IDX file of a folder, plain or compressed; ``None`` if there is none."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if os.path.lexists(path)), None)


def digest_of(source: str, file: TableFile) -> str:
    """SHA-256 of a file's content as 64 letters; of several files, of their digests. A file is read again only if it has changed.

    Raises:
        ValueError: If it cannot be read.
    """
    digests = [_digest(path, _state(path)) for path in files_in(source, file)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def require_unchanged(source: str, file: TableFile) -> None:
    """Refuse a file that is not the one whose digest the scenario has.

    Raises:
        ValueError: If it differs, or cannot be read.
    """
    found = digest_of(source, file)
    if file.sha256 not in (None, found):
        raise ValueError(
            f"data.file.path={file.path!r} has changed since it was recorded (sha256 {found[:12]}…, was {str(file.sha256)[:12]}…): put the "
            "old file back, or, to go on with the new one, set data.file.sha256=null"
        )


def opened(path: Path) -> BinaryIO:
    """A file, opened for reading.

    Raises:
        ValueError: If it cannot be.
    """
    try:
        return open(_regular(path), "rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def _state(path: Path) -> tuple[int, ...]:
    """What differs once a file has changed. Its time of change differs even where its size and its time of modification were put back."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=256)
def _digest(path: Path, state: tuple[int, ...]) -> str:
    del state  # a part of the key
    digest = hashlib.sha256()
    with opened(path) as file:
        try:
            while block := file.read(_BLOCK):
                digest.update(block)
        except OSError as error:
            raise _unreadable(path, error) from error
    return digest.hexdigest()


def _regular(path: Path) -> Path:
    """The path, if a file is there that has something in it."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise ValueError(f"data.file.path={str(path)!r} is a folder: give a file")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"data.file.path={str(path)!r} is a pipe or a device, and data is read more than once: save it as a file first")
    if not found.st_size:
        raise ValueError(f"data.file.path={str(path)!r} is empty")
    return path


def _unreadable(path: Path, error: OSError | ValueError) -> ValueError:
    reason = {
        errno.ENOENT: "does not exist",
        errno.ELOOP: "is a link that leads back to itself",
        errno.EACCES: "may not be read: you have no permission for it",
        errno.ENOTDIR: "does not exist: a part of the path is a file",
        errno.ENAMETOOLONG: "is too long a path",
    }.get(getattr(error, "errno", None) or 0)
    why = reason or f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return ValueError(f"data.file.path={str(path)[:200]!r} {why}")
