"""What the benchmark of late payment makes of its measurements."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def delay(benchmark_script):
    return benchmark_script("training/delay")


@pytest.fixture
def results(delay):
    """Two discounts; credit reaches 80 % of the oracle's welfare of 50, and every other pay ten points less than the one before."""
    return {
        (pay, gamma): {
            "welfare": np.array([0.78, 0.82]) * 50 - 5.0 * i,
            "clean_share": np.array([0.6, 0.6]),
            "corrupt_share": np.array([0.1, 0.3]),
            "clean_share_by_round": np.tile(np.linspace(1, 0, 8) ** (i + 1), (2, 1)),
        }
        for gamma in (0.5, 0.99)
        for i, pay in enumerate(delay.PAYS)
    }


@pytest.fixture
def references():
    return {
        "oracle": {
            "welfare": np.array([50.0, 50.0]),
            "clean_share": np.array([1.0, 1.0]),
            "corrupt_share": np.array([0.0, 0.0]),
            "clean_share_by_round": np.ones((2, 8)),
        }
    }


def test_the_table_compares_every_pay_with_credit_under_the_same_discount(delay, results, references) -> None:
    rows = delay.table(results, references).splitlines()[2:]
    assert rows[0] == "| credit, every round | 0.5 | 80 ± 25 | – | 60 ± 0 | 93, 7 | 20 ± 127 |"
    assert rows[3] == "| settlement, once an episode | 0.5 | 50 ± 25 | 30 ± 0 | 60 ± 0 | 77, 0 | 20 ± 127 |"
    assert rows[9] == "| settlement, every round, decay 0.1 | 0.99 | 40 ± 25 | 40 ± 0 | 60 ± 0 | 73, 0 | 20 ± 127 |"
    assert rows[-1] == "| (the agent `oracle`) | – | 100 ± 0 | – | 100 ± 0 | 100, 100 | 0 ± 0 |"


def test_the_sentences_say_what_the_numbers_do(delay, results, references) -> None:
    oracle = references["oracle"]["welfare"]
    first, _ = delay.findings(results, oracle).strip().split("\n\n")
    assert "where nothing is late, lies 10 points below (± 0) what they learn from credit" in first
    assert "(decay 0.1), 40 points below (± 0)." in first
    assert "every 4 rounds teach lies 10 points below (± 0) what those of every round teach, and once an episode 20 points below" in first
    reversed_ = {(pay, gamma): {**one, "welfare": -one["welfare"]} for (pay, gamma), one in results.items()}
    assert "lies 10 points above (± 0) what they learn from credit" in delay.findings(reversed_, oracle)
    noisy = {key: {**one, "welfare": one["welfare"] + np.array([0.0, 9.0]) * (key[0] == delay.Pay())} for key, one in results.items()}
    assert "so it cannot be told from none) what they learn from credit" in delay.findings(noisy, oracle)


def test_the_picture_says_its_content_in_a_file_that_is_the_same_every_time(delay, results, references, tmp_path) -> None:
    for name in ("one.svg", "two.svg"):
        delay.picture(results, references["oracle"]["welfare"], tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "once an episode" in (tmp_path / "one.svg").read_text(encoding="utf-8")
