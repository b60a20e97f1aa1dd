"""Reading and writing files. A file is written under a temporary name and then renamed, so nobody ever reads half of one."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO


def output_folder(path: str | Path) -> Path:
    """Create the folder ``path`` if it is missing, and make sure that files can be written in it.

    Raises:
        ValueError: If ``path`` is not a folder, no file can be written in it, or its name is none (see :func:`require_name`).
    """
    require_name(path, "output folder")
    folder = Path(path)
    if folder.is_file():
        raise ValueError(f"{str(path)!r} is a file, and must be a folder: choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"output folder {str(path)!r} cannot be written: {error.strerror or error}") from error
    return folder


def require_name(path: str | Path, what: str) -> None:
    """Refuse names that shells, or other programs, mean in another way: an empty one, ``-`` and ``~/…``.

    Raises:
        ValueError: If it is one of these. The message says what to write instead.
    """
    name = os.fspath(path)
    if not name:
        raise ValueError(f"{what} '': the name is empty; if it comes from a variable, that is not set")
    if name == "-":
        raise ValueError(f"{what} '-': standard input and output have no place here; name a file or a folder")
    first, *more = Path(name).parts or [""]
    if first == "~" or (first.startswith("~") and more):
        raise ValueError(f"{what} {name!r}: '~' is not replaced by a home folder here; write $HOME, or ./{name} for a folder of that name")


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Call ``write`` on a temporary file beside ``path``, then rename that file to ``path``. A reader never sees half of it.

    A file that is replaced keeps its permissions. A new one has those that the process gives to its files (its umask).

    Raises:
        OSError: If it cannot be written, naming ``path``.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:_KEPT]}.{secrets.token_hex(_DIGITS // 2)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if path.is_file():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path


_KEPT = 40
"""Letters of a file's name that its temporary name begins with: together they must not be too long for a file system."""
_DIGITS = 12


def remove_temporaries(folder: Path, names: Iterable[str]) -> None:
    """Remove what :func:`write_atomically` left of these files where it was killed. Nobody else may be writing them."""
    for name in names:
        pattern = re.compile(rf"\.{re.escape(name[:_KEPT])}\.[0-9a-f]{{{_DIGITS}}}")
        for path in folder.iterdir():
            if pattern.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write bytes atomically."""
    return write_atomically(path, lambda file: file.write(content))


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def write_json(path: str | Path, data: Any) -> Path:
    """Write JSON atomically: keys in the order given, floats to their last digit.

    JSON has no infinity and no NaN. Numbers that are not finite are written as ``null``, in every file of ours.
    """
    return write_text(path, json.dumps(_finite(data), indent=1, allow_nan=False) + "\n")


def _finite(data: Any) -> Any:
    """The data, with ``None`` for each number that is not finite."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: If the file is missing, half-written or not a JSON object. The message names the file.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{str(path)!r} does not exist") from error
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # text that is no JSON, or no text, or nested too deep, or a number with too many digits
        raise ValueError(f"{str(path)!r} is damaged or half-written ({error}): delete it and run the command again") from error
    if not isinstance(data, dict):
        raise ValueError(f"{str(path)!r} holds a {type(data).__name__}, must be a JSON object: delete it and run the command again")
    return data
