import pytest
import torch

from proxycoop import credit
from proxycoop.credit.suite.battery import random_round, veto_round


def test_is_what_the_team_loses_without_the_agent():
    # worths of ∅, 0, 1, 01: agent 0 brings .9 − (−.2), agent 1 .9 − .3
    v = torch.tensor([[0.0, 0.3, -0.2, 0.9]], dtype=torch.float64)
    assert credit.Difference().values(credit.table_game(v))[0].tolist() == pytest.approx([1.1, 0.6], abs=1e-15)


def test_is_leave_one_out_to_the_last_digit():
    for the_round in (random_round(5, 0), random_round(1, 1), veto_round(6, 2), random_round(40, 3)):
        assert credit.make("difference").assign(the_round).equal(credit.make("loo").assign(the_round))


def test_is_a_game_rule_with_the_promises_of_leave_one_out():
    rule, loo = credit.Difference(), credit.LeaveOneOut()
    assert isinstance(rule, credit.GameRule)
    for promise in ("efficient", "symmetric", "null_player", "evaluations", "source", "max_players", "needs"):
        assert getattr(rule, promise) == getattr(loo, promise)
    assert (rule.family, loo.family) == ("learning", "value")
    assert rule.cost(7) == 8


def test_of_two_agents_with_the_same_data_neither_is_paid_which_is_its_known_failure():
    assert credit.Difference().values(lambda c: c.any(dim=1), 2).tolist() == [[0.0, 0.0]]
