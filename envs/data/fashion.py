"""Fashion-MNIST: 70,000 images of clothes, the benchmark of federated image classification.

No package on PyPI ships the images. They are four files in the IDX format of MNIST, gzipped or plain:

* on Debian and Ubuntu, ``apt install dataset-fashion-mnist`` puts them into ``/usr/share/datasets/fashion-mnist``;
* elsewhere torchvision's ``FashionMNIST(root, download=True)`` puts them into ``root/FashionMNIST/raw``, and so can you.

They are looked for in the folder that the environment variable ``PROXYCOOP_DATA`` names, if it is set, or in its subfolders
``FashionMNIST/raw`` and ``fashion-mnist``; else in ``data/FashionMNIST/raw`` and in Debian's folder.

References:
    Xiao, Rasul & Vollgraf (2017), *Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms*, arXiv 1708.07747
    (MIT licence).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .dataset import DATA, Dataset
from .tables.idx import read_idx

VARIABLE = "PROXYCOOP_DATA"
"""The environment variable that names the folder of data files."""
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_KNOWN = (Path("data/FashionMNIST/raw"), Path("/usr/share/datasets/fashion-mnist"))
_SIDE = 28
_PUBLIC = 10_000
_PARTS = {"train": 60_000, "t10k": 10_000}


@DATA.register("fashion_mnist")
def fashion_mnist() -> Dataset:
    """Fashion-MNIST: grey images of clothes of 28 × 28 pixels in [0, 1], 10 classes of 7,000 each (Xiao et al. 2017, MIT licence).

    The 60,000 training images come first, then the 10,000 test images. A scenario splits all of them anew. Features are float32.

    Raises:
        ValueError: If a file is missing (the message says how to get it), or is not what it should be.
    """
    folder = folder_of_files()
    images = np.concatenate([_images(folder, part, n) for part, n in _PARTS.items()])
    labels = np.concatenate([_read(folder, f"{part}-labels-idx1-ubyte", (n,)) for part, n in _PARTS.items()])
    features = images.reshape(len(images), -1).astype(np.float32)
    features /= 255
    names = tuple(f"pixel_{row}_{column}" for row in range(_SIDE) for column in range(_SIDE))
    return Dataset(features=features, labels=labels.astype(np.int64), class_names=CLASSES, feature_names=names)


@DATA.register("fashion_mnist_public")
def fashion_mnist_public() -> Dataset:
    """The first 10,000 images of Fashion-MNIST, for pretraining a model on rows that no member has."""
    return _rows(fashion_mnist(), slice(0, _PUBLIC))


@DATA.register("fashion_mnist_private")
def fashion_mnist_private() -> Dataset:
    """The other 60,000 images of Fashion-MNIST, for the members of a cooperative whose model was pretrained on the public ones."""
    return _rows(fashion_mnist(), slice(_PUBLIC, None))


def _rows(dataset: Dataset, some: slice) -> Dataset:
    """Some rows of a data set, as a copy, so that the others are let go."""
    return replace(dataset, features=dataset.features[some].copy(), labels=dataset.labels[some].copy())


def folder_of_files() -> Path:
    """The folder that holds the four files.

    Raises:
        ValueError: If there is none, or the variable names no folder; the message says in one line where was looked, and how to get the
            files.
    """
    if (given := os.environ.get(VARIABLE)) and not Path(given).is_dir():
        raise ValueError(f"{VARIABLE}={given!r} is no folder: set it to the folder that holds the four files of Fashion-MNIST")
    candidates = list(_candidates())
    for folder in candidates:
        if all(_path(folder, f"{part}-{kind}-ubyte") for part in _PARTS for kind in ("images-idx3", "labels-idx1")):
            return folder
    raise ValueError(
        f"the four files of Fashion-MNIST are in none of {', '.join(map(str, candidates))}: on Debian or Ubuntu run apt install "
        f"dataset-fashion-mnist; elsewhere run torchvision.datasets.FashionMNIST('data', download=True), or set {VARIABLE} to their folder"
    )


def _candidates() -> Iterator[Path]:
    if given := os.environ.get(VARIABLE):
        yield from (Path(given) / inside for inside in ("", "FashionMNIST/raw", "fashion-mnist"))
    else:
        yield from _KNOWN


def _path(folder: Path, name: str) -> Path | None:
    """The file of this name, gzipped or plain; ``None`` if there is none."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _images(folder: Path, part: str, n_rows: int) -> NDArray[np.uint8]:
    return _read(folder, f"{part}-images-idx3-ubyte", (n_rows, _SIDE, _SIDE))


def _read(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The bytes in one of the files.

    Raises:
        ValueError: If the file holds anything but unsigned bytes of this shape.
    """
    path = _path(folder, name)
    assert path is not None
    try:
        array = read_idx(path)
    except ValueError as error:
        raise ValueError(f"{error}: get {path} again") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}: must be uint8 of shape {shape}; get the file again")
    return array
