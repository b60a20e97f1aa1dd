"""Every registered rule is held to what its class attributes promise, and shown to lack what they do not.

A new rule is covered as soon as it is registered; if none of the ``LACKS`` rounds violates an axiom that it does not declare,
add the round that does.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from proxycoop import credit

TOLERANCE = 1e-9
NAMES = list(credit.RULES)
GAME_RULES = [name for name in NAMES if isinstance(credit.make(name), credit.GameRule)]
SEEDS = st.integers(0, 2**32 - 1)


def declaring(axiom: str) -> list[str]:
    return [name for name in NAMES if getattr(credit.make(name), axiom)]


def most_players(name: str) -> int:
    return min(credit.make(name).max_players or 12, 12)


def pay(rule: str | credit.CreditRule, the_round: credit.Round) -> Tensor:
    rule = credit.make(rule) if isinstance(rule, str) else rule
    rule.reset(the_round.num_envs, the_round.num_agents)
    return rule.assign(the_round)


def random_round(build, seed: int, n: int, n_envs: int = 2) -> credit.Round:
    """A round of n agents with 3 parameters and 2 lots, in which (n > 1) the last agent's update is zero and the first two agree.

    The zero update is admitted, and the two that agree hold different amounts of data: what the game cannot see may differ.
    """
    generator = torch.Generator().manual_seed(seed)
    updates = torch.randn(n_envs, n, 3, dtype=torch.float64, generator=generator)
    if n > 1:
        updates[:, 1] = updates[:, 0]
        updates[:, -1] = 0
    admitted = torch.rand(n_envs, n, 2, generator=generator) < 0.7
    admitted[:, :, 0] = True
    samples = torch.randint(1, 100, (n, 2), generator=generator)
    samples[0] = samples[0] + 100
    return build(updates, torch.randn(n_envs, 3, dtype=torch.float64, generator=generator), admitted=admitted, samples=samples)


# The rounds that show what a rule lacks: target (1, 1), agents of one lot each.
LACKS = {
    # twins with unequal data, one agent alone, one that harms, one whose update is zero
    "everybody": ([[0.5, 0.0], [0.5, 0.0], [0.0, 0.4], [-0.3, 0.0], [0.0, 0.0]], [10, 70, 20, 30, 40]),
    # only the first does anything
    "free riders": ([[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]], [10, 20, 60]),
}


@pytest.fixture
def all_lacks(learning_round) -> list[credit.Round]:
    target = torch.ones(1, 2, dtype=torch.float64)
    return [
        learning_round(torch.tensor([updates], dtype=torch.float64), target, samples=torch.tensor(samples)[:, None])
        for updates, samples in LACKS.values()
    ]


# residuals of the axioms: the largest violation in a round, read off its game by brute force


def inefficiency(paid: Tensor, the_round: credit.Round) -> float:
    return (paid.sum(dim=1) - the_round.gain).abs().max().item()


def asymmetry(paid: Tensor, the_round: credit.Round) -> float:
    n, v = the_round.num_agents, the_round.game.values()
    codes = torch.arange(2**n)
    worst = 0.0
    for i in range(n):
        for j in range(i):
            neither = codes[(codes >> i | codes >> j) & 1 == 0]
            twins = (v[:, neither | 1 << i] - v[:, neither | 1 << j]).abs().amax(dim=1) < 1e-12  # (E,)
            worst = max(worst, ((paid[:, i] - paid[:, j]).abs() * twins).max().item())
    return worst


def overpaid_nulls(paid: Tensor, the_round: credit.Round) -> float:
    n, v = the_round.num_agents, the_round.game.values()
    codes = torch.arange(2**n)
    worst = 0.0
    for i in range(n):
        without = codes[codes >> i & 1 == 0]
        null = (v[:, without | 1 << i] - v[:, without]).abs().amax(dim=1) < 1e-12  # (E,)
        worst = max(worst, (paid[:, i].abs() * null).max().item())
    return worst


# what is declared holds


@pytest.mark.parametrize("name", declaring("efficient"))
@pytest.mark.parametrize("n", range(1, 13))
def test_an_efficient_rule_pays_out_exactly_the_gain(name, n, learning_round):
    the_round = random_round(learning_round, seed=n, n=min(n, most_players(name)), n_envs=4)
    assert inefficiency(pay(name, the_round), the_round) < TOLERANCE


@pytest.mark.parametrize("name", declaring("symmetric"))
@given(seed=SEEDS, n=st.integers(2, 6))
def test_a_symmetric_rule_pays_interchangeable_agents_the_same(name, learning_round, seed, n):
    the_round = random_round(learning_round, seed, n)
    paid = pay(name, the_round)
    assert asymmetry(paid, the_round) < TOLERANCE
    if n > 2:
        torch.testing.assert_close(paid[:, 0], paid[:, 1], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", declaring("null_player"))
@given(seed=SEEDS, n=st.integers(2, 6))
def test_a_null_player_rule_pays_nothing_to_an_agent_that_adds_nothing(name, learning_round, seed, n):
    the_round = random_round(learning_round, seed, n)
    paid = pay(name, the_round)
    assert overpaid_nulls(paid, the_round) < TOLERANCE
    assert paid[:, -1].abs().max() < TOLERANCE


# what is not declared fails somewhere, so that no promise is withheld without reason


@pytest.mark.parametrize(("axiom", "residual"), [("efficient", inefficiency), ("symmetric", asymmetry), ("null_player", overpaid_nulls)])
@pytest.mark.parametrize("name", NAMES)
def test_an_axiom_is_declared_exactly_if_no_round_violates_it(name, axiom, residual, all_lacks):
    violated = any(residual(pay(name, the_round), the_round) > 1e-3 for the_round in all_lacks)
    assert violated is not getattr(credit.make(name), axiom)


# what every rule owes, declared or not


@pytest.mark.parametrize("name", NAMES)
def test_credits_are_finite_floats_one_an_agent_and_environment(name, learning_round):
    the_round = random_round(learning_round, seed=1, n=5, n_envs=3)
    paid = pay(name, the_round)
    assert paid.shape == (3, 5)
    assert paid.is_floating_point()
    assert paid.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_round_in_which_nobody_does_anything_pays_nobody(name, learning_round):
    nothing = torch.zeros(2, 3, 2, dtype=torch.bool)
    the_round = learning_round(torch.zeros(2, 3, 4), torch.ones(2, 4), admitted=nothing)
    assert pay(name, the_round).abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_rounds_equals_the_rounds_one_by_one(name, learning_round):
    generator = torch.Generator().manual_seed(7)
    updates = torch.randn(4, 3, 2, dtype=torch.float64, generator=generator)
    target = torch.randn(4, 2, dtype=torch.float64, generator=generator)
    admitted = torch.rand(4, 3, 2, generator=generator) < 0.5
    samples = torch.tensor([[3, 1], [4, 1], [5, 9]])
    batch = pay(name, learning_round(updates, target, admitted=admitted, samples=samples))
    for e in range(4):
        single = learning_round(updates[e : e + 1], target[e : e + 1], admitted=admitted[e : e + 1], samples=samples)
        torch.testing.assert_close(batch[e : e + 1], pay(name, single), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_rule_remembers_nothing(name, learning_round):
    used = credit.make(name)
    for seed in range(3):
        pay(used, random_round(learning_round, seed, n=4))
    the_round = random_round(learning_round, seed=9, n=5, n_envs=1)
    assert pay(used, the_round).equal(pay(name, the_round))


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_makes_no_more_evaluations_than_it_says(name, learning_round):
    for n in [1, 3, 6]:
        rule = credit.make(name)
        the_round = random_round(learning_round, seed=n, n=n)
        pay(rule, the_round)
        promised = eval(rule.evaluations.replace("^", "**"), {"__builtins__": {}}, {**vars(rule), "n": n})
        assert the_round.game.evaluations <= promised


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_leaves_the_round_as_it_was(name, learning_round):
    the_round = random_round(learning_round, seed=3, n=4)
    tensors = [
        the_round.contributed,
        the_round.admitted,
        the_round.samples,
        the_round.updates,
        the_round.gain,
        the_round.utility_gradient(),
    ]
    before = [tensor.clone() for tensor in tensors]
    pay(name, the_round)
    assert all(tensor.equal(copy) for tensor, copy in zip(tensors, before, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_names_its_source_and_has_a_manual(name):
    rule = credit.make(name)
    assert rule.source != credit.CreditRule.source
    assert ".. math::" in type(rule).__doc__


# game rules on games that no learning made


@pytest.mark.parametrize("name", GAME_RULES)
@given(seed=SEEDS, n=st.integers(2, 6))
def test_a_game_rule_keeps_its_promises_on_any_game(name, table_game, learning_round, seed, n):
    v = torch.randn(1, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v[:, 0] = 0
    codes = torch.arange(2**n)
    swapped = codes & ~3 | codes >> 1 & 1 | (codes & 1) << 1
    v = (v + v[:, swapped]) / 2  # players 0 and 1 are interchangeable
    if n > 2:
        v = v[:, codes & ~(1 << n - 1)]  # the last player adds nothing
    the_round = learning_round(torch.zeros(1, n, 1), torch.zeros(1, 1))
    the_round.game = table_game(v)
    paid = pay(name, the_round)
    assert paid.equal(credit.make(name).values(table_game(v)))
    rule = credit.make(name)
    assert not rule.efficient or inefficiency(paid, the_round) < TOLERANCE
    assert not rule.symmetric or abs(paid[0, 0] - paid[0, 1]) < TOLERANCE
    assert not rule.null_player or n == 2 or abs(paid[0, -1]) < TOLERANCE


@pytest.mark.parametrize("name", GAME_RULES)
def test_a_game_rule_reads_nothing_but_the_game(name, table_game, learning_round):
    v = torch.randn(1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    paid = []
    for seed in range(2):
        the_round = random_round(learning_round, seed, n=4, n_envs=1)
        the_round.game = table_game(v)
        paid.append(pay(name, the_round))
    assert paid[0].equal(paid[1])
