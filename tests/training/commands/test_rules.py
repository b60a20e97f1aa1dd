"""Credit rules as text, and the command that prints them."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from proxycoop import credit
from proxycoop.training.commands.listings.rules import manual, table, working


@pytest.fixture
def registry(monkeypatch):
    """The registry, restored afterwards."""
    monkeypatch.setattr(credit.RULES, "_factories", dict(credit.RULES._factories))
    return credit.RULES


def printed(n_agents: int | None = None, width: int = 150) -> list[str]:
    text = StringIO()
    Console(file=text, width=width).print(table(n_agents))
    return text.getvalue().splitlines()


def rows(n_agents: int | None = None) -> list[list[str]]:
    """Cells of every row, without the lines on which a source goes on."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed(n_agents) if line.startswith("│")]
    return [cells for cells in lines if cells[0]]


def test_every_rule_stands_in_the_table_by_family_and_name():
    found = [(cells[1], cells[0]) for cells in rows()]
    assert sorted(name for _, name in found) == sorted(credit.RULES)
    families = ["division", "value", "estimator", "federated", "gradient", "peer", "time", "veto", "learning", "wrapper"]
    assert found == sorted(found, key=lambda one: (families.index(one[0]), one[1]))


def test_the_table_tells_each_rule_s_own_promises_and_limits():
    for name, family, _, evaluations, *marks, most in rows():
        rule = credit.make(name)
        assert family == rule.family
        assert evaluations == rule.evaluations
        assert [mark == "yes" for mark in marks] == [rule.efficient, rule.symmetric, rule.null_player]
        assert most == str(rule.max_players or "any")


def test_the_table_is_readable_at_150_letters():
    lines = printed()
    assert max(map(len, lines)) <= 150
    assert not any("…" in line for line in lines)
    assert len(lines) <= 2 * len(list(credit.RULES)) + 12, "no row takes more than two lines"


def test_costs_for_so_many_agents_stand_in_the_table():
    costs = {cells[0]: cells[-1] for cells in rows(64)}
    assert costs["equal"] == "1"
    assert costs["loo"] == "65"
    assert costs["shapley"] == "cannot"
    for name, cost in costs.items():
        if cost != "cannot":
            assert cost == f"{credit.make(name).cost(64):,}"


def test_a_rule_that_needs_arguments_or_a_broken_one_does_not_hide_the_others(registry):
    @registry.register("needy")
    class Needy(credit.Equal):
        def __init__(self, strength: float) -> None:
            self.strength = strength

    cells = next(cells for cells in rows() if cells[0] == "needy")
    assert "does not take" in cells[2]
    assert cells[3:] == ["–"] * 5
    assert len(rows()) == len(list(registry))
    assert "arguments    strength\n" in manual("needy(strength=2.0)")


@pytest.mark.parametrize("name", list(credit.RULES))
def test_every_rule_has_a_manual_with_its_docstring_and_all_its_arguments(name):
    text = manual(name, 6)
    rule = credit.make(name)
    assert text.startswith(f"{name}\n")
    assert rule.source in text
    assert rule.method(6) in text
    assert f"6 agents{' ' * 5}{rule.method(6)}" in text
    assert "failure" in text, "every rule says how it fails"
    for argument in vars(rule):
        if f"{argument}=" in text.splitlines()[1]:
            assert f"    {argument}: " in text, "explained by the rule or its base"
    for markup in ("``", ":math:", ":meth:", ".. math::"):
        assert markup not in text


def test_a_manual_is_of_the_rule_with_its_arguments():
    exact, estimated = manual("shapley", 64), manual("shapley(budget=600)", 64)
    assert "arguments    budget=None, seed=0" in exact
    assert "promises     efficient, symmetric, null player" in exact
    assert "largest N    20" in exact
    assert "64 agents    cannot: Shapley takes at most 20 agents, got 64 (2**64 coalitions a round)" in exact
    assert "promises     efficient\n" in estimated
    assert "largest N    any" in estimated
    assert "64 agents    estimated by stacked, 600 coalition evaluations a round" in estimated
    assert "agents  " not in manual("shapley")
    assert "1 agent    " in manual("equal", 1)


def test_a_rule_without_words_of_its_own_does_not_borrow_the_interface_s(registry):
    @registry.register("silent")
    class Silent(credit.CreditRule):
        def assign(self, round):
            return round.gain[:, None].repeat(1, round.num_agents)

    assert manual("silent").endswith("This rule has no description.\n")


def test_how_a_rule_works_is_one_line():
    how = "estimated by stacked, 60 coalition evaluations a round"
    how += "; rounds that have a surrogate: estimated by their difference to it"
    assert working("shapley(budget=60)", 10) == f"shapley(budget=60), {how}"
    assert working("shapley", 6) == "shapley, exact, 64 coalition evaluations a round"
    assert working("equal", 6) == "equal, 1 coalition evaluation a round"
    with pytest.raises(ValueError, match="at most 20 agents, got 21"):
        working("shapley", 21)
