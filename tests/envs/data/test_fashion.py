"""Fashion-MNIST: what the files hold, where they are looked for, and files that are not what they should be."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from proxycoop.envs.data import DATA, Dataset, fashion


def idx(*shape: int, entries: bytes | None = None) -> bytes:
    return (
        bytes((0, 0, 8, len(shape))) + np.array(shape, dtype=">u4").tobytes() + (bytes(int(np.prod(shape))) if entries is None else entries)
    )


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images for training and two for the test, in files as torchvision lays them."""
    monkeypatch.setattr(fashion, "_PARTS", {"train": 3, "t10k": 2})
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, n in (("train", 3), ("t10k", 2)):
        pixels = np.full((n, 28, 28), 51, dtype=np.uint8)
        pixels[:, 1, 2] = 255
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(n, 28, 28, entries=pixels.tobytes()))
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(idx(n, entries=bytes(range(n))))
    monkeypatch.setenv(fashion.VARIABLE, str(tmp_path))
    return folder


def test_the_files_are_read_plain_and_gzipped_from_the_folder_that_the_variable_names(small: Path) -> None:
    table = fashion.fashion_mnist()
    assert fashion.folder_of_files() == small
    assert table.labels.tolist() == [0, 1, 2, 0, 1]
    assert table.features.shape == (5, 784)
    assert table.features.dtype == np.float32
    assert table.features[:, table.column("pixel_1_2")].tolist() == [1] * 5
    assert np.unique(table.features).tolist() == [np.float32(0.2), 1]


def test_missing_files_are_an_error_of_one_line_that_says_how_to_get_them(small: Path) -> None:
    (small / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match=r"apt install dataset-fashion-mnist; elsewhere run torchvision.* set PROXYCOOP_DATA") as caught:
        fashion.fashion_mnist()
    assert str(small) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_variable_that_names_no_folder_is_refused_by_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fashion.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"PROXYCOOP_DATA='.*nowhere' is no folder: set it to the folder that holds the four files"):
        fashion.folder_of_files()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


def of_another_kind(path: Path) -> None:
    path.write_bytes(idx(3, 27, 28))


@pytest.mark.parametrize("damage", [cut, lengthened])
def test_a_damaged_file_is_refused_by_its_name(small: Path, damage) -> None:
    damage(small / "train-images-idx3-ubyte")
    with pytest.raises(ValueError, match=r"'train-images-idx3-ubyte' is cut off or damaged.*: get .*train-images-idx3-ubyte again"):
        fashion.fashion_mnist()


def test_a_file_of_another_shape_is_refused_by_its_name(small: Path) -> None:
    of_another_kind(small / "train-images-idx3-ubyte")
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte holds uint8 of shape \(3, 27, 28\): must be uint8 of shape \(3, 28, 28\)"
    ):
        fashion.fashion_mnist()


def test_a_gzip_file_that_is_cut_off_is_refused(small: Path) -> None:
    cut(small / "train-labels-idx1-ubyte.gz")
    with pytest.raises(ValueError, match=r"'train-labels-idx1-ubyte.gz' is a gzip file that is damaged or cut off.*again"):
        fashion.fashion_mnist()


@pytest.mark.fashion
def test_fashion_mnist_has_7000_images_of_each_of_ten_classes() -> None:
    table = DATA.make("fashion_mnist")
    assert table.features.shape == (70_000, 784)
    assert np.bincount(table.labels).tolist() == [7_000] * 10
    assert (table.features.min(), table.features.max()) == (0, 1)
    assert table.class_names[table.labels[0]] == "ankle boot"  # the first training image, as its authors show it


def test_a_table_of_float32_stays_so_and_half_as_large() -> None:
    features = np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2)
    table = Dataset(features=features, labels=np.array([0, 1, 0]), class_names=("a", "b"), feature_names=("x", "y"))
    assert table.features.dtype == np.float32
