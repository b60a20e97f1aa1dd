"""A column as it was read from a file: numbers, or words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....text import one_line

MOST_COLUMNS = 20_000
"""Tables with more columns are refused: every column is a parameter of each class in even the smallest model."""
LABEL = "label"
"""The name of the label where a scenario gives it none, as the labels in a folder of IDX files."""
MISSING = "missing"
"""The level of entries that are missing, where these are filled."""


@dataclass(frozen=True)
class Column:
    """A column as it was read.

    Attributes:
        name: Its name.
        numbers: Its numbers, float32 or float64 ``(n_rows,)``, NaN where an entry is missing. Of words: the place of each row's word in
            ``words``, int32 ``(n_rows,)``, −1 where an entry is missing.
        words: The different words, in the order of their first rows; ``None`` if the column holds numbers.
        of_array: Whether it is one of the many columns of an array, which may be constant, as the corner of a picture is.
    """

    name: str
    numbers: NDArray[Any]
    words: tuple[str, ...] | None = None
    of_array: bool = False

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which entries are missing, bool ``(n_rows,)``."""
        return np.isnan(self.numbers) if self.words is None else np.asarray(self.numbers < 0)

    def rows(self, kept: NDArray[np.bool_]) -> Column:
        """The column with these rows only, and with the words that occur there."""
        numbers = self.numbers[kept]
        if self.words is None:
            return Column(self.name, numbers, of_array=self.of_array)
        used = np.unique(numbers[numbers >= 0])
        place = np.full(len(self.words) + 1, -1, dtype=np.int32)  # the last place is that of −1
        place[used] = np.arange(len(used))
        return Column(self.name, place[numbers], tuple(self.words[i] for i in used))

    def as_words(self) -> Column:
        """The column as words. Whole numbers lose their point: 1.0 becomes ``"1"``."""
        if self.words is not None:
            return self
        known = ~self.missing
        different, place = np.unique(self.numbers[known], return_inverse=True)
        numbers = np.full(len(self.numbers), -1, dtype=np.int32)
        numbers[known] = place.reshape(-1)
        return Column(self.name, numbers, tuple(number_as_word(float(one)) for one in different))

    def as_numbers(self, decimal: str = ".") -> Column | None:
        """The column as numbers; ``None`` if a word is no number."""
        if self.words is None:
            return self
        numbers = numbers_in(self.words, decimal)
        return None if numbers is None else Column(self.name, np.append(numbers, np.nan)[self.numbers])

    def texts(self) -> NDArray[np.str_]:
        """Each row's word, str ``(n_rows,)``; ``"missing"`` where there is none."""
        words = self.as_words()
        assert words.words is not None
        return np.asarray(np.array([*words.words, MISSING], dtype=np.str_)[words.numbers])


def number_as_word(number: float) -> str:
    """A number in the shortest way: ``"1"``, ``"0.5"``."""
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def numbers_in(texts: Sequence[str], decimal: str = ".") -> NDArray[np.float64] | None:
    """The texts as numbers, ``(n,)``; ``None`` if one is no number. Python would read ``1_0`` as ten, which is refused here."""
    if "_" in "".join(texts):
        return None
    try:
        plain = texts if decimal == "." else [text.replace(decimal, ".") for text in texts]
        return np.fromiter(map(float, plain), dtype=np.float64, count=len(plain))
    except ValueError:
        return None


def require_names(names: Sequence[str], what: str) -> None:
    """Refuse too many columns, and names that are empty or there twice.

    Args:
        names: The columns' names.
        what: The file, for messages.

    Raises:
        ValueError: If one is wrong.
    """
    if len(names) > MOST_COLUMNS:
        raise ValueError(f"{what} has {len(names):,} columns: at most {MOST_COLUMNS:,} are read")
    if "" in names:
        raise ValueError(
            f"{what}: column {names.index('') + 1} has no name: give it one, or, if it holds the numbers of the rows, write the file "
            "without them (pandas: index=False)"
        )
    if len(set(names)) < len(names):
        seen = set[str]()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # add returns None
        raise ValueError(f"{what}: two columns are called {one_line(twice)!r}: give each a name of its own")
