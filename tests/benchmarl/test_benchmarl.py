"""These tests need benchmarl, which lives in a virtual environment of its own: ``make compat`` runs them."""

import json
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("benchmarl.experiment", reason="benchmarl is an extra: make compat")

from benchmarl.algorithms import IppoConfig, MappoConfig, MasacConfig, QmixConfig, VdnConfig
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models import MlpConfig
from torch import nn
from torchrl.data import Bounded
from torchrl.envs import ActionMask, PettingZooWrapper, TransformedEnv
from torchrl.envs.utils import ExplorationType, check_env_specs, set_exploration_type

from proxycoop import agents
from proxycoop.envs import Engine, cooperative_v0, scenario
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.libraries import benchmarl as adapter
from proxycoop.training.libraries.benchmarl import CooperativeTask, LotModelConfig, episode_means
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.libraries.torchrl_env import CooperativeTorchRLEnv
from proxycoop.training.train import train

pytestmark = [
    pytest.mark.filterwarnings("ignore:SyncDataCollector has been deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested using version:UserWarning"),
]
ACTION, MASK = ("proxy", "action"), ("proxy", "action_mask")


@pytest.fixture(scope="module")
def small():
    return scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])


@pytest.fixture(scope="module")
def sparse():
    """Lots that some rounds have nothing of."""
    return scenario.load("digits", horizon=6, substrate={"kind": "traversal", "lr": 0.4, "batch": 10})


def settings(small, algo, **changes):
    return settings_for(
        "benchmarl",
        algo,
        **{"scenario": small, "credit": "loo", "total_steps": 600, "num_cooperatives": 4, "actions": "discrete", **changes},
    )


def weights(folder):
    return torch.load(folder / "policy.pt", weights_only=True)["network"]


class Watch(Callback):
    """Keeps what was collected."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_batch_collected(self, batch):
        self.batches.append(batch.clone())


def experiment(task, algorithm, folder, *, model=None, critic=None, callbacks=(), n_iterations=2, **changes):
    config = ExperimentConfig.get_from_yaml()
    for name, value in {
        "save_folder": str(folder),
        "loggers": [],
        "create_json": False,
        "evaluation": False,
        "render": False,
        "max_n_iters": n_iterations,
        "max_n_frames": None,
        "on_policy_collected_frames_per_batch": 24,
        "on_policy_n_envs_per_worker": 4,
        "on_policy_n_minibatch_iters": 1,
        "on_policy_minibatch_size": 12,
        "off_policy_collected_frames_per_batch": 24,
        "off_policy_n_envs_per_worker": 4,
        "off_policy_n_optimizer_steps": 2,
        "off_policy_train_batch_size": 12,
        "off_policy_memory_size": 100,
        **changes,
    }.items():
        setattr(config, name, value)
    model = model or LotModelConfig(**task.layout.sizes, hidden=8)
    return Experiment(task, algorithm.get_from_yaml(), model, 0, config, critic_model_config=critic, callbacks=list(callbacks))


@pytest.mark.parametrize(("which", "n_codes"), [("small", 2**4), ("tempted", 2**7)])
@pytest.mark.parametrize("num_cooperatives", [1, 8])
def test_torchrl_finds_nothing_wrong_with_the_environment(request, num_cooperatives, which, n_codes):
    cooperative = request.getfixturevalue(which)
    env = CooperativeTorchRLEnv(cooperative, "loo", num_cooperatives)
    assert env.full_action_spec[ACTION].space.n == env.full_observation_spec[MASK].shape[-1] == n_codes
    check_env_specs(env, break_when_any_done="both", seed=0)
    task = CooperativeTask(cooperative, "loo")
    check_env_specs(TransformedEnv(env, *task.get_env_transforms(env)), seed=0)
    check_env_specs(TransformedEnv(env, ActionMask(ACTION, MASK)), seed=0)


@pytest.mark.parametrize("which", ["small", "tempted"])
@pytest.mark.parametrize("infos", ["full", "mask"])
@pytest.mark.parametrize("form", ["discrete", "multi_discrete"])
@pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy.ndarrays:UserWarning")
def test_torchrl_finds_nothing_wrong_with_the_pettingzoo_face(request, form, infos, which):
    face = cooperative_v0.parallel_env(request.getfixturevalue(which), "loo", actions=form, infos=infos)
    env = PettingZooWrapper(face, return_state=True)
    check_env_specs(env, seed=0)
    for _ in range(2):
        rollout = env.rollout(100)
        assert rollout.batch_size == (6,)  # to the episode's end
        assert rollout["next", "done"][-1].all()
        if infos == "full":
            paid = rollout["next", "proxy", "reward"].sum(dim=0)[:, 0]
            assert torch.allclose(rollout["next", "proxy", "info", "metrics/return"][-1].flatten().float(), paid, atol=1e-5)


def test_the_page_on_torchrl_shows_what_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "rl" / "torchrl.md").read_text(encoding="utf-8")
    names = {}
    for shown, printed in re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        exec(compile(shown, "torchrl.md", "exec"), names)
        for want, got in zip(printed.splitlines(), capsys.readouterr().out.splitlines(), strict=True):
            assert got.startswith(want.rstrip("…"))


@pytest.mark.parametrize("which", ["sparse", "tempted"])
@pytest.mark.parametrize("rewards", ["own", "team"])
def test_the_environment_plays_what_the_other_vectorised_face_plays(request, rewards, which):
    cooperative = request.getfixturevalue(which)
    env = CooperativeTorchRLEnv(cooperative, "loo", 4, rewards=rewards, seed=5)
    rows = CooperativeVecEnv(cooperative, "loo", 4, actions="discrete", rewards=rewards, seed=5)
    codes, n_agents = torch.Generator().manual_seed(0), cooperative.principals
    before = env.reset()
    expected = torch.from_numpy(rows.reset())
    for t in range(2 * 6):
        assert torch.equal(before["proxy", "observation"].flatten(end_dim=1), expected)
        assert torch.equal(before["state"], expected.reshape(4, -1))
        assert torch.equal(before[MASK].flatten(end_dim=1), torch.from_numpy(rows.action_masks()))
        actions = torch.randint(2**env.engine.num_items, (4, n_agents), generator=codes)
        after, following = env.step_and_maybe_reset(before.set(ACTION, actions))
        observations, paid, dones, _ = rows.step(actions.flatten().numpy())
        expected = torch.from_numpy(observations)
        assert torch.equal(after["next", "proxy", "reward"].flatten(), torch.from_numpy(paid))
        assert after["next", "done"].all() == after["next", "terminated"].all() == dones.all() == (t % 6 == 5)
        told = after["next", "proxy", "info"]
        for name, measure in rows.last_episode.items() if t % 6 == 5 else ():
            assert torch.allclose(told[name][..., 0], measure.reshape(4, -1).float().expand(4, n_agents))
        if t % 6 < 5:
            assert all(each.isnan().all() for each in told.values())
        before = following


def test_a_seed_is_a_trajectory(small):
    env = CooperativeTorchRLEnv(small, "loo", 2)

    def play(seed):
        env.set_seed(seed)
        torch.manual_seed(0)
        return env.rollout(6)["next", "proxy", "reward"]

    assert torch.equal(play(1), play(1))
    assert not torch.equal(play(1), play(2))
    again = CooperativeTorchRLEnv(small, "loo", 2, seed=1)
    torch.manual_seed(0)
    assert torch.equal(again.rollout(6)["next", "proxy", "reward"], play(1))


def test_all_cooperatives_are_reset_or_none(small):
    env = CooperativeTorchRLEnv(small, "loo", 3, seed=0)
    state = env.reset()
    everybody = env.reset(state.clone().set("_reset", torch.ones(3, 1, dtype=torch.bool)))
    assert not torch.equal(everybody["state"], state["state"])  # the next episode
    with pytest.raises(ValueError, match="_reset names 1 of 3 cooperatives: they share one clock"):
        env.reset(state.clone().set("_reset", torch.tensor([[True], [False], [False]])))


def test_what_is_no_action_or_comes_at_the_wrong_time_is_refused(small):
    env = CooperativeTorchRLEnv(small, "loo", 2)
    with pytest.raises(RuntimeError, match="before the first reset"):
        env.step(env.rand_action(env.fake_tensordict()))
    start = env.reset()
    for code in (-1, 16, 0.5):
        with pytest.raises(ValueError, match="must be a whole number from 0 to 15"):
            env.step(start.clone().set(ACTION, torch.full((2, 3), code)))
    with pytest.raises(ValueError, match=r"has shape \(2, 3, 1\): must have shape \(2, 3\)"):
        env.step(start.clone().set(ACTION, torch.zeros(2, 3, 1, dtype=torch.int64)))
    with pytest.raises(ValueError, match="action of the proxies is None"):
        env.step(start.clone())
    with pytest.raises(ValueError, match="unknown form of the rewards 'each'"):
        CooperativeTorchRLEnv(small, "loo", 2, rewards="each")
    with pytest.raises(ValueError, match="unknown credit rule 'nope'"):
        CooperativeTorchRLEnv(small, "nope", 2)
    with pytest.raises(ValueError, match="unknown scenario 'nope'"):
        CooperativeTask("nope")


@pytest.mark.parametrize("algo", ["ippo", "mappo", "iql", "vdn", "qmix"])
def test_proxies_learn_to_contribute_clean_lots_and_to_withhold_corrupt_ones(small, tmp_path, algo):
    told = []
    folder = train(
        settings(small, algo, total_steps=20_000, num_cooperatives=16),
        tmp_path / "run",
        progress=lambda *what: told.append(what[0]),
        tensorboard=False,
    )
    engine = Engine(small, "loo", 32)
    learned = agents.play(engine, agents.make("learned", path=folder), range(900, 932))
    random = agents.play(engine, agents.make("random"), range(900, 932))
    assert float(learned["corrupt_share"].mean()) < 0.2
    assert float(learned["clean_share"].mean()) > 0.4
    assert float(learned["welfare"].mean()) > float(random["welfare"].mean()) + 5
    per_update = 16 * 6 * 3
    assert told == list(range(per_update, 20_000 + per_update, per_update))
    curve = json.loads((folder / "curve.json").read_text())["updates"]
    assert [point["agent_steps"] for point in curve] == told
    assert {"welfare", "clean_share", "corrupt_share", "return"} <= curve[0].keys()
    assert curve[-1]["welfare"] > curve[0]["welfare"]
    assert {path.name for path in folder.iterdir()} == {"run.json", "scenario.yaml", "policy.pt", "curve.json", "proxycoop.json"}


@pytest.mark.parametrize("algo", ["ippo", "mappo", "iql", "vdn", "qmix"])
def test_proxies_train_with_forgeries_and_a_lever_and_play_what_they_learned(tempted, tmp_path, algo):
    folder = train(settings(tempted, algo, total_steps=300), tmp_path / "run", tensorboard=False)
    assert torch.load(folder / "policy.pt", weights_only=True)["lot_features"][-4:] == ["is/lot", "is/echo", "is/twin", "is/lax"]
    curve = json.loads((folder / "curve.json").read_text())["updates"]
    assert len(curve) == 5
    assert min(curve[0][name] for name in ("sent/echo", "sent/twin", "pulled/lax")) > 0
    learned = agents.make("learned", path=folder)
    played = agents.play(Engine(tempted, "loo", 16), learned, range(16))
    assert {"sent/echo", "sent/twin", "pulled/lax"} <= played.keys()
    assert learned.deterministic == (algo in adapter.Q_ALGORITHMS)
    if not learned.deterministic:
        assert all((played[name] > 0).any() for name in ("sent/echo", "sent/twin", "pulled/lax"))


def test_another_agent_takes_a_seat_beside_what_was_learned_but_not_in_training(tempted, tmp_path):
    learned = agents.make("learned", path=train(settings(tempted, "ippo"), tmp_path / "run", tensorboard=False))
    engine = Engine(tempted, "loo", 16)
    agents.play(engine, agents.Seats(learned, {1: agents.make("all")}), range(16))
    sent = torch.stack([result.contributed for result in engine.history])  # (T, E, N, U)
    assert sent[:, :, 1, :4].all()
    assert not sent[:, :, 1, 4:].any()
    assert sent[:, :, [0, 2], 4:].any()
    with pytest.raises(ValueError, match="'benchmarl' cannot train around agents in fixed seats"):
        settings(tempted, "ippo", seats=("1=all",))


@pytest.mark.parametrize("algo", ["ippo", "qmix"])
def test_the_same_seed_trains_the_same_policy_and_another_seed_another(small, tmp_path, algo):
    first, again, other = (
        weights(train(settings(small, algo, seed=seed), tmp_path / name, tensorboard=False))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("which", ["small", "tempted"])
@pytest.mark.parametrize("algo", ["mappo", "iql", "qmix"])
def test_what_is_saved_chooses_as_what_was_trained(request, tmp_path, algo, monkeypatch, which):
    cooperative = request.getfixturevalue(which)
    made = []

    class Watched(adapter._ResumableExperiment):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(adapter, "_ResumableExperiment", Watched)
    run_settings = settings(cooperative, algo, learning_rate=0.01)
    folder = train(run_settings, tmp_path / "run", tensorboard=False)
    learned = agents.make("learned", path=folder, deterministic=True)
    task = CooperativeTask(run_settings.training_scenario, "loo")
    env = CooperativeTorchRLEnv(cooperative, "loo", 8, seed=3)
    seen = TransformedEnv(env, *task.get_env_transforms(env)).reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        codes = made[0].policy(seen)[ACTION]
    learned.begin(env.engine.layout, env.engine.seeds)
    choices = learned.choose(env.engine.observations) & env.engine.prospect.choosable  # (E, N, K)
    assert torch.equal((choices * 2 ** torch.arange(choices.shape[-1])).sum(dim=-1), codes)
    assert 0 < choices.float().mean() < 1


@pytest.mark.parametrize("which", ["sparse", "tempted"])
@pytest.mark.parametrize("algorithm", [IppoConfig, VdnConfig])
def test_masked_actions_are_never_taken(request, tmp_path, algorithm, which):
    watch = Watch()
    experiment(CooperativeTask(request.getfixturevalue(which), "loo"), algorithm, tmp_path, callbacks=[watch], n_iterations=4).run()
    masks, actions = (torch.stack([batch[key] for batch in watch.batches]) for key in (MASK, ACTION))
    assert not masks.all()
    assert masks.gather(-1, actions[..., None]).all()


def built(small, tmp_path, algorithm):
    made = experiment(CooperativeTask(small, "loo", "team"), algorithm, tmp_path)
    seen = made.test_env.rollout(3)
    made.close()
    return made, seen


def mixed(made, seen, chosen):
    loss = made.losses["proxy"]
    with loss.mixer_network_params.to_module(loss.mixer_network):
        return loss.mixer_network(seen.clone().set(("proxy", "chosen_action_value"), chosen))["chosen_action_value"]


def test_the_value_of_vdn_is_the_sum_of_the_proxies_values(small, tmp_path):
    made, seen = built(small, tmp_path, VdnConfig)
    with torch.no_grad():
        chosen = made.algorithm.get_policy_for_loss("proxy")(seen)["proxy", "chosen_action_value"]  # (E, T, N, 1)
        joint = mixed(made, seen, chosen)
    assert chosen.std() > 0
    assert torch.allclose(joint, chosen.sum(dim=-2))


def test_the_value_of_qmix_never_falls_with_a_proxys_value(small, tmp_path):
    made, seen = built(small, tmp_path, QmixConfig)
    chosen = torch.randn(*seen.shape, 3, 1, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (slope,) = torch.autograd.grad(mixed(made, seen, chosen).sum(), chosen)
    assert (slope >= 0).all()
    assert (slope > 0).any()


def test_the_value_of_mappo_does_not_depend_on_the_proxies_order(small, tmp_path):
    made, seen = built(small, tmp_path, MappoConfig)
    critic = made.losses["proxy"].critic_network
    moved = seen.clone().set("state", seen["state"].unflatten(-1, (3, -1)).roll(1, dims=-2).flatten(start_dim=-2))
    with torch.no_grad(), made.losses["proxy"].critic_network_params.to_module(critic):
        value, of_moved = (critic(each)["proxy", "state_value"] for each in (seen.clone(), moved))
    assert value.shape == (*seen.shape, 3, 1)
    assert value.std() > 0
    assert torch.allclose(value, of_moved, atol=1e-6)


def test_observations_come_normalised_to_policy_and_mixer_alike(small, tmp_path):
    made, seen = built(small, tmp_path, QmixConfig)
    assert torch.equal(seen["proxy", "observation"].flatten(start_dim=-2), seen["state"])
    assert isinstance(made.test_env.observation_spec["state"], Bounded)
    raw = CooperativeTorchRLEnv(small, "loo", 10, seed=0).reset()["proxy", "observation"]
    mean, variance = CooperativeTask(small, "loo").statistics
    layout = CooperativeTask(small, "loo").layout
    utility = len(layout.lot_features) + layout.agent_features.index("utility")
    expected = (layout.agent(raw, "utility") - mean[utility]) / variance[utility].sqrt()
    assert torch.allclose(layout.agent(seen["proxy", "observation"][:, 0], "utility"), expected, atol=1e-3)


def test_the_normalisation_covers_what_random_forgeries_do_to_the_model():
    conduct = {"forgeries": [{"kind": kind} for kind in ("twin", "boost", "flip", "blend")], "levers": [{"kind": "claim"}]}
    forged = scenario.load("breast_cancer", principals=3, horizon=6, profiles=[], conduct=conduct)
    env = CooperativeTorchRLEnv(forged, "loo", 32, seed=0)
    task = CooperativeTask(forged, "loo")
    torch.manual_seed(0)
    seen = TransformedEnv(env, *task.get_env_transforms(env)).rollout(6)["proxy", "observation"]  # random codes
    assert (task.layout.agent(seen, "utility").abs() > 5).double().mean() < 0.05


def test_models_of_benchmarl_work_on_the_task_too(small, tmp_path):
    watch = Watch()
    mlp = MlpConfig(num_cells=[8], layer_class=nn.Linear, activation_class=nn.Tanh)
    experiment(CooperativeTask(small, "loo"), MasacConfig, tmp_path, model=mlp, callbacks=[watch]).run()
    assert len(watch.batches) == 2
    assert {"welfare", "clean_share"} <= episode_means(watch.batches[1]).keys()
    assert episode_means(watch.batches[1][:, :-1]) == {}


def test_what_the_shared_network_cannot_give_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="LotModel does not give central action_value: use one of BenchMARL's models"):
        experiment(CooperativeTask(small, "loo"), MasacConfig, tmp_path)
    with pytest.raises(ValueError, match="share_params=False: proxies share one network"):
        experiment(CooperativeTask(small, "loo"), IppoConfig, tmp_path, share_policy_params=False)


def test_a_buffer_that_does_not_hold_an_episode_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="buffer_size=71 agent-steps do not hold an episode of 4 cooperatives: use at least 72"):
        train(settings(small, "vdn", buffer_size=71), tmp_path / "run")


@pytest.mark.parametrize("algo", ["ippo", "mappo", "iql", "vdn", "qmix"])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(small, resumed, algo):
    buffer = {} if algo in adapter.PPO_ALGORITHMS else {"buffer_size": 180}  # it has begun anew by then
    resumed(settings(small, algo, total_steps=400, checkpoint_every=2, batch_size=30, **buffer), after=300)


def test_a_checkpoint_holds_no_more_of_the_buffer_than_is_filled(small, tmp_path, cut_off):
    cut_off(settings(small, "iql", total_steps=400, checkpoint_every=1), tmp_path / "run", after=100, tensorboard=False)
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert kept["versions"].keys() == {"proxycoop", "torch", "benchmarl", "torchrl"}
    assert kept["state"]["buffer"]["rows"]["done"].shape == (24, 1)  # rounds of four cooperatives
    assert (tmp_path / "run" / "checkpoint.pt").stat().st_size < 500_000
