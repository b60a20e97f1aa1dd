"""A round's coalition game against brute force: aggregate only S, and evaluate the utility."""

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.credit import coalition_matrix
from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Rows
from proxycoop.envs.model.additive import AdditiveLogits
from proxycoop.envs.model.coalitions import RoundStep, UtilityGame
from proxycoop.envs.model.models import SoftmaxRegression
from proxycoop.envs.model.server import ServerState, Sgd

SMALL = {"reward.scale": 1.0, "horizon": 4, "data.validation.rows": 60}
KINDS: dict[str, dict[str, object]] = {
    "fixed": {},
    "participants": {"weights": "participants"},
    "momentum": {"server": {"kind": "sgd", "lr": 0.7, "momentum": 0.8}},
    "participants and momentum": {"weights": "participants", "server": {"kind": "sgd", "lr": 0.7, "momentum": 0.8}},
    "adam": {"server": {"kind": "adam", "lr": 0.05}},
    "accuracy": {"utility": "accuracy", "substrate.local_lr": 4.0},  # large steps: small ones seldom change an answer
    "accuracy and adam": {"utility": "accuracy", "server": {"kind": "adam"}, "weights": "participants"},
    "mlp": {"model": {"kind": "mlp", "hidden": [8]}},
    "mlp, participants, momentum": {
        "model": {"kind": "mlp", "hidden": [8]},
        "weights": "participants",
        "server": {"kind": "sgd", "momentum": 0.5},
    },
    "traversal": {"substrate": {"kind": "traversal", "batch": 40}},
    "guard": {"screening": {"governance": "none", "guard": True}, "substrate.local_lr": 3.0},
    "guard and momentum": {
        "server": {"kind": "sgd", "momentum": 0.9},
        "screening": {"governance": "own", "guard": True},
        "profiles": [{"holders": 2, "tolerances": {"eights": 0.02, "nines": 0.02}}],
    },
    "guard and adam": {"server": {"kind": "adam", "lr": 0.1}, "screening.guard": True, "weights": "participants"},
}


def make_engine(kind: str, rule: str | None = None, num_envs: int = 2, **overrides: object) -> Engine:
    made = scenario.load("digits", **{"screening.guard": False, **SMALL, **KINDS[kind], **overrides})
    made = made.model_copy(update={"profiles": made.unlimited().profiles})
    engine = Engine(made, rule, num_envs, dtype=torch.float64)
    engine.reset(range(10, 10 + num_envs))
    return engine


def random_actions(engine: Engine, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(engine.num_envs, engine.num_agents, engine.num_lots, generator=generator) < 0.7


class BruteForce:
    """v(S) of the coming round with nothing but the definition; it keeps the server's memory on its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.first = torch.zeros_like(engine.theta)
        self.second = torch.zeros_like(engine.theta)

    def prepare(self, actions: Tensor) -> None:
        look = self.engine.prospect
        self.theta = self.engine.theta.clone()
        self.share = (actions & look.available & look.passes) * look.proposals.share  # (E, N, K)
        self.updates = look.proposals.updates

    def step(self, members: list[int], e: int) -> Tensor:
        total = sum(float(self.share[e, i].sum()) for i in members)
        scale = 1 / total if self.engine.scenario.weights == "participants" and total > 0 else 1.0
        step = torch.zeros_like(self.theta[e])
        for i in members:
            for k in range(self.engine.num_lots):
                step += scale * self.share[e, i, k] * self.updates[e, i, k]
        return step

    def change(self, step: Tensor, e: int) -> Tensor:
        server = self.engine.scenario.server
        if server.kind == "sgd":
            return server.momentum * self.first[e] + server.lr * step
        first = server.beta1 * self.first[e] + (1 - server.beta1) * step
        second = server.beta2 * self.second[e] + (1 - server.beta2) * step**2
        return server.lr * first / (second.sqrt() + server.tau)

    def utility(self, theta: Tensor) -> float:
        rows = self.engine.splits.validation
        logits = self.engine.model.logits(theta[None], rows.x)[0]
        if self.engine.scenario.utility == "accuracy":
            return sum(int(row.argmax() == y) for row, y in zip(logits, rows.y, strict=True)) / len(rows.y)
        return float(logits.log_softmax(dim=-1)[torch.arange(len(rows.y)), rows.y].mean())

    def values(self, gamma: Tensor) -> Tensor:
        n, v = self.engine.num_agents, []
        for e in range(self.engine.num_envs):
            start = self.utility(self.theta[e] + gamma[e] * self.change(torch.zeros_like(self.theta[e]), e))
            for code in range(2**n):
                members = [i for i in range(n) if code >> i & 1]
                after = self.theta[e] + gamma[e] * self.change(self.step(members, e), e)
                v.append(self.utility(after) - start)
        return torch.tensor(v, dtype=torch.float64).reshape(-1, 2**n)

    def remember(self, gamma: Tensor) -> None:
        everyone = list(range(self.engine.num_agents))
        for e in range(self.engine.num_envs):
            step, server = self.step(everyone, e), self.engine.scenario.server
            if server.kind == "sgd":
                self.first[e] = gamma[e] * self.change(step, e)
            else:
                self.first[e] = server.beta1 * self.first[e] + (1 - server.beta1) * step
                self.second[e] = server.beta2 * self.second[e] + (1 - server.beta2) * step**2


@pytest.mark.parametrize("kind", KINDS)
def test_every_coalition_of_two_rounds_is_worth_what_brute_force_says(kind: str) -> None:
    engine = make_engine(kind)
    brute = BruteForce(engine)
    guarded = False
    for t in range(2):
        actions = random_actions(engine, seed=t)
        brute.prepare(actions)
        result = engine.step(actions)
        expected = brute.values(result.gamma)
        some = coalition_matrix(6)[[0, 5, 22, 63]]
        torch.testing.assert_close(engine.round.value(some), expected[:, [0, 5, 22, 63]], rtol=0, atol=1e-10)  # coalition by coalition
        torch.testing.assert_close(engine.round.game.values(), expected, rtol=0, atol=1e-10)  # all at once
        torch.testing.assert_close(result.gain, expected[:, -1], rtol=0, atol=1e-10)
        assert expected[:, 1:].abs().max() > 1e-4
        guarded |= bool((result.gamma < 1).any())
        brute.remember(result.gamma)
    assert guarded == kind.startswith("guard")


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_worth_nothing_and_everybody_the_gain_that_happened(kind: str) -> None:
    engine = make_engine(kind, num_envs=4)
    for t in range(4):
        before, memory = engine.theta.clone(), engine.server_state.first
        result = engine.step(random_actions(engine, seed=t))
        v = engine.round.game.values()
        start = before
        if engine.scenario.server.kind == "sgd":  # momentum's own push is nobody's credit
            start = before + result.gamma[:, None] * engine.scenario.server.momentum * memory
        elif engine.t > 1:
            continue  # Adam's push is in the brute force above; in the first round there is none
        brute = BruteForce(engine)
        gain = torch.tensor([brute.utility(engine.theta[e]) - brute.utility(start[e]) for e in range(4)], dtype=torch.float64)
        assert v[:, 0].abs().max() <= 1e-12
        torch.testing.assert_close(v[:, -1], gain, rtol=0, atol=1e-10)


def test_without_momentum_the_gains_of_an_episode_sum_to_the_change_of_utility() -> None:
    engine = make_engine("fixed", num_envs=4)
    for t in range(4):
        engine.step(random_actions(engine, seed=t))
    gains = torch.stack([result.gain for result in engine.history]).sum(dim=0)
    torch.testing.assert_close(gains, engine.prospect.utility - engine.initial_utility, rtol=0, atol=1e-10)


@pytest.mark.parametrize("weights", ["fixed", "participants"])
@pytest.mark.parametrize("local_lr", [30.0, 1e3, 1e4])
def test_huge_steps_agree_with_brute_force_through_the_log_domain(weights: str, local_lr: float, monkeypatch: pytest.MonkeyPatch) -> None:
    in_log_domain = []
    summed = AdditiveLogits._summed
    monkeypatch.setattr(AdditiveLogits, "_summed", lambda self, *parts: (in_log_domain.append(not parts[-1]), summed(self, *parts))[1])
    engine = make_engine(weights, **{"substrate.local_lr": local_lr, "screening.governance": "none"})
    brute, actions = BruteForce(engine), random_actions(engine)
    brute.prepare(actions)
    result = engine.step(actions)
    expected = brute.values(result.gamma)
    torch.testing.assert_close(engine.round.game.values(), expected, rtol=1e-10, atol=1e-10)
    assert any(in_log_domain) == (local_lr >= 1e3)  # the other routes give up only where exp leaves its range


@pytest.mark.parametrize("weights", ["fixed", "participants"])
def test_where_some_in_the_batch_leave_the_range_each_is_worth_what_it_is_alone(weights: str) -> None:
    draws, model, n_agents = torch.Generator().manual_seed(0), SoftmaxRegression(4, 3), 5
    rows = Rows(x=torch.randn(40, 4, generator=draws), y=torch.randint(3, (40,), generator=draws), groups={})
    updates = 0.1 * torch.randn(6, n_agents, model.n_parameters, generator=draws)
    updates[[1, 4]] *= 1e3  # these two leave the range
    theta, weight = torch.randn(6, model.n_parameters, generator=draws), 0.1 + torch.rand(6, n_agents, generator=draws)

    def worths(*envs: int) -> tuple[Tensor, Tensor]:
        step = RoundStep(
            model=model,
            server=Sgd(),
            state=ServerState(torch.zeros(len(envs), model.n_parameters), torch.zeros(len(envs), model.n_parameters)),
            theta=theta[list(envs)],
            updates=updates[list(envs)],
            weight=weight[list(envs)],
            weights=weights,
            gamma=torch.ones(len(envs)),
        )
        game = UtilityGame(step, "neg_log_loss", rows, model.logits(step.theta, rows.x).log_softmax(dim=-1))
        return game.game().values(), game.logits._in_range

    batch, in_range = worths(*range(6))
    assert in_range.tolist() == [True, False, True, True, False, True]
    for env in range(6):
        torch.testing.assert_close(batch[env], worths(env)[0][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("local_lr", [0.375, 1e4])  # by doubling, and through the log domain
def test_any_aligned_block_of_coalitions_is_worth_what_its_coalitions_are(local_lr: float) -> None:
    engine = make_engine("fixed", **{"substrate.local_lr": local_lr, "screening.governance": "none"})
    engine.step(random_actions(engine))
    expected = engine.round.value(coalition_matrix(6))
    block = engine.round.game._value_block
    assert block is not None
    for n_low in range(7):
        for first in range(0, 64, 2**n_low):
            torch.testing.assert_close(block(first, n_low), expected[:, first : first + 2**n_low], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "n"), [("fixed", 16), ("participants", 15), ("momentum", 16)])
def test_many_agents_are_streamed_and_every_coalition_is_worth_what_it_is_by_itself(kind: str, n: int) -> None:
    engine = make_engine(kind, principals=n)
    for t in range(2):
        engine.step(random_actions(engine, seed=t))
    game = engine.round.game
    codes = torch.randint(2**n, (200,), generator=torch.Generator().manual_seed(0))
    codes[:4] = torch.tensor([0, 2**14 - 1, 2**14, 2**n - 1])  # the blocks' edges
    one_by_one = engine.round.value((codes[:, None] >> torch.arange(n)) & 1 == 1)
    firsts, blocks = zip(*game.blocks(), strict=True)
    assert firsts == tuple(range(0, 2**n, 2**14))
    torch.testing.assert_close(torch.cat(blocks, dim=1)[:, codes], one_by_one, rtol=0, atol=1e-10)


@pytest.mark.parametrize("local_lr", [0.375, 3.0, 30.0, 100.0, 300.0, 1e3, 1e4])
def test_single_precision_agrees_with_double_precision_at_any_step_size(local_lr: float) -> None:
    v = []
    for dtype in (torch.float32, torch.float64):
        made = scenario.load("digits", **{**SMALL, "substrate.local_lr": local_lr, "screening.governance": "none"}).unlimited()
        engine = Engine(made, None, 8, dtype=dtype)
        engine.reset(range(8))
        engine.step(random_actions(engine))
        v.append(engine.round.game.values().double())
    torch.testing.assert_close(v[0], v[1], rtol=1e-4, atol=2e-6)


def one_row_game(shifts: list[list[float]], start: list[float], dtype: torch.dtype) -> UtilityGame:
    """A game on one validation row of class 0 without features, in which each agent adds a vector to the logits."""
    updates = torch.tensor([shifts], dtype=dtype)  # (1, N, C): no features, so the parameters are the bias
    step = RoundStep(
        model=SoftmaxRegression(0, updates.shape[-1]),
        server=Sgd(),
        state=ServerState(torch.zeros(1, updates.shape[-1], dtype=dtype), torch.zeros(1, updates.shape[-1], dtype=dtype)),
        theta=torch.tensor([start], dtype=dtype),
        updates=updates,
        weight=torch.ones(1, updates.shape[1], dtype=dtype),
        weights="fixed",
        gamma=torch.ones(1, dtype=dtype),
    )
    rows = Rows(x=torch.zeros(1, 0, dtype=dtype), y=torch.tensor([0]), groups={})
    return UtilityGame(step, "neg_log_loss", rows, step.model.logits(step.theta, rows.x).log_softmax(dim=-1))


def test_a_game_of_two_on_one_row_by_hand() -> None:
    # logits (0, 0); agent 0 adds (ln 3, 0), agent 1 adds (0, ln 2): p = 1/2, 3/4, 1/3, 3/5
    game = one_row_game([[1.0986122886681098, 0.0], [0.0, 0.6931471805599453]], [0.0, 0.0], torch.float64).game()
    expected = torch.tensor([[0.5, 0.75, 1 / 3, 0.6]], dtype=torch.float64).log() - torch.tensor(0.5, dtype=torch.float64).log()
    torch.testing.assert_close(game.values(), expected)


def test_opposite_huge_steps_that_underflow_before_they_cancel_keep_their_value() -> None:
    # class 1 starts at p ≈ 1 and is moved by −120 and +120 nats: e^−120 is zero in single precision, though the sum moves nothing
    shifts, start = [[0.0, -120.0, 0.0], [0.0, 120.0, 0.0]], [-80.0, 0.0, -80.0]
    game = one_row_game(shifts, start, torch.float32).game()
    log_domain = one_row_game(shifts, start, torch.float64).logits.values(coalition_matrix(2))
    torch.testing.assert_close(game.values().double(), log_domain, rtol=1e-4, atol=1e-4)


def test_opposite_large_steps_do_not_lose_the_sum_to_underflow_without_an_infinity() -> None:
    # in single precision e^−110 vanishes while e^80 does not overflow: nothing is infinite, so nothing looks wrong
    shifts, start = [[0.0, -110.0], [0.0, 80.0]], [-60.0, 0.0]
    game = one_row_game(shifts, start, torch.float32).game()
    exact = one_row_game(shifts, start, torch.float64).logits.values(coalition_matrix(2))
    torch.testing.assert_close(game.values().double(), exact, rtol=1e-4, atol=1e-4)


def test_steps_of_35_nats_each_way_keep_a_term_that_single_precision_would_lose() -> None:
    # p = e^−75, e^−69.4, 1. With both, class 1 is moved by −35 and +35 nats, and class 2 by −35 twice: e^−69.4 · e^−35 is zero in single
    # precision, and yet class 1 outweighs class 2, which is at e^−70.
    game = one_row_game([[0.0, -35.0, -35.0], [0.0, 35.0, -35.0]], [-75.0, -69.4, 0.0], torch.float32).game()
    both = -math.log(math.exp(-75) + math.exp(-69.4) + math.exp(-70))
    assert game.values()[0, 3].item() == pytest.approx(both, abs=1e-3)  # without class 1 it would be 70, and not 69


def slow_shapley(v: Tensor, n: int) -> Tensor:
    """Average marginal contribution over all n! orders."""
    phi, orders = torch.zeros(len(v), n, dtype=v.dtype), list(permutations(range(n)))
    for order in orders:
        code = 0
        for i in order:
            phi[:, i] += v[:, code | 1 << i] - v[:, code]
            code |= 1 << i
    return phi / len(orders)


@pytest.mark.parametrize("kind", ["fixed", "participants and momentum", "mlp", "guard"])
def test_shapley_credit_of_a_real_round_is_the_mean_over_all_orders_and_sums_to_the_gain(kind: str) -> None:
    engine = make_engine(kind, "shapley")
    for t in range(2):
        actions = random_actions(engine, seed=t)
        result = engine.step(actions)
        torch.testing.assert_close(result.credit, slow_shapley(engine.round.game.values(), 6), rtol=0, atol=1e-12)
        torch.testing.assert_close(result.credit.sum(dim=1), result.gain, rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", ["shapley", "loo", "standalone"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_contributes_nothing_gets_nothing(kind: str, rule: str) -> None:
    engine = make_engine(kind, rule)
    for t in range(2):
        actions = random_actions(engine, seed=t)
        actions[0, 2], actions[1, 4] = False, False
        result = engine.step(actions)
        assert result.credit[0, 2].abs() <= 1e-12
        assert result.credit[1, 4].abs() <= 1e-12
        assert (result.credit.abs() > 1e-12).any()


def test_a_proxy_whose_updates_are_all_screened_out_gets_nothing() -> None:
    profiles = [{"forbidden_tags": ["bad"]}]
    engine = make_engine("fixed", "shapley", num_envs=24, **{"lots.tags": {"good": 0.4, "bad": 0.6}, "profiles": profiles})
    result = engine.step(torch.ones(24, 6, 4))
    out = (engine.lots.tags == 1).all(dim=-1)  # (E, N)
    assert out.any()
    assert torch.equal(out, ~result.admitted.any(dim=-1))
    assert result.credit[out].abs().max() <= 1e-12
    assert result.credit[~out].abs().min() > 1e-9


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "adam" not in kind])  # Adam's step is no sum of the agents' updates
def test_applied_updates_sum_to_the_part_of_the_step_that_is_not_momentum(kind: str) -> None:
    engine = make_engine(kind)
    engine.step(random_actions(engine))
    before, memory = engine.theta.clone(), engine.server_state.first
    result = engine.step(random_actions(engine, seed=1))
    push = result.gamma[:, None] * engine.scenario.server.momentum * memory
    torch.testing.assert_close(engine.round.updates.sum(dim=1), engine.theta - before - push)


def test_evaluations_count_what_the_rule_needed() -> None:
    for rule, expected in (("shapley", 64), ("loo", 7), ("standalone", 6), (None, 0)):
        engine = make_engine("fixed", rule)
        assert engine.step(random_actions(engine)).evaluations == expected


def test_utility_gradient_is_the_derivative_where_the_rounds_game_starts() -> None:
    engine = make_engine("momentum")
    engine.step(random_actions(engine))
    start = engine.theta + 0.8 * engine.server_state.first
    engine.step(random_actions(engine, seed=1))
    rows, theta = engine.splits.validation, start.clone().requires_grad_()
    logits = engine.model.logits(theta, rows.x).log_softmax(dim=-1)
    (gradient,) = torch.autograd.grad(logits[:, torch.arange(len(rows.y)), rows.y].mean(dim=-1).sum(), theta)
    torch.testing.assert_close(engine.round.utility_gradient(), gradient)


def test_accuracy_has_no_gradient_and_says_what_to_use() -> None:
    engine = make_engine("accuracy")
    engine.step(random_actions(engine))
    with pytest.raises(ValueError, match="neg_log_loss"):
        engine.round.utility_gradient()


def test_too_many_agents_for_shapley_are_refused_at_construction() -> None:
    with pytest.raises(ValueError, match=r"at most 20 agents, got 21.*loo"):
        Engine(scenario.load("digits", principals=21, **SMALL), credit.make("shapley"))
