"""Quotient semivalues: the other rule on the game among clusters, and what is claimed of false names and false merges."""

import math

import pytest
import torch

from proxycoop import credit
from proxycoop.credit.games import known
from proxycoop.credit.games.false_names import false_name_gain
from proxycoop.credit.resistant import clusters, quotient_game
from proxycoop.credit.suite.battery import game_round, random_round

RULES = ["shapley", "banzhaf", "beta_shapley", "loo", "standalone", "equal", "least_core", "normalised(rule='banzhaf')"]


def slow_credit(rule, v, labels, copies):
    """The rule on the quotient game, written out for one environment, with equal parts within clusters."""
    n, leads = len(labels), sorted(set(labels))
    table = torch.zeros(1, 2 ** len(leads), dtype=torch.float64)
    for code in range(2 ** len(leads)):
        agents = [i for i in range(n) if code >> leads.index(labels[i]) & 1 and (copies == "all" or labels.index(labels[i]) == i)]
        table[0, code] = v[sum(1 << i for i in agents)]
    of_clusters = credit.make(rule).values(credit.table_game(table))[0].tolist()
    return [of_clusters[leads.index(label)] / labels.count(label) for label in labels]


def rounds_of_all_kinds(n=5, num_envs=12):
    """A round whose environments have different clusters, and its table of worths."""
    the_round = random_round(n, 3, num_envs=num_envs)
    generator = torch.Generator().manual_seed(5)
    angle = (torch.rand(num_envs, n, generator=generator).double() * 4).round() * 0.7
    the_round.updates = torch.stack([angle.cos(), angle.sin()], dim=-1)
    v = torch.randn(num_envs, 2**n, dtype=torch.float64, generator=generator)
    v[:, 0] = 0
    the_round.game = credit.table_game(v)
    return the_round, v


@pytest.mark.parametrize("copies", ["once", "all"])
@pytest.mark.parametrize("rule", RULES)
def test_credit_is_the_other_rule_on_the_game_among_clusters(rule, copies):
    the_round, v = rounds_of_all_kinds()
    mine = credit.make("quotient", rule=rule, copies=copies)
    mine.reset(12, 5)
    labels = mine.labels(the_round)
    assert labels.amax(dim=1).unique().numel() > 2
    paid = mine.assign(the_round)
    expected = torch.tensor([slow_credit(rule, v[e].tolist(), labels[e].tolist(), copies) for e in range(12)], dtype=torch.float64)
    torch.testing.assert_close(paid, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", ["shapley", "banzhaf", "beta_shapley", "beta_shapley(alpha=1, beta=4)", "loo", "standalone"])
def test_semivalues_of_one_distribution_do_not_see_null_players(rule):
    v = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    v[:, 0] = 0
    with_null = v[:, [code & 7 for code in range(32)]]  # players 3 and 4 add nothing
    alone, among = credit.make(rule).values(credit.table_game(v)), credit.make(rule).values(credit.table_game(with_null))
    torch.testing.assert_close(among, torch.cat([alone, alone.new_zeros(3, 2)], dim=1), rtol=0, atol=1e-12)


def test_an_equal_split_sees_null_players_and_so_needs_the_game_of_m_players():
    table = credit.table_game(torch.tensor([[0.0, 1.0, 0.0, 1.0]]).double())
    assert credit.make("equal").values(table).tolist() == [[0.5, 0.5]]
    assert credit.Quotient("equal", by=[[0, 1]]).values(table).tolist() == [[0.5, 0.5]]
    assert credit.Quotient("equal", by=[[0], [1]]).values(table).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("rule", ["shapley", "banzhaf", "loo", "shapley(budget=9)", "antithetic(budget=12)"])
def test_given_clusters_pay_what_the_same_clusters_found_by_updates_do(rule):
    n, num_envs = 5, 3
    the_round = random_round(n, 3, num_envs=num_envs)
    by = [[0, 3], [1], [2, 4]]
    basis = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 2]]
    the_round.updates = basis.expand(num_envs, -1, -1)
    found, given = credit.make("quotient", rule=rule, copies="all"), credit.make("quotient", rule=rule, by=by)
    assert found.labels(the_round).equal(given.labels(the_round))
    torch.testing.assert_close(found.assign(the_round), given.assign(the_round), rtol=0, atol=1e-12)


def test_known_clusters_serve_crowds():
    n = 300
    power = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rule = credit.Quotient(by=[list(range(first, n, 4)) for first in range(4)])
    paid = rule.values(lambda c: (c.double() @ power).sqrt(), n)
    assert paid.sum().item() == pytest.approx(math.sqrt(power.sum()))
    assert rule.cost(n) == 16
    assert rule.method(n) == "among 4 clusters: exact, 16 coalition evaluations a round"


def test_estimates_are_drawn_for_the_round():
    the_round, _ = rounds_of_all_kinds(7, 4)
    rule = credit.make("quotient(rule='shapley(budget=6)', by=[[0], [1], [2], [3], [4], [5], [6]])")
    first = rule.assign(the_round)
    the_round.t = 1
    assert not rule.assign(the_round).equal(first)
    the_round.t = 0
    assert rule.assign(the_round).equal(first)


def test_within_a_cluster_rows_count_if_asked():
    the_round = game_round(known.additive([2.0, 4.0, 6.0]).game())
    the_round.samples = torch.tensor([[10], [30], [7]])
    paid = {within: credit.Quotient(by=[[0, 1], [2]], within=within).assign(the_round)[0].tolist() for within in ("equal", "rows")}
    assert paid == {"equal": pytest.approx([3, 3, 6]), "rows": pytest.approx([1.5, 4.5, 6])}
    the_round.contributed = torch.tensor([[[False], [False], [True]]])
    assert credit.Quotient(by=[[0, 1], [2]], within="rows").assign(the_round)[0].tolist() == pytest.approx([3, 3, 6])


def test_every_environment_is_paid_what_it_would_be_paid_alone():
    the_round, v = rounds_of_all_kinds()
    paid = credit.Quotient().assign(the_round)
    for e in range(12):
        single = random_round(5, 3, num_envs=1)
        single.updates, single.game = the_round.updates[e : e + 1], credit.table_game(v[e : e + 1])
        torch.testing.assert_close(credit.Quotient().assign(single), paid[e : e + 1], rtol=0, atol=1e-13)


def test_the_quotient_game_asks_for_whole_clusters_only():
    asked = []

    def worth(coalitions):
        asked.append(coalitions.int().tolist())
        return coalitions.double().sum(dim=1)

    game = quotient_game(credit.CoalitionGame(worth, 4), torch.tensor([7, 2, 7, 3]))
    assert game.values().tolist() == [[0, 1, 1, 2, 2, 3, 3, 4]]  # clusters in the order of their labels 2, 3, 7
    assert all(one[0] == one[2] for rows in asked for one in rows)


# what is claimed of false names


def unanimous(sets):
    """Worth 1 with all lots."""
    return sets.all(dim=1).double()


def saturating(sets):
    """Every lot more adds less."""
    return 1 - torch.exp(-sets.double().sum(dim=1))


WORTHS = (unanimous, saturating)
ATTACKS = {  # what the names of player 0, which holds lots 0 and 1, hold
    "twins": [[0, 1], [0, 1]],
    "near twins": [[0, 1], [0]],
    "split": [[0], [1]],
    "three names": [[0], [1], [0, 1]],
}
HOLDINGS = [[0, 1], [2, 3], [4], [5]]


def quotient_values(rule, names):
    """The quotient with player 0's names in one cluster, once it has names."""
    together = [[0, *range(4, 3 + names)], [1], [2], [3]]
    return lambda game: credit.Quotient(rule, by=[[0], [1], [2], [3]] if game.n_players == 4 else together).values(game)


@pytest.mark.parametrize("rule", ["shapley", "banzhaf", "beta_shapley", "loo"])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("worth", WORTHS)
def test_no_attack_gains_under_the_quotient_if_all_names_are_found(rule, attack, worth):
    gain = false_name_gain(quotient_values(rule, len(ATTACKS[attack])), worth, 6, HOLDINGS, 0, ATTACKS[attack])
    assert gain.abs().max() < 1e-12


@pytest.mark.parametrize("names", [1, 2, 3, 4])
@pytest.mark.parametrize("others", [1, 2, 3])
def test_a_split_gains_the_closed_form_on_unanimity_games_and_nothing_under_the_quotient(names, others):
    n, k = others + 1, names
    holdings = [list(range(k)), *([k + i] for i in range(others))]
    split = [[lot] for lot in range(k)]
    plain = false_name_gain(credit.make("shapley").values, unanimous, k + others, holdings, 0, split)
    assert plain.item() == pytest.approx(k / (n + k - 1) - 1 / n, abs=1e-12)
    by = [[0, *range(n, n + k - 1)], *([i] for i in range(1, n))]
    honest = [[i] for i in range(n)]

    def values(game):
        return credit.Quotient(by=honest if game.n_players == n else by).values(game)

    assert false_name_gain(values, unanimous, k + others, holdings, 0, split).item() == pytest.approx(0, abs=1e-12)


def test_ratio_of_manipulated_to_honest_pay_falls_to_one():
    def ratio(values, worth, names):
        honest = values(credit.games.held(worth, 6, HOLDINGS))[0, 0]
        return 1 + (false_name_gain(values, worth, 6, HOLDINGS, 0, names)[0] / honest).item()

    plain = {(worth, attack): ratio(credit.make("shapley").values, worth, names) for worth in WORTHS for attack, names in ATTACKS.items()}
    quotient = [ratio(quotient_values("shapley", len(names)), worth, names) for worth in WORTHS for names in ATTACKS.values()]
    assert quotient == pytest.approx([1.0] * 8, abs=1e-12)
    # of 5 players the pair of twins has the last word if the 3 others come before both: 3! 2! / 5!; honest pay is 1/4
    assert plain[unanimous, "twins"] == pytest.approx(0.4)
    assert plain[unanimous, "near twins"] == pytest.approx(1)  # a part of what one has adds nothing
    assert plain[unanimous, "split"] == pytest.approx(1.6)  # 2/5 instead of 1/4
    assert [plain[saturating, attack] for attack in ATTACKS] == pytest.approx([1.4552, 1.3328, 1.2104, 1.5821], abs=5e-5)


def test_a_name_that_escapes_the_cluster_gains_as_much_as_without_it():
    def values(game):
        return credit.Quotient(by=[[i] for i in range(game.n_players)]).values(game)

    for names in ATTACKS.values():
        escaped, plain = (false_name_gain(by, saturating, 6, HOLDINGS, 0, names) for by in (values, credit.make("shapley").values))
        torch.testing.assert_close(escaped, plain, rtol=0, atol=1e-14)


def test_by_updates_a_split_gains_nothing_where_it_gains_under_shapley():
    def of(updates):
        updates = torch.tensor([updates], dtype=torch.float64)
        the_round = credit.learning_round(updates, torch.ones(1, 2, dtype=torch.float64))
        the_round.game = credit.CoalitionGame(lambda c: torch.log1p(c.double() @ updates[0].sum(dim=-1)), updates.shape[1])
        return the_round

    honest, split = of([[0.9, 0.0], [0.0, 0.5], [0.4, 0.4]]), of([[0.3, 0.0], [0.0, 0.5], [0.4, 0.4], [0.35, 0.0], [0.25, 0.0]])
    names = [0, 3, 4]
    rules = {"shapley": credit.make("shapley"), "quotient": credit.Quotient(copies="all"), "once": credit.Quotient()}
    gains = {name: (rule.assign(split)[0, names].sum() - rule.assign(honest)[0, 0]).item() for name, rule in rules.items()}
    assert gains["shapley"] > 0.01
    assert gains["quotient"] == pytest.approx(0, abs=1e-14)
    assert gains["once"] < 0  # one part of what was split is taken for all of it


@pytest.mark.parametrize("n_copies", [1, 2, 4])
def test_copies_that_move_the_model_further_gain_nothing_if_they_count_once(n_copies):
    def of(updates):
        updates = torch.tensor([updates], dtype=torch.float64)
        the_round = credit.learning_round(updates, torch.ones(1, 2, dtype=torch.float64))
        the_round.game = credit.CoalitionGame(lambda c: c.double() @ updates[0].sum(dim=-1), updates.shape[1])
        return the_round

    honest, copied = of([[0.9, 0.0], [0.0, 0.5]]), of([[0.9, 0.0], [0.0, 0.5], *([[0.9, 0.0]] * n_copies)])
    names = [0, *range(2, 2 + n_copies)]
    for rule, ratio in ((credit.Quotient(), 1), (credit.Quotient(copies="all"), 1 + n_copies), (credit.make("shapley"), 1 + n_copies)):
        assert (rule.assign(copied)[0, names].sum() / rule.assign(honest)[0, 0]).item() == pytest.approx(ratio)


# the price


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_two_honest_agents_who_are_merged_lose_the_closed_form_on_unanimity_games(n):
    merged = credit.Quotient(by=[[0, 1], *([i] for i in range(2, n))]).values(known.unanimity(n, range(n)).game())[0]
    assert merged[:2].sum().item() == pytest.approx(1 / (n - 1))
    assert (1 / n - merged[0]).item() == pytest.approx((n - 2) / (2 * n * (n - 1)))


def test_who_copies_another_under_k_names_takes_most_of_the_cluster():
    k = 3
    updates = torch.tensor([[[0.6, 0.0], [0.0, 0.6], *([[0.6, 0.0]] * k)]], dtype=torch.float64)
    the_round = credit.learning_round(updates, torch.ones(1, 2, dtype=torch.float64))
    paid = credit.Quotient().assign(the_round)[0]
    cluster = paid[[0, 2, 3, 4]].sum()
    assert (paid[2:].sum() / cluster).item() == pytest.approx(k / (k + 1))


def test_rates_of_wrong_clusters_by_the_threshold():
    generator = torch.Generator().manual_seed(0)
    of_principal = torch.randn(200, 4, 8, dtype=torch.float64, generator=generator)
    principals = torch.tensor([0, 1, 2, 3, 0, 0])
    noise = torch.randn(200, 6, 8, dtype=torch.float64, generator=generator)
    updates = of_principal[:, principals] + 0.2 * noise
    merged, split = (
        [rate(clusters.similar(updates, s), principals).mean().item() for s in (0.5, 0.8, 0.95, 0.99)]
        for rate in (clusters.false_merge_rate, clusters.false_split_rate)
    )
    assert merged == sorted(merged, reverse=True)
    assert split == sorted(split)
    assert (merged[0], split[0]) == (pytest.approx(0.115, abs=0.05), pytest.approx(0, abs=0.01))
    assert (merged[2], split[2]) == (0.0, pytest.approx(0.25, abs=0.2))


# what is refused


@pytest.mark.parametrize("rule", ["data_size", "smoothed", "normalised(rule='smoothed')", "in_run", "cgsv", "slashing"])
def test_a_rule_that_needs_more_than_a_game_or_remembers_is_refused(rule):
    with pytest.raises(ValueError, match="must be a rule that needs nothing but a game and has no memory, such as 'shapley'"):
        credit.make("quotient", rule=rule)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": 3}, "rule=3: must be a credit rule or the name of one"),
        ({"by": "names"}, "by='names': must be 'updates', or clusters as lists of agents"),
        ({"by": [[0], [0]]}, "every agent from 0 on must be in exactly one cluster"),
        ({"similarity": 0}, "similarity=0: must be a number above 0 and at most 1"),
        ({"similarity": 1.5}, "similarity=1.5: must be a number above 0 and at most 1"),
        ({"similarity": True}, "similarity=True"),
        ({"within": "owen"}, "within='owen': must be one of equal, rows"),
        ({"copies": "twice"}, "copies='twice': must be one of once, all"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.Quotient(**arguments)


def test_clusters_of_another_number_of_agents_are_refused():
    with pytest.raises(ValueError, match="by holds 3 agents, but there are 4: pass clusters of all of them"):
        credit.Quotient(by=[[0, 1], [2]]).reset(1, 4)


def test_more_clusters_than_the_other_rule_serves_are_refused():
    with pytest.raises(ValueError, match="at most 20 agents, got 21"):
        credit.Quotient(by=[[i] for i in range(21)]).reset(1, 21)
    with pytest.raises(ValueError, match="Quotient takes at most 20 agents, got 21"):
        credit.Quotient("loo").reset(1, 21)


def test_a_game_alone_has_no_updates():
    with pytest.raises(ValueError, match=r"a game alone has neither updates nor rows: pass by="):
        credit.Quotient().values(lambda c: c.double().sum(dim=1), 3)


@pytest.mark.parametrize(
    "text",
    [
        "quotient(rule='banzhaf')",
        "quotient(rule='loo')",
        "quotient(rule='shapley(budget=40)')",
        "quotient(within='rows')",
        "quotient(copies='all')",
        "quotient(by=[[0, 1], [2, 3, 4]])",
        "quotient(by=[[0], [1], [2]])",
    ],
)
def test_variants_keep_what_they_promise(text):
    credit.check_rule(text)


@pytest.mark.parametrize(
    "aggregator", [{"kind": "krum", "f": 1}, {"kind": "median"}, {"kind": "median", "over": "agents"}, {"kind": "mean"}]
)
def test_twins_are_found_by_what_they_send_whatever_the_aggregator_makes_of_it(aggregator):
    from proxycoop.envs import Engine, scenario

    names = [{"principal": 0, "split": 2, "lots": "copied"}]
    made = scenario.load(
        "digits", aggregator=aggregator, conduct={"identities": names}, **{"screening.governance": "none", "reward.scale": 1.0}
    )
    engine = Engine(made, "quotient", 4)
    engine.reset(range(4))
    for _ in range(2):
        engine.step(torch.ones(4, engine.num_agents, engine.num_lots))
        labels = engine.rule.labels(engine.round)
        assert torch.equal(labels[:, 0], labels[:, 6])
