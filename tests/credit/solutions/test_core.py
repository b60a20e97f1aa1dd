"""The least core and the nucleolus: against direct programmes, criteria of optimality, and games whose solution is published."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize, nnls

from proxycoop import credit
from proxycoop.credit import least_core, nucleolus

Floats = NDArray[np.float64]
PRECISE = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


def table(value: Callable[[set[int]], float], n: int) -> Floats:
    """The worth of every coalition, told by the set of its players."""
    return np.array([float(value({i for i in range(n) if code >> i & 1})) for code in range(2**n)])


def members(n: int) -> Floats:
    """The proper coalitions, ``(2**n − 2, n)``."""
    return credit.coalition_matrix(n)[1:-1].double().numpy()


def excesses(v: Floats, x: Floats) -> Floats:
    """v(S) − x(S) of the proper coalitions."""
    return v[1:-1] - members(len(x)) @ x


def random_game(kind: str, n: int, rng: np.random.Generator) -> Floats:
    """Games of all sorts, many of them with ties; the largest worth is about 1."""
    coalitions = credit.coalition_matrix(n).double().numpy()
    v: Floats
    if kind == "normal":
        v = rng.normal(size=2**n)
    elif kind == "whole":
        v = rng.integers(-2, 3, 2**n).astype(float)
    elif kind == "simple":
        v = rng.integers(0, 2, 2**n).astype(float)
    elif kind == "negative":
        v = -rng.exponential(size=2**n)
    elif kind == "additive":
        v = coalitions @ rng.integers(-3, 4, n)
    elif kind == "symmetric":
        v = rng.normal(size=n + 1)[coalitions.sum(axis=1).astype(int)]
    elif kind == "majority":
        weights = rng.integers(1, 5, n)
        v = (coalitions @ weights > weights.sum() / 2).astype(float)
    elif kind == "bankruptcy":
        claims = rng.integers(1, 10, n)
        v = np.maximum(rng.uniform(0.2, 0.9) * claims.sum() - (1 - coalitions) @ claims, 0)
    elif kind == "gloves":
        left = rng.integers(1, n) if n > 1 else 1
        v = np.minimum(coalitions[:, :left].sum(axis=1), coalitions[:, left:].sum(axis=1))
    elif kind == "convex":
        v = coalitions.sum(axis=1) ** 2 / n
    elif kind == "saturating":
        v = np.sqrt(coalitions @ rng.integers(0, 4, n)) - 0.3 * coalitions[:, 0]
    elif kind == "zero":
        v = np.zeros(2**n)
    elif kind == "nearly whole":  # ties that differ by as little as what a solver may take for nothing
        v = rng.integers(-1, 2, 2**n) + 10.0 ** -rng.integers(6, 14) * rng.normal(size=2**n)
    elif kind == "single precision":
        v = (coalitions.astype(np.float32) @ rng.normal(size=n).astype(np.float32)).astype(float)
    v[0] = 0
    return v


KINDS = [
    "normal", "whole", "simple", "negative", "additive", "symmetric", "majority", "bankruptcy", "gloves", "convex", "saturating", "zero",
    "nearly whole", "single precision",
]  # fmt: skip


def several(few: int, many: int) -> pytest.MarkDecorator:
    """So many games of each kind and size; many of them among the slow tests."""
    return pytest.mark.parametrize("each", [few, pytest.param(many, marks=pytest.mark.slow)])


def games(kind: str, sizes: range, each: int) -> Iterator[Floats]:
    rng = np.random.default_rng([KINDS.index(kind), len(sizes)])
    for n in sizes:
        for _ in range(each):
            yield random_game(kind, n, rng)


# the least core


def least_excess(v: Floats) -> float:
    """The programme as it is written: all coalitions at once."""
    n = len(v).bit_length() - 1
    scale = np.abs(v).max() or 1.0
    answer = linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=-np.column_stack([members(n), np.ones(2**n - 2)]),
        b_ub=-v[1:-1] / scale,
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=v[-1:] / scale,
        bounds=(None, None),
        options=PRECISE,
    )
    assert answer.status == 0
    return answer.fun * scale


def distance_from_kkt(v: Floats, x: Floats, excess: float) -> float:
    """How far x is from a combination of v(N)'s normal and those of the tight coalitions, the latter with weights of at least 0."""
    tight = members(len(x))[excesses(v, x) >= excess - 3e-7]  # what differs by less may be taken for a tie
    ones = np.ones((len(x), 1))
    return nnls(np.hstack([ones, -ones, tight.T]), x, maxiter=100_000)[1]


@several(2, 8)
@pytest.mark.parametrize("kind", KINDS)
def test_the_least_core_leaves_the_least_excess_and_is_the_shortest_that_does(kind, each):
    for v in games(kind, range(2, 9), each):
        v = v / (np.abs(v).max() or 1.0)
        x, excess = least_core(v)
        assert excess == pytest.approx(least_excess(v), abs=1e-8)
        assert excesses(v, x).max() == pytest.approx(excess, abs=1e-8)
        assert x.sum() == pytest.approx(v[-1], abs=1e-9)
        assert distance_from_kkt(v, x, excess) < 1e-6


@pytest.mark.parametrize("kind", ["normal", "whole", "bankruptcy", "saturating"])
def test_a_general_solver_finds_no_shorter_allocation_with_that_excess(kind):
    for v in games(kind, range(3, 6), each=2):
        x, excess = least_core(v)
        n = len(x)
        found = minimize(
            lambda y: y @ y,
            nucleolus(v),
            jac=lambda y: 2 * y,
            constraints=[
                {"type": "eq", "fun": lambda y, v=v: y.sum() - v[-1], "jac": lambda y: np.ones((1, len(y)))},
                {
                    "type": "ineq",
                    "fun": lambda y, v=v, excess=excess: excess - excesses(v, y) + 1e-9,
                    "jac": lambda y, n=n: members(n),
                },
            ],
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert x @ x <= found.fun + 1e-6


def test_twelve_players_need_not_be_solved_with_all_coalitions_at_once():
    rng = np.random.default_rng(12)
    for kind in ("normal", "saturating"):
        v = random_game(kind, 12, rng)
        x, excess = least_core(v)
        assert excess == pytest.approx(least_excess(v), abs=1e-8)
        assert excesses(v, x).max() == pytest.approx(excess, abs=1e-8)
        assert x.sum() == pytest.approx(v[-1], abs=1e-8)
        assert distance_from_kkt(v, x, excess) < 1e-6
        assert is_prenucleolus(v, nucleolus(v))


@pytest.mark.parametrize(
    "weights", [[0, 0, 1, 3, 2, 0, 0, 1, 3, 2, 0, 0], [3, 2, 0, 2, 2, 1, 0, 1, 2, 1, 2, 0], [0, 3, 2, 2, 2, 3, 3, 0, 0, 3, 2, 2]]
)
def test_a_least_core_that_is_flat_because_many_players_are_alike_is_not_left(weights):
    # found by random search: least-distance programming by itself lost its way here, for want of room between opposite constraints
    coalitions = credit.coalition_matrix(12).double().numpy()
    v = np.sqrt(coalitions @ np.array(weights)) - 0.3 * coalitions[:, 0]
    x, excess = least_core(v)
    assert excess == pytest.approx(least_excess(v), abs=1e-7)
    assert excesses(v, x).max() == pytest.approx(excess, abs=1e-7)
    assert distance_from_kkt(v, x, excess) < 1e-6


def test_a_convex_game_has_a_core_and_the_least_core_is_in_it():
    v = table(lambda s: len(s) ** 2, 6)
    x, excess = least_core(v)
    assert excess < 0
    assert excesses(v, x).max() < 0
    assert x.tolist() == pytest.approx([6.0] * 6, abs=1e-8)


def test_glove_game_gives_the_scarce_glove_everything():
    # the core is that one allocation
    v = table(lambda s: 0 in s and len(s) > 1, 3)
    x, excess = least_core(v)
    assert excess == pytest.approx(0, abs=1e-9)
    assert x.tolist() == pytest.approx([1, 0, 0], abs=1e-8)


def test_a_majority_of_three_has_no_core_and_two_of_them_are_a_third_short():
    x, excess = least_core(table(lambda s: len(s) >= 2, 3))
    assert excess == pytest.approx(1 / 3, abs=1e-9)
    assert x.tolist() == pytest.approx([1 / 3] * 3, abs=1e-8)


def test_two_players_share_evenly_where_both_can_be_content():
    # v(1) = 1, v(2) = 0, v(12) = 4: the least excess is −3/2, at (5/2, 3/2) alone
    x, excess = least_core(np.array([0.0, 1.0, 0.0, 4.0]))
    assert excess == pytest.approx(-1.5, abs=1e-9)
    assert x.tolist() == pytest.approx([2.5, 1.5], abs=1e-8)


def test_among_allocations_that_satisfy_alike_the_shortest_is_taken_which_is_its_known_failure():
    # two pairs are worth 1 each, and player 0 is worth 0.4 even without player 1, who is worth nothing without it
    v = table(lambda s: (1.0 if {0, 1} <= s else 0.4 * (0 in s)) + ({2, 3} <= s), 4)
    assert least_core(v)[0].tolist() == pytest.approx([0.5] * 4, abs=1e-8)
    assert credit.shapley_values(torch.from_numpy(v)[None])[0].tolist() == pytest.approx([0.7, 0.3, 0.5, 0.5], abs=1e-12)


def test_a_single_player_gets_everything_and_nobody_complains():
    x, excess = least_core(np.array([0.0, 3.0]))
    assert x.tolist() == [3.0]
    assert excess == -np.inf
    assert nucleolus(np.array([0.0, -3.0])).tolist() == [-3.0]


# the nucleolus


def is_prenucleolus(v: Floats, x: Floats, tolerance: float = 1e-7) -> bool:
    """Kohlberg's criterion: at every level, the coalitions with at least that excess are balanced (the grand coalition always helps)."""
    n = len(x)
    e = excesses(v, x)
    descending = np.sort(e)[::-1]
    levels = [high for high, low in zip(descending, np.append(descending[1:], -np.inf), strict=True) if high - low > tolerance]
    for level in levels:
        discontent = members(n)[e >= level - tolerance / 10]
        answer = linprog(
            np.zeros(len(discontent) + 1),
            A_eq=np.column_stack([discontent.T, -np.ones(n)]),
            b_eq=np.zeros(n),
            bounds=[(1, None)] * len(discontent) + [(None, None)],
        )
        if answer.status != 0:
            return False
        if np.linalg.matrix_rank(np.vstack([discontent, np.ones((1, n))])) == n:
            return True
    return True


@several(2, 6)
@pytest.mark.parametrize("kind", KINDS)
def test_the_nucleolus_meets_kohlberg_s_criterion_and_is_in_the_least_core(kind, each):
    for v in games(kind, range(2, 7), each):
        v = v / (np.abs(v).max() or 1.0)
        x = nucleolus(v)
        assert x.sum() == pytest.approx(v[-1], abs=1e-9)
        assert excesses(v, x).max() == pytest.approx(least_core(v)[1], abs=1e-8)
        assert is_prenucleolus(v, x)


def test_kohlberg_s_criterion_tells_the_nucleolus_from_what_is_next_to_it():
    rng = np.random.default_rng(0)
    for n in range(3, 7):
        v = random_game("normal", n, rng)
        x = nucleolus(v)
        step = rng.normal(size=n)
        assert not is_prenucleolus(v, x + 1e-3 * (step - step.mean()))


def lexicographically_smaller(a: Floats, b: Floats, tolerance: float) -> bool:
    """Whether the excesses a, from the largest down, are smaller than b by more than the tolerance where they first differ."""
    differ = np.flatnonzero(np.abs(a - b) > tolerance)
    return len(differ) > 0 and a[differ[0]] < b[differ[0]]


@several(1, 3)
@pytest.mark.parametrize("individually_rational", [False, True])
@pytest.mark.parametrize("kind", ["normal", "whole", "bankruptcy", "gloves", "majority"])
def test_no_allocation_nearby_or_far_has_lexicographically_smaller_excesses(kind, individually_rational, each):
    rng = np.random.default_rng(1)
    for v in games(kind, range(3, 7), each):
        n = len(v).bit_length() - 1
        alone = v[2 ** np.arange(n)]
        if individually_rational:
            v[-1] = max(v[-1], alone.sum() + 0.5)
        x = nucleolus(v, individually_rational=individually_rational)
        best = np.sort(excesses(v, x))[::-1]
        for scale in 10.0 ** rng.uniform(-4, 1, size=200):
            step = rng.normal(size=n)
            y = x + scale * (step - step.mean())
            if not individually_rational or (y >= alone).all():
                assert not lexicographically_smaller(np.sort(excesses(v, y))[::-1], best, 1e-8)


@pytest.mark.parametrize(("estate", "awards"), [(100, [100 / 3] * 3), (200, [50, 75, 75]), (300, [50, 100, 150])])
def test_the_nucleolus_of_the_estate_is_what_the_talmud_awards(estate, awards):
    # Kethubot 93a: widows with claims of 100, 200 and 300 (Aumann & Maschler 1985); a coalition gets what the others leave
    claims = [100, 200, 300]
    v = table(lambda s: max(estate - sum(claims[i] for i in range(3) if i not in s), 0), 3)
    assert nucleolus(v).tolist() == pytest.approx(awards, abs=1e-6)
    assert nucleolus(v, individually_rational=True).tolist() == pytest.approx(awards, abs=1e-6)


@pytest.mark.parametrize(
    ("claims", "estate", "awards"),
    [
        ([100, 200], 100, [50, 50]),  # the contested garment, with claims cut to the estate
        ([100, 50], 100, [75, 25]),  # Baba Metzia 2a: "one says it is all mine, the other it is half mine"
        ([10, 20, 30, 40], 20, [5, 5, 5, 5]),  # half of the smallest claim to everybody
        ([10, 20, 30, 40], 50, [5, 10, 15, 20]),  # half of everything: half of every claim
        ([10, 20, 30, 40], 80, [5, 15, 25, 35]),  # what is missing, 20, is borne as 20 would be shared
    ],
)
def test_the_nucleolus_of_other_estates_is_the_contested_garment_consistent_rule(claims, estate, awards):
    n = len(claims)
    v = table(lambda s: max(estate - sum(claims[i] for i in range(n) if i not in s), 0), n)
    assert nucleolus(v).tolist() == pytest.approx(awards, abs=1e-6)


@pytest.mark.parametrize(
    ("quota", "weights"),
    [(2, [1, 1, 1]), (3, [2, 1, 1, 1]), (4, [2, 2, 1, 1, 1]), (5, [3, 2, 2, 1, 1]), (1, [1, 0, 0])],
)
def test_the_nucleolus_of_a_constant_sum_majority_game_is_its_homogeneous_weights(quota, weights):
    # Peleg (1968): where of every coalition and its complement one wins, and all minimal winning coalitions have the same weight
    v = table(lambda s: sum(weights[i] for i in s) >= quota, len(weights))
    assert nucleolus(v).tolist() == pytest.approx([w / sum(weights) for w in weights], abs=1e-8)


@pytest.mark.parametrize(
    ("pairs", "total", "expected"),
    [
        ((1, 1, 1), 3.0, [1, 1, 1]),  # no pair is worth more than a third: an equal split
        ((4, 1, 1), 6.0, [2.5, 2.5, 1]),  # ((V + a)/4, (V + a)/4, (V − a)/2) for one strong pair
        ((0, 0, 0), -3.0, [-1, -1, -1]),
        ((6, 6, 6), 6.0, [2, 2, 2]),
        ((6, 6, 0), 6.0, [6, 0, 0]),  # gloves
    ],
)
def test_three_players_who_are_worth_nothing_alone_have_a_nucleolus_in_closed_form(pairs, total, expected):
    v01, v02, v12 = pairs
    assert nucleolus(np.array([0, 0, 0, v01, 0, v02, v12, total], dtype=float)).tolist() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("n_left", "n_right"), [(1, 2), (2, 3), (2, 5), (1, 6)])
def test_scarce_gloves_take_everything(n_left, n_right):
    v = table(lambda s: min(len(s & set(range(n_left))), len(s - set(range(n_left)))), n_left + n_right)
    assert nucleolus(v).tolist() == pytest.approx([1] * n_left + [0] * n_right, abs=1e-8)


def test_as_many_left_as_right_gloves_are_worth_half_each():
    v = table(lambda s: min(len(s & {0, 1, 2}), len(s - {0, 1, 2})), 6)
    assert nucleolus(v).tolist() == pytest.approx([0.5] * 6, abs=1e-8)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_an_additive_game_gives_each_player_its_own_worth(n):
    worth = np.linspace(-1, 2, n)
    v = credit.coalition_matrix(n).double().numpy() @ worth
    assert nucleolus(v).tolist() == pytest.approx(worth.tolist(), abs=1e-8)
    assert nucleolus(v, individually_rational=True).tolist() == pytest.approx(worth.tolist(), abs=1e-7)
    assert least_core(v)[0].tolist() == pytest.approx(worth.tolist(), abs=1e-8)


# individual rationality


def test_a_strong_pair_may_not_take_from_the_third_where_everybody_must_have_what_it_is_worth_alone():
    # v(01) = 10 and nothing else: 2 owes 5 by the excesses, 0 by individual rationality
    v = table(lambda s: 10 * (s == {0, 1}), 3)
    assert nucleolus(v).tolist() == pytest.approx([2.5, 2.5, -5], abs=1e-8)
    assert nucleolus(v, individually_rational=True).tolist() == pytest.approx([0, 0, 0], abs=1e-8)


@several(1, 4)
@pytest.mark.parametrize("kind", KINDS)
def test_the_individually_rational_nucleolus_gives_everybody_what_it_is_worth_alone(kind, each):
    for v in games(kind, range(2, 7), each):
        n = len(v).bit_length() - 1
        alone = v[2 ** np.arange(n)]
        for spare in (0.0, 0.7):
            v[-1] = alone.sum() + spare
            x = nucleolus(v, individually_rational=True)
            assert x.sum() == pytest.approx(v[-1], abs=1e-7)
            assert (x >= alone - 1e-7).all()
            if spare == 0:
                assert x.tolist() == pytest.approx(alone.tolist(), abs=1e-7)


@pytest.mark.parametrize("kind", ["normal", "whole", "bankruptcy", "gloves"])
def test_both_kinds_coincide_where_the_first_is_individually_rational(kind):
    found = 0
    for v in games(kind, range(2, 7), each=2):
        v[-1] += 3
        x = nucleolus(v)
        if (x >= v[2 ** np.arange(len(x))]).all():
            found += 1
            assert nucleolus(v, individually_rational=True).tolist() == pytest.approx(x.tolist(), abs=1e-7)
    assert found > 3


def test_players_who_alone_are_worth_more_than_together_have_no_individually_rational_allocation():
    v = table(lambda s: min(len(s), 1), 3)
    with pytest.raises(ValueError, match=r"the players alone are worth 3, together 1: .* use individually_rational=False"):
        nucleolus(v, individually_rational=True)
    with pytest.raises(ValueError, match="individually_rational=False"):
        credit.make("nucleolus(individually_rational=True)").values(lambda c: c.any(dim=1), 3)
    assert nucleolus(v).tolist() == pytest.approx([1 / 3] * 3, abs=1e-8)


# units, precision, batches


@pytest.mark.parametrize("solve", [lambda v: least_core(v)[0], nucleolus], ids=["least core", "nucleolus"])
@pytest.mark.parametrize("scale", [1e-12, 1e9, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (1e-6, 1e3))])
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_unit_changes_nothing_else(kind, scale, solve):
    for v in games(kind, range(2, 6), each=1):
        tolerance = 1e-6 * (np.abs(v).max() or 1.0)  # on the verge of a tie the least core may jump by more than the solver's tolerance
        assert (scale * solve(v)).tolist() == pytest.approx(solve(scale * v).tolist(), abs=scale * tolerance)


@several(1, 3)
@pytest.mark.parametrize("kind", ["normal", "whole", "bankruptcy", "gloves", "majority"])
def test_worth_that_a_player_brings_wherever_it_goes_is_its_own(kind, each):
    for v in games(kind, range(2, 7), each):
        n = len(v).bit_length() - 1
        own = np.arange(n) - 1.0
        moved = v + credit.coalition_matrix(n).double().numpy() @ own
        assert least_core(moved)[1] == pytest.approx(least_core(v)[1], abs=1e-7)
        assert nucleolus(moved).tolist() == pytest.approx((nucleolus(v) + own).tolist(), abs=1e-6)


@pytest.mark.parametrize("name", ["least_core", "nucleolus"])
def test_a_worth_of_nobody_is_subtracted(name):
    v = random_game("normal", 4, np.random.default_rng(3))
    solve = {"least_core": lambda v: least_core(v)[0], "nucleolus": nucleolus}[name]
    assert solve(v + 100).tolist() == pytest.approx(solve(v).tolist(), abs=1e-7)


@pytest.mark.parametrize("name", ["least_core", "nucleolus", "nucleolus(individually_rational=True)"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_batch_of_games_equals_the_games_one_by_one(name, n):
    v = torch.randn(5, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    v[:, 0], v[:, -1] = 0, 10
    rule = credit.make(name)
    paid = rule.values(credit.table_game(v))
    assert paid.shape == (5, n)
    assert paid.equal(torch.cat([rule.values(credit.table_game(row[None])) for row in v]))


@pytest.mark.parametrize("name", ["least_core", "nucleolus"])
def test_single_precision_stays_single_and_close(name):
    rng = np.random.default_rng(4)
    for kind in ("normal", "gloves", "bankruptcy", "symmetric"):
        v = torch.from_numpy(random_game(kind, 5, rng))[None]
        paid = credit.make(name).values(credit.table_game(v.float()))
        assert paid.dtype == torch.float32
        torch.testing.assert_close(paid.double(), credit.make(name).values(credit.table_game(v)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("solve", [lambda v: least_core(v)[0], nucleolus])
def test_worths_may_be_a_tensor_with_gradients(solve):
    v = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    assert solve(v.clone().requires_grad_()).tolist() == solve(v.numpy()).tolist()


@pytest.mark.parametrize("name", ["least_core", "nucleolus"])
def test_an_empty_batch_gives_no_rows(name):
    assert credit.make(name).values(credit.CoalitionGame(lambda c: torch.zeros(0, len(c)), 3)).shape == (0, 3)


@pytest.mark.parametrize("name", ["least_core", "nucleolus"])
def test_thirteen_players_are_refused_before_any_evaluation(name):
    with pytest.raises(ValueError, match=r"at most 12 agents, got 13 \(8,192 coalitions"):
        credit.make(name).values(credit.CoalitionGame(lambda c: pytest.fail("evaluated"), 13))


@pytest.mark.parametrize("solve", [least_core, nucleolus])
@pytest.mark.parametrize("shape", [(7,), (1,), (0,), (1, 8), (2**13,)])
def test_worths_of_the_wrong_shape_are_refused(solve, shape):
    with pytest.raises(ValueError, match=r"\(2\*\*n,\) with n from 1 to 12, got \("):
        solve(np.zeros(shape))


@pytest.mark.parametrize("solve", [least_core, nucleolus])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_worths_that_are_not_finite_are_refused(solve, bad):
    with pytest.raises(ValueError, match="1 of the 8 coalitions have no finite worth"):
        solve(np.array([0, 1, 2, bad, 4, 5, 6, 7]))


@pytest.mark.parametrize("name", ["least_core", "nucleolus"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_game_whose_worths_are_not_finite_is_paid_nan_and_the_others_of_its_batch_as_ever(name, bad):
    v = torch.tensor([[0.0, 1.0, 2.0, 4.0]] * 3, dtype=torch.float64)
    v[1, 2] = bad
    paid = credit.make(name).values(credit.table_game(v))
    assert paid[1].isnan().all()
    torch.testing.assert_close(paid[[0, 2]], torch.tensor([[1.5, 2.5]] * 2, dtype=torch.float64))
