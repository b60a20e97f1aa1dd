from itertools import permutations

import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.envs import Engine, scenario


def partial_round(updates: Tensor, target: Tensor, part: Tensor, *, t: int = 0) -> credit.Round:
    """A learning round in which only some agents ``part`` ``(E, N)`` contribute; the others have no update."""
    contributed = part[..., None]
    return credit.learning_round(updates * contributed, target, admitted=contributed, contributed=contributed, t=t)


def among(game: credit.CoalitionGame, who: list[int], env: int) -> list[float]:
    """The Shapley value among some agents, by going through all their orders; 0 for the others."""
    value = [0.0] * game.n_players
    orders = list(permutations(who))
    for order in orders:
        inside = torch.zeros(1, game.n_players, dtype=torch.bool)
        before = 0.0
        for i in order:
            inside[0, i] = True
            after = game.value(inside)[env, 0].item()
            value[i] += (after - before) / len(orders)
            before = after
    return value


def drawn(n: int, seed: int, *, num_envs: int = 2, dtype: torch.dtype = torch.float64) -> tuple[credit.Round, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    updates = torch.randn(num_envs, n, 3, dtype=torch.float64, generator=generator) / n
    target = torch.randn(num_envs, 3, dtype=torch.float64, generator=generator)
    part = torch.rand(num_envs, n, generator=generator) < 0.6
    return partial_round(updates.to(dtype), target.to(dtype), part, t=seed), part


def test_estimates_pass_the_suite_too_and_lose_the_noise_of_those_who_take_no_part():
    # a sum, cubed: players interact by threes, so that regression's estimates of null players are not 0
    def rounds() -> list[credit.Round]:
        power = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0, 0.0, 1.5, 0.0], dtype=torch.float64)
        part = (power != 0)[None].expand(2, -1)
        the_round = partial_round(torch.zeros(2, 8, 1).double(), torch.zeros(2, 1).double(), part)
        the_round.game = credit.CoalitionGame(lambda c: ((c.double() @ power) ** 3).expand(2, -1), 8)
        return [the_round]

    credit.check_rule(lambda: credit.FedSv(budget=40), cases=[credit.Case("a cubic game of which three take no part", rounds)])


def test_a_round_is_shared_among_those_who_took_part():
    # target 1, U = −½(θ − 1)². Updates ½, ½, ½, but only agents 0 and 2 take part:
    # v({0}) = v({2}) = ½ − ⅛ = 3/8, v({0, 2}) = 1 − ½ = 1/2; so each gets (3/8 + (1/2 − 3/8)) / 2 = 1/4
    part = torch.tensor([[True, False, True]])
    paid = credit.FedSv().assign(partial_round(torch.full((1, 3, 1), 0.5).double(), torch.ones(1, 1).double(), part))
    assert paid[0].tolist() == pytest.approx([0.25, 0, 0.25], abs=1e-15)


def test_identical_agents_who_take_part_in_different_rounds_differ_which_is_its_known_failure():
    # the same step towards the same target: agent 0 makes it first, from 0 halfway to 1, and gains ½ − ⅛ = 3/8;
    # agent 1 makes it from there, again halfway, and gains ½·¼ − ½·(¼)² = 3/32
    rule = credit.FedSv()
    rule.reset(1, 2)
    first, second = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    paid = rule.assign(partial_round(torch.full((1, 2, 1), 0.5).double(), torch.tensor([[1.0]]).double(), first))
    paid = paid + rule.assign(partial_round(torch.full((1, 2, 1), 0.25).double(), torch.tensor([[0.5]]).double(), second, t=1))
    assert paid[0].tolist() == pytest.approx([3 / 8, 3 / 32], abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_shapley_value_among_those_who_took_part_alone(seed):
    the_round, part = drawn(5, seed)
    paid = credit.FedSv().assign(the_round)
    for env in range(2):
        expected = among(the_round.game, part[env].nonzero()[:, 0].tolist(), env)
        assert paid[env].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("text", ["fedsv", "fedsv(budget=40)", "fedsv(budget=25)"])
def test_who_takes_no_part_gets_exactly_nothing(text, dtype):
    for seed in range(3):
        the_round, part = drawn(8, seed, dtype=dtype)
        paid = credit.make(text).assign(the_round)
        assert paid.dtype == dtype
        assert (paid[~part] == 0).all()
        assert (paid[part] != 0).all()


def test_who_contributes_only_what_is_screened_out_took_part_and_is_a_null_player():
    contributed = torch.ones(1, 2, 1, dtype=torch.bool)
    admitted = torch.tensor([[[True], [False]]])
    updates = torch.tensor([[[0.5], [0.0]]]).double()
    the_round = credit.learning_round(updates, torch.ones(1, 1).double(), admitted=admitted, contributed=contributed)
    assert credit.FedSv().assign(the_round)[0].tolist() == [0.375, 0]


def test_it_costs_and_refuses_what_the_shapley_value_does():
    for text in ("{}", "{}(budget=60)", "{}(budget=60, seed=3)"):
        rule, shapley = credit.make(text.format("fedsv")), credit.make(text.format("shapley"))
        for n in (1, 5, 12):
            assert rule.cost(n) == shapley.cost(n)
            assert rule.method(n) == shapley.method(n)
    with pytest.raises(ValueError, match="at most 20 agents, got 21"):
        credit.FedSv().reset(1, 21)
    with pytest.raises(ValueError, match="budget=5 is too small"):
        credit.FedSv(budget=5).check(10)
    with pytest.raises(ValueError, match="budget=0: must be a positive whole number"):
        credit.make("fedsv(budget=0)")
    with pytest.raises(ValueError, match="seed=-1: must be a whole number"):
        credit.make("fedsv(seed=-1)")


def test_among_a_few_of_many_it_is_what_it_is_among_all() -> None:
    for n, seed in ((5, 1), (8, 2), (10, 3)):
        the_round, part = drawn(n, seed, num_envs=4)
        most = int(part.sum(dim=1).max())
        rule = credit.make("fedsv", participants=most)
        rule.reset(4, n)
        torch.testing.assert_close(rule.assign(the_round), credit.make("fedsv").assign(drawn(n, seed, num_envs=4)[0]))
        assert rule.cost(n) == 2**most
        assert the_round.evaluations <= 2**most


def test_a_few_may_take_part_of_any_number_of_agents() -> None:
    n, generator = 200, torch.Generator().manual_seed(0)
    part = torch.zeros(3, n, dtype=torch.bool)
    for e in range(3):
        part[e, torch.randperm(n, generator=generator)[: 4 + e]] = True
    updates = torch.randn(3, n, 3, dtype=torch.float64, generator=generator)
    target = torch.ones(3, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="at most 20 agents, got 200"):
        credit.make("fedsv").reset(3, n)
    rule = credit.make("fedsv", participants=6)
    rule.reset(3, n)
    paid = rule.assign(partial_round(updates, target, part))
    for e in range(3):
        who = part[e].nonzero()[:, 0].tolist()
        alone = credit.learning_round(updates[e : e + 1, who], target[:1])
        torch.testing.assert_close(paid[e, who], credit.make("shapley").assign(alone)[0])
    assert not paid[~part].any()
    torch.testing.assert_close(paid.sum(dim=1), partial_round(updates, target, part).gain)


def test_more_participants_than_told_are_refused_and_so_is_what_is_no_number_of_them() -> None:
    the_round, _ = drawn(6, 0)
    the_round.contributed = torch.ones(2, 6, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="participants=4, but 6 agents take part in round 0"):
        credit.make("fedsv", participants=4).assign(the_round)
    for wrong in (0, 2.5, True, "3"):
        with pytest.raises(ValueError, match=r"participants=.*must be a positive whole number, or None for all agents"):
            credit.make("fedsv", participants=wrong)
    with pytest.raises(ValueError, match="at most 20 agents, got 21"):
        credit.make("fedsv", participants=21)
    assert credit.make("fedsv", participants=21, budget=400).cost(100) == 400


def test_in_a_cooperative_participants_are_paid_the_same() -> None:
    paid = []
    for rule in ("fedsv", "fedsv(participants=3)"):
        engine = Engine(scenario.load("digits-mean", horizon=2), rule, 2, dtype=torch.float64)
        engine.reset([0, 1])
        actions = torch.zeros(2, 6, 4)
        actions[0, [0, 2, 5]] = 1
        actions[1, 4] = 1
        paid.append(torch.stack([engine.step(actions).credit for _ in range(2)]))
    torch.testing.assert_close(*paid)
    assert paid[0][0, 0, [1, 3, 4]].eq(0).all()
