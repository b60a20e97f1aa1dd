"""Every registered rule passes the suite that credit.check_rule is, and the games with known values.

A new rule is covered as soon as it is registered; if the suite says that an axiom which the rule does not declare is kept
everywhere, declare it, or add the round that breaks it to the battery.
"""

import pytest
import torch

from proxycoop import credit
from proxycoop.credit import games
from proxycoop.credit.suite.battery import battery

NAMES = list(credit.RULES)
VARIANTS = [
    "clipped(rule='data_size', low=None, high=100)",
    "coopetition(rule='shapley', interdependence=[[0, 0.1], [0.2, 0]])",
    "joint_shapley(order=3)",
    "myerson(graph='star')",
    "normalised(rule='shapley')",
    "owen(unions=[[0, 1, 2], [3, 4]])",
    "shapley(budget=40)",
    "smoothed(rule='shapley', decay=1)",
    "tmc(budget=30)",
]
# those that are another rule under another name, or one of the above with another number
MORE_VARIANTS = [
    "banzhaf_msr(budget=100)",
    "beta_shapley(alpha=1, beta=1)",
    "clipped(rule='shapley')",
    "comfedsv(budget=40, seed=2)",
    "comfedsv(rank=5, regularisation=0.1)",
    "coopetition(interdependence=0)",
    "joint_shapley(order=1)",
    "myerson(graph='complete')",
    "normalised(rule='banzhaf')",
    "normalised(rule='data_size')",
    "owen(unions=1)",
    "shapley(budget=600)",
    "smoothed(decay=0)",
    "tmc(tolerance=0)",
]
# their equations have a row or a column a coalition: of up to five agents here, of as many as they serve among the slow tests
COSTLY = ["comfedsv", "least_core", "nucleolus"]
ON_PURPOSE = {
    # a minimum wage pays for nothing
    "clipped(rule='equal', low=0.001)": "nothing",
    # Schmeidler's domain is empty in many games
    "nucleolus(individually_rational=True)": "sizes",
}


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in NAMES if name not in COSTLY),
        *VARIANTS,
        *(pytest.param(name, marks=pytest.mark.slow) for name in [*COSTLY, *MORE_VARIANTS]),
    ],
)
def test_rule_keeps_what_it_promises_and_lacks_what_it_does_not(name):
    credit.check_rule(name)


@pytest.mark.parametrize("name", COSTLY)
def test_costly_rule_keeps_what_it_promises_with_few_agents(name, monkeypatch):
    monkeypatch.setattr(type(credit.make(name)), "max_players", 5)
    credit.check_rule(name)


@pytest.mark.parametrize(("name", "check"), ON_PURPOSE.items())
def test_rule_that_breaks_one_check_on_purpose_passes_the_others(name, check):
    assert credit.check_rule(name, waive=[check]).waived == (check,)
    with pytest.raises(credit.RuleViolation) as caught:
        credit.check_rule(name)
    assert list(caught.value.report.findings) == [check]


# the battery


@pytest.mark.parametrize("n", range(3, 13))
def test_the_battery_has_interchangeable_and_null_agents_for_every_number_of_agents(n):
    facts = [facts for case in battery() if case.n_agents == n for facts in case.facts]
    assert any(one.alike.any() for one in facts)
    assert any(one.null.any() for one in facts)
    assert any((one.gain > 0).any() for one in facts)
    assert any((one.gain < 0).any() for one in facts)


@pytest.mark.parametrize("case", [case for case in battery() if case.n_agents <= 6], ids=lambda case: case.name)
def test_facts_are_those_of_the_definitions(case):
    """By swapping two agents, and by taking one away, in every coalition."""
    for the_round, facts in zip(case.build(), case.facts, strict=True):
        n = the_round.num_agents
        coalitions = credit.coalition_matrix(n)
        v = the_round.value(coalitions).double()
        nothing = 1e4 * torch.finfo(the_round.gain.dtype).eps * v.abs().amax(dim=1)
        for i in range(n):
            without = coalitions.clone()
            without[:, i] = False
            assert facts.null[:, i].equal((v - the_round.value(without)).abs().amax(dim=1) <= nothing)
            for j in range(i):
                swapped = coalitions.clone()
                swapped[:, [i, j]] = coalitions[:, [j, i]]
                assert facts.alike[:, i, j].equal((v - the_round.value(swapped)).abs().amax(dim=1) <= nothing)


def test_each_episode_is_built_anew():
    for case in battery():
        assert all(the_round.game.evaluations == 0 for the_round in case.build())


# games with known values

KNOWN = [
    games.glove(1, 2),
    games.glove(4, 6),
    games.airport([3.0, 1.0, 2.0, 2.0, 5.0]),
    games.unanimity(6, [1, 4]),
    games.additive([1.0, -2.0, 0.5]),
    games.weighted_majority([4, 2, 1, 1, 0, 2], 6),
    *(games.random_game(kind, 8, seed) for kind in ("saturating", "coverage", "unanimity_sum", "weighted_majority") for seed in range(3)),
]


@pytest.mark.parametrize(
    "name", ["shapley", "beta_shapley(alpha=1, beta=1)", "joint_shapley(order=1)", "myerson(graph='complete')", "owen(unions=1)"]
)
def test_rules_that_are_shapley_give_the_known_shapley_value(name):
    for known in KNOWN:
        torch.testing.assert_close(credit.make(name).values(known.game())[0], known.shapley, rtol=0, atol=1e-11, msg=known.name)


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_banzhaf_gives_the_known_banzhaf_value(known):
    torch.testing.assert_close(credit.make("banzhaf").values(known.game())[0], known.banzhaf, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in NAMES if credit.make(name).efficient and isinstance(credit.make(name), credit.GameRule)])
def test_an_efficient_rule_pays_out_the_worth_of_all(name):
    for known in KNOWN:
        assert credit.make(name).values(known.game()).sum().item() == pytest.approx(known.game().grand().item(), abs=1e-9), known.name


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(credit.make(name), credit.GameRule)])
def test_in_an_additive_game_everybody_is_paid_what_it_brings(name):
    brings = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=torch.float64)
    values = credit.make(name).values(games.additive(brings[0].tolist()).game())
    paid_otherwise = {
        "equal": torch.full((1, 4), 0.625, dtype=torch.float64),
        "clipped": brings.clamp(min=0),
        "coopetition": brings + 0.2 * (2.5 - brings),
    }
    shared = {"joint_shapley", "gtg", "svarm", "tmc"}  # groups share; the others sample or cut short
    if name not in shared:
        torch.testing.assert_close(values, paid_otherwise.get(name, brings), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda budget: credit.make("svarm", budget=budget), "must build the rule without arguments"),
        (credit.CreditRule, "lacks assign"),
        (credit.GameRule, "lacks divide"),
    ],
)
def test_what_builds_no_rule_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        credit.check_rule(rule)
