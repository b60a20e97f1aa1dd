import inspect
import re
from importlib.metadata import EntryPoint
from typing import get_args

import numpy as np
import pytest
import torch

from proxycoop import credit, registry
from proxycoop.credit import rule as rule_module


class PlugIn(credit.CreditRule):
    """Stands for a rule that another package brings."""

    def assign(self, the_round):
        return torch.zeros(the_round.num_envs, the_round.num_agents)


HOUSE = {
    "antithetic": credit.AntitheticPermutations,
    "aristocrat": credit.Aristocrat,
    "banzhaf": credit.Banzhaf,
    "banzhaf_msr": credit.BanzhafMsr,
    "beta_shapley": credit.BetaShapley,
    "cgsv": credit.CosineGradientShapley,
    "clipped": credit.Clipped,
    "comfedsv": credit.ComFedSv,
    "complementary": credit.ComplementaryContributions,
    "coopetition": credit.Coopetition,
    "cumulation": credit.Cumulation,
    "data_shapley": credit.DataShapley,
    "data_size": credit.DataSize,
    "difference": credit.Difference,
    "equal": credit.Equal,
    "expected_difference": credit.ExpectedDifference,
    "fact": credit.Fact,
    "fael": credit.FairYetEqual,
    "faithful_group_shapley": credit.FaithfulGroupShapley,
    "fedsv": credit.FedSv,
    "g_shapley": credit.GradientShapley,
    "gaussian_process": credit.GaussianProcess,
    "gtg": credit.GuidedTruncationGradient,
    "in_run": credit.InRun,
    "joint_shapley": credit.JointShapley,
    "kernelshap": credit.KernelShap,
    "least_core": credit.LeastCore,
    "leverage": credit.LeverageShap,
    "loo": credit.LeaveOneOut,
    "myerson": credit.Myerson,
    "normalised": credit.Normalised,
    "nucleolus": credit.Nucleolus,
    "owen": credit.Owen,
    "peer_ranking": credit.PeerRanking,
    "quotient": credit.Quotient,
    "shapfed": credit.ShapFed,
    "shapley": credit.Shapley,
    "size_regression": credit.SizeRegression,
    "stacked": credit.Stacked,
    "slashing": credit.Slashing,
    "smoothed": credit.Smoothed,
    "standalone": credit.Standalone,
    "stratified_svarm": credit.StratifiedSvarm,
    "svarm": credit.Svarm,
    "tmc": credit.TruncatedMonteCarlo,
    "valuation": credit.Valuation,
    "verfedsv": credit.VerFedSv,
    "veto_own": credit.VetoOwn,
    "veto_shapley": credit.VetoShapley,
    "veto_shared": credit.VetoShared,
}


def test_every_rule_of_ours_is_listed_here():
    assert {name for name in credit.RULES if credit.RULES[name].__module__.startswith("proxycoop.")} == set(HOUSE)


@pytest.mark.parametrize(("name", "rule"), HOUSE.items())
def test_make_builds_the_rule_of_that_name(name, rule):
    assert type(credit.make(name)) is rule


@pytest.mark.parametrize("name", list(credit.RULES))
def test_every_registered_name_builds_a_credit_rule(name):
    assert isinstance(credit.make(name), credit.CreditRule)


def test_unknown_name_lists_the_known_ones_and_suggests_the_closest():
    with pytest.raises(ValueError, match="unknown credit rule 'shaply'") as caught:
        credit.make("shaply")
    assert "did you mean 'shapley'?" in str(caught.value)
    assert all(name in str(caught.value) for name in credit.RULES)


def test_a_parameter_that_the_rule_does_not_take_is_refused_by_name():
    with pytest.raises(ValueError, match=r"credit rule 'loo' does not take .*'budget'"):
        credit.make("loo", budget=3)


def test_a_rule_may_have_a_parameter_called_name(clean_rules):
    @credit.RULES.register("named")
    class Named(PlugIn):
        def __init__(self, name: str = "anonymous") -> None:
            self.name = name

    assert credit.make("named", name="Ada").name == "Ada"


def test_a_rule_registered_with_the_decorator_is_found_and_pays(clean_rules, learning_round):
    @credit.RULES.register("mine")
    class Mine(credit.CreditRule):
        """Pays for the number of admitted lots: the example of CreditRule's docstring."""

        def assign(self, the_round):
            return the_round.admitted.sum(dim=-1).float()

    admitted = torch.tensor([[[True, True], [True, False], [False, False]]])
    rule = credit.make("mine")
    rule.reset(1, 3)
    assert rule.assign(learning_round(torch.zeros(1, 3, 1), torch.zeros(1, 1), admitted=admitted)).tolist() == [[2.0, 1.0, 0.0]]
    assert "mine" in list(credit.RULES)


def test_a_rule_registered_with_parameters_gets_them(clean_rules):
    @credit.RULES.register("fee")
    class Fee(PlugIn):
        def __init__(self, cents: int = 1) -> None:
            self.cents = cents

    assert credit.make("fee").cents == 1
    assert credit.make("fee", cents=5).cents == 5


def test_taking_a_taken_name_is_refused_and_changes_nothing(clean_rules):
    with pytest.raises(ValueError, match=r"credit rule 'loo' is registered already, as .*LeaveOneOut"):
        credit.RULES.register("loo")(PlugIn)
    assert credit.RULES["loo"] is credit.LeaveOneOut


def test_what_a_test_registered_is_gone_after_it():
    assert not {"mine", "fee", "named"} & set(credit.RULES)


def test_the_entry_point_group_is_read(clean_rules, monkeypatch):
    def entry_points(*, group):
        assert group == "proxycoop.credit_rules"
        return [EntryPoint("theirs", "fractions:Fraction", group)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(credit.RULES, "_third_party", None)
    assert credit.make("theirs", numerator=3) == 3


def test_a_rule_is_abstract_until_it_can_assign():
    class Lazy(credit.CreditRule):
        pass

    with pytest.raises(TypeError, match="assign"):
        Lazy()


def test_promises_nothing_unless_it_says_so():
    assert (PlugIn.efficient, PlugIn.symmetric, PlugIn.null_player, PlugIn.max_players) == (False, False, False, None)


# how many agents a rule serves


SERVES = {"owen": "unions", "myerson": "connected coalitions"}  # how many players these serve depends on how they are grouped


@pytest.mark.parametrize("name", list(credit.RULES))
def test_too_many_agents_are_refused_at_reset_and_the_message_names_the_numbers_and_a_rule_that_can(name):
    rule = credit.make(name)
    n = (rule.max_players or 9_999) + 1
    if rule.max_players is None and name not in SERVES:
        rule.reset(1, n)
        return
    rule.reset(1, rule.max_players or 12)
    message = rf"at most {rule.max_players} agents, got {n}" if rule.max_players else rf"{n} players.*{SERVES[name]}|{SERVES[name]}.*{n}"
    with pytest.raises(ValueError, match=message) as caught:
        rule.reset(1, n)
    suggested = re.findall(r"credit='([^']+)'", str(caught.value))
    assert suggested
    for other in suggested:
        credit.make(other).reset(1, n)


def test_the_number_of_coalitions_stays_readable_for_a_crowd():
    for name in ("shapley", "banzhaf", "joint_shapley"):
        with pytest.raises(ValueError, match=r"got 1000 \(2\*\*1000 coalitions"):
            credit.make(name).check(1000)


def test_the_evaluations_that_a_refusal_promises_are_those_the_other_rule_makes():
    with pytest.raises(ValueError, match="'loo'") as caught:
        credit.make("shapley").check(21)
    for name in ["loo", "standalone"]:
        game = credit.CoalitionGame(lambda c: c.double().sum(dim=1), 21)
        credit.make(name).values(game)
        assert f"'{name}' ({game.evaluations})" in str(caught.value)


@pytest.mark.parametrize("name", list(credit.RULES))
def test_a_number_of_players_may_be_numpys_and_what_is_none_is_refused(name):
    rule = credit.make(name)
    for n in (1, 3):
        assert rule.cost(np.int64(n)) == rule.cost(n)
        assert rule.method(np.int32(n)) == rule.method(n)
        rule.check(np.int16(n))
        rule.reset(1, np.uint8(n))
    for wrong in (0, -1, 3.0, True, "3"):
        with pytest.raises(ValueError, match=re.escape(f"num_agents={wrong!r}: must be a whole number")):
            rule.reset(1, wrong)
        for ask in (rule.check, rule.cost, rule.method):
            with pytest.raises(ValueError, match=re.escape(f"n_players={wrong!r}: must be a whole number")):
                ask(wrong)


@pytest.mark.parametrize("n", [63, 64, 100])
def test_the_cost_for_a_numpy_number_of_players_does_not_overflow(n):
    for text in ("svarm", "shapley", "shapley(budget=40)", "g_shapley", "comfedsv"):
        rule = credit.make(text)
        assert rule.cost(np.int64(n)) == rule.cost(n) > 0
        assert rule.method(np.int64(n)) == rule.method(n)


def test_a_rule_from_elsewhere_is_handed_a_whole_number_of_players_too():
    class Mine(credit.CreditRule):
        def cost(self, n):
            return 1 << n

        def assign(self, round):
            return round.admitted.sum(dim=-1).float()

    assert Mine().cost(np.int64(70)) == 1 << 70
    with pytest.raises(ValueError, match="n_players=-1"):
        Mine().cost(-1)


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint32])
@pytest.mark.parametrize("name", [name for name in credit.RULES if "budget" in inspect.signature(type(credit.make(name))).parameters])
def test_a_budget_and_a_seed_may_be_numpys(name, kind):
    theirs, ours = credit.make(name, budget=kind(40), seed=kind(3)), credit.make(name, budget=40, seed=3)
    assert theirs.evaluations == ours.evaluations
    assert theirs.cost(6) == ours.cost(6)
    assert type(theirs.cost(6)) is int
    v = torch.randn(2, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v[:, 0] = 0
    paid = []
    for rule in (theirs, ours):
        rule.reset(2, 6)
        paid.append(rule.assign(credit.game_round(credit.table_game(v), num_envs=2)))
    assert paid[0].equal(paid[1])
    for wrong in (np.float64(40), np.bool_(True), kind(0)):
        with pytest.raises(ValueError, match="budget="):
            credit.make(name, budget=wrong)


def test_other_numbers_may_be_numpys():
    assert credit.JointShapley(np.int64(2)).order == 2
    assert credit.Owen(np.int64(2)).structure(3) == [[0, 1], [2]]
    assert credit.ComFedSv(rank=np.int8(2), regularisation=np.float32(0.5)).regularisation == 0.5
    assert credit.FairYetEqual(window=np.int32(5)).window == 5
    assert credit.Aristocrat(np.int64(3)).window == 3
    assert credit.ExpectedDifference(np.int64(16))._actions(3, 0, 0).shape == (8, 3)
    assert credit.CosineGradientShapley(alpha=np.float32(0.5)).alpha == 0.5
    with pytest.raises(ValueError, match=r"alpha=.*nan"):
        credit.CosineGradientShapley(alpha=np.float32("nan"))


# names with arguments


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("shapley", "shapley", {}),
        ("shapley()", "shapley", {}),
        ("shapley(budget=60)", "shapley", {"budget": 60}),
        ("shapley (budget = 60, seed=3)", "shapley", {"budget": 60, "seed": 3}),
        ("normalised(rule='banzhaf', max_scale=1e3)", "normalised", {"rule": "banzhaf", "max_scale": 1000.0}),
        ("owen(unions=[[0, 1], [2]])", "owen", {"unions": [[0, 1], [2]]}),
        ("clipped(low=-0.5, high=None)", "clipped", {"low": -0.5, "high": None}),
        ("smoothed(rule='normalised(rule=\"loo\")')", "smoothed", {"rule": 'normalised(rule="loo")'}),
    ],
)
def test_a_name_with_arguments_is_read_as_a_call(text, name, arguments):
    assert rule_module.parse(text) == (name, arguments)


@pytest.mark.parametrize(
    "text",
    [
        "shapley(60)",
        "shapley(*[60])",
        "shapley(**{'budget': 60})",
        "shapley(budget=60",
        "shapley(budget=60))",
        "shapley(budget=60).values",
        "shapley(budget=60)()",
        "shapley(budget=60); loo",
        "shapley(budget=2*30)",
        "shapley(budget=print(1))",
        "shapley(budget=sixty)",
        "shapley(budget=)",
        "shapley(" + 10_000 * "(",
        "(budget=60)",
        "shapley(\0",
    ],
)
def test_what_is_no_name_with_literal_arguments_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"shapley\(budget=60\)|unknown credit rule"):
        credit.make(text)


def test_arguments_in_the_name_reach_the_rule():
    assert credit.make("shapley(budget=60, seed=3)").budget == 60
    assert credit.make("shapley(budget=60)", seed=3).seed == 3
    assert credit.make("owen(unions=3)").unions == 3


def test_an_argument_given_twice_is_refused():
    with pytest.raises(ValueError, match=r"'budget' is given twice, in the name and as a keyword"):
        credit.make("shapley(budget=60)", budget=70)
    with pytest.raises(ValueError, match="an argument is given twice"):
        credit.make("shapley(budget=60, budget=70)")


def test_an_unknown_name_or_argument_is_refused_with_arguments_too():
    with pytest.raises(ValueError, match="did you mean 'shapley'"):
        credit.make("shaply(budget=60)")
    with pytest.raises(ValueError, match="credit rule 'loo' does not take these arguments"):
        credit.make("loo(budget=3)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shapley(budget=0)", "budget=0"),
        ("shapley(budget=1.5)", "budget=1.5"),
        ("shapley(budget=True)", "budget=True"),
        ("shapley(seed=-1)", "seed=-1"),
        ("joint_shapley(order=0)", "order=0"),
        ("beta_shapley(alpha=0)", "alpha=0"),
        ("beta_shapley(alpha='2')", "alpha='2'"),
        ("beta_shapley(beta=True)", "beta=True"),
        ("nucleolus(individually_rational='no')", "individually_rational='no': must be True or False"),
        ("owen(unions=0)", "unions=0"),
        ("myerson(graph='tree')", "graph='tree'.*ring, line, star, complete"),
    ],
)
def test_arguments_that_are_out_of_range_are_refused_by_name(text, message):
    with pytest.raises(ValueError, match=message):
        credit.make(text)


# game rules and what they cost


GAME_RULES = [name for name in credit.RULES if isinstance(credit.make(name), credit.GameRule)]


def game_rules_for_games() -> list[str]:
    """Those that need nothing of a round, whatever they wrap."""
    return [name for name in GAME_RULES if not isinstance(getattr(credit.make(name), "rule", credit.make("loo")), credit.DataSize)]


@pytest.mark.parametrize("name", game_rules_for_games())
def test_values_of_a_function_are_those_of_its_game_whatever_its_worth_of_nobody(name, table_game):
    for n in (1, 2, 5):
        v = torch.randn(3, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        v[:, 0] = 0
        expected = credit.make(name).values(table_game(v))
        assert expected.shape == (3, n)
        paid = credit.make(name).values(lambda c, n=n, v=v: v[:, (c * 2 ** torch.arange(n)).sum(dim=1)] + 0.25, n)
        torch.testing.assert_close(paid, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", game_rules_for_games())
def test_worths_may_carry_gradients_which_pass_through_all_but_linear_programmes(name):
    v = torch.tensor([0.0, 1.0, 2.0, 4.0, 3.0, 5.0, 6.0, 9.0], dtype=torch.float64, requires_grad=True)
    rule = credit.make(name)
    paid = rule.values(lambda c: v[(c * 2 ** torch.arange(3)).sum(dim=1)], 3)
    torch.testing.assert_close(paid.detach(), credit.make(name).values(credit.table_game(v.detach()[None])), rtol=0, atol=1e-12)
    assert paid.requires_grad == (name not in ("least_core", "nucleolus"))
    if isinstance(rule, credit.Estimator):
        low, high = rule.estimate(lambda c: v[(c * 2 ** torch.arange(3)).sum(dim=1)], 3).interval()
        assert (low <= high).all()


@pytest.mark.parametrize("name", game_rules_for_games())
def test_values_of_a_single_game_have_one_row(name):
    assert credit.make(name).values(lambda c: c.double().sum(dim=1), 4).shape == (1, 4)


@pytest.mark.parametrize("name", game_rules_for_games())
def test_values_need_the_number_of_players(name):
    with pytest.raises(ValueError, match="n_players is missing"):
        credit.make(name).values(lambda c: c.double().sum(dim=1))


@pytest.mark.parametrize("name", list(credit.RULES))
def test_a_rule_costs_no_more_evaluations_than_cost_says_and_method_tells_them(name, learning_round):
    assert credit.make(name).family in get_args(rule_module.Family)
    for n in (1, 2, 3, 7, 12):
        rule = credit.make(name)
        generator = torch.Generator().manual_seed(n)
        the_round = learning_round(torch.randn(2, n, 3, dtype=torch.float64, generator=generator), torch.ones(2, 3, dtype=torch.float64))
        asked: list[torch.Tensor] = []

        def counted(coalitions, game=the_round.game, asked=asked):
            asked.append(coalitions[coalitions.any(dim=1)])  # the worth of nobody costs nothing
            return game.value(coalitions)

        the_round.game = credit.CoalitionGame(counted, n)
        rule.reset(2, n)
        rule.assign(the_round)
        every = torch.cat([torch.zeros(0, n, dtype=torch.bool), *asked])
        assert len(every) == len(every.unique(dim=0)) <= rule.cost(n), n
        assert "evaluation" in rule.method(n)


@pytest.mark.parametrize("what", [None, b"loo", ["loo"], credit.Shapley, 3])
def test_what_is_no_name_is_refused(what):
    with pytest.raises(ValueError, match="must be the name of a credit rule as text"):
        credit.make(what)


REMEMBER = [
    "aristocrat",
    "cgsv",
    "comfedsv",
    "cumulation",
    "fael",
    "normalised(rule='smoothed')",
    "peer_ranking",
    "shapfed",
    "smoothed",
    "valuation",
]


@pytest.mark.parametrize("name", REMEMBER)
@pytest.mark.parametrize("sizes", [(1, 3, 3, 3), (3, 3, 1, 3), (2, 3, 3, 3), (1, 3, 1, 4)])
def test_a_rule_that_remembers_takes_rounds_of_one_size_until_it_is_reset(name, sizes):
    def of(num_envs, num_agents, t):
        zeros = torch.zeros(num_envs, num_agents, 2)
        return credit.learning_round(zeros + 0.1, zeros[:, 0] + 1, t=t)

    rule = credit.make(name)
    rule.reset(*sizes[:2])
    rule.assign(of(*sizes[:2], 0))
    said = rf"the round is of {sizes[2]} environments and {sizes[3]} agents.*call reset\({sizes[2]}, {sizes[3]}\)"
    with pytest.raises(ValueError, match=said):
        rule.assign(of(*sizes[2:], 1))
    rule.reset(*sizes[2:])
    assert rule.assign(of(*sizes[2:], 0)).shape == sizes[2:]


def test_a_rule_without_a_memory_takes_rounds_of_any_size():
    for name in ("loo", "normalised", "clipped(rule='shapley')", "data_size"):
        rule = credit.make(name)
        for size in ((1, 3), (2, 4)):
            zeros = torch.zeros(*size, 2)
            assert rule.assign(credit.learning_round(zeros, zeros[:, 0])).shape == size


def test_a_game_is_no_round():
    with pytest.raises(ValueError, match=r"must be a Round of a cooperative; a game alone is paid by values\(game\)"):
        credit.make("shapley").assign(credit.table_game(torch.tensor([0.0, 1.0])))


@pytest.mark.parametrize("num_envs", [0, -1, "1", 1.0, True, None])
def test_a_number_of_environments_that_is_none_is_refused(num_envs):
    with pytest.raises(ValueError, match="num_envs="):
        credit.make("smoothed").reset(num_envs, 3)


def test_a_reset_that_does_not_call_the_one_it_overrides_begins_anew_too():
    class Forgets(PlugIn):
        def reset(self, num_envs, num_agents):
            pass

    rule = Forgets()
    for size in ((1, 3), (2, 4)):
        rule.reset(*size)
        zeros = torch.zeros(*size, 2)
        assert rule.assign(credit.learning_round(zeros, zeros[:, 0])).shape == size
