"""What each mechanism guarantees, on random instances, against definitions in loops that live in the benchmark."""

from collections.abc import Callable
from types import ModuleType

import pytest

from proxycoop.envs.admission import MECHANISMS

INSTANCES = 400


@pytest.fixture(scope="module")
def bench(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("values/admission")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_mechanism_keeps_what_it_guarantees_on_random_instances(mechanism: str, bench: ModuleType) -> None:
    n_instances = INSTANCES // 2 if mechanism == "auction" else INSTANCES  # every agent tries a score of other bids
    found = bench.checked(mechanism, n_instances, seed=1000)
    assert {claim: violations for claim, (_, violations) in found.items() if violations} == {}
    assert all(instances >= 100 for instances, _ in found.values())
    assert max(instances for instances, _ in found.values()) == n_instances


def test_every_mechanism_is_checked(bench: ModuleType) -> None:
    assert tuple(bench.CHECKS) == MECHANISMS


def test_only_baileys_rebates_with_unequal_sizes_exceed_the_revenue(bench: ModuleType) -> None:
    for name, share, back, excess in bench.deficits(2000):
        may = name.startswith("1 to 4") and name.endswith("bailey")
        assert (share > 0, excess > 0) == (may, may), name
        assert 0.5 < back < 0.9, name


def test_the_table_has_a_row_for_each_claim_and_each_auction(bench: ModuleType) -> None:
    text = bench.table({"lottery": {"a claim": (1000, 0)}}, [("2 each, x = 0.5, bailey", 0.0, 0.606, 0.0)])
    assert "| `lottery` | a claim | 1,000 | 0 |\n" in text
    assert "| 2 each, x = 0.5, bailey | 0.0 % | 60.6 % | 0.00 % |\n" in text


def test_definitions_of_the_benchmark_find_what_is_wrong(bench: ModuleType) -> None:
    one, three = {0: bench.Fraction(1), 1: bench.Fraction(0)}, {0: bench.Fraction(0), 1: bench.Fraction(1)}
    utilities = [one, one, three, three]  # two places, two principals, each wants two candidates of its own
    assert bench.breaks_ejr(2, utilities, 2, {0, 1}, up_to_one=False)
    assert not bench.breaks_ejr(2, utilities, 2, {0, 2}, up_to_one=False)
    both, first = {0: bench.Fraction(1), 1: bench.Fraction(1)}, {0: bench.Fraction(3), 1: bench.Fraction(0)}  # with one more, 3 is above 1
    assert bench.breaks_ejr(1, [both, first], 2, set(), up_to_one=False)
    assert not bench.breaks_ejr(1, [both, first], 2, set(), up_to_one=True)
    assert bench.uneven({(0, 0), (0, 1)}, {(0, 0), (0, 1), (1, 0)}, 2)
    assert not bench.uneven({(0, 0), (0, 1)}, {(0, 0), (0, 1)}, 2)
    assert bench.maximin_share(5, 2, [3.0, -1.0, 2.0, 1.0]) == 5.0
    assert list(bench.partitions(3, 2, 3)) == [[3, 0], [2, 1]]
