"""These tests need ray, which lives in a virtual environment of its own: ``make compat`` runs them."""

import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ray.rllib", reason="ray is an extra: make compat")

import ray
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.rllib.utils.pre_checks.env import check_multiagent_environments

from proxycoop import agents
from proxycoop.envs import Engine, cooperative_v0, scenario
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.libraries.rllib import CooperativeMultiAgentEnv, LotModule, _ray, _tidy, configure, model_config
from proxycoop.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-multi-agent-env-v0:UserWarning")  # RLlib's, by its own calls
FORMS = ["multi_discrete", "discrete"]


@pytest.fixture(scope="module")
def small():
    return scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])


@pytest.fixture(scope="module")
def scarce():
    """Small batches, so that many a lot has nothing to contribute in a round."""
    return scenario.load("digits", substrate={"kind": "traversal", "lr": 0.4, "batch": 10}, horizon=6)


@pytest.fixture(scope="module")
def running_ray():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def settings(small, **changes):
    return settings_for("rllib", **{"scenario": small, "credit": "loo", "total_steps": 400, "num_cooperatives": 4, **changes})


def weights(folder):
    return torch.load(folder / "policy.pt", weights_only=True)["network"]


def curve(folder):
    return json.loads((folder / "curve.json").read_text())["updates"]


def environment(cooperative, runner=0, **changes):
    config = {"scenario": cooperative, "credit": "loo", **changes}
    return CooperativeMultiAgentEnv(EnvContext(config, worker_index=runner, num_workers=2))


@contextmanager
def built(settings):
    algorithm = configure(settings).build_algo()
    yield algorithm
    algorithm.stop()
    _tidy(Path(algorithm.logdir))


def available(env):
    """Which lots, forgeries and levers there is anything of, as the engine has it: (N, K)."""
    return env.par_env.engine.prospect.choosable[0].numpy()


def pairs(lots):
    """The lots (…, K) that an action contributes, or a mask allows, as pairs *withhold, contribute*."""
    return np.stack([np.ones_like(lots), lots], axis=-1).reshape(*lots.shape[:-1], -1)


def codes(lots):
    """Which of the 2**K codes contribute none but these lots (…, K)."""
    allowed = (lots * 2 ** np.arange(lots.shape[-1])).sum(axis=-1)[..., None]
    every = np.arange(2 ** lots.shape[-1])
    return (every & ~allowed) == 0


@pytest.mark.parametrize("which", ["small", "tempted"])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("actions", FORMS)
def test_rllibs_environment_checker_passes(request, actions, masks, which):
    env = environment(request.getfixturevalue(which), actions=actions, masks=masks)
    check_multiagent_environments(env)
    observations, infos = env.reset(seed=1)
    done = False
    while not done:  # the checker plays one round only, and looks at no observation
        assert list(observations) == list(infos) == env.agents == [0, 1, 2]
        assert all(env.get_observation_space(agent).contains(seen) for agent, seen in observations.items())
        observations, _, terminations, _, infos = env.step({agent: env.get_action_space(agent).sample() for agent in observations})
        done = terminations["__all__"]


@pytest.mark.parametrize("which", ["small", "tempted"])
def test_rllibs_own_wrapper_takes_the_pettingzoo_face_as_it_is(request, which):
    check_multiagent_environments(ParallelPettingZooEnv(cooperative_v0.parallel_env(request.getfixturevalue(which), "loo")))


def test_it_plays_what_the_pettingzoo_face_plays_and_ends_by_termination(small):
    env = environment(small)
    face = cooperative_v0.parallel_env(small, "loo")
    env.reset(seed=5)
    face.reset(seed=int(env.par_env.engine.seeds[0]))
    for round_ in range(small.horizon):
        actions = {name: face.action_space(name).sample() for name in face.agents}
        theirs = face.step(actions)
        observations, rewards, terminations, truncations, _ = env.step({int(name[-1]): action for name, action in actions.items()})
        for name in actions:
            assert np.array_equal(observations[int(name[-1])], theirs[0][name])
            assert rewards[int(name[-1])] == theirs[1][name]
        assert set(terminations.values()) == {round_ == small.horizon - 1}
        assert set(truncations.values()) == {False}
        assert set(terminations) == set(truncations) == {0, 1, 2, "__all__"}


def test_team_rewards_are_the_mean_of_the_own_ones(small):
    own, team = environment(small), environment(small, rewards="team")
    for env in (own, team):
        env.reset(seed=3)
    for agent in own.agents:
        own.get_action_space(agent).seed(agent)
    for _ in range(small.horizon):
        actions = {agent: own.get_action_space(agent).sample() for agent in own.agents}
        mine, ours = own.step(actions)[1], team.step(actions)[1]
        assert len(set(mine.values())) > 1
        assert list(ours.values()) == pytest.approx([np.mean(list(mine.values()))] * 3, abs=1e-5)


def test_runners_play_other_cooperatives_though_rllib_hands_them_the_same_seeds(small):
    seeds = []
    for runner in (1, 2):
        env = environment(small, runner)
        env.reset(seed=7)
        seeds.append(int(env.par_env.engine.seeds[0]))
        env.reset(seed=7)
        assert int(env.par_env.engine.seeds[0]) == seeds[-1]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize("which", ["scarce", "tempted"])
@pytest.mark.parametrize("actions", FORMS)
def test_masks_say_what_there_is_anything_to_choose_of(request, actions, which):
    cooperative = request.getfixturevalue(which)
    env = environment(cooperative, actions=actions, masks=True)
    observations, _ = env.reset(seed=0)
    some_are_missing = False
    for _ in range(cooperative.horizon):
        lots = available(env)
        some_are_missing |= not lots.all()
        expected = pairs(lots) if actions == "multi_discrete" else codes(lots)
        for agent, seen in observations.items():
            assert np.array_equal(seen["action_mask"].astype(bool), expected[agent])
        observations = env.step({agent: env.get_action_space(agent).sample() for agent in env.agents})[0]
    assert some_are_missing


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("actions", FORMS)
def test_the_module_draws_independent_coins_for_the_lots_that_its_mask_allows(small, actions, masks):
    env = environment(small, actions=actions, masks=masks)
    config = model_config(small, "loo", hidden=8)
    module = RLModuleSpec(
        module_class=LotModule,
        observation_space=env.get_observation_space(0),
        action_space=env.get_action_space(0),
        model_config=config,
    ).build()
    torch.nn.init.normal_(module.network.decide.weight)
    n_lots, width = small.lots.per_principal, config["n_lot_features"]
    raw = torch.randn(64, env.par_env.observation_space("proxy_0").shape[0], generator=torch.Generator().manual_seed(0))
    allowed = torch.rand(64, n_lots, generator=torch.Generator().manual_seed(1)) < 0.6
    flat = torch.from_numpy((pairs if actions == "multi_discrete" else codes)(allowed.numpy()))
    batch = {Columns.OBS: {"observations": raw, "action_mask": flat.to(torch.int8)} if masks else raw}

    mean, deviation = (torch.tensor(config[name]) for name in ("mean", "variance"))
    mean, deviation = (torch.cat([part[:width].repeat(n_lots), part[width:]]) for part in (mean, (deviation + 1e-8).sqrt()))
    normalised = ((raw - mean) / deviation).clamp(-10, 10)
    coin = module.network.logits(normalised).sigmoid()  # (B, K)
    if masks:
        coin = coin * allowed
    drawn = module.get_exploration_action_dist_cls().from_logits(module.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS])
    chosen = drawn.sample()
    lots = chosen if actions == "multi_discrete" else chosen[:, None] >> torch.arange(n_lots) & 1
    assert bool((lots.bool() & ~allowed).any()) != masks
    assert torch.allclose(drawn.logp(chosen), torch.where(lots.bool(), coin, 1 - coin).log().sum(dim=1), atol=1e-4)
    surprise = torch.special.entr(coin) + torch.special.entr(1 - coin)
    assert torch.allclose(drawn.entropy(), surprise.sum(dim=1), atol=1e-4)
    assert torch.allclose(module.compute_values(batch), module.network.state_value(normalised))
    trained = module.get_train_action_dist_cls().from_logits(module.forward_train(batch)[Columns.ACTION_DIST_INPUTS])
    (trained.logp(chosen) + trained.entropy()).mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in (*module.network.actor.parameters(), *module.network.decide.parameters()))


@pytest.mark.parametrize(("which", "n_items"), [("scarce", 4), ("tempted", 7)])
@pytest.mark.parametrize("actions", FORMS)
def test_no_masked_action_is_taken_in_training(request, actions, which, n_items, running_ray):
    cooperative = request.getfixturevalue(which)
    taken = {}
    for masks in (False, True):
        with built(settings(cooperative, actions=actions, masks=masks, num_cooperatives=2, total_steps=72)) as algorithm:
            env = algorithm.env_runner.env.envs[0].unwrapped
            step, taken[masks] = env.step, 0

            def count(action_dict, env=env, step=step, masks=masks):
                for agent, action in action_dict.items():
                    lots = np.asarray(action) if actions == "multi_discrete" else int(action) >> np.arange(n_items) & 1
                    taken[masks] += int((lots.astype(bool) & ~available(env)[agent]).sum())
                return step(action_dict)

            env.step = count
            for _ in range(3):
                algorithm.train()
    assert taken[True] == 0
    assert taken[False] > 0


def test_metrics_are_means_over_the_episodes_of_all_runners(small, running_ray):
    with built(settings(small, num_env_runners=2)) as algorithm:
        played = algorithm.train()["env_runners"]
    assert played["num_episodes"] == 4
    assert small.principals * played["cooperative"]["return"] == pytest.approx(played["episode_return_mean"])
    assert played["num_agent_steps_sampled_lifetime"] == {str(agent): 4 * small.horizon for agent in range(3)}


@pytest.mark.parametrize(("actions", "masks"), [("multi_discrete", False), ("discrete", True)])
def test_proxies_learn_to_contribute_clean_lots_and_to_withhold_corrupt_ones(small, tmp_path, actions, masks, running_ray):
    folder = train(
        settings(small, total_steps=20_000, num_cooperatives=16, actions=actions, masks=masks), tmp_path / "run", tensorboard=False
    )
    engine = Engine(small, "loo", 32)
    learned = agents.play(engine, agents.make("learned", path=folder), range(900, 932))
    random = agents.play(engine, agents.make("random"), range(900, 932))
    assert float(learned["corrupt_share"].mean()) < 0.2
    assert float(learned["clean_share"].mean()) > 0.4
    assert float(learned["welfare"].mean()) > float(random["welfare"].mean()) + 5


@pytest.mark.parametrize(("actions", "masks"), [("multi_discrete", True), ("discrete", True), ("discrete", False)])
def test_proxies_train_with_forgeries_and_a_lever_and_play_what_they_learned(tempted, tmp_path, actions, masks, running_ray):
    space = environment(tempted, actions=actions, masks=masks).get_action_space(0)
    assert space == (spaces.MultiDiscrete([2] * 7) if actions == "multi_discrete" else spaces.Discrete(2**7))
    folder = train(settings(tempted, actions=actions, masks=masks), tmp_path / "run", tensorboard=False)
    assert torch.load(folder / "policy.pt", weights_only=True)["lot_features"][-4:] == ["is/lot", "is/echo", "is/twin", "is/lax"]
    assert all(min(point["sent/echo"], point["sent/twin"], point["pulled/lax"]) > 0 for point in curve(folder))
    learned = agents.make("learned", path=folder)
    played = agents.play(Engine(tempted, "loo", 16), learned, range(16))
    assert all((played[name] > 0).any() for name in ("sent/echo", "sent/twin", "pulled/lax"))


def test_another_agent_takes_a_seat_beside_what_was_learned_but_not_in_training(tempted, tmp_path, running_ray):
    learned = agents.make("learned", path=train(settings(tempted), tmp_path / "run", tensorboard=False))
    engine = Engine(tempted, "loo", 16)
    agents.play(engine, agents.Seats(learned, {1: agents.make("all")}), range(16))
    sent = torch.stack([result.contributed for result in engine.history])  # (T, E, N, U)
    assert sent[:, :, 1, :4].all()
    assert not sent[:, :, 1, 4:].any()
    assert sent[:, :, [0, 2], 4:].any()
    with pytest.raises(ValueError, match="'rllib' cannot train around agents in fixed seats: leave out the seats and the scenario's pop"):
        settings(tempted, seats=("1=all",))
    populated = scenario.load("breast_cancer", population=[{"agent": "all", "seats": [1]}])
    with pytest.raises(ValueError, match="'rllib' cannot train around agents in fixed seats"):
        train(settings(populated), tmp_path / "other", tensorboard=False)


def test_steps_and_metrics_are_the_same_whoever_plays(small, tmp_path, running_ray):
    alone, shared = (
        curve(train(settings(small, num_env_runners=runners), tmp_path / str(runners), tensorboard=False)) for runners in (0, 2)
    )
    update = 4 * small.horizon * small.principals
    for told in (alone, shared):
        assert [point["agent_steps"] for point in told] == [n * update for n in range(1, -(-400 // update) + 1)]
    engine = Engine(small, "loo", 1)
    expected = agents.play(engine, agents.make("random"), [0])
    for point in (*alone, *shared):
        assert point.keys() == {"agent_steps", *expected}
        assert all(np.isfinite(value) for value in point.values())
    assert ray.is_initialized()  # whose it was


def test_the_same_seed_trains_the_same_policy_and_another_seed_another(small, tmp_path, running_ray):
    first, again, other = (
        weights(train(settings(small, seed=seed), tmp_path / name, tensorboard=False)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_same_seed_gives_the_same_run_in_any_process_with_a_rule_of_ones_own_and_leaves_no_ray_and_no_logs_behind(tmp_path):
    (tmp_path / "rules_by_hand.py").write_text("""
from proxycoop import credit

@credit.RULES.register("by_hand")
class ByHand(credit.GameRule):
    def divide(self, game):
        return credit.make("loo").values(game)
""")
    script = """
import sys
from pathlib import Path
import ray, torch
import rules_by_hand
from proxycoop.envs import scenario
from proxycoop.training.libraries import settings_for
from proxycoop.training.train import train

small = scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])
settings = settings_for("rllib", scenario=small, credit="by_hand", total_steps=200, num_cooperatives=4, num_env_runners=2)
train(settings, sys.argv[1], tensorboard=False)
print(ray.is_initialized(), torch.are_deterministic_algorithms_enabled(), (Path.home() / "ray_results").exists())
"""
    folders = []
    for hashes in (1, 2):
        home = tmp_path / f"home-{hashes}"
        home.mkdir()
        folders.append(tmp_path / f"run-{hashes}")
        told = subprocess.run(
            [sys.executable, "-c", script, str(folders[-1])],
            env={**os.environ, "PYTHONHASHSEED": str(hashes), "HOME": str(home), "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout == "False False False\n"
        assert told.stderr == ""
    first, again = map(weights, folders)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert curve(folders[0]) == curve(folders[1])


@pytest.mark.parametrize(("address", "asked"), [(None, {"address": "local", "num_cpus": 3, "include_dashboard": False}), ("head:6379", {})])
def test_a_ray_is_started_only_where_no_address_names_one(monkeypatch, address, asked):
    """Ray refuses to be told of processors where it does not start itself."""
    calls = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **arguments: calls.append(arguments))
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(KeyError), _ray(num_env_runners=2):
        raise KeyError
    assert calls == [{**asked, "log_to_driver": False, "logging_level": logging.ERROR}, "shutdown"]


def test_settings_arrive_at_rllib_under_its_names(small):
    config = configure(settings(small, num_cooperatives=16, batch_size=100, num_env_runners=2, total_steps=1_000, learning_rate=0.01))
    assert config.num_env_runners == 2
    assert config.num_envs_per_env_runner == 8
    update = 16 * 6 * 3
    assert config.total_train_batch_size == update
    assert config.minibatch_size == (update + 16 * 3) // 3  # three of 96 agent-steps, and the rows that the loss leaves out
    assert config.lr == [[0, 0.01], [4 * 16 * 6, 0.0]]  # in rounds: four updates
    assert (config.num_epochs, config.gamma, config.lambda_, config.clip_param, config.entropy_coeff) == (6, 0.5, 0.95, 0.2, 0.003)
    assert isinstance(config.rl_module_spec.model_config["mean"], list)


def test_a_rule_that_other_processes_cannot_find_is_refused(small, monkeypatch):
    monkeypatch.setattr("proxycoop.training.libraries.rllib.modules_for", lambda scenario, rule, agents: ["__mp_main__"])
    with pytest.raises(ValueError, match=r"credit rule 'loo', or data or a value .* is defined in a script, where Ray's"):
        configure(settings(small, num_env_runners=2))
    configure(settings(small))


def test_cooperatives_that_runners_cannot_share_are_refused(small):
    with pytest.raises(ValueError, match="num_cooperatives=4 cannot be shared equally by num_env_runners=3: make it a multiple"):
        settings(small, num_env_runners=3)


def test_an_unknown_form_of_actions_or_argument_is_refused(small):
    with pytest.raises(ValueError, match="unknown action form 'continuous'"):
        environment(small, actions="continuous")
    with pytest.raises(TypeError, match="mask"):
        environment(small, mask=True)


def test_a_module_without_its_sizes_says_where_they_come_from(small):
    env = environment(small)
    spec = RLModuleSpec(module_class=LotModule, observation_space=env.get_observation_space(0), action_space=env.get_action_space(0))
    with pytest.raises(ValueError, match=r"model_config=model_config\(scenario, credit\)"):
        spec.build()


@pytest.mark.parametrize(("runners", "masks"), [(0, True), (2, False)])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(small, resumed, running_ray, runners, masks):
    resumed(settings(small, num_env_runners=runners, masks=masks, checkpoint_every=2), after=200)


def test_a_checkpoint_holds_tensors_and_plain_data(small, tmp_path, cut_off, running_ray):
    cut_off(settings(small, checkpoint_every=1), tmp_path / "run", after=100, tensorboard=False)
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert kept["versions"].keys() == {"proxycoop", "torch", "ray"}
    (position,) = kept["state"]["runners"].values()
    assert [episode for _, episode in position["places"]] == [1] * 4
