"""Fair yet asymptotically equal: ψ, Hotelling's test, and the turn from exploring to exploiting."""

import math
from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from proxycoop import credit
from proxycoop.credit.rounds.fael import contributions, p_value_of_no_drift
from proxycoop.envs import Engine, scenario

TARGET = torch.ones(1, 2, dtype=torch.float64)
THREE = torch.tensor([[[0.5, 0.1], [0.2, 0.4], [-0.1, 0.3]]], dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pointing(angle: float) -> list[list[float]]:
    """Updates of two agents: along the first parameter, and turned by an angle from there."""
    return [[1.0, 0.0], [2 * math.cos(angle), 2 * math.sin(angle)]]


# ψ


def test_psi_of_two_agents_by_hand():
    """Updates (3, 0) and (0, 4): G_N = (3, 4); the cosines with it are 0.6, 0.8, and 1 of both together.

    So ψ_0 = ½[(0.6 − 0) + (1 − 0.8)] = 0.4 and ψ_1 = ½[(0.8 − 0) + (1 − 0.6)] = 0.6: with two agents nothing is left to chance.
    """
    psi = contributions(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]).double(), np.random.default_rng(0))
    assert psi[0].tolist() == pytest.approx([0.4, 0.6], abs=1e-15)


def cosine(a: Tensor, b: Tensor) -> float:
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths > 1e-12 else 0.0


def cosine_game(updates: Tensor) -> Tensor:
    """cos(G_S, G_N) of every coalition of one environment, ``(N, P)`` → ``(1, 2**N)``."""
    n = len(updates)
    sums = [sum((updates[i] for i in range(n) if code >> i & 1), torch.zeros_like(updates[0])) for code in range(2**n)]
    return torch.tensor([[cosine(one, sums[-1]) for one in sums]], dtype=torch.float64)


@pytest.mark.parametrize("seed", range(10))
def test_psi_is_a_mean_over_one_set_of_each_size(seed):
    # of three agents there are two sets of size 1 without i, and one each of sizes 0 and 2
    v = cosine_game(THREE[0])[0].tolist()
    psi = contributions(THREE, np.random.default_rng(seed))[0].tolist()
    for i in range(3):
        others = [1 << j for j in range(3) if j != i]
        possible = [sum(v[code | 1 << i] - v[code] for code in (0, one, sum(others))) / 3 for one in others]
        assert any(psi[i] == pytest.approx(value, abs=1e-14) for value in possible)


def test_psi_is_an_unbiased_estimate_of_the_shapley_value_of_the_cosine():
    updates = random(2, 5, 3)
    drawn = torch.stack([contributions(updates, np.random.default_rng(seed)) for seed in range(500)])
    for e in range(2):
        exact = credit.shapley_values(cosine_game(updates[e]))[0]
        error = drawn[:, e].std(dim=0) / 500**0.5
        assert ((drawn[:, e].mean(dim=0) - exact).abs() < 4 * error + 1e-12).all()


def test_updates_that_cancel_have_no_cosine_however_they_are_rounded():
    a = random(1, 1, 7)
    psi = contributions(torch.cat([a, -a, 0.1 * a + 0.3 * a - 0.4 * a], dim=1), np.random.default_rng(0))
    assert psi.tolist() == [[0.0, 0.0, 0.0]]  # everybody together is nothing
    psi = contributions(torch.cat([a, a, -a], dim=1), np.random.default_rng(1))
    # ψ is a third of whole cosines, 1, 0 and −1
    torch.testing.assert_close(psi * 3, (psi * 3).round(), rtol=0, atol=1e-12)


def test_psi_does_not_depend_on_the_batch_nor_on_the_unit():
    updates = random(4, 6, 9)
    together = contributions(updates, np.random.default_rng(5))
    for e in range(4):
        torch.testing.assert_close(contributions(updates[e : e + 1], np.random.default_rng(5))[0], together[e], rtol=0, atol=1e-13)
    torch.testing.assert_close(contributions(updates * 1e-12, np.random.default_rng(5)), together, rtol=0, atol=1e-12)


# Hotelling's test


def test_of_one_player_hotelling_s_test_is_student_s():
    psi = random(5, 9, 1)
    expected = stats.ttest_ind(psi[:, :4, 0].numpy(), psi[:, 4:, 0].numpy(), axis=1).pvalue
    torch.testing.assert_close(p_value_of_no_drift(psi), torch.from_numpy(expected), rtol=1e-9, atol=0)


def test_of_several_players_it_is_what_the_textbook_says():
    psi = random(4, 15, 6, seed=1)
    for e in range(4):
        first, second = psi[e, :7].numpy(), psi[e, 7:].numpy()
        pooled = (6 * np.cov(first, rowvar=False) + 7 * np.cov(second, rowvar=False)) / 13
        d = first.mean(axis=0) - second.mean(axis=0)
        t2 = 7 * 8 / 15 * d @ np.linalg.inv(pooled) @ d
        expected = stats.f.sf((15 - 6 - 1) / (6 * 13) * t2, 6, 15 - 6 - 1)
        assert float(p_value_of_no_drift(psi)[e]) == pytest.approx(expected, rel=1e-9)


def test_its_p_value_is_uniform_if_nothing_drifts():
    p = p_value_of_no_drift(random(4000, 15, 13, seed=2) @ random(13, 13, seed=3)).numpy()
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_what_does_not_vary_is_left_out_unless_it_moved():
    psi = random(3, 10, 4, seed=4)
    constant = torch.full((3, 10, 1), 0.3).double()
    torch.testing.assert_close(p_value_of_no_drift(torch.cat([psi, constant], dim=2)), p_value_of_no_drift(psi), rtol=1e-9, atol=0)
    sums = torch.cat([psi, psi.sum(dim=2, keepdim=True)], dim=2)  # a direction in which all are one
    torch.testing.assert_close(p_value_of_no_drift(sums), p_value_of_no_drift(psi), rtol=1e-6, atol=0)
    step = torch.cat([constant[:, :5], constant[:, 5:] + 0.1], dim=1)
    assert p_value_of_no_drift(torch.cat([psi, step], dim=2)).tolist() == [0.0] * 3
    assert p_value_of_no_drift(step).tolist() == [0.0] * 3
    assert p_value_of_no_drift(constant).tolist() == [1.0] * 3


# from exploring to exploiting


def test_stationary_updates_are_exploited_once_the_window_is_full(learning_round):
    rule = credit.FairYetEqual(window=4)
    rule.reset(1, 2)
    # ψ = (0.4, 0.6), so that the second is drawn with the odds of e³⁰ : 1
    updates = torch.tensor([[[0.3, 0.0], [0.0, 0.4]]]).double()
    for t in range(10):
        the_round = learning_round(updates, TARGET, t=t)
        gain = float(the_round.gain)
        assert rule.assign(the_round).tolist() == [[gain / 2, gain / 2] if t < 4 else [0.0, gain]]


def test_drifting_updates_are_explored_for_as_long_as_they_drift_in_each_environment_by_itself(learning_round):
    # six rounds of a steady drift differ between their halves: t = 3/(1·√(2/3)) = 3.7 with 4 degrees of freedom, p = 0.02
    rule = credit.FairYetEqual(window=6)
    rule.reset(2, 2)
    for t in range(30):
        updates = torch.tensor([pointing(0.5), pointing(0.5 + 0.05 * min(t, 18))]).double()
        paid = rule.assign(learning_round(updates, TARGET.expand(2, 2), t=t))
        alike = (paid[:, 0] == paid[:, 1]).tolist()
        assert alike[0] == (t < 6)
        assert alike[1] or t > 18
    assert alike == [False, False]  # the drift has ended


def test_the_whole_memory_is_what_loops_find(learning_round):
    """Two agents leave nothing to chance, their ψ sum to 1, and so Hotelling's test is Student's of the first's."""
    n_envs, n_rounds, window, level = 5, 25, 8, 0.4
    angles = 0.8 + 0.3 * random(n_rounds, n_envs, seed=6) + 0.02 * torch.arange(n_rounds)[:, None]
    rule = credit.FairYetEqual(window=window, level=level, beta=1e6)  # the best is drawn for certain
    rule.reset(n_envs, 2)
    past: list[list[float]] = [[] for _ in range(n_envs)]
    exploits = [False] * n_envs
    turned = set()
    for t in range(n_rounds):
        updates = torch.tensor([pointing(float(angle)) for angle in angles[t]]).double()
        the_round = learning_round(updates, TARGET.expand(n_envs, 2), t=t)
        paid = rule.assign(the_round)
        for e in range(n_envs):
            gain = float(the_round.gain[e])
            if exploits[e]:
                better = 0 if sum(past[e]) / len(past[e]) > 0.5 else 1
                assert paid[e].tolist() == [gain * (i == better) for i in range(2)]
                continue
            assert paid[e].tolist() == [gain / 2] * 2
            everybody = updates[e].sum(dim=0)
            past[e].append((cosine(updates[e, 0], everybody) + 1 - cosine(updates[e, 1], everybody)) / 2)
            if len(past[e]) >= window:
                last = past[e][-window:]
                exploits[e] = stats.ttest_ind(last[: window // 2], last[window // 2 :]).pvalue >= level
                if exploits[e]:
                    turned.add(t)
    assert len(turned) > 1


def exploiting(learning_round, beta: float, nodes: float) -> tuple[credit.FairYetEqual, list[float]]:
    """A rule that has seen five rounds of the same three updates, and the chances of drawing each of them first."""
    rule = credit.FairYetEqual(window=5, level=0.0, beta=beta, nodes=nodes)
    rule.reset(1, 3)
    psi = torch.zeros(3, dtype=torch.float64)
    for t in range(5):
        rule.assign(learning_round(THREE, TARGET, t=t))
        generator = np.random.default_rng((0, 0, t))
        generator.gumbel(size=3)
        psi += contributions(THREE, generator)[0] / 5
    return rule, (beta * psi).softmax(dim=0).tolist()


@pytest.mark.parametrize(("nodes", "n_drawn"), [(0.2, 1), (0.4, 2)])
def test_agents_are_drawn_one_after_another_with_their_chances_and_share_alike(nodes, n_drawn, learning_round):
    rule, chances = exploiting(learning_round, beta=3.0, nodes=nodes)
    counts: Counter[tuple[int, ...]] = Counter()
    n_rounds = 1000
    for t in range(5, 5 + n_rounds):
        the_round = learning_round(THREE, TARGET, t=t)
        share = rule.assign(the_round)[0] / the_round.gain
        drawn = tuple(share.nonzero()[:, 0].tolist())
        assert share[list(drawn)].tolist() == [1 / n_drawn] * n_drawn
        counts[drawn] += 1
    expected: Counter[tuple[int, ...]] = Counter()
    for order in permutations(range(3), n_drawn):
        left, chance = 1.0, 1.0
        for i in order:
            chance *= chances[i] / left
            left -= chances[i]
        expected[tuple(sorted(order))] += chance  # type: ignore[assignment]
    assert expected.total() == pytest.approx(1)
    for drawn, chance in expected.items():
        error = (chance * (1 - chance) / n_rounds) ** 0.5
        assert counts[drawn] / n_rounds == pytest.approx(chance, abs=4 * error)


def test_without_a_beta_everybody_is_drawn_alike_often(learning_round):
    rule, chances = exploiting(learning_round, beta=0.0, nodes=0.2)
    assert chances == pytest.approx([1 / 3] * 3)
    paid = torch.cat([rule.assign(learning_round(THREE, TARGET, t=t)) for t in range(5, 605)])
    often = (paid != 0).double().mean(dim=0)
    assert ((often - 1 / 3).abs() < 4 * (2 / 9 / 600) ** 0.5).all()


@pytest.mark.parametrize(("nodes", "n", "n_drawn"), [(0.4, 1, 1), (0.4, 2, 1), (0.4, 5, 2), (0.4, 6, 3), (0.1, 30, 3), (1.0, 4, 4)])
def test_the_number_drawn_is_rounded_up(nodes, n, n_drawn, learning_round):
    rule = credit.FairYetEqual(window=max(n + 2, 4), level=0.0, nodes=nodes)
    rule.reset(1, n)
    for t in range(max(n + 2, 4) + 1):
        paid = rule.assign(learning_round(random(1, n, 2, seed=n) + 1, TARGET, t=t))
    assert int((paid != 0).sum()) == n_drawn


def test_who_improves_later_is_drawn_by_what_it_once_was_which_is_its_known_failure(learning_round):
    rule = credit.FairYetEqual(window=4)
    rule.reset(1, 2)
    weak, strong = [[0.3, 0.0], [0.0, 0.4]], [[0.4, 0.4], [0.0, 0.0]]
    for t in range(30):
        paid = rule.assign(learning_round(torch.tensor([weak if t < 4 else strong]).double(), TARGET, t=t))[0]
    assert paid[0] == 0 < paid[1]


def test_the_draw_is_made_anew_in_every_round_of_every_episode_and_the_seed_decides_it(learning_round):
    def drawn(seed: int, episode: int) -> list[list[bool]]:
        rule = credit.FairYetEqual(window=6, level=0.0, beta=0.0, seed=seed)
        rule.reset(1, 4)
        paid = [rule.assign(learning_round(random(1, 4, 2) + 1, TARGET, t=t, episode=episode)) for t in range(20)]
        return [(one[0] != 0).tolist() for one in paid[6:]]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({str(drawn(seed, episode)) for seed, episode in product(range(2), range(2))}) == 4
    assert len({str(one) for one in drawn(0, 0)}) > 1


def test_an_environment_is_paid_the_same_whoever_else_is_in_the_batch(learning_round):
    n_envs, n = 6, 4
    # some drift and some do not, so that some explore while others exploit
    made = [random(n_envs, n, 3, seed=t) * 0.3 + torch.linspace(0, 0.6, n_envs)[:, None, None] * t + 1 for t in range(16)]
    target = torch.ones(n_envs, 3).double()

    def play(envs: slice) -> Tensor:
        rule = credit.FairYetEqual(window=8, level=0.3)
        rule.reset(len(target[envs]), n)
        return torch.stack([rule.assign(learning_round(updates[envs], target[envs], t=t)) for t, updates in enumerate(made)], dim=1)

    together = play(slice(0, n_envs))
    n_turned = {int((together[e] == 0).any(dim=1).sum()) for e in range(n_envs)}
    assert len(n_turned) > 1
    for e in range(n_envs):
        torch.testing.assert_close(play(slice(e, e + 1))[0], together[e], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_explores_and_exploits_digits(dtype):
    engine = Engine(scenario.load("digits"), "fael(window=8)", 3, dtype=dtype)
    engine.reset([1, 2, 3])
    for _ in range(16):
        result = engine.step(torch.ones(3, 6, 4))
        assert result.evaluations == 1
        torch.testing.assert_close(result.credit.sum(dim=1), result.gain, rtol=1e-5, atol=1e-7)
    assert int((result.credit != 0).sum()) == 3 * 3  # ⌈0.4 · 6⌉ each


# what is promised and refused


def sixteen_rounds_of_twins() -> list[credit.Round]:
    updates = torch.tensor([[[0.3, 0.2], [0.3, 0.2]]]).double()
    return [credit.learning_round(updates, TARGET, t=t) for t in range(16)]


def test_it_passes_the_suite_with_a_case_long_enough_to_see_it_draw_one_of_two_who_are_alike():
    case = credit.Case("sixteen rounds of twins", sixteen_rounds_of_twins)
    for name in ("fael", "fael(window=6)"):
        for cases in ([], [case]):
            report = credit.check_rule(name, cases=cases)
            assert "twins" in report.axioms["symmetric"].witness


@pytest.mark.parametrize(("window", "most"), [(15, 13), (4, 2), (66, 64)])
def test_more_agents_than_the_window_can_tell_apart_are_refused(window, most):
    rule = credit.FairYetEqual(window=window)
    assert rule.max_players == most
    rule.reset(1, most)
    for refuse in (rule.check, lambda n: rule.reset(1, n), credit.Smoothed(rule).check):
        with pytest.raises(
            ValueError, match=rf"at most {most} agents, got {most + 1}, with window={window}.*'fael\(window={window + 1}\)'"
        ):
            refuse(most + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 3}, "window=3: must be a whole number of rounds, at least 4"),
        ({"window": 8.0}, "window=8.0"),
        ({"window": True}, "window=True"),
        ({"level": -0.1}, "level=-0.1: must be a number from 0 to 1"),
        ({"level": 1.1}, "level=1.1"),
        ({"level": float("nan")}, "level=nan"),
        ({"nodes": 0}, "nodes=0: must be a number above 0, at most 1"),
        ({"nodes": 1.5}, "nodes=1.5"),
        ({"nodes": "0.4"}, "nodes='0.4'"),
        ({"beta": -1.0}, "beta=-1.0: must be a number from 0"),
        ({"beta": float("inf")}, "beta=inf"),
        ({"beta": None}, "beta=None"),
        ({"seed": -1}, "seed=-1: must be a whole number from 0"),
    ],
)
def test_wrong_arguments_are_refused_with_a_clear_message(arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.make("fael", **arguments)
