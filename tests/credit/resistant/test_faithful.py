"""Faithful group Shapley value: the sum over lots, its axioms, and the two estimates."""

import itertools

import numpy as np
import pytest
import torch

from proxycoop import credit
from proxycoop.credit.games.lots import LotGame
from proxycoop.credit.resistant import group_values
from proxycoop.credit.suite.battery import random_round


def round_of(worth, holdings, n_lots, admitted=None):
    """A round whose lots are worth ``worth`` of a set; agents hold given lots, and are filled up with lots that do nothing."""
    width = max(map(len, holdings))
    place = torch.zeros(len(holdings), width, n_lots)
    for i, lots in enumerate(holdings):
        for k, lot in enumerate(lots):
            place[i, k, lot] = 1

    def value(sets):
        return worth(torch.einsum("ecnk,nkl->ecl", sets.float(), place) > 0)

    there = torch.tensor([[k < len(lots) for k in range(width)] for lots in holdings])[None]
    admitted = there if admitted is None else there & admitted
    the_round = credit.learning_round(torch.zeros(1, len(holdings), 1).double(), torch.zeros(1, 1).double(), admitted=admitted)
    the_round._lots = LotGame(value, admitted)
    return the_round


def random_worth(n_lots, seed):
    table = torch.randn(2**n_lots, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    table[0] = 0
    return lambda sets: table[(sets * 2 ** torch.arange(n_lots)).sum(dim=-1)]


def slow_shapley(worth, n_lots):
    """Every order of all lots."""
    total = [0.0] * n_lots
    orders = list(itertools.permutations(range(n_lots)))
    value = {code: worth(torch.tensor([[[bool(code >> i & 1) for i in range(n_lots)]]])).item() for code in range(2**n_lots)}
    for order in orders:
        code = 0
        for lot in order:
            total[lot] += value[code | 1 << lot] - value[code]
            code |= 1 << lot
    return [one / len(orders) for one in total]


def test_agents_earn_the_shapley_values_of_their_lots():
    worth = random_worth(6, 0)
    of_lots = slow_shapley(worth, 6)
    holdings = [[0, 4], [1], [2, 3, 5]]
    paid = credit.FaithfulGroupShapley(budget=1000).assign(round_of(worth, holdings, 6))[0]
    assert paid.tolist() == pytest.approx([sum(of_lots[lot] for lot in lots) for lots in holdings], abs=1e-12)


@pytest.mark.parametrize("split", [[[0], [1, 2]], [[0], [1], [2]], [[0, 1], [2]]])
def test_dealing_lots_out_to_names_changes_nobodys_total(split):
    worth = random_worth(7, 1)
    rule = credit.FaithfulGroupShapley(budget=100_000)
    honest = rule.assign(round_of(worth, [[0, 1, 2], [3, 4], [5], [6]], 7))[0]
    under_names = rule.assign(round_of(worth, [*split, [3, 4], [5], [6]], 7))[0]
    k = len(split)
    assert under_names[:k].sum().item() == pytest.approx(honest[0].item(), abs=1e-10)
    assert under_names[k:].tolist() == pytest.approx(honest[1:].tolist(), abs=1e-10)


def test_a_shell_company_gains_under_the_value_of_agents_and_nothing_here():
    def worth(sets):  # prudent: each lot more adds less, and the less the sooner
        return 1 - torch.exp(-0.5 * sets.double().sum(dim=-1))

    honest, shells = [[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1], [2, 3], [4, 5, 6, 7]]

    def of_agents(holdings):
        return credit.make("shapley").values(credit.games.held(worth, 8, holdings))[0]

    assert (of_agents(shells)[:2].sum() - of_agents(honest)[0]).item() > 0.05
    rule = credit.FaithfulGroupShapley(budget=100_000)
    gain = rule.assign(round_of(worth, shells, 8))[0, :2].sum() - rule.assign(round_of(worth, honest, 8))[0, 0]
    assert gain.item() == pytest.approx(0, abs=1e-12)


def test_exact_it_is_data_shapley():
    the_round = random_round(4, 0)
    ours, theirs = (rule(budget=300).assign(the_round) for rule in (credit.FaithfulGroupShapley, credit.DataShapley))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimate", ["lots", "groups"])
def test_estimates_sum_to_the_gain_and_pay_nothing_to_who_has_nothing_admitted(estimate):
    worth = random_worth(10, 2)
    admitted = torch.ones(5, 2, dtype=torch.bool)
    admitted[3] = False
    the_round = round_of(worth, [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]], 10, admitted)
    paid = credit.FaithfulGroupShapley(budget=200, estimate=estimate).assign(the_round)[0]
    everything = torch.ones(1, 1, 10, dtype=torch.bool)
    everything[..., 6:8] = False
    assert paid.sum().item() == pytest.approx(worth(everything).item(), abs=1e-10)
    assert paid[3] == 0


def test_lots_that_interact_by_pairs_are_estimated_exactly():
    the_round = random_round(6, 4)
    exact = credit.FaithfulGroupShapley(budget=2**12).assign(the_round)
    estimate = credit.FaithfulGroupShapley(budget=100).assign(the_round)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-10)


def table_of(worth, n_lots):
    return credit.CoalitionGame(lambda sets: worth(sets[None]), n_lots)


@pytest.mark.parametrize(("group", "threshold"), [(2, 12), (3, 12), (4, 12)])
def test_the_estimate_of_groups_is_unbiased_below_the_threshold(group, threshold):
    worth = random_worth(12, 3)
    exact = credit.Shapley().divide(table_of(worth, 12)).unflatten(1, (-1, group)).sum(dim=-1)[0]
    estimates = torch.stack(
        [group_values(table_of(worth, 12), group, 400, np.random.default_rng(seed), threshold)[0] for seed in range(60)]
    )
    error = estimates.std(dim=0) / 60**0.5
    assert ((estimates.mean(dim=0) - exact).abs() < 4 * error).all()


def test_the_estimate_of_groups_needs_nothing_but_sizes_where_worth_follows_from_size():
    def worth(sets):
        return sets.double().sum(dim=-1) ** 1.5

    estimate = group_values(table_of(worth, 12), 3, 120, np.random.default_rng(0), threshold=1)
    assert estimate[0].tolist() == pytest.approx([12**1.5 / 4] * 4, abs=1e-10)


def test_the_estimate_of_groups_is_exact_for_additive_games():
    power = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    game = credit.CoalitionGame(lambda sets: sets.double() @ power, 12)
    spread = torch.stack([group_values(game, 3, 4000, np.random.default_rng(seed), threshold=1)[0] for seed in range(20)])
    exact = power.unflatten(0, (4, 3)).sum(dim=-1)
    assert ((spread.mean(dim=0) - exact).abs() < 4 * spread.std(dim=0) / 20**0.5).all()


def test_groups_are_estimated_better_as_groups_where_few_sets_of_lots_matter():
    """On sums of unanimity games, the source's test; on smooth games it is the other way round."""
    n, group, budget = 12, 4, 300
    errors = {"groups": [], "lots": []}
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        needed = torch.rand(n * n, n, generator=generator) < torch.rand(n * n, 1, generator=generator)
        weight = torch.rand(n * n, generator=generator, dtype=torch.float64) * needed.any(dim=1)

        def worth(sets, needed=needed, weight=weight):
            return (sets[..., None, :] | ~needed).all(dim=-1).double() @ weight / weight.sum()

        the_round = round_of(worth, [list(range(first, first + group)) for first in range(0, n, group)], n)
        exact = credit.FaithfulGroupShapley(budget=2**n).assign(the_round)
        for estimate in errors:
            paid = credit.FaithfulGroupShapley(budget, seed, estimate).assign(the_round)
            errors[estimate].append(((paid - exact).norm() / exact.norm()).item())
    assert np.median(errors["groups"]) < np.median(errors["lots"]) / 2


@pytest.mark.parametrize("estimate", ["lots", "groups"])
def test_draws_are_of_the_round_and_keep_to_the_budget(estimate):
    worth = random_worth(12, 5)
    holdings = [[2 * i, 2 * i + 1] for i in range(6)]
    paid = []
    for t, episode in ((0, 0), (1, 0), (0, 1), (0, 0)):
        the_round = round_of(worth, holdings, 12)
        the_round.t, the_round.episode = t, episode
        paid.append(credit.FaithfulGroupShapley(budget=100, estimate=estimate).assign(the_round))
        assert the_round.lots.evaluations <= 100
    assert paid[0].equal(paid[3])
    assert not paid[0].equal(paid[1])
    assert not paid[0].equal(paid[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0}, "budget=0"),
        ({"seed": -1}, "seed=-1"),
        ({"estimate": "fast"}, "estimate='fast': must be one of lots, groups"),
        ({"threshold": 0}, "threshold=0: must be a whole number from 1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.FaithfulGroupShapley(**arguments)


def test_a_budget_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"budget=4 is too small for FaithfulGroupShapley with 5 agents.*pass at least 9"):
        credit.FaithfulGroupShapley(budget=4).reset(1, 5)
    with pytest.raises(ValueError, match="with 5 agents and estimate='groups': pass at least 26"):
        credit.FaithfulGroupShapley(budget=25, estimate="groups").reset(1, 5)
    with pytest.raises(ValueError, match="budget=10 is too small for KernelShap with 10 players"):
        credit.FaithfulGroupShapley(budget=10).assign(random_round(5, 0))


def test_the_other_estimate_keeps_what_it_promises():
    credit.check_rule("faithful_group_shapley(estimate='groups')")
