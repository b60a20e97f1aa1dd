"""The PettingZoo face."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pettingzoo
import pytest
import supersuit
import torch
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, render_test
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

import proxycoop.envs
from proxycoop.credit import RULES
from proxycoop.envs import Engine, cooperative_v0, episode_metrics, scenario
from proxycoop.envs.metrics import agent_metrics, metric_names, metrics_in

SCENARIOS = ("digits", "breast_cancer")
FORMS = ("multi_discrete", "discrete")
both = pytest.mark.parametrize("form", FORMS)
each = pytest.mark.parametrize("name", SCENARIOS)


@each
@both
def test_passes_pettingzoo_s_parallel_api_test(name, form):
    parallel_api_test(cooperative_v0.parallel_env(name, actions=form), num_cycles=40)


@each
@both
def test_passes_pettingzoo_s_api_test(name, form):
    with warnings.catch_warnings():
        # PettingZoo's test takes any action space but Box and Discrete for a likely mistake
        warnings.filterwarnings("ignore", "Action space for each agent probably should be", UserWarning)
        api_test(cooperative_v0.env(name, actions=form), num_cycles=200)


@each
@both
def test_passes_pettingzoo_s_parallel_seed_test(name, form):
    parallel_seed_test(lambda: cooperative_v0.parallel_env(name, actions=form))


@pytest.mark.parametrize(("name", "form"), [("digits", "multi_discrete"), ("breast_cancer", "discrete")])
def test_passes_pettingzoo_s_render_test(name, form):
    render_test(lambda **kwargs: cooperative_v0.env(name, actions=form, **kwargs))


def whole_episodes(env, seed, n_episodes=2):
    """Everything that two episodes of seeded random play show."""
    seen = []
    for episode in range(n_episodes):
        observations, infos = env.reset(seed=seed if episode == 0 else None)
        for i, agent in enumerate(env.possible_agents):
            env.action_space(agent).seed(7 * episode + i)
        seen.append((observations, infos))
        while env.agents:
            step = env.step({agent: env.action_space(agent).sample() for agent in env.agents})
            seen.append((*step, env.state()))
    return seen


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return np.array_equal(a, b)


@each
@both
def test_the_same_seed_gives_the_same_episodes_from_beginning_to_end(name, form):
    first, again = (whole_episodes(cooperative_v0.parallel_env(name, actions=form), seed=11) for _ in range(2))
    other = whole_episodes(cooperative_v0.parallel_env(name, actions=form), seed=12)
    assert same(first, again)
    assert not same(first, other)


def test_episodes_of_a_seed_differ():
    env = cooperative_v0.parallel_env("breast_cancer")
    first, _ = env.reset(seed=1)
    second, _ = env.reset()
    assert not same(first, second)


def test_a_reset_may_begin_with_any_episode_of_a_seed():
    env, other = (cooperative_v0.parallel_env("digits") for _ in range(2))
    env.reset(seed=1)
    env.reset()
    third, _ = env.reset()
    begun, _ = other.reset(seed=1, options={"episode": 2})
    assert all(np.array_equal(third[agent], begun[agent]) for agent in env.agents)
    fourth, begun = env.reset()[0], other.reset()[0]  # and what follows is the same
    assert all(np.array_equal(fourth[agent], begun[agent]) for agent in env.agents)
    for wrong, said in (({"seed": 1, "options": {"episode": -1}}, "episode=-1"), ({"options": {"episode": 2}}, "episode=2 needs seeds")):
        with pytest.raises(ValueError, match=said):
            env.reset(**wrong)


def test_unseeded_environments_differ():
    (a, _), (b, _) = (cooperative_v0.parallel_env("breast_cancer").reset() for _ in range(2))
    assert not same(a, b)


@both
def test_actions_reach_the_engine_as_they_are_meant(form):
    env = cooperative_v0.parallel_env("breast_cancer", actions=form)
    env.reset(seed=0)
    choices = {agent: [i % 2, 0, 1, (i + 1) % 2] for i, agent in enumerate(env.agents)}
    coded = choices if form == "multi_discrete" else {agent: sum(bit << k for k, bit in enumerate(bits)) for agent, bits in choices.items()}
    *_, infos = env.step(coded)
    for agent, bits in choices.items():
        assert infos[agent]["contributed"].tolist() == [bool(bit) for bit in bits]


def test_the_horizon_truncates_everybody_and_empties_agents():
    env = cooperative_v0.parallel_env(scenario.load("breast_cancer", horizon=2))
    env.reset(seed=0)
    act = {agent: [1, 1, 1, 1] for agent in env.agents}
    *_, truncations, _ = env.step(act)
    assert not any(truncations.values())
    observations, rewards, terminations, truncations, infos = env.step(act)
    assert all(truncations.values())
    assert not any(terminations.values())
    assert env.agents == []
    assert set(observations) == set(rewards) == set(infos) == set(env.possible_agents)
    assert infos["proxy_0"]["metrics/clean_share"] == 1.0


@pytest.mark.parametrize("changes", [{}, {"screening": {"governance": "negotiate"}}, {"settlement": {"period": 2}}])
def test_the_names_of_an_episode_s_metrics_are_known_before_it_is_played(changes):
    small = scenario.load("breast_cancer", horizon=2, **changes)
    env = cooperative_v0.parallel_env(small, "loo")
    _, infos = env.reset(seed=0)
    assert metrics_in(infos["proxy_1"]) == dict.fromkeys(metric_names(small), 0.0)
    act = {agent: [1, 1, 1, 1] for agent in env.agents}
    while env.agents:
        *_, infos = env.step(act)
    assert metrics_in(infos["proxy_1"]) == {name: float(measure[0, 1]) for name, measure in agent_metrics(env.engine).items()}
    assert list(episode_metrics(env.engine)) == metric_names(small)


def test_infos_have_the_same_names_and_shapes_in_every_round_and_keep_the_last_episode_s_metrics_until_another_seed():
    env = cooperative_v0.parallel_env(scenario.load("breast_cancer", horizon=2), "loo")
    first = env.reset(seed=0)
    act = {agent: [1, 1, 1, 1] for agent in env.agents}
    rounds = [first[1], env.step(act)[4], env.step(act)[4]]
    welfare = rounds[-1]["proxy_0"]["metrics/welfare"]
    assert welfare != 0
    rounds += [env.reset()[1], env.step(act)[4]]
    shapes = [{name: np.shape(told) for name, told in infos["proxy_0"].items()} for infos in rounds]
    assert all(shape == shapes[0] for shape in shapes)
    assert [infos["proxy_0"]["metrics/welfare"] for infos in rounds] == [0.0, 0.0, welfare, welfare, welfare]
    assert same(first, env.reset(seed=0))


@pytest.mark.filterwarnings("ignore:The `render_mode` attribute is not defined:UserWarning")  # by SuperSuit's vectors
def test_stable_baselines3_learns_through_supersuit_on_full_infos():
    supersuit = pytest.importorskip("supersuit")
    env = cooperative_v0.parallel_env(scenario.load("breast_cancer", horizon=4), "loo")
    vector = supersuit.concat_vec_envs_v1(supersuit.pettingzoo_env_to_vec_env_v1(env), 2, num_cpus=1, base_class="stable_baselines3")
    told = []

    def look(names, _):
        told.extend(info for info, done in zip(names["infos"], names["dones"], strict=True) if done)
        return True

    model = PPO("MlpPolicy", VecMonitor(vector), n_steps=4, batch_size=48, n_epochs=1, device="cpu").learn(48, callback=look)
    assert len(told) == len(model.ep_info_buffer) == 12
    for info, episode in zip(told, model.ep_info_buffer, strict=True):
        assert info["metrics/return"] == pytest.approx(episode["r"], abs=1e-4)  # the wrapper rounds it
    PPO("MlpPolicy", vector, n_steps=4, batch_size=48, n_epochs=1, device="cpu").learn(48)  # without VecMonitor nobody records returns


@both
@pytest.mark.parametrize(
    "kind",
    [
        lambda action: torch.tensor(action, dtype=torch.bfloat16),
        lambda action: torch.tensor(action, dtype=torch.float32, requires_grad=True),
        lambda action: np.asarray(action, dtype=">i8"),
        lambda action: np.asarray(action, dtype=np.float16),
    ],
)
def test_actions_may_be_tensors_with_gradients_and_numbers_of_any_precision(form, kind):
    env = cooperative_v0.parallel_env(scenario.load("breast_cancer", horizon=2), "loo", actions=form)
    env.reset(seed=0)
    action = [1, 0, 1, 1] if form == "multi_discrete" else 13
    *_, infos = env.step({agent: kind(action) for agent in env.agents})
    assert infos["proxy_5"]["contributed"].tolist() == [True, False, True, True]


def test_before_the_first_reset_there_is_nothing_to_look_at():
    env = cooperative_v0.parallel_env("breast_cancer", "loo")
    with pytest.raises(RuntimeError, match="state was called before the first reset: call reset first"):
        env.state()
    engine = Engine("breast_cancer", "loo")
    for look in (engine.state, engine.test, engine.utility_gradient, engine.predicted_gain, lambda: engine.credit_so_far):
        with pytest.raises(RuntimeError, match="was called before the first reset: call reset first"):
            look()


def test_infos_tell_each_proxy_its_credit_and_who_blocked_its_lots():
    env = cooperative_v0.parallel_env("digits")
    env.reset(seed=3)
    *_, infos = env.step({agent: [1, 1, 1, 1] for agent in env.agents})
    result = env.engine.history[-1]
    for i, agent in enumerate(env.possible_agents):
        info = infos[agent]
        assert info["credit"] == pytest.approx(float(result.credit[0, i]))
        assert np.array_equal(info["blocked_by"], result.blocked_by[0, i].numpy())
        assert np.array_equal(info["admitted"], info["contributed"] & ~info["blocked_by"].any(axis=1))
        assert np.array_equal(info["kept"], info["admitted"])  # nothing is mended here


def test_plain_infos_hold_nothing_but_the_mask():
    env = cooperative_v0.parallel_env("digits", actions="discrete", infos="mask")
    _, infos = env.reset(seed=0)
    assert all(set(info) == {"action_mask"} for info in infos.values())
    assert infos["proxy_0"]["action_mask"].shape == (16,)


@both
def test_masks_leave_out_lots_that_have_nothing_to_contribute(form):
    sparse = scenario.load("digits", substrate={"kind": "traversal", "lr": 0.4, "batch": 10})
    env = cooperative_v0.parallel_env(sparse, actions=form)
    _, infos = env.reset(seed=0)
    available = env.engine.prospect.available[0]
    assert not available.all()
    for i, agent in enumerate(env.agents):
        space, mask = env.action_space(agent), infos[agent]["action_mask"]
        for _ in range(20):
            choice = env._codec.decode(space.sample(mask), agent)
            assert not (choice & ~available[i]).any()
    *_, infos = env.step({agent: [1] * 4 if form == "multi_discrete" else 15 for agent in env.agents})
    for i, agent in enumerate(env.possible_agents):
        assert infos[agent]["contributed"].tolist() == available[i].tolist()


def test_observations_name_everything_and_stay_within_their_space():
    env = cooperative_v0.parallel_env("digits")
    layout = env.observation_layout()
    assert len(layout.slices) == layout.size == env.observation_space("proxy_0").shape[0]
    assert set(layout.describe()) >= {*layout.lot_features, *layout.agent_features}
    for observations, *_ in whole_episodes(env, seed=2, n_episodes=1):
        for agent, observation in observations.items():
            assert env.observation_space(agent).contains(observation)


def test_a_proxy_does_not_see_what_others_hold():
    """Another proxy's data may only show in what the cooperative announces."""
    engine, other = (Engine(scenario.load("breast_cancer"), "shapley") for _ in range(2))
    a, b = engine.reset([5]), other.reset([5], copies={4: 3})
    lots, theirs = engine.layout.split(a)[0][0, 0], engine.layout.split(b)[0][0, 0]
    changed = [name for j, name in enumerate(engine.layout.lot_features) if not (lots[:, j] == theirs[:, j]).all()]
    assert changed == ["norm"]  # relative to everybody's mean, which is announced


def test_registered_with_pettingzoo():
    env = pettingzoo.make("parallel", "proxycoop/cooperative-v0", scenario="breast_cancer", credit="loo")
    assert isinstance(env.unwrapped, cooperative_v0.CooperativeEnv)
    assert pettingzoo.make("aec", "proxycoop/cooperative-v0", scenario="breast_cancer").possible_agents == env.possible_agents


def test_a_pickled_environment_goes_on_where_it_was():
    env = cooperative_v0.parallel_env("digits")
    env.reset(seed=4)
    act = {agent: [1, 0, 1, 0] for agent in env.agents}
    env.step(act)
    twins = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    expected = env.step(act)
    for twin in twins:
        assert same(twin.step(act), expected)


def test_ansi_is_text_and_rgb_array_is_a_picture(capsys):
    for mode, check in (("ansi", lambda out: "proxy_5" in out), ("rgb_array", lambda out: out.dtype == np.uint8 and out.shape[2] == 3)):
        env = cooperative_v0.parallel_env("breast_cancer", render_mode=mode)
        env.reset(seed=0)
        assert check(env.render())
    env = cooperative_v0.parallel_env("breast_cancer", render_mode="human")
    env.reset(seed=0)
    env.step({agent: [1, 1, 1, 1] for agent in env.agents})
    assert "round 1/16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ([1, 0, 1], "proxy_1 has shape"),
        (1, "proxy_1 has shape"),
        ([0.5, 0, 0, 1], r"proxy_1 is \[0.5"),
        ([2, 0, 0, 1], r"proxy_1 is \[2"),
        ([-1, 0, 0, 1], r"proxy_1 is \[-1"),
        ([[1, 0, 0, 1]], r"proxy_1 has shape \(1, 4\): must have shape \(4,\), 4 numbers, each 0 or 1$"),
        (np.zeros((99, 99)), r"proxy_1 has shape \(99, 99\): must have shape \(4,\), 4 numbers, each 0 or 1$"),
        ([[1, 0], [1]], "proxy_1 is .*: must be 4 numbers"),
        (None, "proxy_1 is None: must be 4 numbers"),
        ([float("nan"), 0, 0, 1], "proxy_1 is"),
        (["a", "b", "c", "d"], "proxy_1 is"),
    ],
)
def test_a_wrong_action_is_refused_by_name(action, said):
    env = cooperative_v0.parallel_env("breast_cancer")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=said):
        env.step({agent: action if agent == "proxy_1" else [0, 0, 0, 0] for agent in env.agents})
    assert env.engine.t == 0


@pytest.mark.parametrize("action", [16, -1, 1.5])
def test_a_wrong_code_is_refused(action):
    env = cooperative_v0.parallel_env("breast_cancer", actions="discrete")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="from 0 to 15"):
        env.step(dict.fromkeys(env.agents, action))


def test_a_missing_action_is_named():
    env = cooperative_v0.parallel_env("breast_cancer")
    env.reset(seed=0)
    with pytest.raises(ValueError, match="missing for proxy_5"):
        env.step({agent: [0, 0, 0, 0] for agent in env.agents[:-1]})


def test_step_before_reset_and_after_the_end_say_so():
    env = cooperative_v0.parallel_env(scenario.load("breast_cancer", horizon=1))
    with pytest.raises(RuntimeError, match="before the first reset"):
        env.step({})
    env.reset(seed=0)
    env.step({agent: [0, 0, 0, 0] for agent in env.agents})
    with pytest.raises(RuntimeError, match="after the episode's 1 rounds"):
        env.step({})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scenario": "nope"}, "known ones are adult, adult-mean, adult-steep, breast_cancer, breast_cancer-hospitals"),
        ({"credit": "nope"}, f"known ones are {', '.join(RULES)}"),
        ({"actions": "continuous"}, "known ones are multi_discrete, discrete"),
        ({"infos": "some"}, "known ones are full, mask"),
        ({"render_mode": "gif"}, "known ones are human, ansi, rgb_array"),
    ],
)
def test_unknown_names_list_the_known(wrong, said):
    with pytest.raises(ValueError, match=said):
        cooperative_v0.parallel_env(**{"scenario": "breast_cancer", **wrong})


def test_twenty_one_agents_and_exact_shapley_are_refused_at_the_door():
    many = scenario.load("digits", principals=21, **{"lots.rows": 5, "reward.scale": 1.0})
    with pytest.raises(ValueError, match=r"at most 20 agents, got 21 \(2,097,152 coalitions a round\).*credit='loo' \(22\)"):
        cooperative_v0.parallel_env(many)
    assert len(cooperative_v0.parallel_env(many, credit="shapley(budget=60)").possible_agents) == 21


def test_public_names():
    assert proxycoop.envs.__all__ == [
        "Comparisons",
        "Engine",
        "ObservationLayout",
        "PopulationFit",
        "ProfileFit",
        "Scenario",
        "cooperative_v0",
        "episode_metrics",
        "fit_population",
        "fit_profile",
        "scenario",
    ]


def test_actions_and_spaces_of_agents_that_do_not_exist_are_refused():
    for env in (cooperative_v0.parallel_env("breast_cancer", "loo"), cooperative_v0.env("breast_cancer", "loo")):
        env.reset(seed=0)
        for ask in (env.observation_space, env.action_space):
            with pytest.raises(ValueError, match=r"unknown agent 'proxy_9'.*proxy_0, proxy_1"):
                ask("proxy_9")
    with pytest.raises(ValueError, match="unknown agent 'proxy_9'"):
        env.observe("proxy_9")
    parallel = cooperative_v0.parallel_env("breast_cancer", "loo")
    parallel.reset(seed=0)
    with pytest.raises(ValueError, match="unknown agent 'proxy_6'"):
        parallel.step({f"proxy_{i}": [1] * 4 for i in range(7)})


def test_in_turns_a_wrong_action_is_refused_at_once_and_can_be_given_again():
    env = cooperative_v0.env(scenario.load("breast_cancer", horizon=1), "loo")
    env.reset(seed=0)
    env.step([1] * 4)
    with pytest.raises(ValueError, match="action of proxy_1 is"):
        env.step([7] * 4)
    assert env.agent_selection == "proxy_1"
    for _ in range(5):
        env.step([1] * 4)
    with pytest.raises(ValueError, match=r"action of proxy_0 is .*its episode is over, so it must be None"):
        env.step([1] * 4)
    env.step(None)
    assert env.agents == [f"proxy_{i}" for i in range(1, 6)]


def test_supersuit_s_frame_skip_takes_it():
    env = supersuit.frame_skip_v0(cooperative_v0.parallel_env(scenario.load("breast_cancer", horizon=4), "loo"), 2)
    env.reset(seed=0)
    env.step({agent: [1] * 4 for agent in env.agents})
    assert env.unwrapped.engine.t == 2
