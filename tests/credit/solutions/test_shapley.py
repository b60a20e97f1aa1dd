import re
import subprocess
import sys
import textwrap
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from proxycoop import credit

SEEDS = st.integers(0, 2**32 - 1)


def random_worths(seed: int, n: int, n_envs: int = 1) -> Tensor:
    """Standard normal worths with v(∅) = 0, float64 ``(n_envs, 2**n)``."""
    v = torch.randn(n_envs, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    return v


def by_enumeration(v: Tensor) -> Tensor:
    """The Shapley value as it is told: the mean marginal over all orders in which the players could have joined."""
    n = v.shape[1].bit_length() - 1
    orders = list(permutations(range(n)))
    total = torch.zeros(v.shape[0], n, dtype=torch.float64)
    for order in orders:
        before = 0
        for i in order:
            total[:, i] += v[:, before | 1 << i] - v[:, before]
            before |= 1 << i
    return total / len(orders)


def shapley(value, n: int) -> list[float]:
    """The Shapley value of the game whose function reads one coalition, a set of players."""

    def worths(coalitions: Tensor) -> Tensor:
        return torch.tensor([value({i for i in range(n) if row[i]}) for row in coalitions], dtype=torch.float64)

    return credit.Shapley().values(credit.CoalitionGame(worths, n))[0].tolist()


# games with known values


def test_glove_game_gives_right_glove_two_thirds():
    assert shapley(lambda s: 2 in s and len(s) > 1, 3) == pytest.approx([1 / 6, 1 / 6, 2 / 3], abs=1e-15)


def test_glove_game_of_the_package_docstring_gives_what_it_prints():
    game = credit.CoalitionGame(lambda coalitions: 1.0 * (coalitions[:, 0] & coalitions[:, 1:].any(dim=1)), n_players=3)
    assert credit.make("shapley").values(game)[0].tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=1e-7)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6))
def test_additive_game_gives_each_player_its_own_worth(worth):
    assert shapley(lambda s: sum(worth[i] for i in s), len(worth)) == pytest.approx(worth, abs=1e-10)


@pytest.mark.parametrize("n", range(1, 13))
def test_symmetric_game_splits_equally(n):
    sizes = credit.coalition_matrix(n).sum(dim=1)
    phi = credit.shapley_values(torch.sin(sizes.double() ** 2)[None])
    assert phi[0].tolist() == pytest.approx([torch.tensor(float(n**2), dtype=torch.float64).sin().item() / n] * n, abs=1e-12)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_unanimity_game_is_split_equally_among_those_it_needs(n_and_needed):
    n, needed = n_and_needed
    expected = [1 / len(needed) if i in needed else 0.0 for i in range(n)]
    assert shapley(lambda s: needed <= s, n) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(
    ("quota", "weights", "power"),
    [
        (51, [50, 49, 1], [2 / 3, 1 / 6, 1 / 6]),  # 49 votes are worth no more than one
        (4, [3, 2, 1, 1], [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        (3, [1, 1, 1, 1, 1], [1 / 5] * 5),
        (5, [5, 1, 1, 1], [1, 0, 0, 0]),  # a dictator
    ],
)
def test_weighted_majority_gives_the_shapley_shubik_index(quota, weights, power):
    assert shapley(lambda s: sum(weights[i] for i in s) >= quota, len(weights)) == pytest.approx(power, abs=1e-14)


def test_airport_game_shares_each_stretch_of_runway_among_those_who_need_it():
    costs = [1.0, 3.0, 6.0, 10.0]
    first, second, third, fourth = 1 / 4, 2 / 3, 3 / 2, 4.0
    expected = [first, first + second, first + second + third, first + second + third + fourth]
    assert shapley(lambda s: max((costs[i] for i in s), default=0.0), 4) == pytest.approx(expected, abs=1e-14)


def test_single_player_gets_everything():
    assert credit.shapley_values(torch.tensor([[0.25, 1.0]])).tolist() == [[0.75]]


# against the definition, and the four axioms that single it out


@given(SEEDS, st.integers(1, 6))
def test_agrees_with_the_mean_over_all_orders(seed, n):
    v = random_worths(seed, n)
    torch.testing.assert_close(credit.shapley_values(v), by_enumeration(v), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", range(1, 13))
def test_shares_sum_to_the_worth_of_all(n):
    v = random_worths(n, n, n_envs=8)
    torch.testing.assert_close(credit.shapley_values(v).sum(dim=1), v[:, -1], rtol=0, atol=1e-9)


def test_shares_sum_to_the_gain_over_the_empty_coalition():
    v = random_worths(0, 5) + 7.0
    assert credit.shapley_values(v).sum().item() == pytest.approx((v[0, -1] - v[0, 0]).item(), abs=1e-12)


@given(SEEDS, st.integers(2, 8), st.data())
def test_a_player_that_adds_nothing_gets_nothing(seed, n, data):
    null = data.draw(st.integers(0, n - 1))
    without = torch.arange(2**n) & ~(1 << null)
    assert credit.shapley_values(random_worths(seed, n)[:, without])[0, null].item() == pytest.approx(0, abs=1e-13)


@given(SEEDS, st.integers(2, 7), st.data())
def test_renaming_the_players_renames_their_shares(seed, n, data):
    order = data.draw(st.permutations(range(n)))  # new player k was player order[k]
    v = random_worths(seed, n)
    old_code = (credit.coalition_matrix(n) * 2 ** torch.tensor(order)).sum(dim=1)
    torch.testing.assert_close(credit.shapley_values(v[:, old_code]), credit.shapley_values(v)[:, order], rtol=0, atol=1e-12)


@given(SEEDS, st.integers(1, 8), st.floats(-10, 10), st.floats(-10, 10))
def test_is_linear_in_the_game(seed, n, a, b):
    v, w = random_worths(seed, n, n_envs=2).unsqueeze(1)
    torch.testing.assert_close(
        credit.shapley_values(a * v + b * w), a * credit.shapley_values(v) + b * credit.shapley_values(w), rtol=0, atol=1e-11
    )


def test_a_copy_pays_where_players_are_redundant_which_is_its_known_failure():
    # either of two suffices: 1/2 each; player 2 is a copy of player 0, and the pair takes 2/3
    assert shapley(lambda s: len(s) > 0, 2) == pytest.approx([1 / 2, 1 / 2], abs=1e-15)
    assert shapley(lambda s: len(s) > 0, 3) == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=1e-15)


def test_a_copy_costs_where_players_need_each_other():
    # both of two are needed: 1/2 each; player 2 is a copy of player 0, and the pair is left with 1/3
    assert shapley(lambda s: bool({0, 2} & s) and 1 in s, 3) == pytest.approx([1 / 6, 2 / 3, 1 / 6], abs=1e-15)


# batches and precision


@given(SEEDS, st.integers(1, 6), st.integers(1, 5))
def test_a_batch_of_games_equals_the_games_one_by_one(seed, n, n_envs):
    v = random_worths(seed, n, n_envs)
    one_by_one = torch.cat([credit.shapley_values(row[None]) for row in v])
    torch.testing.assert_close(credit.shapley_values(v), one_by_one, rtol=0, atol=1e-13)


def test_an_empty_batch_gives_no_rows():
    assert credit.shapley_values(torch.zeros(0, 8)).shape == (0, 3)


def test_float32_stays_float32_and_close():
    v = random_worths(3, 10)
    phi = credit.shapley_values(v.float())
    assert phi.dtype == torch.float32
    torch.testing.assert_close(phi.double(), credit.shapley_values(v), rtol=0, atol=1e-6)


def test_integer_worths_are_not_rounded_away():
    # 0, 1, 1, 1: two players of whom either suffices
    try:
        phi = credit.shapley_values(torch.tensor([[0, 1, 1, 1]]))
    except (ValueError, TypeError):
        return  # a refusal is as good
    assert phi.tolist() == [[0.5, 0.5]]


def test_shares_can_be_differentiated_after_a_run_in_inference_mode():
    v = random_worths(0, 11).float()  # a size and precision that no other test asks for: the weights are made in inference mode
    with torch.inference_mode():
        credit.shapley_values(v)
    v.requires_grad_()
    credit.shapley_values(v)[0, 0].backward()
    assert v.grad.abs().sum().item() == pytest.approx(2.0, abs=1e-5)  # φ_0 is a mean of v(S ∪ 0) minus a mean of v(S)


# many players


@pytest.mark.parametrize("n", [15, 17])
def test_a_streamed_game_gets_what_the_matrix_product_gives(n):
    v = random_worths(n, n, n_envs=2)
    game = credit.CoalitionGame(lambda c: v[:, (c * 2 ** torch.arange(n)).sum(dim=1)], n)
    torch.testing.assert_close(credit.Shapley().values(game), credit.shapley_values(v), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [15, 18])
def test_many_players_share_an_additive_and_a_unanimity_game_in_closed_form(n):
    worth = torch.linspace(-1, 2, n, dtype=torch.float64)
    needed = [0, 3, n - 1]
    expected = worth + torch.tensor([5 / 3 if i in needed else 0.0 for i in range(n)], dtype=torch.float64)
    phi = credit.make("shapley").values(lambda c: c.double() @ worth + 5.0 * c[:, needed].all(dim=1), n)
    torch.testing.assert_close(phi[0], expected, rtol=0, atol=1e-12)


def test_a_streamed_game_of_single_precision_is_summed_in_double_and_answered_in_single():
    n = 16
    v = (random_worths(1, n) + 1e3).float()  # v(∅) is far from 0, so that much cancels
    phi = credit.Shapley().values(lambda c: v[0, (c * 2 ** torch.arange(n)).sum(dim=1)], n)
    assert phi.dtype == torch.float32
    torch.testing.assert_close(phi.double(), credit.shapley_values(v.double()), rtol=0, atol=1e-6)


def test_worths_of_twenty_players_are_taken_as_a_table():
    sizes = torch.zeros(1)
    for _ in range(20):
        sizes = torch.cat([sizes, sizes + 1])
    phi = credit.shapley_values(sizes.double()[None] ** 2)
    torch.testing.assert_close(phi, torch.full((1, 20), 20.0, dtype=torch.float64), rtol=0, atol=1e-9)


def peak_memory(script: str) -> int:
    """Most memory, in MiB, that a process of its own needs for a script, which must end well.

    On Linux `getrusage` counts what the parent had before it started the process, too; `VmHWM` is the process's own.
    """
    if sys.platform == "linux":
        report = "\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    else:
        report = "\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script) + report], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) // (1024**2 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
def test_twenty_players_of_a_function_need_less_than_one_gibibyte():
    script = """
        import torch
        from proxycoop import credit

        needed = [0, 3, 19]
        worth = torch.linspace(-1, 2, 20, dtype=torch.float64)
        phi = credit.make("shapley").values(lambda c: c.double() @ worth + 5.0 * c[:, needed].all(dim=1), 20)
        worth[needed] += 5 / 3
        torch.testing.assert_close(phi[0], worth, rtol=0, atol=1e-12)
    """
    assert peak_memory(script) < 1024


@pytest.mark.slow
def test_twenty_agents_of_a_cooperative_need_less_than_one_gibibyte():
    # of twenty agents six contribute: they get what they would in a game of their own, and the others get nothing
    script = """
        import torch
        from proxycoop import credit
        from proxycoop.envs import Engine, scenario

        engine = Engine(scenario.load("digits", principals=20), "shapley", 1, dtype=torch.float64)
        engine.reset([0])
        active = [1, 4, 9, 14, 15, 19]  # on both sides of the block's edge
        actions = torch.zeros(1, 20, engine.num_lots)
        actions[:, active] = 1
        result = engine.step(actions)
        assert result.evaluations == 2**20
        coalitions = torch.zeros(64, 20, dtype=torch.bool)
        coalitions[:, active] = credit.coalition_matrix(6)
        expected = torch.zeros(1, 20, dtype=torch.float64)
        expected[:, active] = credit.shapley_values(engine.round.value(coalitions))
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(result.credit, expected, rtol=0, atol=1e-12)
    """
    assert peak_memory(script) < 1024


# limits


def test_twenty_one_players_are_refused_before_any_evaluation_with_the_numbers_and_rules_that_can():
    game = credit.CoalitionGame(lambda coalitions: pytest.fail("evaluated"), 21)
    with pytest.raises(ValueError, match=r"(?s)at most 20 .*got 21.*2,097,152.*loo") as caught:
        credit.Shapley().values(game)
    named = re.findall(r"credit='([^']+)'", str(caught.value))
    assert [name.split("(")[0] for name in named] == ["shapley", "svarm", "loo", "standalone"]
    for name in named:
        rule = credit.make(name)
        additive = credit.CoalitionGame(lambda c: c.double().sum(dim=1), 21)
        assert rule.values(additive).isfinite().all()
        assert additive.evaluations <= rule.cost(21) + 1  # v(∅) costs nothing, and is counted where it was asked for


@pytest.mark.parametrize("shape", [(8,), (1, 7), (1, 1), (1, 0), (2, 2, 8), (1, 3)])
def test_worths_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(batch, 2\*\*n\)"):
        credit.shapley_values(torch.zeros(shape))


def test_worths_of_twenty_one_players_are_refused():
    with pytest.raises(ValueError, match="n from 1 to 20"):
        credit.shapley_values(torch.zeros(1).expand(1, 2**21))


def test_costs_every_coalition_exactly_once():
    seen = []
    game = credit.CoalitionGame(lambda c: (seen.extend(map(tuple, c.tolist())), c.double().sum(dim=1))[1], 5)
    credit.Shapley().values(game)
    credit.Shapley().values(game)
    assert len(seen) == len(set(seen)) == 32
    assert credit.Shapley().cost(5) == 32
