"""Small tables of which scenarios are drafted in seconds."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from proxycoop.training.analysis import calibrate, diagnosis, stakes
from proxycoop.training.drafting import plan


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Measured on one split, in few and short episodes: what is tested here is not how exact the numbers are."""
    monkeypatch.setattr(calibrate, "_CPU_SECONDS", 0.0)
    monkeypatch.setattr(diagnosis, "SPLITS", 1)
    monkeypatch.setattr(diagnosis, "EPISODES", 2)
    monkeypatch.setitem(calibrate._RATES, "sgd", (0.05, 0.2, 0.5))
    monkeypatch.setattr(stakes, "_MOST_STEPS", 2)
    monkeypatch.setattr(plan, "ROUNDS", 2)


def loans(n_rows=900, seed=0):
    """Loans, column by column: an identifier, a date, a constant, gaps, a leak, sex, age, sites, and the label ``default``."""
    random = np.random.default_rng(seed)
    sex, branch = random.choice(["f", "m"], n_rows, p=[0.4, 0.6]), random.choice(["n", "s", "e", "w"], n_rows)
    age, income = random.integers(18, 80, n_rows), random.normal(30, 8, n_rows).round(2)
    late, work = random.poisson(0.8, n_rows), random.choice(["full", "part", "self"], n_rows)
    risk = 0.9 * late - 0.06 * (income - 30) - 0.03 * (age - 45) - 1.2 + 0.8 * (work == "self")
    default = random.random(n_rows) < 1 / (1 + np.exp(-2 * risk))
    first = np.datetime64("2020-01-01")
    return {
        "loan_id": [f"L{i}" for i in random.permutation(n_rows)],
        "opened": (first + random.integers(0, 1500, n_rows)).astype(str).tolist(),
        "branch": branch.tolist(),
        "sex": sex.tolist(),
        "age": age.tolist(),
        "income": np.where(random.random(n_rows) < 0.1, "", income.astype(str)).tolist(),
        "late": late.tolist(),
        "work": work.tolist(),
        "currency": ["EUR"] * n_rows,
        "fees": np.where(default, random.gamma(3, 40, n_rows).round(1), 0.0).tolist(),
        "default": np.where(default, "yes", "no").tolist(),
    }


@pytest.fixture
def table():
    """The columns, to be changed."""
    return loans()


@pytest.fixture
def write(tmp_path):
    """Write columns as a CSV file and give its path."""

    def call(columns, name="loans.csv", delimiter=","):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return path

    return call
