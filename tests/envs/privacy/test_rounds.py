"""Rounds of noised updates: what leaves proxies, what the server makes of it, and what it costs in privacy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.linalg import vector_norm

from proxycoop.envs import Engine, episode_metrics, scenario
from proxycoop.envs.metrics import metric_names
from proxycoop.envs.privacy import epsilon


def engine_of(privacy: dict[str, Any] | None, num_envs: int = 2, rule: str | None = "shapley", **overrides: Any) -> Engine:
    settings = {"horizon": 4, "reward.scale": 100.0, "privacy": privacy} | overrides
    return Engine(scenario.load("digits", **settings), rule, num_envs, dtype=torch.float64)


def test_without_noise_updates_are_shortened_and_nothing_else_changes():
    plain, clipped = engine_of(None), engine_of({"clip": 0.3, "noise_multiplier": 0.0})
    for engine in (plain, clipped):
        engine.reset([1, 2])
    proposed, sent = plain.prospect.proposals.updates, clipped.prospect.proposals.updates
    norm = vector_norm(proposed, dim=-1, keepdim=True)
    torch.testing.assert_close(sent, proposed * (0.3 / norm).clamp(max=1))
    long = engine_of({"clip": 1e6, "noise_multiplier": 0.0})
    long.reset([1, 2])
    assert torch.equal(long.prospect.proposals.updates, proposed)


def test_noised_updates_are_all_that_screening_aggregation_and_credit_see():
    engine = engine_of({"clip": 0.5, "noise_multiplier": 0.1}, **{"screening.governance": "none"})
    engine.reset([1, 2])
    theta, look = engine.theta, engine.prospect
    quiet = engine_of({"clip": 0.5, "noise_multiplier": 0.0}, **{"screening.governance": "none"})
    quiet.reset([1, 2])
    noise = look.proposals.updates - quiet.prospect.proposals.updates
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)
    torch.testing.assert_close(look.norm, vector_norm(look.proposals.updates, dim=-1))
    result = engine.step(torch.ones(2, 6, 4))
    share = look.proposals.share / (look.proposals.share.sum(dim=(1, 2), keepdim=True) if engine.scenario.weights == "participants" else 1)
    step = torch.einsum("enk,enkp->ep", share, look.proposals.updates)
    torch.testing.assert_close(engine.theta - theta, engine.scenario.server.lr * step)
    torch.testing.assert_close(result.gain, result.utility - engine.initial_utility)
    torch.testing.assert_close(result.credit.sum(dim=1), result.gain)


def test_a_noised_step_moves_the_model_and_credit_is_of_the_step_without_noise():
    settings = {"screening.governance": "none", "weights": "fixed"}
    noised, quiet = (engine_of({"clip": 0.5, "noise_multiplier": sigma, "noise": "step"}, **settings) for sigma in (2.0, 0.0))
    moved = []
    for engine in (noised, quiet):
        engine.reset([1, 2])
        before = engine.theta
        engine.step(torch.ones(2, 6, 4))
        moved.append(engine.theta - before)
    torch.testing.assert_close(noised.history[0].credit, quiet.history[0].credit)
    noise = (moved[0] - moved[1]) / noised.scenario.server.lr
    assert float(noise.std()) == pytest.approx(2.0 * 0.5 / 24, rel=0.05)


@pytest.mark.parametrize("noise", ["updates", "step"])
def test_batches_play_as_single_cooperatives_and_rounds_draw_anew(noise):
    privacy = {"clip": 0.5, "noise_multiplier": 0.1, "noise": noise}
    both, one = engine_of(privacy, weights="fixed"), engine_of(privacy, 1, weights="fixed")
    both.reset([7, 8])
    one.reset([8])
    for _ in range(3):
        whole, single = both.step(torch.ones(2, 6, 4)), one.step(torch.ones(1, 6, 4))
        torch.testing.assert_close(both.theta[1], one.theta[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(whole.rewards[1], single.rewards[0], atol=1e-10, rtol=0)


def test_a_twin_of_a_noised_update_is_its_twin_and_costs_no_more_privacy():
    conduct = {"forgeries": [{"kind": "twin", "of": 0}, {"kind": "stale", "of": 0}]}
    engine = engine_of({"clip": 0.5, "noise_multiplier": 0.5}, conduct=conduct)
    engine.reset([1, 2])
    updates = engine.prospect.proposals.updates
    assert torch.equal(updates[:, :, 4], updates[:, :, 0])
    chosen = torch.zeros(2, 6, 6, dtype=torch.bool)
    chosen[:, 0, [0, 4]] = True  # a lot and its twin
    chosen[:, 1, 0] = True
    chosen[:, 2, [0, 5]] = True  # a lot, and an update of an earlier round
    for _ in range(2):
        engine.step(chosen)
    spent = episode_metrics(engine)["epsilon"]
    torch.testing.assert_close(spent[:, 0], spent[:, 1])
    assert float(spent[0, 1]) == pytest.approx(float(epsilon(2, 0.5, 1e-5)))
    assert float(spent[0, 2]) == pytest.approx(float(epsilon(3, 0.5, 1e-5)))  # nothing was sent before the first round
    assert not spent[:, 3:].any()


def test_without_noise_there_is_no_metric_because_nothing_is_promised():
    engine = engine_of({"clip": 0.5, "noise_multiplier": 0.0})
    engine.reset([1, 2])
    engine.step(torch.ones(2, 6, 4))
    assert "epsilon" not in episode_metrics(engine)
    assert "epsilon" not in metric_names(engine.scenario)
    noised = engine_of({"clip": 0.5, "noise_multiplier": 0.5})
    assert "epsilon" in metric_names(noised.scenario)


def test_what_an_episode_costs_is_that_of_the_lot_that_was_sent_most_often():
    engine = engine_of({"clip": 0.5, "noise_multiplier": 1.5, "delta": 1e-6})
    engine.reset([1, 2])
    for t in range(4):
        chosen = torch.zeros(2, 6, 4, dtype=torch.bool)
        chosen[:, 0, 0] = True
        chosen[:, 1, t % 2] = True
        engine.step(chosen)
    spent = episode_metrics(engine)["epsilon"]
    expected = torch.tensor([float(epsilon(n, 1.5, 1e-6)) for n in (4, 2, 0, 0, 0, 0)], dtype=torch.float64)
    torch.testing.assert_close(spent, expected.expand(2, -1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"privacy": {"clip": 0}}, r"privacy.clip: .*greater than 0"),
        ({"privacy": {"noise": "steps"}}, r"privacy.noise: .*'updates' or 'step'"),
        ({"privacy": {"noise": "step"}, "weights": "participants"}, r"privacy.noise: noise=step does not go with weights=participants"),
        ({"privacy": {"noise": "step"}, "weights": "fixed", "aggregator": {"kind": "median"}}, r"aggregator.kind=median"),
        ({"privacy": {"noise": "step"}, "weights": "fixed", "admission": {"capacity": 4}}, r"leave admission out"),
        ({"privacy": {}, "lots.holders": 2}, r"lots.holders: holders=2: privacy protects one lot"),
        ({"privacy": {}, "conduct": {"identities": [{"principal": 0, "split": 2, "lots": "copied"}]}}, r"conduct.identities"),
        ({"privacy": {"epsilon": 3}}, r"unknown key 'privacy.epsilon'"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        scenario.load("digits", **changes)


def test_compiled_rounds_have_no_privacy():
    with pytest.raises(ValueError, match="compile=True cannot serve scenario 'digits': privacy"):
        Engine(scenario.load("digits", privacy={}), "loo", compile=True)


@pytest.mark.parametrize("kind", ["echo", "noise", "little_is_enough", "inner_product"])
def test_what_reads_the_updates_of_all_lots_releases_them_all(kind):
    engine = engine_of({"clip": 0.5, "noise_multiplier": 0.5}, conduct={"forgeries": [{"kind": kind}]}, **{"screening.governance": "none"})
    engine.reset([1, 2])
    chosen = torch.zeros(2, 6, 5, dtype=torch.bool)
    chosen[0, 1, 4] = True  # in the first cooperative alone
    chosen[:, 2, 0] = True
    for _ in range(2):
        engine.step(chosen)
    spent = episode_metrics(engine)["epsilon"]
    n_sent = int(engine.history[0].contributed[0, 1, 4]) + int(engine.history[1].contributed[0, 1, 4])  # there is no echo at first
    assert n_sent in (1, 2)
    one = float(epsilon(n_sent, 0.5, 1e-5))
    assert spent[0, [0, 1, 3, 4, 5]].tolist() == pytest.approx([one] * 5)
    assert spent[0, 2] == pytest.approx(float(epsilon(2, 0.5, 1e-5)))
    assert spent[1].tolist() == pytest.approx([0, 0, float(epsilon(2, 0.5, 1e-5)), 0, 0, 0])


@pytest.mark.parametrize(("choose", "reads"), [("equal_shares", True), ("fair_lottery", True), ("turns", False), ("by_gain", False)])
def test_mechanisms_that_ask_what_updates_do_for_everybody_s_data_release_all_lots(choose, reads):
    engine = engine_of({"clip": 0.5, "noise_multiplier": 0.5}, admission={"capacity": 4, "choose": choose})
    engine.reset([1, 2])
    for _ in range(2):
        engine.step(torch.zeros(2, 6, 4))
    spent = episode_metrics(engine)["epsilon"]
    assert spent.unique().tolist() == pytest.approx([float(epsilon(2, 0.5, 1e-5)) if reads else 0.0])


def test_a_mechanism_that_reads_all_updates_releases_those_of_agents_that_are_present():
    more = {"participation": {"sample": 2}, "horizon": 6, "weights": "fixed"}
    engine = engine_of({"clip": 0.5, "noise_multiplier": 0.5}, admission={"capacity": 4, "choose": "equal_shares"}, **more)
    engine.reset([1, 2])
    for _ in range(6):
        engine.step(torch.zeros(2, 6, 4))
    n_present = torch.stack([result.attended for result in engine.history]).sum(dim=0)  # (E, N)
    assert n_present.unique().numel() > 2
    torch.testing.assert_close(episode_metrics(engine)["epsilon"].double(), epsilon(n_present, 0.5, 1e-5), rtol=1e-6, atol=0)


def test_a_noised_step_does_not_go_with_forgeries_of_what_all_others_learned():
    for kind in ("little_is_enough", "inner_product"):
        with pytest.raises(ValueError, match=f"noise=step does not go with the forgery {kind}"):
            scenario.load("digits", weights="fixed", privacy={"noise": "step"}, conduct={"forgeries": [{"kind": kind}]})
