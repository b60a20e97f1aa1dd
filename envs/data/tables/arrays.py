"""Arrays: archives of ``numpy.savez``, and the IDX files in which MNIST and its successors come.

The first axis of every array is the rows. An array with more axes makes a column of each of a row's entries: ``image_0``, ``image_1`` and
so on. Such columns may be constant, as the corner of a picture is.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import LABEL, MOST_COLUMNS, Column, require_names
from .digests import opened
from .idx import read_idx
from .settings import TableFile

PART = "part"
"""The column of a folder of IDX files that says which rows are whose: ``train``, or ``test`` of the files that begin with t10k."""


def scan_npz(paths: list[Path], file: TableFile) -> tuple[list[Column], list[str]]:
    """The columns of an archive of arrays. Nothing is guessed. Pickled objects are never read.

    Raises:
        ValueError: If it is none, is damaged, holds objects, or its arrays have different numbers of rows.
    """
    what = f"data file {file.name!r}"
    with opened(paths[0]) as raw:
        if raw.read(6) == b"\x93NUMPY":
            raise ValueError(f"{what} is a single array (npy): save the features and the label together, with numpy.savez")
        try:
            if not zipfile.is_zipfile(raw):
                raise ValueError("it is no zip archive")
            raw.seek(0)
            archive = np.load(raw, allow_pickle=False)
            arrays = {name: np.asarray(archive[name]) for name in archive.files if name not in file.drop}
        except MemoryError:
            raise
        except Exception as error:  # which one depends on which bytes are wrong
            why = "an array holds Python objects, which may run code when they are read" if "pickle" in str(error) else str(error)
            why = why.splitlines()[0][:200] if why else type(error).__name__
            raise ValueError(f"{what} is no archive of numpy.savez, or is damaged ({why}): save plain arrays of numbers and text") from None
    if not arrays:
        raise ValueError(f"{what} holds no array" + " but those of data.file.drop" * bool(file.drop))
    if scalars := [name for name, array in arrays.items() if not array.ndim]:
        raise ValueError(f"{what}: array {scalars[0]!r} is a single number, and must have one row for each example")
    n_rows = len(arrays[file.label] if file.label in arrays else next(iter(arrays.values())))
    for name, array in arrays.items():
        if len(array) != n_rows:
            raise ValueError(
                f"{what}: array {name!r} has {len(array):,} rows, and others have {n_rows:,}: leave it out with data.file.drop"
            )
    if not n_rows:
        raise ValueError(f"{what} has arrays without rows")
    columns = [column for name, array in arrays.items() for column in _columns(name, array, what)]
    require_names([column.name for column in columns], what)
    return columns, []


def scan_idx(paths: list[Path], file: TableFile) -> tuple[list[Column], list[str]]:
    """The pixels, labels and parts of IDX files, which may be compressed by gzip. Bytes of images are divided by 255.

    Raises:
        ValueError: If one is none, is damaged or cut off, or there are not as many labels as images.
    """
    pairs = list(zip(paths[::2], paths[1::2], strict=True))
    images, labels, parts = list[NDArray[Any]](), list[NDArray[Any]](), list[int]()
    for i, (of_images, of_labels) in enumerate(pairs):
        image, label = read_idx(of_images), read_idx(of_labels)
        if label.ndim != 1 or image.ndim < 2:
            must, path, came = ("one axis", of_labels, label) if label.ndim != 1 else ("several axes", of_images, image)
            raise ValueError(f"data file {path.name!r} holds an array of shape {came.shape}: must have {must}")
        if len(image) != len(label):
            raise ValueError(f"data files {of_images.name!r} and {of_labels.name!r} hold {len(image):,} images and {len(label):,} labels")
        images.append(image)
        labels.append(label)
        parts += [i] * len(label)
    if len({image.shape[1:] for image in images}) > 1:
        raise ValueError(f"data folder {file.name!r} has images of different sizes: {images[0].shape[1:]} and {images[1].shape[1:]}")
    pixels = np.concatenate(images)
    scaled = pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels
    columns = [
        *_columns("pixel", scaled, f"data file {paths[0].name!r}"),
        Column(file.label or LABEL, np.concatenate(labels).astype(np.float64)),
    ]
    if PART in (file.split, *file.attributes):  # else it would be taken for a feature
        columns.append(Column(PART, np.array(parts, dtype=np.int32), ("train", "test")[: len(pairs)]))
    return [column for column in columns if column.name not in file.drop], []


def _columns(name: str, array: NDArray[Any], what: str) -> list[Column]:
    """An array as columns."""
    kind = array.dtype.kind
    if kind in "SU":
        if array.ndim > 1:
            raise ValueError(f"{what}: array {name!r} holds text and has shape {array.shape}: text must be one entry a row")
        try:
            words, codes = np.unique(np.char.decode(array, "utf-8") if kind == "S" else array, return_inverse=True)
        except UnicodeDecodeError:
            raise ValueError(f"{what}: array {name!r} holds bytes that are no UTF-8 text") from None
        return [Column(name, codes.reshape(-1).astype(np.int32), tuple(map(str, words)))]
    if kind not in "buif":
        raise ValueError(f"{what}: array {name!r} holds {array.dtype}, neither numbers nor text: leave it out with data.file.drop")
    n_columns = math.prod(array.shape[1:])
    if n_columns > MOST_COLUMNS:
        raise ValueError(f"{what}: array {name!r} has {n_columns:,} entries a row: at most {MOST_COLUMNS:,} are read")
    small = array.dtype.itemsize <= 2 or (kind == "f" and array.dtype.itemsize <= 4)  # single precision holds these numbers
    flat = array.reshape(len(array), -1).astype(np.float32 if small else np.float64, copy=False)
    if array.ndim == 1:
        return [Column(name, flat[:, 0])]
    return [Column(f"{name}_{j}", flat[:, j], of_array=True) for j in range(n_columns)]
