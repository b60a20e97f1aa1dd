import itertools

import pytest
import torch
from torch import Tensor

from proxycoop import agents, credit
from proxycoop.credit import CoalitionGame, LotGame
from proxycoop.credit.suite.battery import veto_round
from proxycoop.envs import Engine


def written(contributed: list[list[int]], lots: list[list[float]], *, blocked: list[list[int]] | None = None, t: int = 0) -> credit.Round:
    """A round of one parameter and target 1: a set of lots whose updates sum to s is worth s − s²/2."""
    of_lots = torch.tensor(lots, dtype=torch.float64)[None, ..., None]  # (1, N, K, 1)
    offered = torch.tensor(contributed)[None].bool()  # (1, N, K)
    barred = torch.zeros_like(offered) if blocked is None else torch.tensor(blocked)[None].bool()
    admitted = offered & ~barred
    return credit.learning_round(
        (admitted[..., None] * of_lots).sum(dim=2),
        torch.ones(1, 1).double(),
        admitted=admitted,
        contributed=offered,
        blocked_by=barred[..., None].expand(*barred.shape, offered.shape[1]).clone(),
        lot_updates=of_lots,
        t=t,
    )


LOTS = [[0.2, 0.4], [0.1, -0.1]]


def by_loops(rounds: list[credit.Round], window: int) -> list[list[list[float]]]:
    """The definition, one environment, agent and past round at a time."""
    paid = []
    for t, the_round in enumerate(rounds):
        n_envs, n_agents, n_lots = the_round.contributed.shape

        def worth(e: int, lots: set[tuple[int, int]], the_round: credit.Round = the_round) -> float:
            mask = torch.zeros(the_round.num_envs, 1, *the_round.contributed.shape[1:], dtype=torch.bool)
            for i, k in lots:
                mask[e, 0, i, k] = True
            return the_round.lots.value(mask)[e, 0].item()

        rows = []
        for e in range(n_envs):
            admitted = {(i, k) for i in range(n_agents) for k in range(n_lots) if the_round.admitted[e, i, k]}
            row = []
            for i in range(n_agents):
                others = {(j, k) for j, k in admitted if j != i}
                usual = []
                for past in rounds[max(0, t - window) : t]:
                    chosen = {(i, k) for k in range(n_lots) if past.contributed[e, i, k] and the_round.lots.candidates[e, i, k]}
                    usual.append(worth(e, others | chosen))
                usual = usual or [worth(e, others)]
                row.append(worth(e, admitted) - sum(usual) / len(usual))
            rows.append(row)
        paid.append(rows)
    return paid


def test_the_first_round_pays_the_difference_reward():
    # all lots: .2 + .4 + .1 − .1 = .6, worth .42; without 0: 0, worth 0; without 1: .6
    rule = credit.Aristocrat()
    rule.reset(1, 2)
    assert rule.assign(written([[1, 1], [1, 1]], LOTS))[0].tolist() == pytest.approx([0.42, 0.0], abs=1e-15)
    for seed in range(5):
        the_round = veto_round(4, seed)
        rule.reset(2, 4)
        torch.testing.assert_close(rule.assign(the_round), credit.Difference().assign(the_round), rtol=0, atol=1e-12)


def test_later_rounds_pay_what_was_better_than_usual():
    rule = credit.Aristocrat()
    rule.reset(1, 2)
    rule.assign(written([[1, 0], [1, 1]], LOTS))
    # agent 0 now brings both lots: .6 + .1 = .7, worth .455, where with its first alone .3 is worth .255;
    # agent 1 left out its harmful lot: with it, .6 is worth .42
    second = rule.assign(written([[1, 1], [1, 0]], LOTS, t=1))
    assert second[0].tolist() == pytest.approx([0.455 - 0.255, 0.455 - 0.42], abs=1e-15)
    # agent 0 rests: {1's first} = .1, worth .095. Usually: its first alone, .3 → .255, or both, .7 → .455.
    # agent 1 does what it did in one of two rounds: in the other one its two lots cancel, 0
    third = rule.assign(written([[0, 0], [1, 0]], LOTS, t=2))
    assert third[0].tolist() == pytest.approx([0.095 - (0.255 + 0.455) / 2, 0.095 - (0.0 + 0.095) / 2], abs=1e-15)


def test_what_would_not_be_admitted_now_is_not_taken_to_be_usual():
    rule = credit.Aristocrat()
    rule.reset(1, 2)
    rule.assign(written([[1, 1], [0, 0]], LOTS))
    # agent 0's second lot has become inadmissible: usually {.2}, worth .18, as now
    assert rule.assign(written([[1, 1], [0, 0]], LOTS, blocked=[[0, 1], [0, 0]], t=1)).tolist() == [[0.0, 0.0]]
    # both admissible again, but it has only the first: .18 instead of .42, twice
    paid = rule.assign(written([[1, 0], [0, 0]], LOTS, t=2))
    assert paid[0].tolist() == pytest.approx([0.18 - 0.42, 0.0], abs=1e-15)


@pytest.mark.parametrize("window", [1, 2, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_over_several_rounds_it_is_the_definition_by_loops(n, window):
    rounds = [veto_round(n, seed=10 * n + t, t=t) for t in range(6)]
    rule = credit.Aristocrat(window)
    rule.reset(2, n)
    for the_round, expected in zip(rounds, by_loops(rounds, window), strict=True):
        assert rule.assign(the_round).tolist() == [pytest.approx(row, abs=1e-12) for row in expected]


def test_this_round_s_action_is_not_among_the_usual_ones():
    # what is subtracted is the same whatever agent 0 does now
    subtracted = []
    for action in ([0, 0], [1, 0], [0, 1], [1, 1]):
        rule = credit.Aristocrat()
        rule.reset(1, 2)
        rule.assign(written([[0, 1], [1, 0]], LOTS))
        the_round = written([action, [1, 0]], LOTS, t=1)
        subtracted.append((the_round.gain - rule.assign(the_round)[:, 0]).item())
    assert subtracted == pytest.approx([0.5 - 0.125] * 4, abs=1e-15)  # .4 + .1


def test_the_difference_between_two_actions_is_the_team_s():
    paid, gains = [], []
    for action in ([0, 0], [1, 1]):
        rule = credit.Aristocrat()
        rule.reset(1, 2)
        rule.assign(written([[0, 1], [1, 0]], LOTS))
        the_round = written([action, [1, 0]], LOTS, t=1)
        paid.append(rule.assign(the_round)[0, 0].item())
        gains.append(the_round.gain.item())
    assert paid[1] - paid[0] == pytest.approx(gains[1] - gains[0], abs=1e-15)


def test_an_agent_that_always_does_the_same_is_paid_nothing_which_is_its_known_failure():
    rule = credit.Aristocrat()
    rule.reset(1, 2)
    best = [[1, 1], [1, 0]]
    assert rule.assign(written(best, LOTS))[0, 0] > 0.3
    for t in range(1, 12):
        assert rule.assign(written(best, LOTS, t=t)).tolist() == [[0.0, 0.0]]


def test_a_reset_clears_the_memory_and_a_window_forgets():
    rule = credit.Aristocrat(window=1)
    rule.reset(1, 2)
    first = rule.assign(written([[1, 0], [0, 0]], LOTS))
    rule.assign(written([[1, 1], [0, 0]], LOTS, t=1))
    assert rule.assign(written([[1, 1], [0, 0]], LOTS, t=2)).tolist() == [[0.0, 0.0]]  # the first round is forgotten
    rule.reset(1, 2)
    assert rule.assign(written([[1, 0], [0, 0]], LOTS)).equal(first)
    rule.reset(2, 3)
    assert rule.assign(veto_round(3, 0)).shape == (2, 3)


def test_what_is_subtracted_depends_on_what_one_did_before_which_is_a_known_failure():
    """The agent that contributed in the round before is paid less for the same action, by what that action brings."""
    paid = {}
    for before in (0, 1):
        rule = credit.Aristocrat()
        rule.reset(1, 2)
        rule.assign(written([[before, 0], [1, 0]], LOTS))
        paid[before] = rule.assign(written([[1, 0], [1, 0]], LOTS, t=1))[0, 0].item()
    # {.2, .1} = .3 is worth .255, and {.1} alone .095
    assert paid == {0: pytest.approx(0.255 - 0.095, abs=1e-15), 1: 0.0}


def test_writing_into_what_was_contributed_does_not_change_the_memory():
    rule = credit.Aristocrat()
    rule.reset(1, 2)
    the_round = written([[1, 0], [0, 0]], LOTS)
    rule.assign(the_round)
    the_round.contributed.fill_(True)
    paid = rule.assign(written([[1, 0], [0, 0]], LOTS, t=1))
    assert paid.tolist() == [[0.0, 0.0]]


def test_costs_a_set_of_lots_for_every_agent_and_remembered_round_and_one():
    rule = credit.Aristocrat(window=2)
    rule.reset(2, 3)
    for t, expected in enumerate([1 * 3 + 1, 1 * 3 + 1, 2 * 3 + 1, 2 * 3 + 1]):
        the_round = veto_round(3, t, t=t)
        rule.assign(the_round)
        assert the_round.evaluations == expected <= rule.cost(3) == 7
    assert credit.Aristocrat().cost(6) == 49


@pytest.mark.parametrize("window", [0, -1, 1.5, True, None, "8"])
def test_a_window_that_is_no_number_of_rounds_is_refused(window):
    with pytest.raises(ValueError, match=r"window=.*must be a whole number of rounds, at least 1"):
        credit.Aristocrat(window)


def test_a_round_that_does_not_know_its_lots_is_refused():
    the_round = veto_round(2, 0)
    the_round._lots = None
    with pytest.raises(ValueError, match="has no lots"):
        credit.Aristocrat().assign(the_round)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_episode_of_a_batch_is_paid_as_the_episodes_one_by_one(dtype):
    def episode(seeds: list[int]) -> Tensor:
        engine = Engine("digits", "aristocrat", len(seeds), dtype=dtype)
        agents.play(engine, agents.make("random"), seeds=seeds)
        return torch.stack([result.credit for result in engine.history], dim=1)

    together = episode([3, 4, 5])
    assert together.shape == (3, 16, 6)
    assert together.isfinite().all()
    assert together.equal(episode([3, 4, 5]))
    for e, seed in enumerate((3, 4, 5)):
        atol = 1e-9 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(together[e : e + 1], episode([seed]), rtol=0, atol=atol)


def every_action(the_round: credit.Round) -> list[list[float]]:
    """The expected difference reward by its definition: one environment, agent and action at a time."""
    n_envs, n_agents, n_lots = the_round.contributed.shape
    paid = []
    for e in range(n_envs):
        row = []
        for i in range(n_agents):
            worths = []
            for action in itertools.product([False, True], repeat=n_lots):
                lots = the_round.admitted.clone()
                lots[e, i] = torch.tensor(action) & the_round.lots.candidates[e, i]
                worths.append(the_round.lots.value(lots[:, None])[e, 0].item())
            row.append(the_round.gain[e].item() - sum(worths) / len(worths))
        paid.append(row)
    return paid


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_expected_difference_is_its_definition_by_loops(n):
    for seed in range(3):
        the_round = veto_round(n, seed)
        paid = credit.ExpectedDifference().assign(the_round)
        assert paid.tolist() == [pytest.approx(row, abs=1e-12) for row in every_action(the_round)]


def test_withholding_everything_is_charged_what_could_have_been_brought_on_average():
    # agent 0 could bring .2, .4 or .6, worth .18, .32 and .42; agent 1's .1 is worth .095, its −.1 costs .105, and both nothing
    paid = credit.ExpectedDifference().assign(written([[0, 0], [0, 0]], LOTS))
    assert paid[0].tolist() == pytest.approx([-(0.18 + 0.32 + 0.42) / 4, -(0.095 - 0.105) / 4], abs=1e-15)


def test_the_expected_difference_by_hand():
    # agent 0 holds .2 and .4 and contributes the first; agent 1 contributes .1 and holds back −.1
    paid = credit.ExpectedDifference().assign(written([[1, 0], [1, 0]], LOTS))
    # {.3} is worth .255; agent 0's other actions leave {.1}, {.5}, {.7}: .095, .375, .455
    # agent 1's: {.2}, {.2, −.1}, {.2, .1, −.1}: .18, .095, .18
    assert paid[0].tolist() == pytest.approx(
        [0.255 - (0.255 + 0.095 + 0.375 + 0.455) / 4, 0.255 - (0.255 + 0.18 + 0.095 + 0.18) / 4], abs=1e-15
    )


def test_where_lots_do_not_interact_the_expected_difference_is_half_of_what_a_lot_is_worth():
    worth = torch.tensor([[3.0, -1.0], [2.0, 0.5]], dtype=torch.float64)
    the_round = written([[1, 0], [0, 1]], LOTS)
    the_round.game = CoalitionGame(lambda some: (some.double() @ torch.tensor([3.0, 0.5], dtype=torch.float64))[None], 2)
    the_round._lots = LotGame(lambda lots: (lots * worth).sum(dim=(2, 3)), the_round.lots.candidates)
    # contributed: +half; withheld: −half. A harmful lot withheld is paid, a useful one charged: the known failure
    assert credit.ExpectedDifference().assign(the_round).tolist() == [[1.5 + 0.5, -1.0 + 0.25]]


@pytest.mark.parametrize("samples", [4, 16])
def test_what_the_expected_difference_subtracts_is_the_same_whatever_one_did_before_or_does_now(samples):
    """Unlike what aristocrat utility subtracts: see above."""
    subtracted = []
    for before, now in itertools.product(itertools.product([0, 1], repeat=2), repeat=2):
        rule = credit.ExpectedDifference(samples)
        rule.reset(1, 2)
        for t in range(3):
            rule.assign(written([list(before), [1, 1]], LOTS, t=t))
        the_round = written([list(now), [1, 0]], LOTS, t=3)
        subtracted.append((the_round.gain - rule.assign(the_round)[:, 0]).item())
    assert len(subtracted) == 16
    assert subtracted == pytest.approx([(0.095 + 0.255 + 0.375 + 0.455) / 4] * 16, abs=1e-15)


def test_the_expected_difference_samples_actions_where_there_are_too_many():
    generator = torch.Generator().manual_seed(0)
    lots = torch.randn(1, 2, 6, 3, dtype=torch.float64, generator=generator) / 6
    admitted = torch.rand(1, 2, 6, generator=generator) < 0.5
    parts = (admitted[..., None] * lots).sum(dim=2)

    def the_round(t: int = 0) -> credit.Round:
        nobody = torch.zeros(1, 2, 6, 2, dtype=torch.bool)
        return credit.learning_round(
            parts, torch.ones(1, 3).double(), admitted=admitted, contributed=admitted, blocked_by=nobody, lot_updates=lots, t=t
        )

    exact = credit.ExpectedDifference(samples=64).assign(the_round())
    assert exact.tolist() == [pytest.approx(row, abs=1e-12) for row in every_action(the_round())]
    rule = credit.ExpectedDifference(samples=8)
    drawn = torch.cat([rule.assign(the_round(t)) for t in range(400)])
    assert drawn.unique(dim=0).shape[0] > 100  # new draws in every round
    error = drawn.std(dim=0) / 20
    assert ((drawn.mean(dim=0) - exact[0]).abs() < 4 * error).all()
    again = credit.ExpectedDifference(samples=8)
    assert again.assign(the_round(5)).equal(drawn[5:6])
    one = the_round()
    rule.assign(one)
    assert one.evaluations == 8 * 2 + 1 == rule.cost(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"samples": 3}, "samples=3"), ({"samples": 0}, "samples=0"), ({"samples": True}, "samples=True"), ({"seed": -1}, "seed=-1")],
)
def test_draws_that_are_no_even_number_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.ExpectedDifference(**arguments)


def test_the_expected_difference_keeps_its_promises():
    report = credit.check_rule("expected_difference")
    assert not any(axiom.held for axiom in report.axioms.values())
    assert credit.ExpectedDifference().cost(6) == 97
