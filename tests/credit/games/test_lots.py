"""What sets of lots are worth, who would let them through, and what lots earn."""

import pytest
import torch

from proxycoop import credit
from proxycoop.credit import LotGame, coalition_matrix
from proxycoop.credit.games.lots import objections, unanimous
from proxycoop.credit.suite import battery

# v of the coalitions {}, {0}, {1}, {0, 1}, in two environments
TABLE = torch.tensor([[0.0, 1.0, 2.0, 5.0], [0.0, -1.0, 0.5, 3.0]], dtype=torch.float64)
# of each lot, of three agents with one each: to whom it is inadmissible
BLOCKED_BY = torch.tensor(
    [
        [False, False, True],  # lot 0: to agent 2
        [True, False, False],  # lot 1: to agent 0
        [False, False, True],  # lot 2: to its own agent
    ]
)[None, :, None]  # (E=1, N, K=1, N)
EVERYBODY = torch.ones(1, 3, dtype=torch.bool)


def sets(*members: tuple[int, ...], n: int = 2) -> torch.Tensor:
    """Sets of agents' only lots, ``(C, n, 1)``."""
    return torch.tensor([[[i in some] for i in range(n)] for some in members])


def bare_round(n: int = 3, k: int = 1, **kwargs: object) -> credit.Round:
    """A round that knows nothing that it need not know."""
    everything = torch.ones(1, n, k, dtype=torch.bool)
    known = {"contributed": everything, "admitted": everything, "blocked_by": torch.zeros(1, n, k, n, dtype=torch.bool)}
    return credit.Round(
        credit.CoalitionGame(lambda c: c.sum(dim=1).double()[None], n),
        **{**known, **kwargs},
        samples=torch.ones(n, k, dtype=torch.int64),
        updates=lambda: torch.zeros(1, n, 2),
        utility_gradient=lambda: torch.zeros(1, 2),
        t=0,
    )


# LotGame


def test_a_set_of_lots_is_worth_what_its_function_says_and_every_question_counts():
    weight = torch.tensor([[[1.0, 2.0], [4.0, 8.0]], [[10.0, 20.0], [40.0, 80.0]]])  # (E=2, N=2, K=2)
    lots = LotGame(lambda some: (some * weight[:, None]).sum(dim=(2, 3)), torch.ones(2, 2, 2, dtype=torch.bool))
    some = torch.tensor([[[[True, False], [False, True]], [[False, False], [False, False]], [[True, True], [True, True]]]])
    assert lots.evaluations == 0
    assert lots.value(some.expand(2, 3, 2, 2)).tolist() == [[9.0, 0.0, 15.0], [90.0, 0.0, 150.0]]
    assert lots.evaluations == 3
    # in environment 0 the second lot of agent 0, in environment 1 the first of agent 1
    different = torch.tensor([[[[False, True], [False, False]]], [[[False, False], [True, False]]]])
    assert lots.value(different).tolist() == [[2.0], [40.0]]
    assert lots.evaluations == 4


def test_the_lots_of_a_game_are_its_agents_also_in_sets_that_differ_between_environments(table_game):
    lots = LotGame.of_agents(table_game(TABLE), 2)
    assert lots.candidates.tolist() == [[[True], [True]]] * 2
    asked = torch.stack([sets((0,), (0, 1), ()), sets((0, 1), (1,), (1,))])  # (E=2, C=3, N=2, K=1)
    assert lots.value(asked).tolist() == [[1.0, 5.0, 0.0], [3.0, 0.5, 0.5]]
    assert lots.value(asked[:, :0]).shape == (2, 0)


def test_of_a_game_s_lots_every_coalition_is_worth_what_it_is(table_game):
    for n in (1, 3, 6):
        worth = torch.randn(4, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        worth[:, 0] = 0
        lots = LotGame.of_agents(table_game(worth), 4)
        assert lots.value(coalition_matrix(n)[None, :, :, None].expand(4, -1, -1, -1)).equal(worth)


@pytest.mark.parametrize("asked_again", [False, True])
def test_what_a_game_has_counted_is_not_counted_again(asked_again, table_game):
    the_round = credit.game_round(table_game(TABLE[:1]))
    the_round.lots.value(sets((0,), (1,))[None])
    if asked_again:
        the_round.value(torch.tensor([[True, False]]))
    assert the_round.evaluations == 2


def test_a_round_s_evaluations_are_of_coalitions_and_of_sets_of_lots(learning_round):
    the_round = learning_round(torch.ones(2, 3, 2), torch.ones(2, 2))
    assert the_round.evaluations == 0
    the_round.value(coalition_matrix(3)[[1, 2, 1]])
    assert the_round.evaluations == 2
    the_round.lots.value(torch.zeros(2, 5, 3, 1, dtype=torch.bool))
    assert the_round.evaluations == 7
    assert bare_round().evaluations == 0


def test_among_some_lots_the_others_are_null_players(learning_round):
    updates = torch.randn(2, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # (E, N, K, P)
    admitted = torch.ones(2, 2, 2, dtype=torch.bool)
    the_round = learning_round(updates.sum(dim=2), torch.ones(2, 3).double(), admitted=admitted, lot_updates=updates)
    some = torch.tensor([[[True, False], [True, True]], [[False, True], [True, False]]])
    game = the_round.lots.among(some)
    assert game.n_players == 4
    v = game.values()
    assert the_round.lots.evaluations == 16
    for e in range(2):
        for code in range(16):
            step = torch.zeros(3).double()
            for player in range(4):
                if code >> player & 1 and some[e, player // 2, player % 2]:
                    step += updates[e, player // 2, player % 2]
            assert v[e, code] == pytest.approx(float(step.sum() - 0.5 * step.square().sum()), abs=1e-14)
    shapley = credit.shapley_values(v).unflatten(1, (2, 2))
    assert shapley[~some].abs().max() <= 1e-15
    torch.testing.assert_close(shapley.sum(dim=(1, 2)), the_round.lots.value(some[:, None])[:, 0])


def test_some_environments_lots_are_worth_what_they_are_among_all():
    the_round = battery.veto_round(4, seed=0, num_envs=5)
    asked = torch.rand(5, 6, 4, 2, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = the_round.lots.value(asked)
    for envs in (slice(0, 1), slice(1, 4), slice(None, None, 2), slice(4, None)):
        part = the_round.lots.part(envs)
        assert part.candidates.equal(the_round.lots.candidates[envs])
        assert part.value(asked[envs]).equal(expected[envs])
        assert part.evaluations == 6
    assert the_round.lots.evaluations == 6


@pytest.mark.parametrize(
    ("lots", "came"),
    [
        (torch.ones(2, 3, 2, 1), r"torch.float32 \(2, 3, 2, 1\)"),
        (torch.ones(2, 2, 1, dtype=torch.bool), r"torch.bool \(2, 2, 1\)"),
        (torch.ones(1, 3, 2, 1, dtype=torch.bool), r"torch.bool \(1, 3, 2, 1\)"),
        (torch.ones(2, 3, 1, 2, dtype=torch.bool), r"torch.bool \(2, 3, 1, 2\)"),
        (torch.ones(2, 3, 2, 2, dtype=torch.bool), r"torch.bool \(2, 3, 2, 2\)"),
    ],
)
def test_sets_of_another_form_are_refused_and_not_counted(lots, came, table_game):
    game = LotGame.of_agents(table_game(TABLE), 2)
    with pytest.raises(ValueError, match=rf"lots must be bool of shape \(2, C, 2, 1\), got {came}"):
        game.value(lots)
    assert game.evaluations == 0


def test_among_lots_of_another_form_is_refused(table_game):
    with pytest.raises(ValueError, match="lots must be bool of shape"):
        LotGame.of_agents(table_game(TABLE), 2).among(torch.ones(2, 3, 1, dtype=torch.bool)).grand()


# screening by whoever is there


def test_objections_are_counted_among_the_members_only():
    coalitions = torch.tensor([[False, False, False], [True, False, False], [False, False, True], [True, False, True], [True, True, True]])
    assert objections(coalitions, BLOCKED_BY)[0, :, :, 0].tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1], [1, 1, 1]]
    assert unanimous(coalitions, BLOCKED_BY)[0, :, :, 0].tolist() == [
        [True, True, True],
        [True, False, True],
        [False, True, False],
        [False, False, False],
        [False, False, False],
    ]


def test_objections_are_each_environment_s_own_and_of_each_lot():
    blocked_by = torch.rand(3, 5, 2, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    coalitions = coalition_matrix(5)
    against = objections(coalitions, blocked_by)
    assert not against.is_floating_point()
    assert against.shape == (3, 32, 5, 2)
    for e in range(3):
        for c in range(32):
            for i in range(5):
                for k in range(2):
                    assert against[e, c, i, k] == sum(bool(coalitions[c, j] and blocked_by[e, i, k, j]) for j in range(5))
    assert unanimous(coalitions, blocked_by).equal(against == 0)


def test_a_coalition_lets_its_members_lots_through_unless_a_member_objects():
    the_round = bare_round(blocked_by=BLOCKED_BY)
    expected = {
        (): [],
        (0,): [0],
        (1,): [1],
        (2,): [],  # objects to its own lot
        (0, 1): [0],  # 0 objects to lot 1
        (0, 2): [],  # 2 objects to lot 0
        (1, 2): [1],
        (0, 1, 2): [],
    }
    for members, through in expected.items():
        coalition = torch.tensor([[i in members for i in range(3)]])
        assert the_round.let_through(coalition)[0, 0, :, 0].nonzero().flatten().tolist() == through, members


def test_only_contributed_lots_of_members_are_let_through():
    contributed = torch.tensor([[[True, False], [True, True], [False, False]]])
    the_round = bare_round(k=2, contributed=contributed)
    assert the_round.let_through(EVERYBODY)[:, 0].equal(contributed)
    assert the_round.let_through(torch.tensor([[True, False, True]])).tolist() == [[[[True, False], [False, False], [False, False]]]]


def test_a_round_s_own_screening_is_asked_for_each_coalition_but_only_about_its_members_contributed_lots():
    contributed = torch.tensor([[[True, False], [True, True], [False, False]]])
    passes = torch.tensor([[[True, True], [False, True], [True, True]]])  # whoever is there
    the_round = bare_round(
        k=2, contributed=contributed, screening=lambda coalitions: passes[:, None].expand(-1, len(coalitions), -1, -1).clone()
    )
    through = the_round.let_through(coalition_matrix(3))
    for c, members in enumerate(coalition_matrix(3)):
        assert through[:, c].equal(passes & contributed & members[None, :, None])


@pytest.mark.parametrize(
    ("what", "remedy"),
    [
        ("lots", "the round must say what its lots would have gained"),
        ("peer_gains", "the agents must be able to try each other's updates on their own data"),
        ("class_head", "the model's last layer must be linear, with one output a class"),
        ("utility_curvature", "the utility must be twice differentiable: neg_log_loss rather than accuracy"),
    ],
)
def test_what_a_round_does_not_know_is_named_with_the_remedy(what, remedy):
    the_round = bare_round()
    with pytest.raises(ValueError, match=f"no {what}: {remedy}"):
        the_round.utility_curvature(torch.zeros(1, 2)) if what == "utility_curvature" else getattr(the_round, what)


# the rounds that rules are tried on


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("build", [battery.veto_round, battery.random_round])
def test_in_rounds_to_try_rules_on_lots_and_agents_tell_the_same(build, seed, n):
    the_round = build(n, seed)
    coalitions = coalition_matrix(n)
    of_members = the_round.admitted[:, None] & coalitions[None, :, :, None]  # (E, C, N, K)
    torch.testing.assert_close(the_round.lots.value(of_members), the_round.value(coalitions), rtol=0, atol=1e-12)
    torch.testing.assert_close(the_round.lots.value(the_round.admitted[:, None])[:, 0], the_round.gain, rtol=0, atol=1e-12)
    assert the_round.let_through(torch.ones(1, n, dtype=torch.bool))[:, 0].equal(the_round.admitted)
    assert not (the_round.admitted & ~the_round.lots.candidates).any()


def test_lots_of_a_round_have_equal_parts_unless_told_otherwise(learning_round):
    admitted = torch.tensor([[[True, True], [True, False], [False, False]]])
    updates = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    lots = learning_round(updates, torch.ones(1, 2), admitted=admitted).lots

    def worth(agent: int, lot: int) -> float:
        alone = torch.zeros(1, 1, 3, 2, dtype=torch.bool)
        alone[0, 0, agent, lot] = True
        return float(lots.value(alone))

    assert [worth(0, 0), worth(0, 1)] == [0.5, 0.5]  # step (1, 0): 1 − 1/2
    assert [worth(1, 0), worth(1, 1)] == [0.5, 0.0]  # step (0, 1); not admitted
    assert [worth(2, 0), worth(2, 1)] == [0.0, 0.0]
    assert lots.candidates.equal(admitted)


def test_peers_gain_by_their_own_targets(learning_round):
    # target_j · u_i − ½ |u_i|²
    updates = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    own_targets = torch.tensor([[[3.0, 1.0], [-1.0, 0.5]]])
    the_round = learning_round(updates, own_targets.mean(dim=1), own_targets=own_targets)
    # for agent 0: by agent 0's update 3 − 1/2, by agent 1's 2 − 2; for agent 1: −1 − 1/2, 1 − 2
    assert the_round.peer_gains.tolist() == [[[2.5, 0.0], [-1.5, -1.0]]]
    alike = learning_round(updates, torch.tensor([[1.0, 1.0]]))  # everybody's target: 1 − 1/2 and 2 − 2
    assert alike.peer_gains.tolist() == [[[0.5, 0.0], [0.5, 0.0]]]
    assert alike.peer_gains is alike.peer_gains


def test_curvature_and_class_head_of_a_learning_round(learning_round):
    # U = target · step − ½ |step|²: the Hessian is −1
    the_round = learning_round(torch.ones(2, 3, 4), torch.ones(2, 4))
    direction = torch.arange(8.0).reshape(2, 4)
    assert the_round.utility_curvature(direction).equal(-direction)
    assert the_round.class_head.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("n", [3, 4, 8])
def test_veto_rounds_have_twins_who_object_differently_a_null_player_and_lots_withheld(n):
    objects_alike, withheld = True, False
    for seed in range(4):
        the_round = battery.veto_round(n, seed)
        assert the_round.admitted.equal(the_round.contributed & ~the_round.blocked_by.any(dim=-1))
        assert the_round.lots.candidates.equal(~the_round.blocked_by.any(dim=-1))
        assert the_round.updates[:, -1].abs().max() == 0
        assert the_round.updates[:, 0].equal(the_round.updates[:, 1])
        assert the_round.admitted[:, 0].equal(the_round.admitted[:, 1])
        assert the_round.contributed[:, 0].equal(the_round.contributed[:, 1])
        v = the_round.game.values()
        codes = torch.arange(2**n)
        swapped = codes & ~3 | codes >> 1 & 1 | (codes & 1) << 1
        torch.testing.assert_close(v[:, swapped], v, rtol=0, atol=1e-12)
        torch.testing.assert_close(v[:, codes | 1 << n - 1], v, rtol=0, atol=1e-12)
        objects_alike &= the_round.blocked_by[..., 0].equal(the_round.blocked_by[..., 1])
        withheld |= bool((the_round.lots.candidates & ~the_round.contributed).any())
    assert not objects_alike
    assert withheld


# rules that know what lots earned


class ByNumber(credit.LotRule):
    """Pays admitted lot k of agent i 10·i + k."""

    source = "a test"

    def assign_lots(self, round: credit.Round) -> torch.Tensor:
        n, k = round.num_agents, round.admitted.shape[-1]
        return round.admitted * (10.0 * torch.arange(n)[:, None] + torch.arange(k))


def test_under_a_rule_of_lots_agents_earn_what_their_lots_earn(learning_round):
    admitted = torch.tensor([[[True, True], [True, False], [False, True]], [[False, False], [True, True], [True, False]]])
    the_round = learning_round(torch.zeros(2, 3, 2), torch.zeros(2, 2), admitted=admitted)
    assert ByNumber().assign(the_round).tolist() == [[1.0, 10.0, 21.0], [0.0, 21.0, 20.0]]


def test_a_rule_of_lots_must_say_what_lots_earn():
    class Forgetful(credit.LotRule):
        pass

    with pytest.raises(TypeError, match="assign_lots"):
        Forgetful()


def test_by_data_size_a_lot_earns_by_its_rows_if_it_was_admitted(learning_round):
    # v(N) = 4·1 − ½·4 = 2; admitted rows 10 + 20 and 10, so a row earns 2/40; what was not admitted earns nothing
    admitted = torch.tensor([[[True, True], [True, False], [False, False]]])
    updates = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    target = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    the_round = learning_round(updates, target, admitted=admitted, samples=torch.tensor([[10, 20], [10, 99], [5, 5]]))
    rule = credit.DataSize()
    assert isinstance(rule, credit.LotRule)
    assert rule.assign_lots(the_round).tolist() == [[[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]]]
    assert rule.assign(the_round).tolist() == [[1.5, 0.5, 0.0]]


@pytest.mark.parametrize("n", [1, 3, 6])
def test_by_data_size_lots_sum_to_agents_and_agents_to_the_gain(n):
    the_round = battery.veto_round(n, seed=n, num_envs=4)
    rule = credit.DataSize()
    lots = rule.assign_lots(the_round)
    assert lots.shape == the_round.admitted.shape
    assert lots.sum(dim=-1).equal(rule.assign(the_round))
    assert lots[~the_round.admitted].abs().sum() == 0
    torch.testing.assert_close(lots.sum(dim=(1, 2)), the_round.gain)
