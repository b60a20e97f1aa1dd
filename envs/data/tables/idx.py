"""The IDX format, in which MNIST and its likes come."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .digests import opened

__all__ = ["read_idx"]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 8


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file, which may be compressed by gzip, with its axes and its type of numbers.

    The file has two zero bytes, the numbers' type, the number of axes, their lengths, and the numbers, big-endian.

    Raises:
        ValueError: If it is none, is damaged or cut off, or cannot be opened.
    """
    what = f"data file {path.name!r}"
    with opened(path) as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if compressed else raw
        try:
            magic = stream.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES or not 1 <= magic[3] <= _MOST_AXES:
                raise ValueError(
                    f"{what} is no IDX file: it begins with {magic.hex(' ')}, and must with 00 00, a type and a number of axes"
                )
            lengths = stream.read(4 * magic[3])
            if len(lengths) < 4 * magic[3]:
                raise ValueError(f"{what} is cut off in its header")
            shape = struct.unpack(f">{magic[3]}I", lengths)
            dtype = np.dtype(_IDX_TYPES[magic[2]])
            expected = math.prod(shape) * dtype.itemsize
            content = stream.read(expected)
            more = stream.read(1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{what} is a gzip file that is damaged or cut off ({error})") from None
        except (OverflowError, MemoryError):
            raise ValueError(f"{what} says that it holds more than fits into memory: it is damaged") from None
    if not expected:
        raise ValueError(f"{what} holds nothing: its shape is {shape}")
    if len(content) != expected or more:
        came = f"{len(content):,}" if not more else "more"
        raise ValueError(f"{what} is cut off or damaged: its header says {expected:,} bytes of shape {shape}, and there are {came}")
    return np.frombuffer(content, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
