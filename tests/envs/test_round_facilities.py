"""What the rounds of an engine tell credit rules beyond the game, by independent loops; and lot credit in the engine's faces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from proxycoop import credit
from proxycoop.credit import Round, coalition_matrix
from proxycoop.envs import Engine, Scenario, cooperative_v0, scenario
from proxycoop.envs.model.server import Adam, ServerState

N, K, E = 4, 2, 2
SMALL: dict[str, object] = {
    "principals": N,
    "lots.per_principal": K,
    "horizon": 3,
    "reward.scale": 1.0,
    "data.validation.rows": 40,
    "profiles": [{"holders": 2, "tolerances": {"eights": 0.42}}, {"holders": 2, "tolerances": {"nines": 0.27}}],
}
MLP = {"kind": "mlp", "hidden": [6]}
MOMENTUM = {"kind": "sgd", "lr": 0.7, "momentum": 0.8}
ADAM = {"kind": "adam", "lr": 0.05}
KINDS: dict[str, dict[str, object]] = {
    "softmax": {},
    "participants, quorum": {"weights": "participants", "screening": {"governance": "quorum", "quorum": 0.75}},
    "participants, momentum": {"weights": "participants", "server": MOMENTUM},
    "adam, own": {"server": ADAM, "screening.governance": "own"},
    "adam, participants, none": {"server": ADAM, "weights": "participants", "screening.governance": "none"},
    "mlp, momentum": {"model": MLP, "server": MOMENTUM},
    "mlp, adam, participants": {"model": MLP, "server": ADAM, "weights": "participants"},
    "traversal": {"substrate": {"kind": "traversal", "batch": 60}},
    "traversal, participants": {
        "substrate": {"kind": "traversal", "batch": 60},
        "weights": "participants",
    },  # each environment's shares differ
    "accuracy": {"utility": "accuracy", "substrate.local_lr": 4.0, "screening.governance": "none"},
    "accuracy, mlp": {"utility": "accuracy", "model": MLP, "substrate.local_lr": 4.0, "screening.governance": "none"},
    "guard": {"screening": {"governance": "none", "guard": True}, "substrate.local_lr": 3.0},
    "guard, momentum, quorum": {
        "server": MOMENTUM,
        "screening": {"governance": "quorum", "quorum": 0.25, "guard": True},
        "substrate.local_lr": 1.5,
    },
    "guard, adam, participants": {"server": {"kind": "adam", "lr": 0.1}, "screening.guard": True, "weights": "participants"},
}
SMOOTH = [kind for kind in KINDS if "accuracy" not in kind]
UNGUARDED = [kind for kind in KINDS if "guard" not in kind]
EVERYBODY = torch.ones(1, N, dtype=torch.bool)


def make(kind: str, **overrides: object) -> Scenario:
    made = scenario.load("digits", **{"screening.guard": False, **SMALL, **KINDS[kind], **overrides})
    return made.model_copy(update={"profiles": made.unlimited().profiles})


def make_engine(kind: str, rule: credit.CreditRule | str | None = None, num_envs: int = E, **overrides: object) -> Engine:
    engine = Engine(make(kind, **overrides), rule, num_envs, dtype=torch.float64)
    engine.reset(range(10, 10 + num_envs))
    return engine


def random_sets(*shape: int, seed: int, share: float = 0.7) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def played(kind: str, n_rounds: int = 2, **overrides: object) -> Engine:
    """An engine after some rounds of random play: the server has a memory in the last of them."""
    engine = make_engine(kind, **overrides)
    for t in range(n_rounds):
        engine.step(random_sets(engine.num_envs, N, K, seed=t))
    return engine


class Played:
    """The last of some rounds of random play, with what stood before it."""

    def __init__(self, kind: str, n_rounds: int = 2, **overrides: object) -> None:
        self.engine = played(kind, n_rounds - 1, **overrides)
        self.theta, self.state, self.prospect = self.engine.theta.clone(), self.engine.server_state, self.engine.prospect
        self.result = self.engine.step(random_sets(self.engine.num_envs, N, K, seed=n_rounds - 1))
        self.round = self.engine.round

    @property
    def start(self) -> Tensor:
        """Parameters after the round if nobody had taken part, ``(E, P)``."""
        return self.theta + self.result.gamma[:, None] * self.change(torch.zeros_like(self.theta))

    @property
    def entering(self) -> Tensor:
        """What each agent brings to the step before the server sees it, ``(E, N, P)``."""
        entering = torch.zeros(self.engine.num_envs, N, self.theta.shape[1], dtype=torch.float64)
        for e in range(self.engine.num_envs):
            total = 0.0
            for i in range(N):
                for k in range(K):
                    if self.result.admitted[e, i, k]:
                        share = self.prospect.proposals.share[e, i, k]
                        entering[e, i] += share * self.prospect.proposals.updates[e, i, k]
                        total += float(share)
            if self.engine.scenario.weights == "participants" and total > 0:
                entering[e] /= total
        return entering

    def change(self, step: Tensor) -> Tensor:
        """What the server adds to θ for a step, ``(E, P)``, before the guard."""
        server, state = self.engine.scenario.server, self.state
        if server.kind == "sgd":
            return server.momentum * state.first + server.lr * step
        first = server.beta1 * state.first + (1 - server.beta1) * step
        second = server.beta2 * state.second + (1 - server.beta2) * step**2
        return server.lr * first / (second.sqrt() + server.tau)


# what sets of lots would have gained


@pytest.mark.parametrize("kind", KINDS)
def test_the_admitted_lots_of_a_coalition_are_worth_what_the_coalition_is(kind: str) -> None:
    engine = make_engine(kind)
    guarded = False
    for t in range(3):
        result = engine.step(random_sets(E, N, K, seed=t))
        coalitions = coalition_matrix(N)
        lots = result.admitted[:, None] & coalitions[None, :, :, None]
        v = engine.round.game.values()
        torch.testing.assert_close(engine.round.lots.value(lots), v, rtol=0, atol=1e-10)
        torch.testing.assert_close(engine.round.lots.value(result.admitted[:, None])[:, 0], result.gain, rtol=0, atol=1e-10)
        assert v.abs().max() > 1e-4
        guarded |= bool((result.gamma < 1).any())
    assert guarded == kind.startswith("guard")


@pytest.mark.parametrize("kind", KINDS)
def test_sets_that_differ_between_environments_are_each_worth_what_they_are_alone(kind: str) -> None:
    now = Played(kind, num_envs=3)
    asked = random_sets(3, 5, N, K, seed=7, share=0.5)
    values = now.round.lots.value(asked)
    for c in range(5):
        for e in range(3):
            everywhere = asked[e, c].expand(3, 1, N, K)
            torch.testing.assert_close(now.round.lots.value(everywhere)[e, 0], values[e, c], rtol=0, atol=1e-10)
    assert len(values.unique()) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_of_lots_is_worth_what_brute_force_says(kind: str) -> None:
    now = Played(kind)
    engine, look, rows = now.engine, now.prospect, now.engine.splits.validation
    asked = random_sets(E, 6, N, K, seed=3, share=0.5)
    asked[:, 0] = True  # also what was not contributed, and what was not admitted
    asked[:, 1] = False
    values = now.round.lots.value(asked)

    def utility(theta: Tensor) -> Tensor:
        logits = engine.model.logits(theta, rows.x)
        if engine.scenario.utility == "accuracy":
            return (logits.argmax(dim=-1) == rows.y).double().mean(dim=-1)
        return -torch.stack([cross_entropy(of_env, rows.y) for of_env in logits])

    before = utility(now.start)
    for c in range(6):
        share = asked[:, c] * look.proposals.share
        step = (share[..., None] * look.proposals.updates).sum(dim=(1, 2))
        if engine.scenario.weights == "participants":
            step /= share.sum(dim=(1, 2)).clamp(min=1e-300)[:, None]
        after = utility(now.theta + now.result.gamma[:, None] * now.change(step))
        torch.testing.assert_close(values[:, c], after - before, rtol=0, atol=1e-10)
    assert values[:, 1].abs().max() <= 1e-12


@pytest.mark.parametrize("kind", UNGUARDED)
def test_lots_that_were_not_contributed_are_worth_what_they_gain_where_they_are(kind: str) -> None:
    # nobody screens in the other engine, so that inadmissible lots are tried too; in the first round only admissible lots are contributed
    here, there = make_engine(kind), make_engine(kind, **{"screening.governance": "none", "screening.quorum": 0.5})
    first = here.prospect.passes & random_sets(E, N, K, seed=0)
    here.step(first)
    theta = here.theta.clone()
    here.step(random_sets(E, N, K, seed=1, share=0.4))
    withheld = 0
    for seed in range(4):
        tried = random_sets(E, N, K, seed=10 + seed) & here.round.lots.candidates if seed < 2 else random_sets(E, N, K, seed=10 + seed)
        there.reset(range(10, 10 + E))
        there.step(first)
        torch.testing.assert_close(there.theta, theta, rtol=0, atol=0)
        result = there.step(tried)
        tried &= result.contributed  # in a virtual batch, lots without rows are not available
        torch.testing.assert_close(here.round.lots.value(tried[:, None])[:, 0], result.gain, rtol=0, atol=1e-10)
        withheld += int((tried & ~here.round.contributed).sum())
    assert withheld > 0


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_are_the_lots_that_are_admitted_if_everything_is_contributed(kind: str) -> None:
    here, there = make_engine(kind), make_engine(kind)
    first = random_sets(E, N, K, seed=0)
    for engine, second in ((here, random_sets(E, N, K, seed=1, share=0.4)), (there, torch.ones(E, N, K, dtype=torch.bool))):
        engine.step(first)
        engine.step(second)
    assert here.round.lots.candidates.equal(there.round.admitted)
    assert here.round.admitted.equal(here.round.lots.candidates & here.round.contributed)


def test_no_sets_and_no_coalitions_are_worth_an_empty_answer() -> None:
    for kind in ("softmax", "mlp, adam, participants"):
        engine = make_engine(kind)
        asked: list[tuple[int, ...]] = []

        class Asks(credit.CreditRule):
            def assign(self, round: Round) -> Tensor:
                asked.append(tuple(round.value(torch.zeros(0, N, dtype=torch.bool)).shape))  # noqa: B023  # used within the turn
                asked.append(tuple(round.lots.value(torch.zeros(E, 0, N, K, dtype=torch.bool)).shape))  # noqa: B023
                return round.gain[:, None].expand(-1, N)

        engine.rule = Asks()
        result = engine.step(torch.ones(E, N, K, dtype=torch.bool))
        assert asked == [(E, 0), (E, 0)]
        assert result.evaluations == 1


def test_evaluations_of_a_round_count_sets_of_lots() -> None:
    class FirstLots(credit.CreditRule):
        """Pays agents what their first lots alone would have gained."""

        def assign(self, round: Round) -> Tensor:
            alone = torch.zeros(N, N, K, dtype=torch.bool)
            alone[range(N), range(N), 0] = True
            return round.lots.value(alone.expand(round.num_envs, -1, -1, -1))

    engine = make_engine("softmax", FirstLots())
    result = engine.step(torch.ones(E, N, K, dtype=torch.bool))
    assert result.evaluations == N  # what they cost the rule; the gain of the record is nobody's cost
    assert (result.credit != 0).all()


# who would let what through

GOVERNANCES: dict[str, dict[str, object]] = {
    "none": {"governance": "none"},
    "own": {"governance": "own"},
    "unanimous": {"governance": "unanimous"},
    "a third": {"governance": "quorum", "quorum": 1 / 3},
    "half": {"governance": "quorum", "quorum": 0.5},
    "two thirds": {"governance": "quorum", "quorum": 2 / 3},
    "three quarters": {"governance": "quorum", "quorum": 0.75},
    "all": {"governance": "quorum", "quorum": 1.0},
}


def lets_through(screening: dict[str, object], blocked_by: Tensor, e: int, i: int, k: int, members: list[int]) -> bool:
    """Whether the members let lot k of agent i, one of them, through: a loop that knows only the manual."""
    against = [j for j in members if blocked_by[e, i, k, j]]
    match screening["governance"]:
        case "none":
            return True
        case "own":
            return i not in against
        case "unanimous":
            return not against
        case _:
            return len(members) - len(against) >= float(str(screening["quorum"])) * len(members) - 1e-9


@pytest.mark.parametrize("governance", GOVERNANCES)
@pytest.mark.parametrize("num_envs", [1, 3])
def test_every_coalition_lets_through_what_the_governance_says(num_envs: int, governance: str) -> None:
    screening = GOVERNANCES[governance]
    engine = make_engine("softmax", num_envs=num_envs, screening=screening)
    stopped = 0
    for t in range(2):
        result = engine.step(random_sets(num_envs, N, K, seed=t, share=0.8))
        through = engine.round.let_through(coalition_matrix(N))
        assert through.shape == (num_envs, 2**N, N, K)
        for c, coalition in enumerate(coalition_matrix(N)):
            members = [i for i in range(N) if coalition[i]]
            for e in range(num_envs):
                for i in range(N):
                    for k in range(K):
                        offered = i in members and bool(result.contributed[e, i, k])
                        expected = offered and lets_through(screening, result.blocked_by, e, i, k, members)
                        assert bool(through[e, c, i, k]) == expected, (c, e, i, k)
                        stopped += offered and not expected
    assert (stopped > 0) == (governance != "none")


@pytest.mark.parametrize("governance", GOVERNANCES)
def test_everybody_lets_through_what_was_admitted(governance: str) -> None:
    engine = make_engine("softmax", num_envs=5, screening=GOVERNANCES[governance])
    for t in range(3):
        result = engine.step(random_sets(5, N, K, seed=t, share=0.8))
        assert engine.round.let_through(EVERYBODY)[:, 0].equal(result.admitted)


def test_under_two_governances_alone_and_together_differ() -> None:
    own = make_engine("softmax", num_envs=5, screening={"governance": "own"})
    unanimous = make_engine("softmax", num_envs=5, screening={"governance": "unanimous"})
    for engine in (own, unanimous):
        engine.step(torch.ones(5, N, K, dtype=torch.bool))
    alone = torch.eye(N, dtype=torch.bool)
    assert own.round.let_through(alone).equal(unanimous.round.let_through(alone))
    together = unanimous.round.let_through(EVERYBODY)[:, 0]
    assert (together & ~own.round.let_through(EVERYBODY)[:, 0]).sum() == 0
    assert together.sum() < own.round.admitted.sum()


@pytest.mark.parametrize("governance", GOVERNANCES)
def test_an_update_that_is_not_finite_is_let_through_by_nobody(governance: str) -> None:
    engine = make_engine("softmax", screening=GOVERNANCES[governance], **{"substrate.local_lr": 1e308})
    contributed = torch.ones(E, N, K, dtype=torch.bool)
    finite = engine.prospect.finite
    result = engine.step(contributed)
    assert not finite.all()
    through = engine.round.let_through(coalition_matrix(N))
    assert not (through & ~finite[:, None]).any()
    assert through[:, -1].equal(result.admitted)


# curvature


@pytest.mark.parametrize("kind", SMOOTH)
def test_curvature_is_what_the_gradient_does_along_a_direction(kind: str) -> None:
    now = Played(kind)
    start = now.start
    torch.testing.assert_close(now.round.utility_gradient(), now.engine.utility_gradient(start), rtol=0, atol=1e-12)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(start.shape, dtype=torch.float64, generator=generator)
        direction /= direction.norm(dim=1, keepdim=True)
        h = 1e-5
        expected = (now.engine.utility_gradient(start + h * direction) - now.engine.utility_gradient(start - h * direction)) / (2 * h)
        curvature = now.round.utility_curvature(direction)
        assert not curvature.requires_grad
        torch.testing.assert_close(curvature, expected, rtol=0, atol=1e-8)
        assert curvature.norm(dim=1).min() > 1e-4
        gradient, along = now.round.utility_expansion(direction)  # the same two, together
        torch.testing.assert_close(gradient, now.round.utility_gradient(), rtol=0, atol=1e-14)
        assert torch.equal(along, curvature)


def test_curvature_by_default_is_at_the_shared_parameters_linear_and_symmetric() -> None:
    for kind in ("softmax", "mlp, momentum"):
        engine = played(kind)
        a, b = torch.randn(2, *engine.theta.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        of_a, of_b = engine.utility_curvature(a), engine.utility_curvature(b)
        torch.testing.assert_close(of_a, engine.utility_curvature(a, engine.theta), rtol=0, atol=0)
        torch.testing.assert_close(engine.utility_curvature(2 * a - 3 * b), 2 * of_a - 3 * of_b, rtol=0, atol=1e-12)
        torch.testing.assert_close((a * of_b).sum(dim=1), (b * of_a).sum(dim=1), rtol=0, atol=1e-10)
        if kind == "softmax":  # minus a convex loss
            assert ((a * of_a).sum(dim=1) < 0).all()


def test_accuracy_has_neither_gradient_nor_curvature() -> None:
    engine = played("accuracy")
    with pytest.raises(ValueError, match="utility='accuracy' has no gradient: use utility: neg_log_loss"):
        engine.round.utility_gradient()
    with pytest.raises(ValueError, match="utility='accuracy' has no gradient: use utility: neg_log_loss"):
        engine.round.utility_curvature(engine.theta)


# the class head


@pytest.mark.parametrize("kind", ["softmax", "mlp, momentum"])
def test_a_parameter_of_a_class_moves_only_the_logit_of_that_class(kind: str) -> None:
    engine = played(kind)
    head, model, x = engine.round.class_head, engine.model, engine.splits.test.x[:9]
    assert head.shape == (model.n_parameters,)
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(1, model.n_parameters, dtype=torch.float64, generator=generator)
    for c in range(model.n_classes):
        moved = theta + (head == c) * torch.randn(1, model.n_parameters, dtype=torch.float64, generator=generator)
        change = (model.logits(moved, x) - model.logits(theta, x))[0].abs().amax(dim=0)  # (C,)
        assert change[c] > 0.1
        assert change[torch.arange(model.n_classes) != c].max() == 0
    of_head = 7 * 10 if kind.startswith("mlp") else model.n_parameters
    assert int((head >= 0).sum()) == of_head
    assert torch.bincount(head[head >= 0]).tolist() == [of_head // 10] * 10


# what peers gain


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("rows", [8, (3, 9, 1, 5)], ids=["equal lots", "unequal lots"])
def test_peers_gain_what_each_part_alone_lowers_the_loss_on_their_rows_by(rows: int | tuple[int, ...], kind: str) -> None:
    now = Played(kind, **{"lots.rows": rows})
    engine, start, parts = now.engine, now.start, now.round.updates
    gains = now.round.peer_gains
    assert gains.shape == (E, N, N)
    expected = torch.zeros(E, N, N, dtype=torch.float64)
    for e in range(E):
        for j in range(N):
            x = [engine.lots.x[e, j, k, r] for k in range(K) for r in range(int(engine.lots.samples[j, k]))]
            y = [engine.lots.y[e, j, k, r] for k in range(K) for r in range(int(engine.lots.samples[j, k]))]

            def loss(theta: Tensor, x: list[Tensor] = x, y: list[Tensor] = y) -> Tensor:
                return cross_entropy(engine.model.logits(theta[None], torch.stack(x))[0], torch.stack(y))

            for i in range(N):
                expected[e, j, i] = loss(start[e]) - loss(start[e] + parts[e, i])
    torch.testing.assert_close(gains, expected, rtol=0, atol=1e-12)
    assert gains.abs().max() > 1e-3
    idle = ~now.round.admitted.any(dim=-1)  # who has no part in the step changes nobody's loss
    assert gains.transpose(1, 2)[idle].abs().sum() == 0


@pytest.mark.parametrize("kind", ["softmax", "mlp, adam, participants", "guard, momentum, quorum"])
def test_facilities_of_an_environment_do_not_depend_on_the_batch(kind: str) -> None:
    batch = make_engine(kind, num_envs=5)
    singles = [Engine(make(kind), None, dtype=torch.float64) for _ in range(5)]
    asked, direction = random_sets(5, 4, N, K, seed=5), torch.randn(batch.theta.shape, dtype=torch.float64)
    for e, single in enumerate(singles):
        single.reset([10 + e])
    for t in range(2):
        actions = random_sets(5, N, K, seed=t)
        batch.step(actions)
        for e, single in enumerate(singles):
            single.step(actions[e : e + 1])
            facilities: list[Callable[[Round, slice], Tensor]] = [
                lambda r, envs: r.peer_gains,
                lambda r, envs: r.updates,
                lambda r, envs: r.lots.value(asked[envs]),
                lambda r, envs: r.utility_curvature(direction[envs]),
            ]
            for facility in facilities:
                together, alone = facility(batch.round, slice(None))[e], facility(single.round, slice(e, e + 1))[0]
                torch.testing.assert_close(alone, together, rtol=0, atol=1e-11)
            for ask in (lambda r: r.lots.candidates, lambda r: r.let_through(coalition_matrix(N))):
                assert ask(single.round)[0].equal(ask(batch.round)[e])


# each agent's part in the step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rounds", [1, 2, 3])
def test_parts_sum_to_the_step_less_what_the_server_s_memory_brings_and_are_as_what_enters(n_rounds: int, kind: str) -> None:
    now = Played(kind, n_rounds)
    parts, entering = now.round.updates, now.entering
    torch.testing.assert_close(now.start + parts.sum(dim=1), now.engine.theta, rtol=0, atol=1e-12)
    for i in range(N):
        for j in range(i):  # p_i / d_i = p_j / d_j, coordinate by coordinate
            torch.testing.assert_close(parts[:, i] * entering[:, j], parts[:, j] * entering[:, i], rtol=0, atol=1e-14)
    if n_rounds == 1:
        torch.testing.assert_close(now.start, now.theta, rtol=0, atol=0)
        torch.testing.assert_close(parts.sum(dim=1), now.engine.theta - now.theta, rtol=0, atol=1e-12)
    assert parts.abs().max() > 1e-4
    assert parts[~now.result.admitted.any(dim=-1)].abs().sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [1e-8, 1e-3])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.0, 0.99), (0.9, 0.0), (0.5, 0.5)])
def test_adam_s_parts_sum_to_what_it_adds_for_steps_of_any_size(betas: tuple[float, float], tau: float, dtype: torch.dtype) -> None:
    server = Adam(lr=0.1, beta1=betas[0], beta2=betas[1], tau=tau)
    generator = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.randint(-8, 3, (3, 1, 200), generator=generator).to(dtype)
    entering = sizes * torch.randn(3, 4, 200, dtype=dtype, generator=generator)
    entering[..., ::7] = 0  # coordinates that nobody moves
    entering[:, 1, 1::7] = -entering[:, 0, 1::7]  # and that two move against each other
    entering[:, 2:, 1::7] = 0
    first = torch.randn(3, 200, dtype=dtype, generator=generator)
    second = first.square() + torch.rand(3, 200, dtype=dtype, generator=generator)
    first[:, ::5], second[:, ::5] = 0, 0  # and that nobody has moved before
    for state in (server.start(first), ServerState(first, second)):
        parts = server.parts(entering, state)
        none = server.delta(torch.zeros(3, 1, 200, dtype=dtype), state)
        expected = (server.delta(entering.sum(dim=1, keepdim=True), state) - none)[:, 0]
        eps = torch.finfo(dtype).eps
        slack = 20 * eps * (none[:, 0].abs() + expected.abs() + parts.abs().sum(dim=1))  # the difference loses what the parts keep
        assert ((parts.sum(dim=1) - expected).abs() <= slack).all()
        assert parts.isfinite().all()
        assert parts[..., ::7].abs().sum() == 0


def test_one_coordinate_of_adam_by_hand() -> None:
    # m = 2, v = 4; steps 1 and 3, so d = 4; β₁ = β₂ = ½, η = 1, τ = 1
    # f(d) = (½·2 + ½·4) / (√(½·4 + ½·16) + 1) = 3 / (√10 + 1), f(0) = 1 / (√2 + 1); shared 1 : 3
    server = Adam(lr=1.0, beta1=0.5, beta2=0.5, tau=1.0)
    state = ServerState(torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[4.0]], dtype=torch.float64))
    parts = server.parts(torch.tensor([[[1.0], [3.0]]], dtype=torch.float64), state)
    change = 3 / (10**0.5 + 1) - 1 / (2**0.5 + 1)
    assert parts.flatten().tolist() == pytest.approx([change / 4, 3 * change / 4], abs=1e-15)


# what lots earn, in the faces


class ByLot(credit.LotRule):
    """Pays the lots of an agent unequally: lot k of agent i gets (i + 1)·(k + 1), if it was admitted."""

    source = "a test"

    def assign_lots(self, round: Round) -> Tensor:
        size = torch.arange(1, N + 1)[:, None] * torch.arange(1, K + 1)
        return round.admitted * size.to(round.updates.dtype)


@pytest.mark.parametrize("rule", ["data_size", "own"])
def test_infos_say_what_each_lot_earned(rule: str) -> None:
    env = cooperative_v0.parallel_env(make("softmax", **{"lots.rows": (3, 9, 1, 5)}), "data_size" if rule == "data_size" else ByLot())
    for episode in range(2):
        _, infos = env.reset(seed=3 if episode == 0 else None)
        for agent in env.possible_agents:
            assert infos[agent]["lot_credit"].tolist() == [0.0] * K
        some = 0.0
        while env.agents:
            actions = {agent: np.array([1, i % 2]) for i, agent in enumerate(env.agents)}
            _, _, _, _, infos = env.step(actions)
            for i, agent in enumerate(env.possible_agents):
                earned = infos[agent]["lot_credit"]
                assert earned.shape == (K,)
                assert float(earned.sum()) == pytest.approx(infos[agent]["credit"], abs=1e-7)
                assert earned[~infos[agent]["admitted"]].tolist() == [0.0] * int((~infos[agent]["admitted"]).sum())
                if rule == "own":
                    assert earned.tolist() == [(i + 1) * (k + 1) * infos[agent]["admitted"][k] for k in range(K)]
                some += abs(infos[agent]["credit"])
        assert some > 0


def test_what_infos_say_may_be_written_to() -> None:
    env = cooperative_v0.parallel_env(make("softmax"), "data_size")
    env.reset(seed=3)
    _, _, _, _, infos = env.step({agent: np.ones(K, dtype=np.int64) for agent in env.agents})
    before = env.engine.history[-1].lot_credit
    assert before is not None
    kept = before.clone()
    for agent in env.agents:
        infos[agent]["lot_credit"][:] = 7
    assert before.equal(kept)


def test_rules_that_cannot_tell_say_nothing_of_lots() -> None:
    env = cooperative_v0.parallel_env(make("softmax"), "shapley")
    _, infos = env.reset(seed=3)
    _, _, _, _, later = env.step({agent: np.ones(K, dtype=np.int64) for agent in env.agents})
    for agent in env.possible_agents:
        assert "lot_credit" not in infos[agent]
        assert "lot_credit" not in later[agent]
    masked = cooperative_v0.parallel_env(make("softmax"), "data_size", infos="mask")
    _, infos = masked.reset(seed=3)
    assert all(set(info) == {"action_mask"} for info in infos.values())


def test_results_hold_what_lots_earned_of_an_agent_s_credit_or_nothing() -> None:
    for rule in (None, "shapley", "normalised(rule='data_size')"):
        engine = make_engine("softmax", rule)
        assert engine.step(torch.ones(E, N, K, dtype=torch.bool)).lot_credit is None
    engine = make_engine("softmax", "data_size")
    for t in range(3):
        result = engine.step(random_sets(E, N, K, seed=t))
        assert result.lot_credit is not None
        assert result.lot_credit.dtype == torch.float64
        torch.testing.assert_close(result.lot_credit.sum(dim=-1), result.credit, rtol=0, atol=1e-15)
        torch.testing.assert_close(result.lot_credit.sum(dim=(1, 2)), result.gain, rtol=0, atol=1e-15)
        assert result.lot_credit[~result.admitted].abs().sum() == 0


@pytest.mark.parametrize("rule", ["data_size", "own", "shapley"])
def test_observed_lot_credit_is_the_running_mean_of_what_each_lot_earned(rule: str) -> None:
    # in reward units per contribution; under rules that cannot tell, an agent's admitted lots have equal parts
    made = make("softmax", **{"lots.rows": (3, 9, 1, 5), "reward.scale": 0.3 if rule == "own" else 20.0})
    engine = Engine(made, ByLot() if rule == "own" else rule, E, dtype=torch.float64)
    observations = engine.reset(range(E))
    assert engine.layout.lot(observations, "credit").abs().sum() == 0
    earned, times = torch.zeros(E, N, K).double(), torch.zeros(E, N, K)
    for t in range(3):
        result = engine.step(random_sets(E, N, K, seed=t))
        for e in range(E):
            for i in range(N):
                admitted = [k for k in range(K) if result.admitted[e, i, k]]
                rows = [(3, 9, 1, 5)[j] for j in range(N) for k in range(K) if result.admitted[e, j, k]]
                for k in admitted:
                    parts = {
                        "data_size": float(result.gain[e]) * (3, 9, 1, 5)[i] / sum(rows),
                        "own": (i + 1) * (k + 1),
                        "shapley": float(result.credit[e, i]) / len(admitted),
                    }
                    earned[e, i, k] += engine.reward_scale * parts[rule]
        times += result.contributed
        seen = engine.layout.lot(result.observations, "credit")
        torch.testing.assert_close(seen, (earned / times.clamp(min=1)).float(), rtol=1e-6, atol=1e-6)
        assert seen.abs().max() > 1e-2
        assert seen.abs().max() < 10  # beyond it, observations are clipped


# rules that need what the cooperative has not

BENT = """
from torch import nn

def bent(n_features, n_classes):
    return nn.Sequential(nn.Linear(n_features, n_classes), nn.Tanh())
"""


class Needy(credit.CreditRule):
    """Needs what it is told to need, and pays nobody."""

    source = "a test"

    def __init__(self, *needs: credit.round.Need) -> None:
        self.needs = needs

    def assign(self, round: Round) -> Tensor:
        return torch.zeros_like(round.gain)[:, None].expand(-1, round.num_agents)


@pytest.fixture
def bent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """A cooperative whose model's last layer is not linear."""
    (tmp_path / "proxycoop_test_bent.py").write_text(BENT)
    monkeypatch.syspath_prepend(tmp_path)
    return make("softmax", model={"kind": "module", "factory": "proxycoop_test_bent:bent"})


def refused(made: Scenario, rule: credit.CreditRule, need: str, remedy: str) -> None:
    for wrapped in (rule, credit.make("normalised", rule=rule), credit.make("clipped", rule=credit.make("smoothed", rule=rule))):
        assert wrapped.needs == rule.needs
        name = type(wrapped).__name__
        with pytest.raises(ValueError, match=f"(?i)credit rule '{name}' cannot serve scenario '{made.name}': .*no {need}: .*{remedy}"):
            Engine(made, wrapped)


def test_a_model_without_a_class_head_refuses_rules_that_need_one(bent: Scenario) -> None:
    refused(bent, Needy("lots", "class_head"), "class_head", "the model's last layer must be linear, with one output a class")
    engine = Engine(bent, Needy("lots", "peer_gains", "utility_gradient", "utility_curvature"), dtype=torch.float64)
    engine.reset([0])
    engine.step(torch.ones(1, N, K, dtype=torch.bool))
    assert engine.round.peer_gains.abs().max() > 0
    with pytest.raises(ValueError, match="no class_head: the model's last layer must be linear"):
        engine.round.class_head  # noqa: B018


def test_a_horizontal_cooperative_refuses_rules_that_need_columns() -> None:
    refused(make("softmax"), Needy("columns"), "columns", "principals must hold columns of the same rows: substrate vertical")


@pytest.mark.parametrize("need", ["utility_gradient", "utility_curvature"])
def test_a_utility_of_answers_refuses_rules_that_need_derivatives(need: credit.round.Need) -> None:
    refused(make("accuracy"), Needy(need), need, "differentiable: neg_log_loss rather than accuracy")
    assert Engine(make("softmax"), Needy(need)).rule is not None


@pytest.mark.parametrize("kind", ["softmax", "accuracy"])
def test_lots_and_peers_are_there_in_every_cooperative(kind: str) -> None:
    engine = Engine(make(kind), Needy("lots", "peer_gains", "class_head"))
    engine.reset([0])
    engine.step(torch.ones(1, N, K, dtype=torch.bool))
    assert engine.round.lots.candidates.any()
    assert engine.round.peer_gains.isfinite().all()
    assert engine.round.class_head.shape == engine.theta.shape[1:]


def test_sets_of_lots_stay_finite_where_renormalised_steps_are_too_long_for_exponentials() -> None:
    settings = {"weights": "participants", "screening.governance": "none", "profiles": [], "substrate.local_lr": 4.0, "horizon": 1}
    made = scenario.load("breast_cancer", **{"reward.scale": 1.0, **settings}).unlimited()
    worths = []
    for dtype in (torch.float32, torch.float64):
        engine = Engine(made, None, 4, dtype=dtype)
        engine.reset(range(4))
        alone = torch.zeros(4, 6, 4)
        alone[2, 5, 2] = 1  # a step of one lot, with the weight of all
        engine.step(alone)
        worths.append(engine.round.lots.value(engine.round.admitted[:, None]).double())
    assert worths[1][2] < -10
    torch.testing.assert_close(worths[0], worths[1], rtol=1e-4, atol=1e-4)
