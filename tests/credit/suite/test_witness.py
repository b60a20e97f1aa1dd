"""Rounds that show that a rule lacks an axiom."""

import pytest
import torch

from proxycoop import credit
from proxycoop.credit.suite.axioms import AXIOMS
from proxycoop.credit.suite.witness import witnesses

CHEAP = ("equal", "data_size", "loo", "standalone", "in_run", "g_shapley", "joint_shapley", "owen", "veto_own", "smoothed")


def lacking(name):
    rule = credit.make(name)
    return [axiom for axiom in AXIOMS if not getattr(rule, axiom)]


@pytest.mark.parametrize("name", CHEAP)
def test_every_axiom_that_a_rule_lacks_has_a_witness(name):
    assert list(witnesses(name)) == lacking(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(credit.RULES) - set(CHEAP)))
def test_every_axiom_that_any_rule_lacks_has_a_witness(name):
    assert list(witnesses(name)) == lacking(name)


def test_a_witness_shows_the_game_and_what_is_paid_for_it():
    witness = witnesses("loo")["efficient"]
    n = len(witness.paid)
    assert n == 2, "the fewest agents that show it"
    assert witness.worths.shape == (2**n,)
    assert credit.make("loo").values(credit.table_game(witness.worths[None]))[0].tolist() == witness.paid.tolist()
    assert witness.paid.sum() != witness.worths[-1]
    assert witness.words == f"credits sum to {witness.paid.sum():.4g}, but v(N) = {witness.worths[-1]:.4g}"


def test_a_null_player_that_is_paid_adds_nothing_to_any_coalition():
    witness = witnesses("equal")["null_player"]
    null = int(witness.words.split()[1])
    codes = torch.arange(len(witness.worths))
    assert witness.worths.equal(witness.worths[codes & ~(1 << null)])
    assert witness.paid[null] != 0


def test_interchangeable_agents_that_are_paid_differently():
    witness = witnesses("g_shapley")["symmetric"]
    assert len(witness.paid) == 2
    assert witness.worths[1] == witness.worths[2]
    assert witness.paid[0] != witness.paid[1]


def test_a_rule_that_keeps_all_axioms_needs_no_witness():
    assert witnesses("shapley") == {}


def test_a_rule_of_one_s_own_is_built_by_its_class():
    class Generous(credit.Equal):
        efficient = False

        def divide(self, game):
            return 2 * super().divide(game)

        def assign(self, round):
            return 2 * super().assign(round)

    assert witnesses(Generous)["efficient"].words.startswith("credits sum to")
