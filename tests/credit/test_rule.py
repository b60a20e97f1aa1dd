from importlib.metadata import EntryPoint

import pytest
import torch

from proxycoop import credit, registry


class PlugIn(credit.CreditRule):
    """Stands for a rule that another package brings."""

    def assign(self, the_round):
        return torch.zeros(the_round.num_envs, the_round.num_agents)


HOUSE = {
    "data_size": credit.DataSize,
    "equal": credit.Equal,
    "loo": credit.LeaveOneOut,
    "shapley": credit.Shapley,
    "standalone": credit.Standalone,
}


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


@pytest.mark.parametrize("name", list(credit.RULES))
def test_too_many_agents_are_refused_at_reset_and_the_message_names_the_numbers_and_a_rule_that_can(name):
    rule = credit.make(name)
    if rule.max_players is None:
        rule.reset(1, 10_000)
        return
    n = rule.max_players + 1
    rule.reset(1, rule.max_players)
    with pytest.raises(ValueError, match=rf"at most {rule.max_players} agents, got {n}") as caught:
        rule.reset(1, n)
    assert any(f"'{other}'" in str(caught.value) and credit.RULES[other].max_players is None for other in credit.RULES)


def test_the_number_of_coalitions_stays_readable_for_a_crowd():
    with pytest.raises(ValueError, match=r"got 1000 \(2\*\*1000 coalitions"):
        credit.make("shapley").check(1000)


def test_the_evaluations_that_a_refusal_promises_are_those_the_other_rule_makes():
    with pytest.raises(ValueError, match="'loo'") as caught:
        credit.make("shapley").check(13)
    for name in ["loo", "standalone"]:
        game = credit.CoalitionGame(lambda c: c.double().sum(dim=1), 13)
        credit.make(name).values(game)
        assert f"'{name}' ({game.evaluations})" in str(caught.value)
