from itertools import combinations

import networkx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from proxycoop import credit

SEEDS = st.integers(0, 2**32 - 1)
Edges = list[tuple[int, int]]


def random_worths(seed: int, n: int, n_envs: int = 1) -> Tensor:
    """Standard normal worths with v(∅) = 0, float64 ``(n_envs, 2**n)``."""
    v = torch.randn(n_envs, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    return v


@st.composite
def graphs(draw, fewest: int = 1, most: int = 6) -> tuple[int, Edges]:
    """A number of players, and edges among them; a loop names everybody."""
    n = draw(st.integers(fewest, most))
    pairs = list(combinations(range(n), 2))
    return n, [(i, i) for i in range(n)] + (draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])


def components(code: int, edges: Edges) -> list[int]:
    """The connected parts of a coalition, as codes."""
    parts = [1 << i for i in range(code.bit_length()) if code >> i & 1]
    for i, j in edges:
        if code >> i & 1 and code >> j & 1:
            ends = [part for part in parts if part >> i & 1 or part >> j & 1]
            parts = [part for part in parts if part not in ends] + [sum(ends)]  # of a loop there is one end
    return parts


def restricted(v: Tensor, n: int, edges: Edges) -> Tensor:
    """v^g: every coalition is worth what its connected parts are."""
    columns = [v[:, components(code, edges)].sum(dim=1) if code else v[:, 0] for code in range(2**n)]
    return torch.stack(columns, dim=1)


def myerson(graph, value, n: int) -> list[float]:
    return credit.Myerson(graph).values(value, n)[0].tolist()


# against the definition


@given(SEEDS, graphs())
def test_is_the_shapley_value_of_the_game_of_connected_parts(seed, graph):
    n, edges = graph
    v = random_worths(seed, n, n_envs=2)
    paid = credit.Myerson(edges).values(credit.table_game(v))
    torch.testing.assert_close(paid, credit.shapley_values(restricted(v, n, edges)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "edges"),
    [
        ("ring", lambda n: [(i, (i + 1) % n) for i in range(n)]),
        ("line", lambda n: [(i, i + 1) for i in range(n - 1)]),
        ("star", lambda n: [(0, i) for i in range(1, n)]),
        ("complete", lambda n: list(combinations(range(n), 2))),
    ],
)
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_a_named_graph_is_the_graph_of_that_name(name, edges, n):
    v = random_worths(n, n)
    named = credit.Myerson(name).values(credit.table_game(v))
    real = [(i, j) for i, j in edges(n) if i != j]
    torch.testing.assert_close(named, credit.shapley_values(restricted(v, n, real)), rtol=0, atol=1e-13)


@given(SEEDS, st.integers(1, 8))
def test_the_complete_graph_gives_the_shapley_value(seed, n):
    v = random_worths(seed, n, n_envs=2)
    torch.testing.assert_close(credit.Myerson("complete").values(credit.table_game(v)), credit.shapley_values(v), rtol=0, atol=1e-12)


def test_without_edges_everybody_gets_what_it_is_worth_alone():
    v = random_worths(0, 5)
    assert credit.Myerson([(i, i) for i in range(5)]).values(credit.table_game(v)).equal(v[:, 2 ** torch.arange(5)])


# games with known values


def test_the_player_in_the_middle_of_a_line_gets_four_of_six():
    # Myerson's example: any two produce 6, as all three do, but 0 and 2 can only talk through 1
    assert myerson([(0, 1), (1, 2)], lambda c: 6.0 * (c.sum(dim=1) >= 2), 3) == pytest.approx([1, 4, 1], abs=1e-6)


def test_a_link_more_makes_three_alike():
    assert myerson("complete", lambda c: 6.0 * (c.sum(dim=1) >= 2), 3) == pytest.approx([2, 2, 2], abs=1e-6)


def test_in_a_tree_of_messages_everybody_gets_half_a_message_for_each_neighbour():
    # a component of c players is worth c − 1, so a coalition is worth its edges, and an edge is shared by its ends
    tree = [(0, 1), (0, 2), (0, 3), (3, 4), (4, 5)]
    degree = [3, 1, 1, 2, 2, 1]
    assert myerson(tree, lambda c: c.double().sum(dim=1) - 1.0 * c.any(dim=1), 6) == pytest.approx([d / 2 for d in degree], abs=1e-13)


@pytest.mark.parametrize("n", [3, 8, 64])
def test_in_a_ring_of_messages_the_edge_too_many_is_borne_by_all(n):
    # as in a tree, but the whole ring is worth n − 1 and not its n edges
    game = credit.as_game(lambda c: c.double().sum(dim=1) - 1.0 * c.any(dim=1), n)
    rule = credit.Myerson("ring")
    assert rule.values(game)[0].tolist() == pytest.approx([1 - 1 / n] * n, abs=1e-12)
    assert game.evaluations == rule.cost(n) == n * (n - 1) + 1


def test_a_line_of_64_players_costs_an_evaluation_for_every_stretch_of_it():
    game = credit.as_game(lambda c: c.double().sum(dim=1) ** 2, 64)
    paid = credit.Myerson("line").values(game)[0]
    assert game.evaluations == credit.Myerson("line").cost(64) == 64 * 65 // 2
    assert paid.sum().item() == pytest.approx(64**2, abs=1e-8)
    torch.testing.assert_close(paid, paid.flip(0), rtol=0, atol=1e-9)


# what the value promises


@given(SEEDS, graphs())
def test_every_connected_part_shares_what_it_is_worth(seed, graph):
    n, edges = graph
    v = random_worths(seed, n)
    paid = credit.Myerson(edges).values(credit.table_game(v))[0]
    for part in components(2**n - 1, edges):
        inside = [i for i in range(n) if part >> i & 1]
        assert paid[inside].sum().item() == pytest.approx(v[0, part].item(), abs=1e-12)


@given(SEEDS, graphs(fewest=2), st.data())
def test_cutting_an_edge_costs_both_ends_the_same(seed, graph, data):
    n, edges = graph
    i, j = data.draw(st.sampled_from(list(combinations(range(n), 2))))
    without = [edge for edge in edges if edge != (i, j)]
    game = credit.table_game(random_worths(seed, n))
    change = credit.Myerson([*without, (i, j)]).values(game)[0] - credit.Myerson(without).values(game)[0]
    assert change[i].item() == pytest.approx(change[j].item(), abs=1e-12)


def test_position_is_paid_which_is_its_known_failure():
    # player 1 adds nothing by itself, but connects the two who do
    paid = myerson("line", lambda c: 1.0 * (c[:, 0] & c[:, 2]).double(), 3)
    assert paid == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=1e-15)
    assert not credit.Myerson("line").null_player


@pytest.mark.parametrize(
    ("graph", "n", "efficient"),
    [
        ("ring", 7, True),
        ([(0, 1), (1, 2)], 3, True),
        ([(0, 1), (1, 2), (3, 3)], 4, False),
        ([(0, 1), (2, 3)], 4, False),
        ([(0, 0)], 1, True),
    ],
)
def test_is_efficient_if_the_graph_connects_everybody_and_says_so(graph, n, efficient):
    v = random_worths(1, n)
    rule = credit.Myerson(graph)
    missing = rule.values(credit.table_game(v)).sum() - v[0, -1]
    assert (missing.abs() < 1e-10) == rule.efficient == efficient


@given(SEEDS, graphs(), st.integers(1, 4))
def test_a_batch_of_games_equals_the_games_one_by_one(seed, graph, n_envs):
    n, edges = graph
    v = random_worths(seed, n, n_envs)
    rule = credit.Myerson(edges)
    one_by_one = torch.cat([rule.values(credit.table_game(row[None])) for row in v])
    torch.testing.assert_close(rule.values(credit.table_game(v)), one_by_one, rtol=0, atol=1e-13)


# what a graph may be


def test_a_graph_of_networkx_is_taken():
    graph = networkx.cycle_graph(6)
    v = random_worths(2, 6)
    paid = credit.Myerson(graph).values(credit.table_game(v))
    torch.testing.assert_close(paid, credit.Myerson("ring").values(credit.table_game(v)), rtol=0, atol=1e-13)


def test_a_node_of_networkx_without_neighbours_is_a_player():
    graph = networkx.path_graph(3)
    graph.add_node(3)
    v = random_worths(2, 4)
    rule = credit.Myerson(graph)
    assert rule.values(credit.table_game(v))[0, 3].item() == pytest.approx(v[0, 8].item(), abs=1e-15)
    assert not rule.efficient


def test_edges_may_be_repeated_turned_around_or_loops_and_of_any_whole_number_type():
    v = random_worths(3, 3)
    plain = credit.Myerson([(0, 1), (1, 2)]).values(credit.table_game(v))
    for edges in ([(1, 0), [0, 1], (2, 1), (2, 2)], torch.tensor([[0, 1], [1, 2]]).numpy(), {(0, 1), (1, 2)}):
        assert credit.Myerson(edges).values(credit.table_game(v)).equal(plain)


def test_a_name_with_arguments_takes_edges():
    assert credit.make("myerson(graph=[(0, 1), (1, 2)])").cost(3) == 6


@pytest.mark.parametrize("graph", [[(0, 1, 2)], [(0, "b")], [(0, -1)], [(0, 0.5)], [3], [(0,)], [], 7])
def test_what_is_no_pair_of_players_is_refused(graph):
    with pytest.raises(ValueError, match=r"graph has the edge|graph names no players|graph=7"):
        credit.Myerson(graph)


@pytest.mark.parametrize("n", [3, 7])
def test_a_graph_of_other_players_is_refused(n):
    with pytest.raises(ValueError, match=f"graph is of 6 players, but there are {n}"):
        credit.Myerson([(0, 1), (1, 5)]).values(lambda c: c.sum(dim=1), n)


def test_a_graph_with_too_many_connected_coalitions_is_refused_before_any_evaluation():
    with pytest.raises(ValueError, match=r"30 players has 536,870,941 connected coalitions, at most 65,536.*shapley\(budget=600\)"):
        credit.Myerson("star").values(credit.CoalitionGame(lambda c: pytest.fail("evaluated"), 30))
