"""The server's rules recomputed by hand, alone and within rounds of a cooperative."""

import pytest
import torch
from torch import Tensor

from proxycoop.envs import Engine, scenario
from proxycoop.envs.model.server import Adam, Sgd


def run(server: Sgd | Adam, steps: list[float]) -> list[float]:
    """What the server adds to one parameter in answer to a sequence of steps."""
    state, added = server.start(torch.zeros(1, 1, dtype=torch.float64)), []
    for value in steps:
        step = torch.tensor([[value]], dtype=torch.float64)
        delta = server.delta(step[:, None], state)[:, 0]
        state = server.advance(step, state, delta)
        added.append(delta.item())
    return added


def test_plain_server_applies_the_step_times_its_learning_rate() -> None:
    assert run(Sgd(), [1.0, -2.0]) == [1.0, -2.0]
    assert run(Sgd(lr=0.5), [1.0, -2.0]) == [0.5, -1.0]


def test_momentum_by_hand() -> None:
    # m = 0.5·1 = 0.5;  0.9·0.5 + 0.5·(−2) = −0.55;  0.9·(−0.55) + 0 = −0.495
    assert run(Sgd(lr=0.5, momentum=0.9), [1.0, -2.0, 0.0]) == pytest.approx([0.5, -0.55, -0.495])


def test_adam_by_hand() -> None:
    # m = 0.1, v = 0.04 → 0.3·0.1/(0.2 + 0.1) = 0.1
    # m = 0.9·0.1 − 0.1·2 = −0.11, v = 0.99·0.04 − … with β₂ = 0.96: 0.96·0.04 + 0.04·4 = 0.1984
    server = Adam(lr=0.3, beta1=0.9, beta2=0.96, tau=0.1)
    assert run(server, [1.0, -2.0]) == pytest.approx([0.1, 0.3 * -0.11 / (0.1984**0.5 + 0.1)])


def test_adam_without_a_step_goes_on_by_its_first_moment() -> None:
    server = Adam(lr=1.0, beta1=0.5, beta2=0.75, tau=1.0)
    # m = 0.5, v = 0.25 → 0.5/1.5; then m = 0.25, v = 0.1875
    assert run(server, [1.0, 0.0]) == pytest.approx([1 / 3, 0.25 / (0.1875**0.5 + 1)])


def test_momentum_remembers_what_was_applied_and_adam_what_was_asked() -> None:
    zero, step, applied = (torch.full((1, 1), value) for value in (0.0, 1.0, 0.25))
    sgd = Sgd(momentum=0.9)
    assert sgd.advance(step, sgd.start(zero), applied).first.item() == 0.25
    adam = Adam(beta1=0.5, beta2=0.75)
    state = adam.advance(step, adam.start(zero), applied)
    assert (state.first.item(), state.second.item()) == (0.5, 0.25)


def test_coalitions_are_answered_from_one_memory_and_environments_keep_their_own() -> None:
    server = Sgd(lr=1.0, momentum=0.5)
    state = server.advance(torch.zeros(2, 1), server.start(torch.zeros(2, 1)), torch.tensor([[1.0], [3.0]]))
    steps = torch.tensor([[[0.0], [1.0]], [[0.0], [2.0]]])  # (E=2, C=2, P=1)
    assert server.delta(steps, state).tolist() == [[[0.5], [1.5]], [[1.5], [3.5]]]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"lr": 0}, "lr"),
        ({"lr": -1}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"lr": float("nan")}, "lr"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Sgd(**settings)


def aggregate(engine: Engine, actions: Tensor) -> Tensor:
    """Σ p Δ over what is contributed and passes, one lot at a time."""
    look, step = engine.prospect, torch.zeros_like(engine.theta)
    for e in range(engine.num_envs):
        for i in range(engine.num_agents):
            for k in range(engine.num_lots):
                if actions[e, i, k] and look.passes[e, i, k]:
                    step[e] += look.proposals.share[e, i, k] * look.proposals.updates[e, i, k]
    return step


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_five_rounds_of_a_cooperative_follow_the_rule(kind: str) -> None:
    server = {
        "sgd": {"kind": "sgd", "lr": 0.8},
        "momentum": {"kind": "sgd", "lr": 0.8, "momentum": 0.9},
        "adam": {"kind": "adam", "lr": 0.02, "beta1": 0.8, "beta2": 0.9, "tau": 0.01},
    }[kind]
    made = scenario.load("digits", server=server, **{"reward.scale": 1.0}).unlimited()
    engine = Engine(made, None, num_envs=2, dtype=torch.float64)
    engine.reset([1, 2])
    generator = torch.Generator().manual_seed(0)
    theta, first, second = engine.theta.clone(), torch.zeros_like(engine.theta), torch.zeros_like(engine.theta)
    for _ in range(5):
        actions = torch.rand(2, 6, 4, generator=generator) < 0.7
        step = aggregate(engine, actions)
        if kind == "adam":
            first, second = 0.8 * first + 0.2 * step, 0.9 * second + 0.1 * step**2
            theta = theta + 0.02 * first / (second.sqrt() + 0.01)
        else:
            first = (0.9 if kind == "momentum" else 0.0) * first + 0.8 * step
            theta = theta + first
        engine.step(actions)
        torch.testing.assert_close(engine.theta, theta)


def test_with_momentum_a_round_in_which_nobody_contributes_still_moves_the_model_but_earns_nobody_anything() -> None:
    server = {"kind": "sgd", "momentum": 0.9}
    engine = Engine(scenario.load("digits", server=server, **{"reward.scale": 1.0}), "shapley", dtype=torch.float64)
    engine.reset([1])
    start = engine.theta.clone()
    engine.step(torch.ones(1, 6, 4))
    once = engine.theta.clone()
    result = engine.step(torch.zeros(1, 6, 4))
    torch.testing.assert_close(engine.theta - once, 0.9 * (once - start))
    assert result.gain.abs().max() <= 1e-12
    assert result.credit.abs().max() <= 1e-12


def test_a_reset_forgets_the_servers_memory() -> None:
    engine = Engine(scenario.load("digits", server={"kind": "adam"}, **{"reward.scale": 1.0}), None)
    thetas = []
    for _ in range(2):
        engine.reset([1])
        engine.step(torch.ones(1, 6, 4))
        thetas.append(engine.theta)
    assert torch.equal(*thetas)


def weighted(weights: str) -> Engine:
    made = scenario.load("digits", weights=weights, **{"reward.scale": 1.0, "screening.governance": "none"})
    engine = Engine(made, None, dtype=torch.float64)
    engine.reset([9])
    return engine


def test_withholding_leaves_others_weight_alone_or_gives_it_to_them() -> None:
    some = torch.ones(1, 6, 4)
    some[0, 3] = 0
    for weights, factor in (("fixed", 1.0), ("participants", 24 / 20)):
        everyone, without = weighted(weights), weighted(weights)
        everyone.step(torch.ones(1, 6, 4))
        without.step(some)
        others = [0, 1, 2, 4, 5]
        torch.testing.assert_close(without.round.updates[:, others], factor * everyone.round.updates[:, others])
        assert not without.round.updates[:, 3].any()
        torch.testing.assert_close(without.theta, weighted(weights).theta + without.round.updates.sum(dim=1))


def test_nobody_contributing_changes_nothing_under_either_weights() -> None:
    for weights in ("fixed", "participants"):
        engine = weighted(weights)
        before = engine.theta.clone()
        result = engine.step(torch.zeros(1, 6, 4))
        assert torch.equal(engine.theta, before)
        assert result.gain.abs().max() <= 1e-12
        assert result.observations.isfinite().all()
