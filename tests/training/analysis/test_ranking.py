"""What is largest, and whether that is certain."""

import pytest

from proxycoop.training.analysis.ranking import Ranking, is_beyond, rank
from proxycoop.training.evaluate import Estimate

UNKNOWN = Estimate(None, None)


@pytest.mark.parametrize(
    ("estimates", "expected"),
    [
        ([(1.0, 0.1), (3.0, 0.2), (2.0, 0.3)], Ranking((1, 2, 0), ())),
        ([(4.8, 1.4), (21.4, 21.6)], Ranking((1, 0), (0,))),  # the intervals overlap
        ([(1.0, 0.5), (2.0, 0.5)], Ranking((1, 0), (0,))),  # they touch
        ([(1.0, 0.1), (3.0, None), (0.0, 0.1)], Ranking((1, 0, 2), (0, 2))),  # without an interval nothing is certain
        ([(2.0, 0.0), (2.0, 0.0)], Ranking((0, 1), (1,))),
        ([(None, None), (-1.0, 0.1)], Ranking((1,), ())),
        ([], Ranking((), ())),
    ],
)
def test_the_largest_comes_first_and_others_whose_intervals_reach_its_own_are_rivals(estimates, expected):
    found = rank([Estimate(*one) for one in estimates])
    assert found == expected
    assert found.is_certain == (bool(expected.order) and not expected.rivals)


def test_the_smallest_comes_first_if_asked():
    assert rank([Estimate(1.0, 0.1), Estimate(-3.0, 0.2), UNKNOWN], lowest_first=True) == Ranking((1, 0), ())


def test_paired_estimates_are_told_apart_by_their_differences():
    wide = [Estimate(1.0, 10.0), Estimate(2.0, 10.0), Estimate(3.0, 10.0)]
    known = {(2, 1): Estimate(1.0, 0.5), (2, 0): Estimate(2.0, 3.0)}
    assert rank(wide, lead=lambda i, j: known[i, j]) == Ranking((2, 1, 0), (0,))
    lowest = {(0, 1): Estimate(-1.0, 0.5), (0, 2): Estimate(-2.0, 0.5)}
    assert rank(wide, lead=lambda i, j: lowest[i, j], lowest_first=True).is_certain


def test_an_interval_is_beyond_a_limit_if_all_of_it_is():
    assert is_beyond(Estimate(1.0, 0.9))
    assert not is_beyond(Estimate(1.0, 1.0))
    assert not is_beyond(Estimate(1.0, None))
    assert not is_beyond(UNKNOWN)
    assert is_beyond(Estimate(0.6, 0.05), 0.5)
    assert is_beyond(Estimate(0.4, 0.05), 0.5, above=False)
