"""Proxies can be trained under every credit rule: nothing that PPO sees or becomes is NaN or infinite."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from proxycoop import credit
from proxycoop.envs import scenario
from proxycoop.training.evaluate import agent_maker, evaluate
from proxycoop.training.libraries import sb3
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

# 16 rounds of 6 agents; an update sees 16 episodes
COOPERATIVE = scenario.load("breast_cancer")
VERTICAL = scenario.load("breast_cancer-vertical", principals=6, **{"lots.per_principal": 4})  # for rules that need columns
OURS = [name for name in credit.RULES if credit.RULES[name].__module__.startswith("proxycoop.")]
# 40 of 63 coalitions, so that something is drawn
SAMPLED = [f"{name}(budget=40)" for name in OURS if isinstance(credit.make(name), credit.Estimator)]


class WatchedPPO(PPO):
    """PPO that looks at everything before and after each update."""

    updates = 0

    def train(self) -> None:
        """One update."""
        for name in ("rewards", "returns", "advantages", "values", "observations"):
            assert np.isfinite(getattr(self.rollout_buffer, name)).all(), name
        super().train()
        losses = {name: value for name, value in self.logger.name_to_value.items() if name.startswith("train/") and name.endswith("loss")}
        assert {"train/loss", "train/value_loss", "train/policy_gradient_loss", "train/entropy_loss"} <= losses.keys()
        assert all(math.isfinite(value) for value in losses.values()), losses
        assert all(parameter.isfinite().all() for parameter in self.policy.parameters())
        WatchedPPO.updates += 1


@pytest.mark.slow
@pytest.mark.parametrize("rule", [*OURS, *SAMPLED])
def test_ppo_trains_under_the_rule_and_what_it_learned_can_be_evaluated(rule, tmp_path, monkeypatch):
    monkeypatch.setattr(sb3, "PPO", WatchedPPO)
    monkeypatch.setattr(WatchedPPO, "updates", 0)
    cooperative = VERTICAL if "columns" in credit.make(rule).needs else COOPERATIVE
    settings = settings_for(scenario=cooperative, credit=rule, total_steps=10_000)
    told = []
    folder = train(settings, tmp_path / "run", progress=lambda *what: told.append(what), tensorboard=False)
    assert WatchedPPO.updates == len(told) == math.ceil(10_000 / (16 * 16 * 6))
    assert all(math.isfinite(value) for _, _, metrics in told for value in metrics.values())
    network = torch.load(folder / "policy.pt", weights_only=True)["network"]
    assert all(parameter.isfinite().all() for parameter in network.values())

    evaluation = evaluate(cooperative, rule, agent_maker("learned", path=folder), episodes=4, seed=900)
    undefined = {"pearson_shapley"}  # where all agents get the same
    if cooperative is VERTICAL:
        undefined |= {"copy_gain", "split_gain"}  # a column has one name
    for name, estimate in evaluation.measures.items():
        if name not in undefined:
            assert estimate.mean is not None, name
        assert estimate.mean is None or math.isfinite(estimate.mean), name
    assert all(np.isfinite(np.array(series)).all() for series in evaluation.series.values())
