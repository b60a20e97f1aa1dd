"""These tests need agilerl, which lives in a virtual environment of its own: ``make compat`` runs them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("agilerl.algorithms", reason="agilerl is an extra: make compat")

from agilerl.algorithms import IPPO
from gymnasium import spaces

from proxycoop import agents
from proxycoop.agents.network import LotNetwork, Normaliser
from proxycoop.envs import Engine, scenario
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.libraries.agilerl import _CentralCritic, _GumbelActor, _Logits, _Networks, _StochasticActor, _View
from proxycoop.training.libraries.agilerl_env import CooperativeAgileRLEnv
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.run import Run
from proxycoop.training.train import train


@pytest.fixture(scope="session")
def small():
    return scenario.load("breast_cancer", principals=3, horizon=6, profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}])


@pytest.fixture(scope="session")
def sparse():
    """Lots that some rounds have nothing of."""
    return scenario.load("digits", substrate={"kind": "traversal", "lr": 0.4, "batch": 10})


@pytest.fixture
def settings(small):
    """Settings of a short run of an algorithm."""

    def make(algo, **changes):
        return settings_for("agilerl", algo, **{"scenario": small, "credit": "loo", "total_steps": 144, "num_cooperatives": 4, **changes})

    return make


def view_of(env):
    layout = env.rows.engine.layout
    n_lot_features, n_agent_features = len(layout.lot_features), len(layout.agent_features)
    network = LotNetwork(n_lot_features, n_agent_features, 8)
    torch.nn.init.normal_(network.decide.weight)
    n_features = n_lot_features + n_agent_features
    normalise = Normaliser(torch.zeros(n_features), torch.ones(n_features), n_lot_features, layout.n_items)
    return _View(network, normalise, env.rows.action_space)


def weights(folder):
    return torch.load(folder / "policy.pt", weights_only=True)["network"]


@pytest.mark.parametrize("which", ["small", "tempted"])
@pytest.mark.parametrize("shared", [True, False])
def test_agents_play_the_same_game_as_the_rows(request, shared, which):
    cooperative = request.getfixturevalue(which)
    env = CooperativeAgileRLEnv(cooperative, "loo", 2, actions="multi_discrete", shared=shared, seed=3)
    rows = CooperativeVecEnv(cooperative, "loo", 2, seed=3)
    seen, _ = env.reset()
    expected = rows.reset()
    generator = np.random.default_rng(0)
    for t in range(cooperative.horizon + 1):
        by_agent = {"proxy": expected} if shared else {f"proxy{i}": expected[[i, 3 + i]] for i in range(3)}
        assert seen.keys() == by_agent.keys()
        assert all(np.array_equal(seen[agent], by_agent[agent]) for agent in seen)
        actions = generator.integers(2, size=(6, env.rows.engine.num_items))
        split = {"proxy": actions} if shared else {f"proxy{i}": actions[[i, 3 + i]] for i in range(3)}
        seen, rewards, terminations, truncations, infos = env.step(split)
        expected, paid, dones, _ = rows.step(actions)
        assert np.array_equal(rewards["proxy"] if shared else np.stack(list(rewards.values()), axis=1).flatten(), paid)
        assert all((end == dones[0]).all() for end in terminations.values())
        assert dones[0] == (t == cooperative.horizon - 1)
        assert not any(cut.any() for cut in truncations.values())
        assert not any(infos.values())


def test_agilerl_takes_no_two_proxies_for_one_group(small):
    env = CooperativeAgileRLEnv(small, "loo", 2)
    agent = IPPO(*({name: space(name) for name in env.agents} for space in (env.single_observation_space, env.single_action_space)))
    assert not agent.has_grouped_agents()
    assert env.agents == ["proxy0", "proxy1", "proxy2"]


def test_a_team_is_paid_the_mean_of_its_rewards(small):
    own, team = (CooperativeAgileRLEnv(small, "loo", 2, rewards=form, seed=1) for form in ("own", "team"))
    own.reset()
    team.reset()
    actions = {agent: np.array([5, 9]) for agent in own.agents}
    mean = np.mean([*own.step(actions)[1].values()], axis=0)
    assert all(reward == pytest.approx(mean) for reward in team.step(actions)[1].values())


def test_a_seed_repeats_an_episode_and_a_wrong_action_is_refused(small):
    env = CooperativeAgileRLEnv(small, "loo", 2, shared=True)
    first, _ = env.reset(seed=5)
    env.step({"proxy": np.full(6, 15)})
    again, _ = env.reset(seed=5)
    assert np.array_equal(first["proxy"], again["proxy"])
    with pytest.raises(ValueError, match="must be a whole number from 0 to 15"):
        env.step({"proxy": np.full(6, 16)})
    with pytest.raises(ValueError, match=r"has shape \(5,\): must have shape \(6,\)"):
        env.step({"proxy": np.full(5, 0)})


@pytest.mark.parametrize("which", ["sparse", "tempted"])
@pytest.mark.parametrize("form", ["discrete", "multi_discrete"])
def test_each_lot_is_a_coin_of_its_own_and_masked_ones_always_show_tails(request, form, which):
    env = CooperativeAgileRLEnv(request.getfixturevalue(which), "loo", 8, actions=form, shared=True, seed=0)
    view = view_of(env)
    observations, mask = torch.from_numpy(env.reset()[0]["proxy"]), torch.from_numpy(env.action_masks()["proxy"])
    available = env.rows.engine.prospect.choosable.flatten(end_dim=1)
    assert 0 < available.float().mean() < 1
    actor = _StochasticActor(env.rows.action_space, _Logits(view))
    actions, log_probs, entropy = actor(torch.cat([observations, mask.float()], dim=1))
    chosen = env.rows._rows.codec.decode(actions.numpy(), "the rows")
    assert not (chosen & ~available).any()
    p = torch.where(available, view.network.logits(view.normalise(observations)).sigmoid(), 0.0)
    expected = torch.where(chosen, p, 1 - p).log().sum(dim=1)
    assert torch.allclose(log_probs, expected, atol=1e-5)
    assert torch.allclose(actor.action_log_prob(actions), expected, atol=1e-5)
    assert torch.allclose(entropy, -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum(dim=1), atol=1e-5)


def test_the_gumbel_actor_draws_from_the_policy_that_is_saved(small):
    env = CooperativeAgileRLEnv(small, "loo", 1, shared=True, seed=0)
    view = view_of(env)
    row = torch.from_numpy(np.concatenate([env.reset()[0]["proxy"], env.action_masks()["proxy"]], axis=1, dtype=np.float32))[:1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = _GumbelActor(view)(row.expand(20_000, -1))
    assert torch.equal(drawn.sum(dim=1), torch.ones(20_000))
    contributed = env.rows._rows.codec.table[drawn.argmax(dim=1)].float().mean(dim=0)
    expected = view.network.logits(view.normalised(row))[0].sigmoid()
    assert torch.allclose(contributed, expected, atol=4 * 0.5 / 20_000**0.5)


def test_the_central_critic_is_linear_in_own_choices_and_heeds_those_of_others(small):
    env = CooperativeAgileRLEnv(small, "loo", 4, seed=0)
    view = view_of(env)
    n_inputs = 2 * (2 * view.network.n_lot_features + view.network.n_agent_features)
    network = torch.nn.Sequential(torch.nn.Linear(n_inputs, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    observations, masks = env.reset()[0], env.action_masks()
    seen = {agent: torch.from_numpy(np.concatenate([observations[agent], masks[agent]], axis=1, dtype=np.float32)) for agent in env.agents}
    one, two = (_CentralCritic(view, network, env.agents, mine) for mine in ("proxy0", "proxy1"))

    def q(critic, *codes):
        return critic(seen, torch.eye(16)[list(codes)].flatten().expand(4, -1))[:, 0]

    for others in [(0, 0), (7, 12)]:
        worth = [q(one, 1 << k, *others) - q(one, 0, *others) for k in range(4)]
        assert torch.allclose(q(one, 11, *others), q(one, 0, *others) + worth[0] + worth[1] + worth[3], atol=1e-5)
    assert not torch.allclose(q(one, 11, 0, 0), q(one, 11, 7, 12), atol=1e-3)
    swapped = {"proxy0": seen["proxy1"], "proxy1": seen["proxy0"], "proxy2": seen["proxy2"]}
    before = q(two, 3, 11, 5)
    seen = swapped
    assert torch.allclose(before, q(one, 11, 3, 5), atol=1e-5)


def test_copies_of_networks_keep_what_agents_share(small):
    actor = _GumbelActor(view_of(CooperativeAgileRLEnv(small, "loo", 1)))
    clone = _Networks({"proxy0": actor, "proxy1": actor}).clone()
    assert clone["proxy0"] is clone["proxy1"]
    assert clone["proxy0"] is not actor


@pytest.mark.parametrize(
    ("algo", "form", "n_steps"),
    [("ippo", "multi_discrete", 15_000), ("ippo", "discrete", 15_000), ("maddpg", "discrete", 5_000), ("matd3", "discrete", 6_000)],
)
def test_proxies_learn_to_contribute_clean_lots_and_to_withhold_corrupt_ones(small, tmp_path, algo, form, n_steps):
    settings = settings_for("agilerl", algo, scenario=small, credit="loo", total_steps=n_steps, actions=form)
    folder = train(settings, tmp_path / "run", tensorboard=False)
    engine = Engine(small, "loo", 32)
    learned = agents.play(engine, agents.make("learned", path=folder), range(900, 932))
    honest = agents.play(engine, agents.make("honest"), range(900, 932))
    random = agents.play(engine, agents.make("random"), range(900, 932))
    assert float(learned["corrupt_share"].mean()) < 0.2
    assert float(learned["clean_share"].mean()) > 0.4
    assert float(learned["welfare"].mean()) > float(honest["welfare"].mean()) > float(random["welfare"].mean()) + 5


@pytest.mark.parametrize("algo", ["ippo", "maddpg", "matd3"])
def test_nobody_contributes_in_training_what_is_not_there(sparse, tmp_path, monkeypatch, algo):
    n_chosen = []

    def watched(env, actions):
        chosen = env._rows.codec.decode(actions, "the rows")
        assert not (chosen & ~env.engine.prospect.available.flatten(end_dim=1)).any()
        n_chosen.append(int(chosen.sum()))
        return step(env, actions)

    step = CooperativeVecEnv.step
    monkeypatch.setattr(CooperativeVecEnv, "step", watched)
    train(settings_for("agilerl", algo, scenario=sparse, credit="loo", total_steps=384, num_cooperatives=2), tmp_path, tensorboard=False)
    assert len(n_chosen) == 32
    assert sum(n_chosen) > 0


@pytest.mark.parametrize(
    ("algo", "form"), [("ippo", "multi_discrete"), ("ippo", "discrete"), ("maddpg", "discrete"), ("matd3", "discrete")]
)
def test_proxies_train_with_forgeries_and_a_lever_and_play_what_they_learned(tempted, settings, tmp_path, monkeypatch, algo, form):
    step = CooperativeVecEnv.step
    rounds = []

    def watched(env, actions):
        assert env.action_space == (spaces.MultiDiscrete([2] * 7) if form == "multi_discrete" else spaces.Discrete(2**7))
        chosen = env._rows.codec.decode(actions, "the rows")
        assert not (chosen & ~env.engine.prospect.choosable.flatten(end_dim=1)).any()
        rounds.append(chosen)
        return step(env, actions)

    monkeypatch.setattr(CooperativeVecEnv, "step", watched)
    folder = train(settings(algo, scenario=tempted, actions=form, total_steps=288), tmp_path / "run", tensorboard=False)
    assert torch.cat(rounds).any(dim=0).all()  # everything was tried
    assert torch.load(folder / "policy.pt", weights_only=True)["lot_features"][-4:] == ["is/lot", "is/echo", "is/twin", "is/lax"]
    curve = json.loads((folder / "curve.json").read_text())["updates"]
    assert all(min(point["sent/echo"], point["sent/twin"]) > 0 for point in curve)
    played = agents.play(Engine(tempted, "loo", 16), agents.make("learned", path=folder), range(16))
    assert all((played[name] > 0).any() for name in ("sent/echo", "sent/twin", "pulled/lax"))


def test_another_agent_takes_a_seat_beside_what_was_learned_but_not_in_training(tempted, settings, tmp_path):
    folder = train(settings("ippo", scenario=tempted), tmp_path / "run", tensorboard=False)
    engine = Engine(tempted, "loo", 16)
    agents.play(engine, agents.Seats(agents.make("learned", path=folder), {1: agents.make("all")}), range(16))
    sent = torch.stack([result.contributed for result in engine.history])  # (T, E, N, U)
    assert sent[:, :, 1, :4].all()
    assert not sent[:, :, 1, 4:].any()
    assert sent[:, :, [0, 2], 4:].any()
    with pytest.raises(ValueError, match="'agilerl' cannot train around agents in fixed seats"):
        settings("ippo", scenario=tempted, seats=("1=all",))


@pytest.mark.parametrize("algo", ["ippo", "maddpg", "matd3"])
def test_the_same_seed_gives_the_same_policy_and_another_another(settings, tmp_path, algo):
    one, two, other = (
        train(settings(algo, seed=seed), tmp_path / name, tensorboard=False) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(weights(one)[name], weights(two)[name]) for name in weights(one))
    assert not torch.equal(weights(one)["decide.weight"], weights(other)["decide.weight"])


@pytest.mark.parametrize("algo", ["ippo", "maddpg", "matd3"])
def test_updates_are_reported_with_the_agent_steps_that_were_played(settings, tmp_path, monkeypatch, algo):
    rounds = []
    step = CooperativeVecEnv.step
    monkeypatch.setattr(CooperativeVecEnv, "step", lambda env, actions: rounds.append(len(actions)) or step(env, actions))
    monkeypatch.chdir(tmp_path)
    told = []
    train(settings(algo, total_steps=145), tmp_path / "run", tensorboard=False, progress=lambda *what: told.append(what))
    assert [done for done, _, _ in told] == [72, 144, 216]  # 4 cooperatives of 3 proxies, 6 rounds
    assert sum(rounds) == 216
    assert {"welfare", "return", "clean_share"} <= told[0][2].keys()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no files elsewhere


def test_the_learning_rate_of_ippo_falls_linearly(settings, monkeypatch):
    rates = []
    learned = IPPO.learn

    def watched(agent, experiences):
        rates.append([optimizers["proxy"].param_groups[0]["lr"] for optimizers in (agent.actor_optimizers, agent.critic_optimizers)])
        return learned(agent, experiences)

    monkeypatch.setattr(IPPO, "learn", watched)
    from proxycoop.training.libraries.agilerl import learn

    learn(Run(settings("ippo", total_steps=288, learning_rate=0.01), Path()))
    assert np.array(rates) == pytest.approx(np.array([[0.01, 0.0075, 0.005, 0.0025]] * 2).T)


@pytest.mark.parametrize(
    ("algo", "form"), [("ippo", "multi_discrete"), ("ippo", "discrete"), ("maddpg", "discrete"), ("matd3", "discrete")]
)
@pytest.mark.parametrize("shape", [{"horizon": 1}, {"lots.per_principal": 1}, {"principals": 1}])
def test_the_smallest_cooperatives_train_too(small, tmp_path, algo, form, shape):
    tiny = scenario.load("breast_cancer", **{"principals": 2, "horizon": 2, "profiles": [], **shape})
    settings = settings_for("agilerl", algo, scenario=tiny, credit="loo", actions=form, total_steps=30, num_cooperatives=1)
    learned = agents.make("learned", path=train(settings, tmp_path / "run", tensorboard=False))
    assert np.isfinite(agents.play(Engine(tiny, "loo", 2), learned, range(2))["welfare"].numpy()).all()


@pytest.mark.parametrize(
    ("algo", "changes", "said"),
    [
        ("maddpg", {"actions": "multi_discrete"}, "agilerl maddpg takes discrete"),
        ("matd3", {"buffer_size": 3}, "buffer_size=3: must hold a round of all 4 cooperatives"),
        ("ppo", {}, "library 'agilerl' has no algorithm 'ppo'"),
        ("ippo", {"buffer_size": 3}, "buffer_size"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, tmp_path, algo, changes, said):
    with pytest.raises(ValueError, match=said):
        train(settings(algo, **changes), tmp_path, tensorboard=False)


def test_the_example_teaches_proxies_to_earn_more(monkeypatch, capsys):
    file = Path(__file__).parents[2] / "examples" / "agilerl_ippo.py"
    assert len(file.read_text().splitlines()) <= 40
    spec = importlib.util.spec_from_file_location("agilerl_ippo", file)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "UPDATES", 20)
    example.main()
    before, after = (float(line.split()[1]) for line in capsys.readouterr().out.splitlines())
    assert after > before + 3


def test_observations_carry_their_masks_behind_them(small):
    env = CooperativeAgileRLEnv(small, "loo", 2, actions="multi_discrete", shared=True)
    assert view_of(env).space() == spaces.Box(-10, 10, (env.rows.engine.layout.size + 8,), np.float32)


@pytest.mark.parametrize(("algo", "changes"), [("ippo", {}), ("maddpg", {"buffer_size": 50}), ("matd3", {"updates_per_round": 0.4})])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(settings, resumed, algo, changes):
    resumed(settings(algo, total_steps=400, checkpoint_every=2, batch_size=24, **changes), after=300)


def test_a_checkpoint_holds_no_more_of_the_buffer_than_is_filled(settings, tmp_path, cut_off):
    cut_off(settings("matd3", checkpoint_every=1), tmp_path / "run", after=100, tensorboard=False)
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert kept["versions"].keys() == {"proxycoop", "torch", "agilerl", "peft"}
    assert kept["state"]["replay"]["rounds"]["reward.proxy0"].shape == (24, 1)
    assert (tmp_path / "run" / "checkpoint.pt").stat().st_size < 2_000_000  # a buffer that is full takes twenty times as much
