"""Files of tensors: saved policies and the checkpoints of trainings.

A file that is damaged, or holds numbers that are not finite, is refused. A file is an archive of ``torch.save``, and ``torch.load`` reads
it. The archive's comment holds a SHA-256 digest of the rest. Files of earlier versions have no digest. They are read too, but a change is
noticed only where it touches a checksum of the archive (CRC-32).
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import write_atomically

_END = b"PK\x05\x06"
_END_SIZE = 22
"""Every zip archive ends with this record, whose last two bytes are the length of the comment that follows."""
_MARK = b"proxycoop sha256 "
_SEAL_SIZE = len(_MARK) + 2 * hashlib.sha256().digest_size


def write(path: str | Path, data: Mapping[str, Any], what: str) -> Path:
    """Write data with its digest. The file is written atomically, or not at all.

    Args:
        path: File to write.
        data: Tensors, numbers, texts, and mappings and sequences of these.
        what: What it is, for the message, such as ``"policy"``.

    Raises:
        ValueError: If a number is not finite. The message names it.
    """
    if (name := first_not_finite(data)) is not None:
        raise ValueError(f"{what} {str(path)!r} was not written: {name} is not finite")
    buffer = io.BytesIO()
    torch.save(dict(data), buffer)
    archive = buffer.getbuffer()  # a view: a replay buffer can be as large as the memory that is left
    return write_atomically(path, lambda file: file.writelines(_sealed(archive)))


def read(path: str | Path, what: str, advice: str) -> dict[str, Any]:
    """Read data that :func:`write` wrote. Reading runs no code: a file that holds more than tensors and plain data is refused.

    Args:
        path: The file.
        what: What it is, for the message, such as ``"policy"``.
        advice: What to do if it is refused, for the message.

    Raises:
        ValueError: If the file cannot be read, is damaged or something else, or a number in it is not finite. The message names the file.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{what} {str(path)!r} cannot be read ({error.strerror or error})") from error
    try:
        data: Any = torch.load(io.BytesIO(_unsealed(content)), weights_only=True)
    except _DamageError as damage:
        raise ValueError(f"{what} {str(path)!r} is damaged or not a {what} ({damage}): {advice}") from None
    except pickle.UnpicklingError as error:
        why = "it holds more than tensors and plain data"
        raise ValueError(f"{what} {str(path)!r} is damaged or not a {what} ({why}): {advice}") from error
    except Exception as error:  # which one depends on which bytes are wrong
        raise ValueError(f"{what} {str(path)!r} is damaged or not a {what} ({type(error).__name__}): {advice}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{what} {str(path)!r} is damaged or not a {what} (it holds a {type(data).__name__}): {advice}")
    if (name := first_not_finite(data)) is not None:
        raise ValueError(f"{what} {str(path)!r} holds numbers that are not finite, in {name}: {advice}")
    return data


def first_not_finite(data: object) -> str | None:
    """The name of the first tensor, array or number that is not finite, such as ``network.actor.0.weight``; ``None`` if all are."""
    return next((name for name, entry in _entries("", data) if not _is_finite(entry)), None)


class _DamageError(Exception):
    """A file is not what was written."""


def _sealed(archive: memoryview) -> tuple[memoryview, bytes]:
    """The archive with its digest as the comment, in two parts."""
    assert bytes(archive[-_END_SIZE:]).startswith(_END)
    return archive[:-2], _SEAL_SIZE.to_bytes(2, "little") + _MARK + hashlib.sha256(archive).hexdigest().encode()


def _unsealed(content: bytes) -> bytes:
    """The archive, after its digest, or for want of one its checksums, were checked."""
    body, seal = content[:-_SEAL_SIZE], content[-_SEAL_SIZE:]
    if seal.startswith(_MARK):
        archive = body[:-2] + bytes(2)
        if seal[len(_MARK) :] != hashlib.sha256(archive).hexdigest().encode() or body[-2:] != _SEAL_SIZE.to_bytes(2, "little"):
            raise _DamageError("its digest is that of another content")
        return archive
    if not content[-_END_SIZE:].startswith(_END) or any(content[-2:]):
        raise _DamageError("it is no archive of tensors, or its end is missing" if content else "it is empty")
    with zipfile.ZipFile(io.BytesIO(content)) as archive_of_old:
        if (entry := archive_of_old.testzip()) is not None:
            raise _DamageError(f"the checksum of its entry {entry!r} is wrong")
    return content


def _entries(name: str, data: object) -> Iterator[tuple[str, object]]:
    """Tensors, arrays and numbers with their names: keys and indices, joined by dots."""
    parts: Iterable[tuple[object, object]]
    if isinstance(data, Mapping):
        parts = data.items()
    elif isinstance(data, (list, tuple)):
        parts = enumerate(data)
    else:
        yield name, data
        return
    for key, part in parts:
        yield from _entries(f"{name}.{key}" if name else str(key), part)


def _is_finite(entry: object) -> bool:
    if isinstance(entry, Tensor):
        return bool(entry.isfinite().all())
    if isinstance(entry, np.ndarray):
        return entry.dtype.kind not in "fc" or bool(np.isfinite(entry).all())
    return not isinstance(entry, float) or math.isfinite(entry)
