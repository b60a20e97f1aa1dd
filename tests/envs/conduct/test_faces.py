"""Forgeries and levers through the faces and the learners."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test

from proxycoop import agents
from proxycoop.agents import SeatEnv
from proxycoop.envs import Engine, cooperative_v0, scenario
from proxycoop.envs.rendering import render_picture, render_text
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

CONDUCT = {
    "forgeries": [{"kind": "echo"}, {"kind": "twin"}, {"kind": "blend"}],
    "levers": [{"kind": "claim"}, {"kind": "lax"}, {"kind": "quit"}],
}


@pytest.fixture(scope="module")
def tempted() -> scenario.Scenario:
    return scenario.load("digits", principals=4, horizon=4, conduct=CONDUCT, **{"reward.scale": 100.0, "lots.per_principal": 2})


@pytest.mark.parametrize("actions", ["multi_discrete", "discrete"])
def test_pettingzoo_s_checkers_pass(tempted, actions):
    made = {"scenario": tempted, "credit": "loo", "actions": actions}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel_api_test(cooperative_v0.parallel_env(**made), num_cycles=12)
        parallel_seed_test(lambda: cooperative_v0.parallel_env(**made))
        api_test(cooperative_v0.env(**made), num_cycles=20)


def test_many_items_are_played_bit_by_bit_and_too_many_for_codes_are_refused():
    made = scenario.load("digits", conduct={"forgeries": [{"kind": "noise"}] * 16}, **{"reward.scale": 1.0, "lots.per_principal": 8})
    env = cooperative_v0.parallel_env(made, "loo")
    env.reset(seed=0)
    env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    with pytest.raises(
        ValueError, match=r"actions='discrete' has a code for every set .*2\*\*24: have 16 at most \(lots.per_principal, conduct\)"
    ):
        cooperative_v0.parallel_env(made, "loo", actions="discrete")


def test_gymnasium_s_checker_passes(tempted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(SeatEnv(tempted, actions="discrete"), skip_render_check=True)


def test_masks_have_every_item_and_follow_what_there_is_to_choose(tempted):
    env = cooperative_v0.parallel_env(tempted, "loo")
    _, infos = env.reset(seed=1)
    assert env.action_space("proxy_0").nvec.tolist() == [2] * 8
    first = np.array(infos["proxy_0"]["action_mask"])[:, 1]
    assert first[[2, 4]].tolist() == [0, 0]  # there is no step to echo yet, and nothing to blend
    assert first[[0, 1, 3, 5, 7]].all()
    holds = env.unwrapped.engine.profiles.tolerates[0].tolist()
    assert [bool(np.array(infos[f"proxy_{i}"]["action_mask"])[6, 1]) for i in range(4)] == holds
    everything = np.ones(8, dtype=int)
    everything[7] = 0
    _, _, _, _, infos = env.step(dict.fromkeys(env.agents, everything) | {"proxy_2": np.ones(8, dtype=int)})
    assert not np.array(infos["proxy_2"]["action_mask"])[:, 1].any()  # it has left
    assert np.array(infos["proxy_0"]["action_mask"])[4, 1]
    assert len(infos["proxy_0"]["contributed"]) == 5


@pytest.mark.parametrize(
    ("library", "algo"),
    [("ippo", "ppo"), ("ippo", "grpo"), ("sb3", "ppo"), ("sb3", "dqn"), ("sb3-contrib", "maskable_ppo"), ("supersuit", "ppo")],
)
def test_learners_train_with_items_and_what_they_learned_plays_there_alone(tempted, tmp_path, library, algo):
    settings = settings_for(library, algo, scenario=tempted, credit="loo", total_steps=200, seed=1, num_cooperatives=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = train(settings, tmp_path / "run", tensorboard=False)
    learned = agents.make("learned", path=folder)
    engine = Engine(tempted, "loo", 2)
    metrics = agents.play(engine, learned, [1, 2])
    assert {"sent/echo", "sent/twin", "sent/blend", "pulled/claim", "pulled/lax", "pulled/quit"} <= metrics.keys()
    honest = tempted.model_copy(update={"conduct": None})
    with pytest.raises(ValueError, match="it reads is/lot, is/echo, is/twin, is/blend, is/claim, is/lax, is/quit"):
        agents.play(Engine(honest, "loo", 2), learned, [1, 2])


def test_a_seat_of_another_policy_and_a_learner_play_side_by_side(tempted):
    env = SeatEnv(tempted, "loo", seat=1)
    _, info = env.reset(seed=3)
    assert len(info["action_mask"]) == 16
    env.step(np.array([1, 1, 1, 1, 1, 1, 1, 0]))
    played = env.engine.history[-1]
    assert played.contributed[0, 1, 3]  # its twin
    assert not played.contributed[0, [0, 2, 3], 2:].any()


def test_what_was_forged_and_pulled_is_shown(tempted):
    engine = Engine(tempted, "in_run")
    engine.reset([0])
    assert "after the 2 lots: echo, twin, blend" in render_text(engine)
    chosen = torch.zeros(1, 4, 8, dtype=torch.bool)
    chosen[0, 1, [3, 5]] = True
    engine.step(chosen)
    text = render_text(engine)
    assert "pulled: proxy_1 claim" in text
    assert render_picture(engine).shape == (640, 960, 3)
