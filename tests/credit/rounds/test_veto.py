import itertools
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proxycoop import agents, credit
from proxycoop.credit.suite.battery import veto_round
from proxycoop.envs import Engine, scenario

PAGE = Path(__file__).parents[3] / "docs" / "credit" / "vetoes.md"
RULES = ("veto_shapley", "veto_own", "veto_shared")


@pytest.fixture(scope="module")
def vetoes(benchmark_script):
    return benchmark_script("credit/vetoes")


def screened_by_hand(the_round: credit.Round, members: tuple[int, ...], e: int) -> frozenset[tuple[int, int]]:
    """A(S) under unanimous screening, lot by lot."""
    let_through = set()
    for i in members:
        for k in range(the_round.contributed.shape[2]):
            vetoed = any(bool(the_round.blocked_by[e, i, k, j]) for j in members)
            if the_round.contributed[e, i, k] and not vetoed:
                let_through.add((i, k))
    return frozenset(let_through)


def worth_by_hand(the_round: credit.Round, e: int):
    """What a set of lots is worth in environment e, asked for one at a time."""
    known: dict[frozenset[tuple[int, int]], float] = {frozenset(): 0.0}

    def worth(lots: frozenset[tuple[int, int]]) -> float:
        if lots not in known:
            mask = torch.zeros(the_round.num_envs, 1, *the_round.contributed.shape[1:], dtype=torch.bool)
            for i, k in lots:
                mask[e, 0, i, k] = True
            known[lots] = the_round.lots.value(mask)[e, 0].item()
        return known[lots]

    return worth


def split_by_hand(the_round: credit.Round, e: int) -> tuple[list[float], list[float]]:
    """Own part and veto cost, averaged over all orders, of which every prefix is screened anew."""
    n = the_round.num_agents
    worth = worth_by_hand(the_round, e)
    own, veto = [0.0] * n, [0.0] * n
    for order in itertools.permutations(range(n)):
        for place, j in enumerate(order):
            before = screened_by_hand(the_round, order[:place], e)
            after = screened_by_hand(the_round, order[: place + 1], e)
            kept = frozenset((i, k) for i, k in before if not the_round.blocked_by[e, i, k, j])
            own[j] += (worth(after) - worth(kept)) / math.factorial(n)
            veto[j] += (worth(kept) - worth(before)) / math.factorial(n)
    return own, veto


def veto_shapley_by_hand(the_round: credit.Round, e: int) -> list[float]:
    """The mean over all orders of what each agent changes."""
    n = the_round.num_agents
    worth = worth_by_hand(the_round, e)
    paid = [0.0] * n
    for order in itertools.permutations(range(n)):
        at = 0.0
        for place, j in enumerate(order):
            then = worth(screened_by_hand(the_round, order[: place + 1], e))
            paid[j] += (then - at) / math.factorial(n)
            at = then
    return paid


# by hand: the page's example


def test_a_principal_whose_values_block_a_useful_lot_is_fined_by_veto_shapley_and_the_split_says_why(vetoes):
    # Cleo's own part: .095 alone and after Ana, who is struck out; .435 − .360 = .075 with Ben, with and without Ana.
    # Her veto: 0 − .320 after Ana (weight 1/6), .360 − .600 after Ana and Ben (1/3).
    own, veto = credit.veto_split(vetoes.example())
    assert own[0, 2].item() == pytest.approx(0.095 / 3 + 0.095 / 6 + 0.075 / 6 + 0.075 / 3, abs=1e-14)
    assert veto[0].tolist() == pytest.approx([0, 0, -0.320 / 6 - 0.240 / 3], abs=1e-14)
    # Ana: .320 before the others, .240 after Ben, nothing once Cleo is there. Ben: .360 alone, .280 after Ana, .340 after Cleo.
    assert own[0, 0].item() == pytest.approx(0.320 / 3 + 0.240 / 6, abs=1e-14)
    assert own[0, 1].item() == pytest.approx(0.360 / 3 + 0.280 / 6 + 0.340 / 6 + 0.340 / 3, abs=1e-14)
    assert credit.VetoShapley().assign(vetoes.example())[0].tolist() == pytest.approx([0.44 / 3, 1.01 / 3, -0.145 / 3], abs=1e-14)


def test_own_parts_are_scaled_to_the_gain(vetoes):
    factor = 0.435 / (0.44 / 3 + 1.01 / 3 + 0.085)
    paid = credit.VetoOwn().assign(vetoes.example())[0].tolist()
    assert paid == pytest.approx([factor * 0.44 / 3, factor * 1.01 / 3, factor * 0.085], abs=1e-14)


def test_a_shared_veto_costs_everybody_a_third_of_it(vetoes):
    third = -0.4 / 9  # of −.4/3
    paid = credit.VetoShared().assign(vetoes.example())[0].tolist()
    assert paid == pytest.approx([0.44 / 3 + third, 1.01 / 3 + third, 0.085 + third], abs=1e-14)


def test_fixed_screening_pays_the_vetoed_nothing_and_their_rival_more_than_without_the_veto(vetoes):
    fixed = credit.Shapley().assign(vetoes.example())[0]
    free = credit.Shapley().assign(vetoes.example(tolerance=math.inf))[0]
    assert fixed.tolist() == pytest.approx([0, 0.350, 0.085], abs=1e-14)
    assert free.tolist() == pytest.approx([0.280, 0.310, 0.085], abs=1e-14)


def test_under_a_quorum_the_votes_that_let_others_through_are_in_the_own_part():
    # agent 1 has no lot, but agent 0's passes only with its consent: two thirds must find it admissible, and 2 does not
    the_round = credit.learning_round(
        torch.tensor([[[0.5], [0.0], [0.0]]]).double(),
        torch.ones(1, 1).double(),
        blocked_by=torch.tensor([[[[0, 0, 1]], [[0] * 3], [[0] * 3]]]).bool(),
    )

    def screening(coalitions: Tensor) -> Tensor:
        against = (coalitions.float() @ the_round.blocked_by.float().flatten(0, 2).T).T.reshape(1, 3, 1, -1).permute(0, 3, 1, 2)
        size = coalitions.sum(dim=1)[:, None, None]
        return 3 * (size - against) >= 2 * size

    the_round._screening = screening
    # w = .5 − .125 = .375. {0}: in, {0, 1}: in, {0, 2}: half, out, {0, 1, 2}: two thirds, in.
    own, veto = credit.veto_split(the_round)
    # 0: alone 1/3, with 1 1/6, with 2 nothing, with both 1/3. 1: after {0, 2} 1/3. 2: after {0} it strikes out, 1/6.
    assert own[0].tolist() == pytest.approx([0.375 * 5 / 6, 0.375 / 3, 0.0], abs=1e-14)
    assert veto[0].tolist() == pytest.approx([0.0, 0.0, -0.375 / 6], abs=1e-14)


def test_a_veto_against_a_harmful_lot_earns_what_it_spares():
    # agent 0's update of −1 is worth −1.5; agent 1 has nothing of its own and vetoes it
    blocked_by = torch.tensor([[[[False, True]], [[False, False]]]])
    harmful = torch.tensor([[[[-1.0]], [[0.0]]]]).double()
    the_round = credit.learning_round(
        torch.zeros(1, 2, 1).double(),
        torch.ones(1, 1).double(),
        admitted=torch.tensor([[[False], [True]]]),
        contributed=torch.ones(1, 2, 1, dtype=torch.bool),
        blocked_by=blocked_by,
        lot_updates=harmful,
    )
    own, veto = credit.veto_split(the_round)
    assert own.tolist() == [[-0.75, 0.0]]
    assert veto.tolist() == [[0.0, 0.75]]


# against loops over orders


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_own_part_and_veto_cost_sum_to_the_shapley_value_of_the_screened_game_and_that_to_the_gain(n):
    for seed in range(20):
        the_round = veto_round(n, seed)
        own, veto = credit.veto_split(the_round)
        paid = credit.VetoShapley().assign(the_round)
        torch.testing.assert_close(own + veto, paid, rtol=0, atol=1e-9)
        for name in RULES:
            total = credit.make(name).assign(veto_round(n, seed)).sum(dim=1)
            torch.testing.assert_close(total, the_round.gain, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("n", "n_seeds"), [(1, 3), (2, 10), (3, 10), (4, 5), (5, 2), pytest.param(6, 1, marks=pytest.mark.slow)])
def test_they_are_means_over_all_orders_of_which_every_prefix_is_screened_anew(n, n_seeds):
    for seed in range(n_seeds):
        the_round = veto_round(n, seed)
        own, veto = credit.veto_split(the_round)
        paid = credit.VetoShapley().assign(the_round)
        for e in range(the_round.num_envs):
            assert paid[e].tolist() == pytest.approx(veto_shapley_by_hand(the_round, e), abs=1e-11)
            own_by_hand, veto_by_hand = split_by_hand(the_round, e)
            assert own[e].tolist() == pytest.approx(own_by_hand, abs=1e-11)
            assert veto[e].tolist() == pytest.approx(veto_by_hand, abs=1e-11)


def test_the_other_rules_are_made_of_the_two_parts():
    for seed in range(10):
        the_round = veto_round(5, seed)
        own, veto = credit.veto_split(the_round)

        class Own(credit.Equal):
            def divide(self, game, own=own):
                return own

        normalised = credit.Normalised(Own()).assign(the_round)
        torch.testing.assert_close(credit.VetoOwn().assign(the_round), normalised, rtol=0, atol=1e-9)
        shared = own + veto.sum(dim=1, keepdim=True) / 5
        torch.testing.assert_close(credit.VetoShared().assign(the_round), shared, rtol=0, atol=1e-12)


def test_agents_with_equal_lots_are_paid_unlike_if_they_object_unlike():
    the_round = veto_round(5, 3)
    assert the_round.contributed[:, 0].equal(the_round.contributed[:, 1])
    paid = credit.VetoShapley().assign(the_round)
    assert (paid[:, 0] - paid[:, 1]).abs().max() > 0.01


def test_an_agent_that_brings_nothing_and_objects_to_nothing_is_fined_by_veto_shared_alone():
    lots = torch.tensor([[0.4], [0.1], [0.0]]).double()
    blocked_by = torch.zeros(1, 3, 1, 3, dtype=torch.bool)
    blocked_by[0, 0, 0, 1] = True
    admitted = ~blocked_by.any(dim=-1)
    the_round = credit.learning_round(
        admitted * lots[None],
        torch.ones(1, 1).double(),
        admitted=admitted,
        contributed=torch.ones_like(admitted),
        blocked_by=blocked_by,
        lot_updates=lots[None, :, None],
    )
    bystander = {name: credit.make(name).assign(the_round)[0, 2].item() for name in RULES}
    assert bystander["veto_shapley"] == pytest.approx(0, abs=1e-15)
    assert bystander["veto_own"] == pytest.approx(0, abs=1e-15)
    assert bystander["veto_shared"] == pytest.approx(-0.32 / 2 / 3)  # half of w(.4) is agent 1's veto cost


# cost and sizes


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_costs_all_coalitions_and_for_the_split_at_most_n_times_half_of_them_more(n):
    the_round = veto_round(n, 0)
    credit.VetoShapley().assign(the_round)
    assert the_round.evaluations == credit.VetoShapley().cost(n) == 2**n
    the_round = veto_round(n, 0)
    credit.veto_split(the_round)
    assert 2**n <= the_round.evaluations <= credit.VetoOwn().cost(n) == credit.VetoShared().cost(n) == 2**n + n * 2 ** (n - 1)


def test_where_nothing_is_struck_out_the_split_costs_no_more_and_is_the_shapley_value(learning_round):
    the_round = learning_round(torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).double(), torch.ones(2, 3).double())
    own, veto = credit.veto_split(the_round)
    assert the_round.evaluations == 16
    assert veto.eq(0).all()
    torch.testing.assert_close(own, credit.Shapley().assign(the_round), rtol=0, atol=1e-12)


def test_more_than_twelve_agents_are_refused():
    for name in RULES:
        with pytest.raises(ValueError, match="at most 12 agents, got 13"):
            credit.make(name).reset(1, 13)
    with pytest.raises(ValueError, match="veto_split takes at most 12 agents, got 13"):
        credit.veto_split(veto_round(13, 0))


def test_twelve_agents_in_single_precision_are_served():
    the_round = veto_round(12, 1, dtype=torch.float32)
    own, veto = credit.veto_split(the_round)
    paid = credit.VetoShapley().assign(the_round)
    assert paid.dtype == own.dtype == torch.float32
    torch.testing.assert_close(own + veto, paid, rtol=0, atol=1e-5)
    torch.testing.assert_close(paid.double(), credit.VetoShapley().assign(veto_round(12, 1)), rtol=0, atol=1e-5)


# in a cooperative


def played(governance: str, rounds: int = 4, **settings: object):
    engine = Engine(scenario.load("digits", **{"screening.governance": governance, **settings}), None, 2, dtype=torch.float64)
    engine.reset([0, 1])
    for _ in range(rounds):
        engine.step(torch.ones(2, engine.num_agents, engine.num_lots, dtype=torch.bool))
        yield engine.round


@pytest.mark.parametrize(("governance", "settings"), [("unanimous", {}), ("quorum", {"screening.quorum": 0.75})])
def test_in_a_cooperative_the_parts_sum_to_veto_shapley_and_all_rules_pay_out_the_gain(governance, settings):
    some_cost = 0.0
    for the_round in played(governance, **settings):
        own, veto = credit.veto_split(the_round)
        some_cost = max(some_cost, veto.abs().max().item())
        torch.testing.assert_close(own + veto, credit.VetoShapley().assign(the_round), rtol=0, atol=1e-9)
        for name in RULES:
            torch.testing.assert_close(credit.make(name).assign(the_round).sum(dim=1), the_round.gain, rtol=0, atol=1e-9)
    assert some_cost > 1e-4


@pytest.mark.parametrize(("governance", "settings"), [("unanimous", {}), ("quorum", {"screening.quorum": 0.75})])
def test_in_a_cooperative_every_coalition_is_screened_by_its_own_members(governance, settings):
    for the_round in played(governance, 2, **settings):
        alone = [the_round.let_through(coalition[None]) for coalition in credit.coalition_matrix(6)]
        v = torch.cat([the_round.lots.value(lots) for lots in alone], dim=1)
        torch.testing.assert_close(credit.VetoShapley().assign(the_round), credit.shapley_values(v), rtol=0, atol=1e-12)
        assert alone[-1][:, 0].equal(the_round.admitted)


@pytest.mark.parametrize("governance", ["none", "own"])
def test_where_nobody_screens_the_others_vetoes_cost_nothing_and_all_rules_pay_the_shapley_value(governance):
    for the_round in played(governance):
        shapley = credit.Shapley().assign(the_round)
        assert credit.veto_split(the_round)[1].eq(0).all()
        for name in RULES:
            torch.testing.assert_close(credit.make(name).assign(the_round), shapley, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("server", [{"kind": "sgd"}, {"kind": "adam"}])
def test_nothing_is_paid_to_the_last_digit_in_a_round_to_which_nobody_contributes(name, server):
    engine = Engine(scenario.load("digits", server=server), name, 2)
    engine.reset([0, 1])
    engine.step(torch.ones(2, engine.num_agents, engine.num_lots))
    assert engine.step(torch.zeros(2, engine.num_agents, engine.num_lots)).credit.eq(0).all()


@pytest.mark.parametrize("name", RULES)
def test_an_episode_of_a_batch_is_paid_as_the_episodes_one_by_one(name):
    def episode(seeds: list[int]) -> Tensor:
        engine = Engine("digits", name, len(seeds), dtype=torch.float64)
        agents.play(engine, agents.make("honest"), seeds=seeds)
        return engine.credit_so_far

    together = episode([3, 4, 5])
    assert together.isfinite().all()
    assert together.equal(episode([3, 4, 5]))
    for e, seed in enumerate((3, 4, 5)):
        torch.testing.assert_close(together[e : e + 1], episode([seed]), rtol=0, atol=1e-9)


# the page


def written(name: str) -> str:
    found = re.search(f"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_page_s_example_is_what_the_code_computes(vetoes):
    assert written("example") == vetoes.example_table()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_the_page_s_measurement_is_what_the_code_computes(vetoes, name):
    assert written(name) == vetoes.real_table(vetoes.episodes(32, name))


def test_the_page_s_code_runs():
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    paid = credit.VetoShapley().assign(names["engine"].round)
    torch.testing.assert_close(names["own"] + names["veto"], paid, rtol=0, atol=1e-6)


def test_the_script_writes_its_tables_between_the_page_s_comments_and_nothing_else(vetoes, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- example -->\nold\n<!-- /example -->\nbetween\n<!-- digits -->\n<!-- /digits -->\n"
        "<!-- breast_cancer -->\n<!-- /breast_cancer -->\nafter\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(vetoes, "real_table", lambda played: "measured")
    episodes = vetoes.episodes
    monkeypatch.setattr(vetoes, "episodes", lambda n, name: None)
    monkeypatch.setattr(sys, "argv", ["vetoes.py", "--markdown", str(page)])
    vetoes.main()
    example = vetoes.example_table()
    expected = f"before\n<!-- example -->\n{example}\n<!-- /example -->\nbetween\n<!-- digits -->\nmeasured\n<!-- /digits -->\n"
    expected += "<!-- breast_cancer -->\nmeasured\n<!-- /breast_cancer -->\nafter\n"
    assert page.read_text(encoding="utf-8") == expected
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="no place for the table 'example'"):
        vetoes.replaced("nothing here", "example", "table")
    with pytest.raises(ValueError, match="episodes=1: must be at least 2"):
        episodes(1, "digits")
