"""What each column of a table is taken for, and why.

The first that fits, in this order: the label; what was named as an attribute; *empty*; *constant*; *date*; *text* (numbers with thousands
separators, and sentences); *identifier* (another entry in every row: words, or whole numbers that count rows or are called so); a *probable
leak* (:mod:`~proxycoop.training.drafting.leaks`);
*protected* by its name; *site* by its name; *text* (words with too many levels to be categories); else a *number* or a *category*.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...envs.data.tables import Column
from .leaks import Judge

Role = Literal["label", "attribute", "empty", "constant", "date", "identifier", "leak", "protected", "site", "text", "number", "category"]

PROTECTED = (
    "sex", "gender", "race", "racial", "ethnicity", "ethnic", "age", "religion", "nationality", "citizenship", "disability", "disabled",
    "pregnant", "pregnancy", "orientation", "foreign", "caste", "minority",
    # German
    "alter", "lebensalter", "geschlecht", "herkunft", "migrationshintergrund", "ethnie", "hautfarbe", "religionszugehorigkeit",
    "religionszugehoerigkeit", "konfession", "nationalitat", "nationalitaet", "staatsangehorigkeit", "staatsangehoerigkeit", "behinderung",
    "behindert", "schwerbehindert", "schwanger",
    # French
    "sexe", "origine", "nationalite", "handicap", "handicape", "enceinte",
    # Spanish
    "edad", "sexo", "genero", "origen", "raza", "etnia", "nacionalidad", "discapacidad", "embarazada",
)  # fmt: skip
"""Words in a column's name by which it is taken for a protected attribute: English, German, French and Spanish, without accents."""
SITES = (
    "site", "branch", "hospital", "clinic", "center", "centre", "institution", "institute", "organisation", "organization", "workplace",
    "bank", "store", "school", "region", "county", "province", "district", "client", "silo",
)  # fmt: skip
"""Words in a column's name by which its levels are taken for the places that hold the data."""
MOST_LEVELS = 50
"""Different words of a category, and different numbers of a number that is taken as words."""
_IDENTIFIERS = ("id", "ids", "uuid", "guid", "key", "index", "idx", "number", "nr", "no", "ssn", "iban", "unnamed", "rownames")
_MOST_CODES = 10
_CERTAIN = 0.95
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_TIME = r"(?:[ T]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?)?"
_DATE = re.compile(
    rf"(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.](?:\d{{4}}|\d{{2}})|\d{{4}}-\d{{2}}|"
    rf"\d{{1,2}}[- .]*{_MONTH}[- .,]*(?:\d{{4}}|\d{{2}})|{_MONTH}[- .]*(?:\d{{1,2}}, *)?\d{{4}}){_TIME}",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_THOUSANDS = tuple(
    (separator, re.compile(rf"[-+]?(?:\d{{1,3}}(?:{re.escape(separator)}\d{{3}})+|\d+)(?:{re.escape(decimal)}\d+)?", re.ASCII))
    for separator, decimal in (",.", ".,", "'.", " ,", " .")
)
_WORDS_OF_A_SENTENCE = 4
"""Entries that are all different and have so many words on average are free text, and no identifier."""


@dataclass(frozen=True)
class Guess:
    """What a column is taken for.

    Attributes:
        column: The column.
        role: What it is taken for.
        why: Why, in words.
        n_levels: Number of different entries that are there.
        area: Area under the ROC curve of the column alone, on held-out rows; ``None`` where it was not judged.
        kept: Whether it was named as one to keep, whatever it is taken for.
    """

    column: Column
    role: Role
    why: str
    n_levels: int
    area: float | None = None
    kept: bool = False

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column.name

    @property
    def dropped(self) -> bool:
        """Whether the model is not to see it, and nothing else either."""
        return self.role in ("empty", "constant", "date", "identifier", "leak", "text") and not self.kept

    @property
    def in_words(self) -> bool:
        """Whether it holds few enough different entries to be an attribute, whose levels are words."""
        return self.n_levels <= (_MOST_CODES if self.column.words is None else MOST_LEVELS)


def guess(
    columns: Sequence[Column],
    label: str,
    labels: NDArray[np.int64],
    *,
    attributes: Collection[str] | None = None,
    sites: str | None = None,
    keep: Collection[str] = (),
) -> list[Guess]:
    """Say what each column is taken for.

    Args:
        columns: The columns.
        label: Name of the label.
        labels: Every row's class, int64 ``(n_rows,)``.
        attributes: Names of the protected columns; by default they are found by name.
        sites: Name of the column whose levels are places that hold data; by default it is found by name.
        keep: Names of columns that are not to be dropped.
    """
    judge = Judge(labels)
    found = list[Guess]()
    for column in columns:
        n_levels = len(_different(column))
        role, why, area = _role(column, n_levels, label, judge, attributes, sites)
        if role == "site" and any(one.role == "site" for one in found):  # the first by its name
            role, why = "category", f"{n_levels} different words"
        found.append(Guess(column, role, why, n_levels, area, kept=column.name in keep))
    return found


def _role(
    column: Column, n_levels: int, label: str, judge: Judge, attributes: Collection[str] | None, sites: str | None
) -> tuple[Role, str, float | None]:
    """What a column is taken for, why, and how well it predicts the label alone where that was judged."""
    name, words, n_present = column.name, column.words, int((~column.missing).sum())
    if name == label:
        return "label", f"named by --label; {n_levels} classes", None
    if attributes is not None and name in attributes:
        return "attribute", "named by --attributes", None
    if name == sites:
        return "site", "named by --sites", None
    if n_levels == 0:
        return "empty", "no row has an entry", None
    if n_levels == 1 and n_present == len(column.numbers):
        return "constant", f"always {str(_different(column)[0])[:40]!r}", None
    if words is not None and _share_of_dates(words) >= _CERTAIN:
        return "date", "its entries are dates, such as " + repr(words[0][:40]), None
    if words is not None and n_levels > MOST_LEVELS and (why := _why_text(words, n_levels == n_present)):
        return "text", why, None
    if n_levels == n_present > 1 and (why := _why_identifier(column)):
        return "identifier", why, None
    alone = judge.judged(column)
    area = None if alone is None else alone.area
    if alone is not None and alone.leaks:
        return "leak", f"alone it predicts the label with AUC {alone.area:.3f} on held-out rows", area
    if attributes is None and (words is None or n_levels <= MOST_LEVELS) and (word := _named(name, PROTECTED)):
        return "protected", f"its name holds {word!r}", area
    if words is None:
        return "number", f"{n_levels:,} different numbers", area
    if n_levels > MOST_LEVELS:
        return "text", f"{n_levels:,} different words, and a category has at most {MOST_LEVELS}", area
    if sites is None and n_levels > 1 and (word := _named(name, SITES)):
        return "site", f"its name holds {word!r}", area
    return "category", f"{n_levels} different words", area


def _different(column: Column) -> Sequence[str] | NDArray[np.float64]:
    """The different entries that are there."""
    return np.unique(column.numbers[~column.missing]) if column.words is None else column.words


def _named(name: str, words: Collection[str]) -> str | None:
    """The first of the words that a name holds as one of its own: ``customerAge``, ``age_group``, but not ``mileage``."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return next((word for one in _WORDS.findall(plain) if (word := one.lower()) in words), None)


def _why_text(words: Sequence[str], is_unique: bool) -> str | None:
    """Why many different words are text of which the model can learn nothing, or ``None`` if they may be something else."""
    for separator, number in _THOUSANDS:
        if any(separator in word for word in words) and all(map(number.fullmatch, words)):
            shown = next(word for word in words if separator in word)[:40]
            return f"looks like numbers with thousands separators, such as {shown!r}: remove these, and it is read as numbers"
    if is_unique and sum(len(word.split()) for word in words) >= _WORDS_OF_A_SENTENCE * len(words):
        return "free text, another one in every row"
    return None


def _why_identifier(column: Column) -> str | None:
    """Why a column with another entry in every row is an identifier, or ``None`` if it may be a measurement."""
    numbers, called_so = column.numbers[~column.missing], _named(column.name, _IDENTIFIERS)
    if column.words is not None:
        return "another word in every row" if called_so or len(numbers) > MOST_LEVELS else None
    if not np.array_equal(numbers, np.round(numbers)):
        return None
    if called_so:
        return f"another whole number in every row, and its name holds {called_so!r}"
    return "it counts the rows" if len(numbers) > MOST_LEVELS and np.ptp(numbers) < 2 * len(numbers) else None


def _share_of_dates(words: Sequence[str]) -> float:
    """Which share of the words looks like dates."""
    return float(np.mean([_DATE.fullmatch(word) is not None for word in words]))
