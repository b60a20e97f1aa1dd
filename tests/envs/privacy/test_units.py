"""How often a round tells of a lot, and which lots share rows, each counted one by one."""

import math

import pytest
import torch

from proxycoop.envs.conduct import Blend, Boost, Echo, NearTwin, Stale, Twin
from proxycoop.envs.privacy import Privacy, epsilon, overlapping, releases
from proxycoop.envs.randomness import uniform

E, N, K = 6, 4, 3
FORGERIES = (Twin(of=1), Echo(), Stale(of=1), Boost(of=0), NearTwin(of=1), Blend(), Stale(of=2, rounds=2))


@pytest.mark.parametrize("in_one_sum", [False, True])
def test_a_round_tells_of_a_lot_by_its_update_and_by_what_is_forged_of_it(in_one_sum: bool) -> None:
    sent = uniform(torch.arange(E), N, K + len(FORGERIES)) < 0.5
    found = releases(sent, FORGERIES, K, in_one_sum=in_one_sum)
    assert found.dtype == torch.int64
    for e in range(E):
        for i in range(N):
            for k in range(K):
                fresh, old = int(sent[e, i, k]), 0
                for f, forgery in enumerate(FORGERIES):
                    if getattr(forgery, "of", None) == k and sent[e, i, K + f]:
                        fresh, old = (fresh, old + 1) if forgery.kind == "stale" else (fresh + 1, old)
                if not in_one_sum and sent[e, :, K + 1].any():  # somebody's echo is as long as all updates in the mean
                    fresh = max(fresh, 1)
                assert int(found[e, i, k]) == ((fresh + old) ** 2 if in_one_sum else min(fresh, 1) + old)


def test_without_forgeries_a_lot_is_released_in_the_rounds_in_which_it_is_contributed() -> None:
    rounds = [uniform(torch.arange(E) + 100 * t, N, K) < 0.5 for t in range(5)]
    for noise in ("updates", "step"):
        privacy = Privacy(noise=noise)
        assert sum(privacy.releases(sent, (), K) for sent in rounds).equal(torch.stack(rounds).sum(dim=0))


def test_m_updates_of_a_lot_under_one_noise_tell_as_much_as_one_release_at_m_times_the_distance() -> None:
    sent = torch.tensor([[[True, True, True]]])
    times = releases(sent, (Twin(of=0), Boost(of=0)), 1, in_one_sum=True)
    assert int(times) == 9
    assert float(epsilon(times, 3.0, 1e-5)) == pytest.approx(float(epsilon(1, 1.0, 1e-5)), rel=1e-12)


def test_a_principal_has_spent_what_its_most_released_lot_has() -> None:
    released = (uniform(torch.arange(E), N, K) * 20).long()
    released[0, 0] = 0
    privacy = Privacy(noise_multiplier=1.7, delta=1e-6)
    found = privacy.spent(released)
    assert found.shape == (E, N)
    for e in range(E):
        for i in range(N):
            most = max(float(epsilon(int(n), 1.7, 1e-6)) for n in released[e, i])
            assert float(found[e, i]) == pytest.approx(most, rel=1e-14)
    assert float(found[0, 0]) == 0.0
    assert Privacy(noise_multiplier=0.0).spent(released)[0].tolist()[:2] == [0.0, math.inf]


def test_lots_overlap_where_two_hold_the_same_row() -> None:
    rows = (uniform(torch.arange(40), N, K, 4) * 60).long()
    present = torch.ones(N, K, 4, dtype=torch.bool)
    present[1, :, 2:] = False
    present[2, 0] = False
    found = overlapping(rows, present)
    for e in range(len(rows)):
        held = [[{int(row) for row, there in zip(rows[e, i, k], present[i, k], strict=True) if there} for k in range(K)] for i in range(N)]
        for i in range(N):
            for k in range(K):
                others = set().union(*(held[j][m] for j in range(N) for m in range(K) if (j, m) != (i, k)))
                assert bool(found[e, i, k]) == bool(held[i][k] & others)
    assert found.any()
    assert not found.all()
    assert not found[:, 2, 0].any()


def test_a_lot_that_holds_a_row_twice_shares_it_with_nobody() -> None:
    rows = torch.tensor([[[[0, 0, 3]], [[1, 2, 2]]], [[[0, 0, 2]], [[1, 2, 2]]]])
    assert overlapping(rows, torch.ones(2, 1, 3, dtype=torch.bool)).tolist() == [[[False], [False]], [[True], [True]]]
