import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from proxycoop import credit

SEEDS = st.integers(0, 2**32 - 1)


class Fixed(credit.GameRule):
    """Pays the same, whatever happened."""

    source = "a test"

    def __init__(self, paid: list[list[float]] | Tensor, **promises: bool) -> None:
        self.paid = torch.as_tensor(paid, dtype=torch.float64)
        self.__dict__.update(promises)

    def divide(self, game: credit.CoalitionGame) -> Tensor:
        return self.paid


def gaining(*gain: float, n: int = 2) -> credit.CoalitionGame:
    """A game of which only v(N) matters, in each environment."""
    worth = torch.tensor(gain, dtype=torch.float64)
    return credit.CoalitionGame(lambda c: worth[:, None] * c.all(dim=1), n)


def rounds(learning_round, n_rounds: int, n: int = 3, n_envs: int = 2) -> list[credit.Round]:
    generator = torch.Generator().manual_seed(n_rounds)
    return [
        learning_round(
            torch.randn(n_envs, n, 2, dtype=torch.float64, generator=generator),
            torch.randn(n_envs, 2, dtype=torch.float64, generator=generator),
            t=t,
        )
        for t in range(n_rounds)
    ]


# normalised


@pytest.mark.parametrize(
    ("paid", "gain", "expected"),
    [
        ([3.0, 1.0], 2.0, [1.5, 0.5]),  # too much: scaled down
        ([3.0, 1.0], 8.0, [6.0, 2.0]),  # too little: scaled up
        ([-3.0, -1.0], -8.0, [-6.0, -2.0]),  # the same for losses
        ([3.0, -1.0], 4.0, [6.0, -2.0]),  # fines are scaled too
        ([3.0, 1.0], 4.0, [3.0, 1.0]),  # nothing to do
        ([3.0, 1.0], -2.0, [0.0, -2.0]),  # other sign: 6 too much, borne by both alike
        ([-3.0, -1.0], 2.0, [0.0, 2.0]),
        ([2.0, -2.0], 3.0, [3.5, -0.5]),  # nothing to scale by
        ([0.0, 0.0], 3.0, [1.5, 1.5]),
        ([3.0, 1.0], 0.0, [1.0, -1.0]),  # nothing to scale to
        ([2.0, -2.0], 0.0, [2.0, -2.0]),
        ([0.0, 0.0], 0.0, [0.0, 0.0]),
        ([1.0, 0.0], 100.0, [55.0, 45.0]),  # ten times at most; the other 90 are shared
        ([0.1 + 0.2, -0.3], 1.0, [0.8, 0.2]),  # a sum that is zero but for rounding is zero
    ],
)
def test_credit_is_scaled_to_the_gain_where_a_positive_factor_can_and_shared_else(paid, gain, expected):
    rescaled = credit.Normalised(Fixed([paid])).values(gaining(gain))
    assert rescaled[0].tolist() == pytest.approx(expected, abs=1e-14)


def test_each_environment_is_scaled_by_its_own_gain():
    rescaled = credit.Normalised(Fixed([[3.0, 1.0], [3.0, 1.0], [3.0, 1.0]])).values(gaining(2.0, 8.0, -2.0))
    assert rescaled.tolist() == [[1.5, 0.5], [6.0, 2.0], [0.0, -2.0]]


def test_max_scale_bounds_the_factor():
    for max_scale, expected in ((1.0, [5.5, 4.5]), (4.0, [7.0, 3.0]), (float("inf"), [10.0, 0.0])):
        assert credit.Normalised(Fixed([[1.0, 0.0]]), max_scale).values(gaining(10.0))[0].tolist() == expected


@given(SEEDS, st.sampled_from(["loo", "banzhaf", "standalone", "beta_shapley", "svarm"]), st.floats(1, 100))
def test_normalised_credit_sums_to_the_gain(seed, name, max_scale):
    v = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    paid = credit.Normalised(name, max_scale).values(credit.table_game(v))
    torch.testing.assert_close(paid.sum(dim=1), v[:, -1], rtol=0, atol=1e-11)


def test_the_normalised_banzhaf_index_of_the_eec_is_swings_over_all_swings():
    weights = torch.tensor([4.0, 4, 4, 2, 2, 1], dtype=torch.float64)
    paid = credit.make("normalised(rule='banzhaf')").values(lambda c: c.double() @ weights >= 12, 6)
    assert paid[0].tolist() == pytest.approx([10 / 42] * 3 + [6 / 42] * 2 + [0], abs=1e-14)


def test_what_is_efficient_already_is_left_alone():
    v = torch.randn(2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v[0, -1] = v[0, 0]  # a gain of zero, which rounding may turn into a tiny one
    v = v - v[:, :1]
    torch.testing.assert_close(credit.make("normalised(rule='shapley')").values(credit.table_game(v)), credit.shapley_values(v))


def test_one_agent_s_harm_raises_what_the_others_are_paid_which_is_its_known_failure():
    # v(N) = 1 either way; the second agent's fine makes the factor 2
    assert credit.Normalised(Fixed([[1.0, 0.0]])).values(gaining(1.0))[0].tolist() == [1.0, 0.0]
    assert credit.Normalised(Fixed([[1.0, -0.5]])).values(gaining(1.0))[0].tolist() == [2.0, -1.0]


# coopetition


def test_a_number_is_everybody_s_stake_in_everybody_else():
    paid = credit.Coopetition(Fixed([[3.0, -1.0, 5.0]]), 0.5).values(gaining(1.0, n=3))
    assert paid.tolist() == [[3.0 + 0.5 * 4.0, -1.0 + 0.5 * 8.0, 5.0 + 0.5 * 2.0]]


def test_row_i_of_a_matrix_is_what_agent_i_has_a_stake_in_and_its_diagonal_is_ignored():
    d = [[9.0, 0.5, 0.0], [0.0, 9.0, 0.25], [1.0, 1.0, 9.0]]
    expected = [[3.0 + 0.5 * -1.0, -1.0 + 0.25 * 5.0, 5.0 + 3.0 - 1.0]]
    for interdependence in (d, torch.tensor(d), tuple(map(tuple, d))):
        assert credit.Coopetition(Fixed([[3.0, -1.0, 5.0]]), interdependence).values(gaining(1.0, n=3)).tolist() == expected


def test_no_stakes_change_nothing_and_keep_the_promises():
    for nothing in (0.0, torch.eye(2), [[0, 0], [0, 0]]):
        rule = credit.Coopetition("shapley", nothing)
        assert (rule.efficient, rule.symmetric, rule.null_player) == (True, True, True)
        assert rule.values(gaining(4.0)).tolist() == [[2.0, 2.0]]


def test_stakes_near_one_pay_free_riders_which_is_its_known_failure():
    paid = credit.Coopetition("shapley", 1.0).values(lambda c: 1.0 * c[:, 0], 2)
    assert paid.tolist() == [[1.0, 1.0]]


def test_a_matrix_of_other_agents_is_refused():
    rule = credit.make("coopetition(interdependence=[[0, 1], [1, 0]])")
    with pytest.raises(ValueError, match="a matrix of 2 agents, but there are 3"):
        rule.reset(1, 3)
    with pytest.raises(ValueError, match="a matrix of 2 agents, but there are 3"):
        rule.values(gaining(1.0, n=3))


# clipped


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, [0.0, 0.5, 3.0]),
        ({"low": -1.0}, [-1.0, 0.5, 3.0]),
        ({"high": 1.0}, [0.0, 0.5, 1.0]),
        ({"low": None, "high": 1.0}, [-2.0, 0.5, 1.0]),
        ({"low": 1.0, "high": 1.0}, [1.0, 1.0, 1.0]),
        ({"low": float("-inf"), "high": 2}, [-2.0, 0.5, 2.0]),
    ],
)
def test_credit_stays_within_the_bounds(bounds, expected):
    assert credit.Clipped(Fixed([[-2.0, 0.5, 3.0]]), **bounds).values(gaining(1.0, n=3)).tolist() == [expected]


def test_harm_costs_nothing_any_more_which_is_its_known_failure():
    assert credit.Clipped("shapley").values(lambda c: 1.0 * c[:, 0] - 5.0 * c[:, 1], 2).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(("bounds", "null_player"), [({}, True), ({"low": 1.0, "high": None}, False), ({"low": None, "high": -1.0}, False)])
def test_clipping_keeps_null_players_at_nothing_if_nothing_is_within_the_bounds(bounds, null_player):
    rule = credit.Clipped("shapley", **bounds)
    assert rule.null_player == null_player
    assert (rule.values(lambda c: 1.0 * c[:, 0], 2)[0, 1] == 0) == null_player


# smoothed


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 1.0])
def test_credit_is_the_weighted_mean_of_all_rounds_so_far(decay, learning_round):
    rule, inner = credit.Smoothed("shapley", decay), credit.Shapley()
    rule.reset(2, 3)
    past = []
    for the_round in rounds(learning_round, 5):
        past.append(inner.assign(the_round))
        weights = [decay ** (len(past) - 1 - k) for k in range(len(past))]
        expected = sum(w * paid for w, paid in zip(weights, past, strict=True)) / sum(weights)
        torch.testing.assert_close(rule.assign(the_round), expected, rtol=0, atol=1e-13)


def test_a_decay_of_0_remembers_nothing_and_of_1_forgets_nothing(learning_round):
    forgetful, faithful, inner = credit.Smoothed("loo", 0), credit.Smoothed("loo", 1), credit.LeaveOneOut()
    for rule in (forgetful, faithful):
        rule.reset(2, 3)
    paid = []
    for the_round in rounds(learning_round, 4):
        paid.append(inner.assign(the_round))
        assert forgetful.assign(the_round).equal(paid[-1])
        torch.testing.assert_close(faithful.assign(the_round), torch.stack(paid).mean(dim=0), rtol=0, atol=1e-14)
    assert (forgetful.symmetric, forgetful.null_player) == (True, True)
    assert (faithful.symmetric, faithful.null_player) == (False, False)


def test_a_reset_clears_the_memory_for_any_number_of_environments_and_agents(learning_round):
    rule = credit.Smoothed("loo")
    rule.reset(2, 3)
    for the_round in rounds(learning_round, 3):
        rule.assign(the_round)
    rule.reset(1, 4)
    (the_round,) = rounds(learning_round, 1, n=4, n_envs=1)
    assert rule.assign(the_round).equal(credit.LeaveOneOut().assign(the_round))


def test_writing_into_what_was_paid_does_not_change_the_memory(learning_round):
    rule, untouched = credit.Smoothed("loo"), credit.Smoothed("loo")
    rule.reset(2, 3)
    untouched.reset(2, 3)
    for the_round in rounds(learning_round, 3):
        paid = rule.assign(the_round)
        assert paid.equal(untouched.assign(the_round))
        paid.zero_()


def test_a_game_by_itself_is_a_first_round_and_leaves_no_memory(learning_round):
    rule = credit.Smoothed("shapley")
    rule.reset(2, 3)
    assert rule.values(gaining(3.0, n=3)).tolist() == [[1.0, 1.0, 1.0]]
    (the_round,) = rounds(learning_round, 1)
    torch.testing.assert_close(rule.assign(the_round), credit.Shapley().assign(the_round), rtol=0, atol=1e-15)


def test_an_agent_is_paid_while_it_rests_which_is_its_known_failure(learning_round):
    target = torch.ones(1, 2, dtype=torch.float64)
    works, rests = torch.tensor([[[0.5, 0.0], [0.0, 0.5]]]).double(), torch.tensor([[[0.0, 0.0], [0.0, 0.5]]]).double()
    rule = credit.Smoothed("shapley")
    rule.reset(1, 2)
    rule.assign(learning_round(works, target))
    assert rule.assign(learning_round(rests, target))[0, 0] > 0.1


# what they wrap


def test_wrappers_nest():
    rule = credit.make("clipped(rule='normalised(rule=\"coopetition(interdependence=0.5)\", max_scale=1)', low=None, high=2)")
    assert isinstance(rule.rule.rule.rule, credit.LeaveOneOut)
    # additive (3, 1): loo the same; with stakes (3.5, 2.5); scaled to 4: (7/3, 5/3); at most 2
    paid = rule.values(lambda c: c.double() @ torch.tensor([3.0, 1.0], dtype=torch.float64), 2)
    assert paid[0].tolist() == pytest.approx([2, 5 / 3], abs=1e-12)


def test_a_reset_reaches_what_is_wrapped(learning_round):
    rule = credit.Clipped(credit.Smoothed("loo"), low=None, high=1e9)
    rule.reset(2, 3)
    for the_round in rounds(learning_round, 2):
        rule.assign(the_round)
    rule.reset(2, 3)
    (the_round,) = rounds(learning_round, 1)
    assert rule.assign(the_round).equal(credit.LeaveOneOut().assign(the_round))


@pytest.mark.parametrize("wrapper", ["normalised", "coopetition", "clipped", "smoothed"])
def test_a_rule_that_reads_the_round_s_records_can_be_wrapped_in_rounds_but_has_no_values_for_a_game_alone(wrapper, learning_round):
    rule = credit.make(wrapper, rule="data_size")
    rule.reset(2, 3)
    (the_round,) = rounds(learning_round, 1)
    assert rule.assign(the_round).shape == (2, 3)
    with pytest.raises(ValueError, match="DataSize needs a round of a cooperative"):
        rule.values(gaining(1.0))


def test_normalised_data_size_is_data_size(learning_round):
    rule = credit.Normalised("data_size")
    (the_round,) = rounds(learning_round, 1)
    torch.testing.assert_close(rule.assign(the_round), credit.DataSize().assign(the_round))


@pytest.mark.parametrize("wrapper", ["normalised", "coopetition", "clipped", "smoothed"])
@pytest.mark.parametrize("inner", ["equal", "standalone", "loo", "shapley", "svarm(budget=40)"])
def test_a_wrapper_costs_what_the_other_rule_costs_and_v_n_if_it_reads_that(wrapper, inner, learning_round):
    rule = credit.make(wrapper, rule=inner)
    assert rule.cost(5) == credit.make(inner).cost(5) + (wrapper == "normalised")
    assert rule.method(5).startswith(credit.make(inner).method(5))
    (the_round,) = rounds(learning_round, 1, n=5)
    rule.reset(2, 5)
    rule.assign(the_round)
    assert the_round.game.evaluations <= rule.cost(5) + ("svarm" in inner)  # v(∅) costs nothing, and is counted where it was asked for


def test_a_wrapper_serves_as_many_agents_as_the_other_rule():
    for wrapper in ("normalised", "coopetition", "clipped", "smoothed"):
        credit.make(wrapper, rule="loo").reset(1, 500)
        with pytest.raises(ValueError, match="at most 12 agents, got 13"):
            credit.make(wrapper, rule="nucleolus").reset(1, 13)
        with pytest.raises(ValueError, match="budget=5 is too small"):
            credit.make(wrapper, rule="kernelshap(budget=5)").check(10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normalised(rule='lo')", "unknown credit rule 'lo'.*'loo'"),
        ("normalised(rule=3)", "rule=3: must be a credit rule or the name of one"),
        ("normalised(rule='shapley(60)')", r"shapley\(60\)"),
        ("normalised(max_scale=0.5)", "max_scale=0.5: must be a number of at least 1"),
        ("normalised(max_scale='2')", "max_scale='2'"),
        ("coopetition(interdependence=-0.1)", "interdependence=-0.1: must be finite and not negative"),
        ("coopetition(interdependence=1e999)", "must be finite"),
        ("coopetition(interdependence=[0.1, 0.2])", r"a number or a square matrix, got shape \(2,\)"),
        ("coopetition(interdependence=[[0, 1, 0], [1, 0, 1]])", r"a number or a square matrix, got shape \(2, 3\)"),
        ("coopetition(interdependence=[[0, 1], [1]])", "must be a number or a square matrix"),
        ("coopetition(interdependence='much')", "interdependence='much': must be a number or a square matrix"),
        ("clipped(low=None)", "low=None and high=None clip nothing"),
        ("clipped(low=2, high=1)", "low=2 is above high=1"),
        ("clipped(high='1')", "high='1': must be a number, or None for no bound"),
        ("smoothed(decay=1.1)", "decay=1.1: must be a number from 0 to 1"),
        ("smoothed(decay=-0.1)", "decay=-0.1"),
        ("smoothed(decay=None)", "decay=None"),
    ],
)
def test_wrong_arguments_are_refused_with_a_clear_message(text, message):
    with pytest.raises(ValueError, match=message):
        credit.make(text)


@pytest.mark.parametrize("bad", [float("nan"), True])
def test_what_is_no_number_is_refused(bad):
    for make in (lambda: credit.Normalised("loo", bad), lambda: credit.Clipped("loo", low=bad), lambda: credit.Smoothed("loo", bad)):
        with pytest.raises(ValueError, match=f"={bad}: must be"):
            make()


@pytest.mark.parametrize("switch", [True, [[False, True], [True, False]]])
def test_a_switch_is_no_stake(switch):
    with pytest.raises(ValueError, match=r"interdependence=.*must be a number or a square matrix"):
        credit.make("coopetition", interdependence=switch)
