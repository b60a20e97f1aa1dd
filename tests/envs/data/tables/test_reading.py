"""Own tables: what is read from files is what is in them, and nothing is guessed silently."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from proxycoop.envs.data.tables import TableFile, read, scan
from proxycoop.envs.data.tables import delimited as delimited_module

TABLE = """\
age,city,sex,code,pay
30,Paris,f,1,low
40.5,Rome,m,2,high
50,Oslo,f,1,low
60,Rome,m,10,high
"""


@pytest.fixture
def table(tmp_path):
    """Reads a table of text."""

    def table(text: str = TABLE, *, label: str = "pay", **settings):
        (tmp_path / "own.csv").write_text(text)
        return read("csv", TableFile(path=str(tmp_path / "own.csv"), label=label, **settings))

    return table


def test_numbers_stay_and_words_become_one_column_a_level(table):
    dataset = table(attributes=["sex"]).dataset
    assert dataset.class_names == ("high", "low")
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    assert dataset.feature_names == ("age", "city=Oslo", "city=Paris", "city=Rome", "code")
    assert dataset.features.tolist() == [[30, 0, 1, 0, 1], [40.5, 0, 0, 1, 2], [50, 1, 0, 0, 1], [60, 0, 0, 1, 10]]
    assert dataset.attributes["sex"].tolist() == ["f", "m", "f", "m"]


def test_of_two_levels_one_column_says_all(table):
    dataset = table(drop=["city", "age", "code"]).dataset
    assert dataset.feature_names == ("sex=m",)
    assert dataset.features[:, 0].tolist() == [0, 1, 0, 1]


def test_ordinal_categories_are_places_in_the_alphabet(table):
    dataset = table(categories="ordinal", drop=["sex"]).dataset
    assert dataset.features[:, dataset.column("city")].tolist() == [1, 2, 0, 2]


def test_codes_are_treated_as_words_if_asked(table):
    dataset = table(as_categories=["code"]).dataset
    assert [name for name in dataset.feature_names if "code" in name] == ["code=1", "code=10", "code=2"]


def test_attributes_are_features_only_if_asked(table):
    assert "sex=m" not in table(attributes=["sex"]).dataset.feature_names
    both = table(attributes=["sex", "age"], also_features=["sex", "age"]).dataset
    assert both.features[:, both.column("sex=m")].tolist() == [0, 1, 0, 1]
    assert both.features[:, both.column("age")].tolist() == [30, 40.5, 50, 60]
    assert both.attributes["age"].tolist() == ["30", "40.5", "50", "60"]


def test_classes_that_are_numbers_are_in_their_order(table):
    dataset = table(label="code").dataset
    assert dataset.class_names == ("1", "2", "10")
    assert dataset.labels.tolist() == [0, 1, 0, 2]
    assert table(TABLE.replace(",1,", ",1.0,"), label="code").dataset.class_names == ("1", "2", "10")


def test_words_after_many_numbers_are_found_and_their_text_is_kept(table, monkeypatch):
    monkeypatch.setattr(delimited_module, "_CELLS", 10)  # two rows at a time
    text = TABLE.replace(",10,", ",x,").replace("Paris,f,1", "Paris,f,01")
    dataset = table(text).dataset
    assert [name for name in dataset.feature_names if "code" in name] == ["code=01", "code=1", "code=2", "code=x"]


@pytest.mark.parametrize("cells", [5, 10, 10**6])
def test_the_size_of_the_pieces_changes_nothing(cells, table, monkeypatch):
    whole = table().dataset
    monkeypatch.setattr(delimited_module, "_CELLS", cells)
    pieces = table().dataset
    assert (pieces.features == whole.features).all()
    assert pieces.feature_names == whole.feature_names


def test_semicolons_and_decimal_commas(table):
    dataset = table(TABLE.replace(",", ";").replace(".", ","), decimal=",")
    assert dataset.dataset.features[:, 0].tolist() == [30, 40.5, 50, 60]
    assert "columns are separated by semicolons, as was guessed" in dataset.told
    assert "guessed" not in " ".join(table(TABLE.replace(",", ";").replace(".", ","), decimal=",", delimiter=";").told)


def test_quotes_protect_delimiters_quotes_and_line_breaks(table):
    dataset = table('a,b,pay\n1,"x, ""y""\nz",low\n2,w,high\n3,w,low\n').dataset
    assert dataset.feature_names == ("a", 'b=x, "y"\nz')
    assert table('a,b,pay\n1,"x",low\n\n2,w,high\n').dataset.features.tolist() == [[1, 1], [2, 0]]  # an empty line is none


def test_underscores_make_no_numbers(table):
    assert "code=1_0" in table(TABLE.replace(",10,", ",1_0,")).dataset.feature_names


GAPS = TABLE.replace("40.5", "").replace("Oslo", "NA").replace("60,Rome,m", "60,Rome,?")


def test_missing_entries_are_refused_with_their_numbers(table):
    with pytest.raises(
        ValueError, match=r"lacks entries: 1 in 'age', 1 in 'city', 1 in 'sex'\. Set data\.file\.missing to drop_rows or fill"
    ):
        table(GAPS)
    assert len(table(GAPS, drop=["age", "city", "sex"]).dataset.labels) == 4  # of columns that are dropped they do not count


def test_rows_with_gaps_are_left_out_and_counted(table):
    found = table(GAPS, missing="drop_rows", drop=["sex"])
    assert found.dataset.features[:, 0].tolist() == [30, 60]
    assert "2 of 4 rows are left out, for entries that lack: 1 in 'age', 1 in 'city'" in found.told
    assert found.dataset.feature_names == ("age", "city=Rome", "code")  # Oslo is gone with its row


def test_gaps_that_are_filled_are_marked(table):
    found = table(GAPS, missing="fill", attributes=["sex"])
    dataset = found.dataset
    assert dataset.feature_names == ("age", "age=missing", "city=Paris", "city=Rome", "city=missing", "code")
    assert np.isnan(dataset.features[:, 0]).tolist() == [False, True, False, False]  # the train pool's median comes later
    assert dataset.features[:, 1].tolist() == [0, 1, 0, 0]
    assert dataset.features[:, 4].tolist() == [0, 0, 1, 0]
    assert dataset.attributes["sex"].tolist() == ["f", "m", "f", "missing"]
    assert "entries that lack are filled: 1 in 'age', 1 in 'city', 1 in 'sex'" in found.told


def test_what_counts_as_missing_can_be_said(table):
    text = TABLE.replace("40.5", "-999")
    assert table(text).dataset.features[1, 0] == -999
    assert np.isnan(table(text, missing="fill", missing_marks=["-999"]).dataset.features[1, 0])


def test_a_scan_tells_columns_apart_and_encodes_nothing(tmp_path):
    (tmp_path / "own.csv").write_text(GAPS)
    columns, _ = scan("csv", TableFile(path=str(tmp_path / "own.csv"), drop=["code"]))
    assert [(column.name, column.words) for column in columns] == [
        ("age", None),
        ("city", ("Paris", "Rome")),
        ("sex", ("f", "m")),
        ("pay", ("low", "high")),
    ]
    assert [int(column.missing.sum()) for column in columns] == [1, 1, 1, 0]


def test_arrays_are_columns_and_pictures_many(tmp_path):
    pictures = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    np.savez(
        tmp_path / "own.npz", image=pictures, town=["a", "b", "c", "a"], size=[1, 2, 3, 4], label=[0, 1, 1, 0], sex=["f", "m", "m", "f"]
    )
    file = TableFile(path=str(tmp_path / "own.npz"), label="label", attributes=["sex"], drop=["size"])
    dataset = read("npz", file).dataset
    assert dataset.features.dtype == np.float32
    assert dataset.feature_names == (*(f"image_{j}" for j in range(6)), "town=a", "town=b", "town=c")
    assert (dataset.features[:, :6] == pictures.reshape(4, 6)).all()
    assert dataset.class_names == ("0", "1")
    assert dataset.attributes["sex"].tolist() == ["f", "m", "m", "f"]
    whole = read("npz", file.model_copy(update={"drop": ()})).dataset
    assert whole.features.dtype == np.float64  # single precision does not hold all whole numbers


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def test_a_folder_of_idx_files_is_read_plain_or_compressed(tmp_path):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (50, 3, 2)), np.arange(50) % 3
    for name, content in (("train", slice(30)), ("t10k", slice(30, 50))):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = tmp_path / f"{name}-{kind}-ubyte"
            written = idx(array[content])
            path.write_bytes(written) if name == "train" else path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(written))
    dataset = read("idx", TableFile(path=str(tmp_path), split="part")).dataset
    assert dataset.features.dtype == np.float32
    assert np.allclose(dataset.features, images.reshape(50, 6) / 255, atol=1e-7)
    assert dataset.labels.tolist() == labels.tolist()
    assert dataset.attributes["part"].tolist() == ["train"] * 30 + ["test"] * 20
    assert "part" not in " ".join(read("idx", TableFile(path=str(tmp_path))).dataset.feature_names)
    two = TableFile(path=str(tmp_path / "train-images-idx3-ubyte"), label="train-labels-idx1-ubyte")
    assert (read("idx", two).dataset.features == dataset.features[:30]).all()


def test_parquet_gives_what_csv_gives(table, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "age": pa.array([30.0, None, 50.0, 60.0]),
        "city": pa.array(["Paris", "Rome", None, "Rome"]).dictionary_encode(),
        "sex": pa.array(["f", "m", "f", None], pa.large_string()),
        "code": pa.array([1, 2, 1, 10], pa.int64()),
        "pay": pa.array(["low", "high", "low", "high"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    settings = {"label": "pay", "attributes": ["sex"], "missing": "fill"}
    ours, theirs = table(GAPS, **settings).dataset, read("parquet", TableFile(path=str(tmp_path / "own.parquet"), **settings)).dataset
    assert np.array_equal(ours.features, theirs.features, equal_nan=True)
    assert (ours.feature_names, ours.class_names) == (theirs.feature_names, theirs.class_names)
    assert ours.attributes["sex"].tolist() == theirs.attributes["sex"].tolist()


def test_parquet_keeps_true_and_false_whole_numbers_with_gaps_and_names_with_dots(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"a.b": pa.array([True, False, True]), "n": pa.array([1, None, 3], pa.int32()), "y": pa.array([0, 1, 1], pa.int8())}
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    dataset = read("parquet", TableFile(path=str(tmp_path / "own.parquet"), label="y", missing="fill")).dataset
    assert dataset.feature_names == ("a.b", "n", "n=missing")
    assert np.array_equal(dataset.features, [[1, 1, 0], [0, np.nan, 1], [1, 3, 0]], equal_nan=True)
