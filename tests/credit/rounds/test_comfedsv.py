import numpy as np
import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.credit.rounds.comfedsv import complete


def partial_round(updates: Tensor, target: Tensor, part: Tensor, *, t: int = 0, episode: int = 0) -> credit.Round:
    """A learning round in which only some agents ``part`` ``(E, N)`` contribute; the others have no update."""
    contributed = part[..., None]
    return credit.learning_round(updates * contributed, target, admitted=contributed, contributed=contributed, t=t, episode=episode)


def descent(parts: list[list[int]], sizes: list[float], *, unit: float = 1.0) -> list[credit.Round]:
    """Rounds of U = −½ unit (θ − 1)² from θ = 0, in which agent i, if it takes part, goes ``sizes[i]`` of the way that is left."""
    left, rounds = 1.0, []
    for t, who in enumerate(parts):
        part = torch.tensor([[i in who for i in range(len(sizes))]])
        updates = torch.tensor(sizes, dtype=torch.float64)[None, :, None] * left
        rounds.append(partial_round(updates * unit**0.5, torch.tensor([[left * unit**0.5]], dtype=torch.float64), part, t=t))
        left -= left * sum(sizes[i] for i in who)
    return rounds


def random_episode(n: int, n_rounds: int, seed: int, *, num_envs: int = 1, dtype: torch.dtype = torch.float64) -> list[credit.Round]:
    """Random rounds; everybody takes part in the first, and a random half in others."""
    generator = torch.Generator().manual_seed(seed)
    rounds = []
    for t in range(n_rounds):
        updates = (torch.randn(num_envs, n, 3, dtype=torch.float64, generator=generator) + 1) / n
        target = 1 + torch.rand(num_envs, 3, dtype=torch.float64, generator=generator)
        part = (torch.rand(num_envs, n, generator=generator) < 0.5) | (t == 0)
        rounds.append(partial_round(updates.to(dtype), target.to(dtype), part, t=t))
    return rounds


def any_part_episode(n: int, n_rounds: int, seed: int, *, num_envs: int = 1, most: int = 64) -> list[credit.Round]:
    """Random rounds in which a random half of the agents takes part, and none but the first ``most``."""
    generator = torch.Generator().manual_seed(seed)
    rounds = []
    for t in range(n_rounds):
        updates = (torch.randn(num_envs, n, 3, dtype=torch.float64, generator=generator) + 1) / n
        target = 1 + torch.rand(num_envs, 3, dtype=torch.float64, generator=generator)
        part = torch.rand(num_envs, n, generator=generator) < 0.5
        part[:, most:] = False
        rounds.append(partial_round(updates, target, part, t=t))
    return rounds


def have_met(rounds: list[credit.Round]) -> Tensor:
    """Whether all agents who have taken part so far met in some round, bool ``(E,)``."""
    took_part = torch.stack([the_round.took_part for the_round in rounds])
    return (took_part == took_part.any(dim=0)).all(dim=2).any(dim=0)


def environment(the_round: credit.Round, env: int) -> credit.Round:
    """One environment of a partial round."""
    one = slice(env, env + 1)
    return partial_round(the_round.updates[one], the_round.utility_gradient()[one], the_round.took_part[one], t=the_round.t)


def pay(rule: credit.CreditRule, rounds: list[credit.Round]) -> list[Tensor]:
    rule.reset(rounds[0].num_envs, rounds[0].num_agents)
    return [rule.assign(the_round) for the_round in rounds]


def offline(rounds: list[credit.Round], rank: int, regularisation: float, sweeps: int) -> np.ndarray:
    """The completed value of one environment's rounds, in which everybody took part once, entry by entry."""
    n = rounds[0].num_agents
    parts = [{i for i in range(n) if the_round.took_part[0, i]} for the_round in rounds]
    coalitions = [{i for i in range(n) if code >> i & 1} for code in range(1, 2**n)]
    known = {
        (t, s): float(rounds[t].game.values()[0, s + 1]) for t in range(len(rounds)) for s in range(2**n - 1) if coalitions[s] <= parts[t]
    }
    scale = max(map(abs, known.values()))
    generator = np.random.default_rng(99)
    h = 1 + 0.3 * generator.standard_normal((2**n - 1, rank))
    w = np.zeros((len(rounds), rank))
    for _ in range(sweeps):
        for mine, others, axis in ((w, h, 0), (h, w, 1)):
            for k in range(len(mine)):
                normal, right = regularisation * np.eye(rank), np.zeros(rank)
                for entry, u in known.items():
                    if entry[axis] == k:
                        other = others[entry[1 - axis]]
                        normal += np.outer(other, other)
                        right += other * u / scale
                mine[k] = np.linalg.solve(normal, right)
        longer = np.sqrt(np.linalg.norm(w, axis=0) / np.linalg.norm(h, axis=0))
        w, h = w / longer, h * longer
    total = np.concatenate([[0.0], scale * (w @ h.T).sum(axis=0)])
    return credit.shapley_values(torch.from_numpy(total)[None])[0].numpy()


# the completion


def completed(u: list[list[float]], mask: list[list[int]], *, rank: int = 1, regularisation: float, sweeps: int = 200) -> Tensor:
    w, h = complete(
        torch.tensor([u], dtype=torch.float64),
        torch.tensor([mask]).bool(),
        torch.ones(len(u[0]), rank, dtype=torch.float64),
        regularisation=regularisation,
        sweeps=sweeps,
    )
    return (w @ h.mT)[0]


def test_a_penalty_takes_its_size_off_a_single_number():
    # min (u − wh)² + λ(w² + h²): w² + h² ≥ 2|wh|, so x = wh minimises (u − x)² + 2λ|x|: x = u − λ for u > λ, and 0 below
    assert completed([[1.0]], [[1]], regularisation=0.1).item() == pytest.approx(0.9, abs=1e-12)
    assert completed([[-1.0]], [[1]], regularisation=0.1).item() == pytest.approx(-0.9, abs=1e-12)
    assert completed([[0.05]], [[1]], regularisation=0.1).item() == pytest.approx(0, abs=1e-12)


def test_a_row_is_shrunk_by_the_penalty_over_its_length():
    # the singular value 5 of (3, 4) becomes 5 − ½
    assert completed([[3.0, 4.0]], [[1, 1]], regularisation=0.5)[0].tolist() == pytest.approx([2.7, 3.6], abs=1e-12)


def test_a_missing_entry_is_what_rank_one_says():
    # (1 2; 3 ?) has rank 1 with ? = 6
    x = completed([[1.0, 2.0], [3.0, float("nan")]], [[1, 1], [1, 0]], regularisation=1e-7)
    torch.testing.assert_close(x, torch.tensor([[1.0, 2.0], [3.0, 6.0]]).double(), rtol=0, atol=1e-4)


def test_a_row_or_column_of_which_nothing_is_known_is_nothing():
    x = completed([[1.0, 2.0, 9.0], [9.0, 9.0, 9.0]], [[1, 1, 0], [0, 0, 0]], regularisation=0.01)
    assert x[1].tolist() == [0, 0, 0]
    assert x[:, 2].tolist() == [0, 0]


@pytest.mark.parametrize("rank", [1, 2, 3, 5])
def test_a_planted_low_rank_matrix_is_recovered_from_some_of_its_entries(rank):
    generator = torch.Generator().manual_seed(5)
    w, h = (torch.randn(8, size, rank, dtype=torch.float64, generator=generator) for size in (20, 30))
    planted = w @ h.mT
    mask = torch.rand(8, 20, 30, generator=generator) < 0.75
    start = torch.randn(30, rank, dtype=torch.float64, generator=generator)
    found, columns = complete(torch.where(mask, planted, torch.nan), mask, start, regularisation=1e-3, sweeps=500)
    torch.testing.assert_close(found @ columns.mT, planted, rtol=0, atol=0.02)


def test_each_matrix_of_a_batch_is_completed_by_itself():
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(4, 6, 8, dtype=torch.float64, generator=generator)
    mask = torch.rand(4, 6, 8, generator=generator) < 0.7
    start = torch.randn(8, 2, dtype=torch.float64, generator=generator)
    together = complete(u, mask, start, regularisation=0.1, sweeps=20)
    for e in range(4):
        alone = complete(u[e : e + 1], mask[e : e + 1], start, regularisation=0.1, sweeps=20)
        for batch, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batch[e], single[0], rtol=0, atol=1e-12)


# the rule


def test_a_single_round_pays_the_shapley_value_less_the_penalty():
    # v(1) = 2, v(2) = 3, v(12) = 6: over the largest (1/3, 1/2, 1), of length 7/6; λ = 0.07 takes 0.07 / (7/6) = 6 % off.
    # Shapley value: ½ (2 + 3) = 2.5 and ½ (3 + 4) = 3.5
    game = credit.table_game(torch.tensor([[0.0, 2.0, 3.0, 6.0]]).double())
    (paid,) = pay(credit.ComFedSv(regularisation=0.07), [credit.game_round(game)])
    assert paid[0].tolist() == pytest.approx([0.94 * 2.5, 0.94 * 3.5], abs=1e-9)


@pytest.mark.parametrize(("rank", "regularisation"), [(1, 0.01), (1, 0.1), (2, 0.1)])
def test_what_an_episode_pays_is_the_completed_value_of_all_its_rounds(rank, regularisation):
    rounds = random_episode(4, 5, seed=2)
    sweeps = 150 if rank == 1 else 1000  # more than one dimension takes long to settle
    paid = sum(pay(credit.ComFedSv(rank, regularisation, sweeps), rounds))
    expected = offline(rounds, rank, regularisation, sweeps)
    np.testing.assert_allclose(paid[0].numpy(), expected, rtol=0, atol=1e-6)


def test_every_round_pays_by_how_much_the_value_of_all_rounds_so_far_has_changed():
    rounds = random_episode(4, 4, seed=3)
    rule = credit.ComFedSv(sweeps=150)
    paid = pay(rule, rounds)
    for t in range(1, 4):
        so_far = torch.from_numpy(offline(rounds[: t + 1], 1, 0.01, 50) - offline(rounds[:t], 1, 0.01, 50))
        torch.testing.assert_close(paid[t][0], so_far, rtol=0, atol=1e-6)


def test_identical_agents_who_take_part_in_different_rounds_are_paid_alike_and_differ_under_fedsv():
    # agents 0 and 1 take turns; each round gains less than the one before
    rounds = descent([[0, 1, 2], [0, 2], [1, 2], [0], [1], [0, 2], [1, 2]], [0.2, 0.2, 0.1])
    totals = {}
    for name in ("fedsv", "comfedsv"):
        total = sum(pay(credit.make(name), rounds))[0]
        totals[name] = abs(total[0] - total[1]) / max(total[0], total[1])
    assert totals["fedsv"] > 0.1
    assert totals["comfedsv"] < 0.01


def test_what_is_known_of_rank_one_is_completed_to_what_full_rounds_would_have_paid():
    # U is quadratic and steps are shares of what is left: round t is worth (1 − θ_t)² times the first, a matrix of rank one
    sizes, parts = [0.2, 0.2, 0.1], [[0, 1, 2], [0, 2], [1, 2], [0], [1], [0, 1]]
    left = np.cumprod([1.0] + [1 - sum(sizes[i] for i in who) for who in parts[:-1]])
    (first,) = pay(credit.Shapley(), descent(parts[:1], sizes))
    paid = sum(pay(credit.ComFedSv(regularisation=1e-6), descent(parts, sizes)))
    torch.testing.assert_close(paid, first * (left**2).sum(), rtol=1e-4, atol=0)


def test_who_took_part_once_is_paid_for_rounds_in_which_it_rests_which_is_its_known_failure():
    paid = pay(credit.ComFedSv(), descent([[0, 1], [0], [0], [0]], [0.2, 0.2]))
    assert all(later[0, 1] > 0.01 for later in paid[1:])


def test_who_has_never_taken_part_is_a_null_player_and_changes_nobody_s_pay():
    parts = [[0, 1], [0], [1]]
    with_others, alone = (
        pay(credit.ComFedSv(), descent(parts, [0.2, 0.1, 0.3])),
        pay(credit.ComFedSv(), descent(parts, [0.2, 0.1])),
    )
    for one, other in zip(with_others, alone, strict=True):
        assert one[0, 2] == 0
        torch.testing.assert_close(one[:, :2], other, rtol=0.03, atol=0)  # a column more for each counts against the penalty


def test_who_comes_later_takes_its_coalitions_out_of_what_was_known():
    # once agent 1 is heard of, {0, 1} and {1} are known in the second round only: rank one makes them in the first what they are to {0}
    rule = credit.ComFedSv(regularisation=1e-6)
    first, second = pay(rule, descent([[0], [0, 1]], [0.2, 0.2]))
    # v_0({0}) = 0.2 − 0.02 = 0.18; what is left is 0.8, so round 1 is worth 0.64 of the first: v({0, 1}) = 0.4 − 0.08 = 0.32 in both
    assert first[0].tolist() == pytest.approx([0.18, 0], abs=1e-4)
    assert (first + second)[0].tolist() == pytest.approx([1.64 * 0.16, 1.64 * 0.16], abs=1e-4)


# what is paid while not everyone heard of has met


def test_two_identical_agents_who_take_turns_earn_what_their_rounds_gained():
    def turn(t: int) -> credit.Round:
        here = torch.tensor([[t % 2 == 0, t % 2 == 1]])
        return credit.Round(
            credit.CoalitionGame(lambda coalitions: (coalitions & here).any(dim=1).double()[None], 2),
            contributed=here[..., None],
            admitted=here[..., None],
            blocked_by=torch.zeros(1, 2, 1, 2, dtype=torch.bool),
            samples=torch.ones(2, 1),
            updates=lambda: torch.zeros(1, 2, 1),
            utility_gradient=lambda: torch.zeros(1, 1),
            t=t,
        )

    paid = pay(credit.ComFedSv(), [turn(t) for t in range(16)])
    torch.testing.assert_close(sum(paid), torch.tensor([[8.0, 8.0]]).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("budget", [None, 9])
def test_until_all_heard_of_have_met_an_episode_pays_the_sum_of_its_rounds_own_shapley_values(budget):
    # agents 0 and 1 meet, then 2 comes alone, then 0 and 2, then 3: they never meet in one round
    parts = [[0, 1], [2], [0, 2], [1, 2], [3]]
    rounds = descent(parts, [0.2, 0.1, 0.3, 0.2])
    paid = pay(credit.ComFedSv(budget=budget), rounds)
    apart = pay(credit.FedSv(), descent(parts, [0.2, 0.1, 0.3, 0.2]))
    assert [bool(have_met(rounds[: t + 1])) for t in range(5)] == [True, False, False, False, False]
    tolerance = 1e-12 if budget is None else 0.02  # two orders are no exact value
    for t in range(1, 5):
        torch.testing.assert_close(sum(paid[: t + 1]), sum(apart[: t + 1]), rtol=0, atol=tolerance)
        torch.testing.assert_close(sum(paid[: t + 1]).sum(), sum(the_round.gain for the_round in rounds[: t + 1]).sum(), rtol=0, atol=1e-12)
    for t in range(2, 5):  # nothing is settled between two such rounds
        torch.testing.assert_close(paid[t], apart[t], rtol=0, atol=tolerance)


def test_from_the_round_in_which_all_heard_of_meet_an_episode_pays_the_completed_value_of_its_whole_history():
    rounds = descent([[0, 1], [2], [0], [0, 1, 2], [1], [0, 2]], [0.2, 0.1, 0.3])
    paid = pay(credit.ComFedSv(sweeps=150), rounds)
    assert [bool(have_met(rounds[: t + 1])) for t in range(6)] == [True, False, False, True, True, True]
    for t in range(3, 6):
        np.testing.assert_allclose(sum(paid[: t + 1])[0].numpy(), offline(rounds[: t + 1], 1, 0.01, 150), rtol=0, atol=1e-6)


def test_what_was_paid_for_rest_is_taken_back_when_somebody_comes_whom_the_others_have_not_met():
    parts = [[0, 1], [0], [0], [2]]
    rounds = descent(parts, [0.2, 0.2, 0.2])
    paid, apart = pay(credit.ComFedSv(), rounds), pay(credit.FedSv(), descent(parts, [0.2, 0.2, 0.2]))
    assert sum(paid[1:3])[0, 1] > 0.05  # for rest
    assert paid[3][0, 1] < -0.05
    torch.testing.assert_close(sum(paid), sum(apart), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "budget"), [(4, None), (12, 100)])
def test_who_took_part_decides_what_is_paid_whatever_the_other_environments_do(n, budget):
    rounds = any_part_episode(n, 5, seed=4, num_envs=8, most=4)
    met = torch.stack([have_met(rounds[: t + 1]) for t in range(5)])
    assert met[-1].any()
    assert not met[-1].all()
    rule = credit.ComFedSv(budget=budget)
    together = pay(rule, rounds)
    for env in range(8):
        alone = pay(rule, [environment(the_round, env) for the_round in rounds])  # the same rule: a reset clears what it remembers
        for batch, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batch[env], single[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "budget"), [(4, None), (12, 100)])
def test_an_episode_whose_agents_never_met_pays_out_what_its_rounds_gained(n, budget):
    rounds = any_part_episode(n, 5, seed=4, num_envs=8)
    apart = ~have_met(rounds)
    assert apart.any()
    total = sum(pay(credit.ComFedSv(budget=budget), rounds)).sum(dim=1)
    torch.testing.assert_close(total[apart], sum(the_round.gain for the_round in rounds)[apart], rtol=0, atol=1e-12)


def test_it_costs_no_more_than_it_says_when_not_everyone_has_met():
    rule = credit.ComFedSv(budget=30)
    rounds = any_part_episode(12, 6, seed=5)
    pay(rule, rounds)
    assert not have_met(rounds).all()
    assert max(the_round.game.evaluations for the_round in rounds) <= rule.cost(12) == 30


def test_only_coalitions_of_those_who_took_part_are_evaluated():
    rounds = descent([[0, 1], [0, 1, 3], [], [2]], [0.2, 0.1, 0.1, 0.1])
    pay(credit.ComFedSv(), rounds)
    assert [the_round.game.evaluations for the_round in rounds] == [3, 7, 0, 1]


def test_a_batch_of_environments_with_different_participants_is_paid_as_one_by_one():
    rounds = random_episode(4, 5, seed=3, num_envs=3)
    together = pay(credit.ComFedSv(), rounds)
    for env in range(3):
        alone = pay(credit.ComFedSv(), [environment(the_round, env) for the_round in rounds])
        for batch, single in zip(together, alone, strict=True):
            torch.testing.assert_close(batch[env], single[0], rtol=0, atol=1e-12)


def test_an_environment_in_which_nobody_takes_part_pays_nothing_and_goes_on_as_if_the_round_had_not_been():
    parts = [[0, 1, 2], [0, 2], [1]]
    without = pay(credit.ComFedSv(), descent(parts, [0.2, 0.1, 0.3]))
    with_pauses = pay(credit.ComFedSv(), descent([[], parts[0], [], parts[1], [], parts[2]], [0.2, 0.1, 0.3]))
    for pause in with_pauses[::2]:
        assert (pause == 0).all()
    for one, other in zip(with_pauses[1::2], without, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)  # the start differs, as the first round does


def test_while_nothing_is_worth_anything_nobody_is_paid_and_that_is_forgotten_once_something_is():
    nothing = [partial_round(torch.zeros(1, 3, 1).double(), torch.ones(1, 1).double(), torch.ones(1, 3).bool(), t=t) for t in range(2)]
    rounds = descent([[0, 1, 2], [0, 2]], [0.2, 0.1, 0.3])
    paid = pay(credit.ComFedSv(), [*nothing, *rounds])
    assert (torch.cat(paid[:2]) == 0).all()
    torch.testing.assert_close(sum(paid[2:]), sum(pay(credit.ComFedSv(), rounds)), rtol=0, atol=1e-9)


def test_utilities_that_sum_to_zero_are_paid_all_the_same():
    game = credit.table_game(torch.tensor([[0.0, 1.0, -1.0, 0.0]]).double())
    (paid,) = pay(credit.ComFedSv(regularisation=1e-6), [credit.game_round(game)])
    assert paid[0].tolist() == pytest.approx([1, -1], abs=1e-4)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_credit_is_proportional_to_the_utility_s_unit(unit):
    parts, sizes = [[0, 1, 2], [0, 2], [1]], [0.2, 0.1, 0.3]
    one, other = sum(pay(credit.ComFedSv(), descent(parts, sizes))), sum(pay(credit.ComFedSv(), descent(parts, sizes, unit=unit)))
    torch.testing.assert_close(other / unit, one, rtol=1e-9, atol=0)


def test_single_precision_is_paid_in_single_precision():
    rounds, single = (random_episode(4, 4, seed=5, dtype=dtype) for dtype in (torch.float64, torch.float32))
    for exact, rounded in zip(pay(credit.ComFedSv(), rounds), pay(credit.ComFedSv(), single), strict=True):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=1e-5)


def test_random_orders_pay_an_additive_game_exactly_but_for_the_penalty():
    worth = torch.arange(1.0, 16.0, dtype=torch.float64)
    game = credit.CoalitionGame(lambda c: (c.double() @ worth)[None], 15)
    rule = credit.ComFedSv(regularisation=1e-6, budget=60)
    (paid,) = pay(rule, [credit.game_round(game)])
    torch.testing.assert_close(paid[0], worth, rtol=1e-5, atol=0)
    assert 15 <= game.evaluations <= rule.cost(15) == 60


def test_random_orders_come_close_to_all_coalitions():
    rounds = random_episode(8, 3, seed=6)
    exact = sum(pay(credit.ComFedSv(budget=255), rounds))
    sampled = torch.stack([sum(pay(credit.ComFedSv(budget=150, seed=seed), random_episode(8, 3, seed=6))) for seed in range(20)])
    error = sampled.std(dim=0) / 20**0.5
    assert ((sampled.mean(dim=0) - exact).abs() < 4 * error + 0.02 * exact.abs().max()).all()
    assert (sampled[0] != sampled[1]).any()


def test_the_columns_of_an_episode_are_drawn_from_its_seed_and_index():
    rule = credit.ComFedSv(budget=20, seed=1)

    def paid(rule: credit.ComFedSv, episode: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        updates, target = (torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((1, 8, 3), (1, 3)))
        return pay(rule, [partial_round(updates, target, torch.ones(1, 8).bool(), episode=episode)])[0]

    assert paid(rule, 0).equal(paid(rule, 0))
    assert not paid(rule, 0).equal(paid(rule, 1))
    assert not paid(rule, 0).equal(paid(credit.ComFedSv(budget=20, seed=2), 0))


def test_a_reset_clears_the_memory_for_any_number_of_environments_and_agents():
    rule = credit.ComFedSv()
    pay(rule, random_episode(4, 3, seed=7, num_envs=2))
    again = pay(rule, random_episode(3, 2, seed=8))
    for one, other in zip(again, pay(credit.ComFedSv(), random_episode(3, 2, seed=8)), strict=True):
        assert one.equal(other)


def test_it_costs_its_columns():
    assert [credit.ComFedSv().cost(n) for n in (1, 3, 10, 11, 64)] == [1, 7, 1023, 1023, 1280]
    assert [credit.ComFedSv(budget=50).cost(n) for n in (3, 5, 6, 40)] == [7, 31, 50, 50]
    assert credit.ComFedSv().method(6) == "completion of all coalitions, 63 coalition evaluations a round"
    assert credit.ComFedSv(budget=50).method(6) == "completion of prefixes of random orders, 50 coalition evaluations a round"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("comfedsv(rank=0)", "rank=0: must be a positive whole number"),
        ("comfedsv(rank=1.5)", "rank=1.5: must be"),
        ("comfedsv(sweeps=0)", "sweeps=0: must be a positive whole number"),
        ("comfedsv(sweeps=True)", "sweeps=True: must be"),
        ("comfedsv(regularisation=0)", "regularisation=0: must be a number of at least 1e-9"),
        ("comfedsv(regularisation=-1.0)", "regularisation=-1.0"),
        ("comfedsv(regularisation=1e999)", "regularisation=inf"),
        ("comfedsv(regularisation='0.1')", "regularisation='0.1'"),
        ("comfedsv(budget=0)", "budget=0: must be a positive whole number"),
        ("comfedsv(seed=-1)", "seed=-1: must be a whole number"),
    ],
)
def test_wrong_arguments_are_refused_with_a_clear_message(text, message):
    with pytest.raises(ValueError, match=message):
        credit.make(text)


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="regularisation=nan"):
        credit.ComFedSv(regularisation=float("nan"))


def test_a_budget_for_less_than_one_order_is_refused():
    with pytest.raises(ValueError, match="budget=5 is too small for ComFedSv with 10 players: pass at least 10"):
        credit.ComFedSv(budget=5).reset(1, 10)
    credit.ComFedSv(budget=10).reset(1, 10)


@pytest.mark.parametrize("parts", [[[0, 2], [0, 1], [0], [0, 1, 2]], [[0], [0, 1], [2], [0, 1, 2]]])
def test_a_matrix_of_rank_one_with_worths_of_both_signs_is_completed(parts):
    """Such a fit has local minima, in which a round has the wrong sign."""
    missed = []
    for seed in range(12):
        base = torch.from_numpy(np.random.default_rng(seed).normal(size=8))
        base[0] = 0
        rule, paid, truth = credit.ComFedSv(regularisation=1e-4, sweeps=200), torch.zeros(1, 3, dtype=torch.float64), 0
        rule.reset(1, 3)
        for t, who in enumerate(parts):
            among = torch.arange(8) & sum(1 << i for i in who)
            the_round = credit.game_round(credit.table_game(base[among] / (1 + t)), t=t)
            the_round.contributed = the_round.admitted = torch.tensor([[i in who for i in range(3)]])[..., None]
            paid += rule.assign(the_round)
            truth = truth + credit.shapley_values(base[None]) / (1 + t)
        missed.append(float((paid - truth).abs().max() / base.abs().max()))
    assert max(missed) < 0.05
