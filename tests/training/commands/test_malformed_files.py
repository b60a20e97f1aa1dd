"""Malformed files of data: each gives one clear line on the command line, soon, and no traceback."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest

ROWS = [f"{i % 7},{i % 5},{'yes' if i % 3 else 'no'}" for i in range(600)]
TEXT = "\n".join(["a,b,label", *ROWS]) + "\n"
SCENARIO = """
data:
  source: {source}
  file: {{path: {path}, label: {label}{more}}}
  scaling: standardise
  public_rows: 20
  validation: {{rows: 40}}
  test: {{rows: 40}}
lots: {{rows: 10}}
horizon: 1
"""


def changed(line: int, to: str) -> str:
    """The good table with one of its lines replaced; the header is line 1."""
    lines = TEXT.splitlines()
    lines[line - 1] = to
    return "\n".join(lines) + "\n"


def with_column(name: str, entries) -> str:
    """The good table with another column at the end."""
    return "\n".join([f"a,b,label,{name}", *(f"{row},{entry}" for row, entry in zip(ROWS, entries, strict=True))]) + "\n"


CSV = {
    "a wrong delimiter": (TEXT, ", delimiter: ';'", "has one column where data.file.delimiter=';': leave the delimiter out"),
    "quotes that are not closed": (changed(300, '1,"2,no'), "", r"a quote is (probably )?not closed"),
    "a quote within a field": (changed(300, '1,"2"3,no'), "", "line 300: .*a quote is not closed, or stands within a field"),
    "a row with more fields": (changed(17, "1,2,no,3"), "", "line 17: 4 fields, but the header has 3, between commas: correct the line"),
    "a row with fewer fields": (changed(17, "1,2"), "", "line 17: 2 fields, but the header has 3"),
    "no such label": (
        TEXT.replace("label", "lable"),
        "",
        r"data.file.label: unknown column 'label' \(did you mean 'lable'\?\).* a, b, lable",
    ),
    "one class": (TEXT.replace("no", "yes"), "", "label 'label' is 'yes' in every row: there must be at least two classes"),
    "a label of measurements": (
        with_column("z", range(600)),
        ", delimiter: ','",
        "label 'z' has 600 different entries.*is it a measurement",
    ),
    "a constant column": (with_column("z", [3] * 600), "", "column 'z' is '3' in every row.*data.file.drop"),
    "dates": (with_column("z", [f"2020-01-{1 + i % 28:02}" for i in range(600)]), "", "column 'z' holds dates, such as '2020-01-01'"),
    "names": (with_column("z", [f"p{i}" for i in range(600)]), "", "column 'z' has 600 levels, such as 'p0', and at most 50 are allowed"),
    "numbers but for one mark": (
        with_column("z", ["unknown", *range(599)]),
        "",
        r"all are numbers but 'unknown': data.file.missing_marks\?",
    ),
    "commas in numbers": (
        with_column("z", [f"{i},5" for i in range(600)]).replace(",", ";").replace(";5\n", ",5\n"),
        "",
        "column 'z' holds numbers with a comma, such as '0,5': set data.file.decimal to ','",
    ),
    "missing entries": (
        with_column("z", ["NA", "", *range(598)]),
        "",
        "lacks entries: 2 in 'z'. Set data.file.missing to drop_rows or fill",
    ),
    "a missing label": (changed(17, "1,2,"), ", missing: fill", "1 entries lack in 'label', which cannot be filled"),
    "a column without entries": (with_column("z", [""] * 600), ", missing: fill", "'z' hold no entry at all"),
    "only rows with gaps": (with_column("z", [""] * 600), ", missing: drop_rows", "drop_rows leaves no row; entries lack: 600 in 'z'"),
    "infinite numbers": (with_column("z", ["inf", *range(599)]), "", "column 'z' holds inf in row 1; 1 entries in all are not finite"),
    "numbers beyond single precision": (
        with_column("z", [*range(599), "-1e300"]),
        "",
        r"column 'z' holds -1e\+300 in row 600; 1 entries in all are beyond ±3.4e\+38",
    ),
    "no row": ("a,b,label\n", "", "has a header and no rows"),
    "no header": ("\n".join(f"{i},{i % 3}" for i in range(9)), "", "its first line holds numbers, and must name the columns"),
    "an empty first line": ("\n" + TEXT, "", "its first line is empty"),
    "two columns of one name": (TEXT.replace("a,b", "a,a"), "", "two columns are called 'a'"),
    "a column without a name": (TEXT.replace("a,b", ",b"), "", "column 1 has no name.*pandas: index=False"),
    "a split by other words": (
        with_column("z", ["train", "dev"] * 300),
        ", split: z",
        "column 'z' holds 'dev': its levels must be public, train",
    ),
    "a split without training": (with_column("z", ["test"] * 600), ", split: z", "column 'z' has no row with train"),
    "zero bytes": (changed(17, "1,\0,no"), "", "is no text: it holds zero bytes"),
    "no feature": (TEXT, ", drop: [a, b]", "no column is left for the features"),
    "no such attribute": (TEXT, ", attributes: [c]", r"data.file.attributes: unknown column 'c'.*a, b, label"),
}


@pytest.fixture
def refused(run, tmp_path):
    """Plays a scenario with a file that cannot be used; answers with the one line that says so."""

    def play(path, source: str = "csv", label: str = "label", more: str = "") -> str:
        scenario = tmp_path / "own.yaml"
        scenario.write_text(SCENARIO.format(source=source, path=path, label=label, more=more))
        code, out, err = run("play", "-s", scenario)
        assert code == 2, err
        assert not out
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return play


@pytest.mark.parametrize("fault", CSV)
def test_a_malformed_table_gives_one_line(fault, refused, tmp_path):
    text, more, said = CSV[fault]
    (tmp_path / "own.csv").write_text(text)
    err = refused("own.csv", label="z" if "measurements" in fault else "label", more=more.replace(", delimiter: ','", ""))
    assert "own.csv" in err
    assert re.search(said, err), err


def test_the_good_table_plays_with_and_without_a_byte_order_mark_and_compressed(run, tmp_path):
    scenario, outs = tmp_path / "own.yaml", []
    for name, content in (
        ("own.csv", TEXT.encode()),
        ("bom.csv", b"\xef\xbb\xbf" + TEXT.encode()),
        ("own.csv.gz", gzip.compress(TEXT.encode())),
        ("windows.csv", TEXT.replace("\n", "\r\n").encode()),
        ("semicolons.csv", TEXT.replace(",", ";").encode()),
        ("tabs.tsv", TEXT.replace(",", "\t").encode()),
        ("quoted.csv", TEXT.replace("yes", '"yes"').encode()),
    ):
        (tmp_path / name).write_bytes(content)
        scenario.write_text(SCENARIO.format(source="csv", path=name, label="label", more=""))
        code, out, err = run("play", "-s", scenario)
        assert code == 0, err
        outs.append(out)
    assert len(set(outs)) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("own.csv", gzip.compress(TEXT.encode()), "is compressed by gzip, though its name does not end in .gz: rename it"),
        ("own.csv.gz", TEXT.encode(), "is not compressed by gzip, though its name ends in .gz"),
        ("own.csv.gz", gzip.compress(TEXT.encode())[:-20], "is a gzip file that is damaged or cut off"),
        ("own.csv", TEXT.encode("utf-16"), "is UTF-16 or UTF-32 text: save it as UTF-8"),
        ("own.csv", TEXT.encode("utf-16-le"), "is UTF-16 or UTF-32 text"),
        ("own.csv", bytes(range(1, 256)) * 40, "is no text: line 2 holds bytes that no text has"),
        ("own.csv", "a,é,label\n1,2,no\n".encode("latin-1"), "'own.csv', line 1: byte 0xe9"),
        ("own.csv", changed(17, "1,2,né").encode("latin-1"), "line 17: byte 0xe9 is not UTF-8.*Latin-1 or Windows-1252: save it as UTF-8"),
        ("own.csv", b"PK\x03\x04" + bytes(99), "is a zip archive, or the workbook of a spreadsheet: save the table as CSV"),
        ("own.csv", b"PAR1" + bytes(99), "is a Parquet file: use data.source: parquet"),
        ("own.csv", b"", "is empty"),
        ("own.csv", ",".join(f"c{i}" for i in range(10**6)).encode() + b",label\n" + b"1," * 10**6 + b"no\n", "at most 20,000 are read"),
        ("own.csv", b"a,b,label\n" + b"1" * 2**27, "more than 67,108,864 characters|field larger than field limit"),
    ],
)
def test_a_file_of_another_kind_gives_one_line(name, content, said, refused, tmp_path):
    (tmp_path / name).write_bytes(content)
    err = refused(name)
    assert re.search(said, err), err[:500]
    assert len(err) < 600


def test_what_is_no_file_gives_one_line(refused, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        ("folder", "is a folder: give a file"),
        ("loop", "is a link that leads back to itself"),
        ("dangling", "does not exist"),
        ("nothing.csv", "nothing.csv' does not exist"),
        ("pipe", "is a pipe or a device"),
        ("~/own.csv", "'~' is not replaced by a home folder here"),
        ("own.yaml/own.csv", "a part of the path is a file"),
        ("x" * 300, "is too long a path"),
    ):
        err = refused(path)
        assert said in err
        assert err.startswith(f"error: {tmp_path / 'own.yaml'}:4: data.file.path: ")


def test_a_file_that_may_not_be_read_gives_one_line(refused, tmp_path, monkeypatch):
    def denied(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "own.csv").write_text(TEXT)
    monkeypatch.setattr("proxycoop.envs.data.tables.digests.open", denied, raising=False)  # for the superuser nothing is forbidden
    assert "own.csv' may not be read: you have no permission for it" in refused("own.csv")


def saved(**arrays) -> bytes:
    """An archive of arrays."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


X, Y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (saved(x=X, label=Y)[:-200], "is no archive of numpy.savez, or is damaged"),
        (b"label", "is no archive of numpy.savez, or is damaged"),
        (saved(x=np.array([{"a": 1}] * 60, dtype=object), label=Y), "an array holds Python objects, which may run code"),
        (saved(x=X[:50], label=Y), "array 'x' has 50 rows, and others have 60"),
        (saved(x=X, y=Y), r"unknown column 'label'.*x_0, x_1, x_2, y"),
        (saved(x=np.float64(1), label=Y), "array 'x' is a single number"),
        (saved(x=X.astype(complex), label=Y), "array 'x' holds complex128, neither numbers nor text"),
        (saved(x=np.where(X > 2, np.nan, X), label=Y), "lacks entries: .* in 'x_"),
        (saved(x=np.where(X > 2, np.inf, X), label=Y), "are not finite"),
        (saved(x=np.zeros((60, 30000), dtype=np.uint8), label=Y), "array 'x' has 30,000 entries a row: at most 20,000 are read"),
        (saved(x=X[:0], label=Y[:0]), "has arrays without rows"),
        (saved(x=np.array([["a", "b"]] * 60), label=Y), "text must be one entry a row"),
        (saved(), "holds no array|no archive"),
    ],
)
def test_a_malformed_archive_of_arrays_gives_one_line(content, said, refused, tmp_path):
    (tmp_path / "own.npz").write_bytes(content)
    err = refused("own.npz", source="npz")
    assert re.search(said, err), err


def test_pickles_are_never_loaded(refused, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    np.savez(tmp_path / "own.npz", x=np.array([Harm()] * 60, dtype=object), label=Y, allow_pickle=True)
    refused("own.npz", source="npz")
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Harm()))
    refused("own.npz", source="npz")
    assert not (tmp_path / "harm").exists()


def test_a_single_array_gives_one_line(refused, tmp_path):
    np.save(tmp_path / "own.npy", X)
    assert "is a single array (npy)" in refused("own.npy", source="npz")


def idx(array: np.ndarray, magic: bytes = b"\0\0\x08") -> bytes:
    """An array of bytes as an IDX file."""
    return magic + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


IMAGES, LABELS = idx(np.arange(60 * 4).reshape(60, 2, 2)), idx(Y)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (IMAGES[:-5], LABELS, r"'images' is cut off or damaged: its header says 240 bytes of shape \(60, 2, 2\), and there are 235"),
        (IMAGES + b"1", LABELS, "and there are more"),
        (b"\1" + IMAGES, LABELS, "'images' is no IDX file: it begins with 01 00 00 08"),
        (idx(np.zeros((60, 2, 2)), b"\0\0\x07"), LABELS, "'images' is no IDX file: it begins with 00 00 07 03"),
        (IMAGES[:7], LABELS, "'images' is cut off in its header"),
        (b"\0\0\x08\3" + b"\xff" * 12 + bytes(99), LABELS, "is cut off or damaged|more than fits into memory"),
        (gzip.compress(IMAGES)[:-20], LABELS, "'images' is a gzip file that is damaged or cut off"),
        (IMAGES, idx(Y[:50]), "hold 60 images and 50 labels"),
        (LABELS, IMAGES, "holds an array of shape"),
        (IMAGES, idx(Y * 0), "label 'labels' is '0' in every row"),
        (idx(np.zeros((0, 2, 2))), LABELS, "'images' holds nothing"),
    ],
)
def test_malformed_idx_files_give_one_line(images, labels, said, refused, tmp_path):
    (tmp_path / "images").write_bytes(images)
    (tmp_path / "labels").write_bytes(labels)
    err = refused("images", source="idx", label="labels")
    assert re.search(said, err), err


def test_a_folder_without_the_files_of_mnist_gives_one_line(refused, tmp_path):
    (tmp_path / "mnist").mkdir()
    assert "has no train-images-idx3-ubyte, nor train-images-idx3-ubyte.gz" in refused("mnist", source="idx", label="null")


def test_malformed_parquet_files_give_one_line(refused, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    label = pa.array(["no", "yes"] * 30)
    for columns, said in (
        ({"x": pa.array([[1, 2]] * 60), "label": label}, "column 'x' is nested (list<"),
        ({"x": pa.array([{"a": 1}] * 60), "label": label}, "column 'x' is nested (struct<"),
        ({"x": pa.array([b"1"] * 60), "label": label}, "column 'x' holds binary, neither numbers nor text"),
        ({"x": pa.array([None, *range(59)]), "label": label}, "lacks entries: 1 in 'x'"),
        ({"x": pa.array([None] * 60), "label": label}, "lacks entries: 60 in 'x'"),
        ({"x": pa.array(range(60), pa.timestamp("s")), "label": label}, "column 'x' holds dates, such as '1970-01-01 00:00:00"),
        ({"x": pa.array([]), "label": pa.array([])}, "has no rows"),
    ):
        pq.write_table(pa.table(columns), tmp_path / "own.parquet")
        assert said in refused("own.parquet", source="parquet")
    pq.write_table(pa.Table.from_arrays([label, label, label], ["x", "x", "label"]), tmp_path / "own.parquet")
    assert "two columns are called 'x'" in refused("own.parquet", source="parquet")
    whole = (tmp_path / "own.parquet").read_bytes()
    for content in (whole[:-30], whole[:100], b"PAR1" + bytes(50) + b"PAR1", TEXT.encode()):
        (tmp_path / "own.parquet").write_bytes(content)
        assert "is no Parquet file, or is damaged or cut off" in refused("own.parquet", source="parquet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source: csv", "data.source: csv reads a file: say which, as in file: {path: my.csv, label: default}"),
        ("source: digits\n  file: {path: own.csv, label: a}", "data.file: source 'digits' reads no file"),
        ("source: csv\n  file: {path: own.csv}", "data.file.label: is needed: the column that the model learns to predict"),
        (
            "source: npz\n  file: {path: own.csv, label: a, decimal: ','}",
            "data.file.decimal: is read with source csv alone, and source is npz",
        ),
        ("source: csv\n  file: {path: own.csv, label: a, drop: [a]}", "data.file.drop: 'a' is under label too: leave one of the two"),
        ("source: csv\n  file: {path: own.csv, label: a, also_features: [b]}", "data.file.also_features: 'b' is none of the attributes"),
        ("source: csv\n  file: {path: own.csv, label: a, lable: a}", "did you mean 'label'?"),
        (
            "source: csv\n  file: {path: own.csv, label: a, decimal: ',', delimiter: ','}",
            "data.file.delimiter: must be neither the decimal",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named_with_their_line(text, said, run, tmp_path):
    (tmp_path / "own.csv").write_text(TEXT)
    (tmp_path / "own.yaml").write_text(f"data:\n  {text}\n")
    code, _, err = run("play", "-s", tmp_path / "own.yaml")
    assert code == 2
    assert said in err
    assert err.startswith(f"error: {tmp_path / 'own.yaml'}:")
