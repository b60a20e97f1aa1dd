"""The Gymnasium vector face.

Gymnasium has no checker for vector environments. Its own vectoriser of single environments, ``SyncVectorEnv``, stands in for one here: it
is given one environment a proxy, which replays what the PettingZoo face plays, and both must return the same at every step.
"""

from __future__ import annotations

import pickle
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

from proxycoop import credit
from proxycoop.envs import Engine, cooperative_v0, episode_metrics, scenario
from proxycoop.envs.gymnasium_vector import CooperativeVectorEnv
from proxycoop.envs.metrics import metrics_in
from proxycoop.envs.vector import CooperativeVecEnv

SMALL = scenario.load("breast_cancer", horizon=3)  # six proxies with four lots each
SPARSE = scenario.load("digits", horizon=2, substrate={"kind": "traversal", "lr": 0.4, "batch": 10})  # some lots have nothing to contribute
MODES = list(AutoresetMode)
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
both_forms = pytest.mark.parametrize("form", ["multi_discrete", "discrete"])


def rows(num_cooperatives=2, what=SMALL, rule="loo", **kwargs):
    return CooperativeVectorEnv(what, rule, num_cooperatives, **kwargs)


def coins(seed, n_cooperatives=2):
    return np.random.default_rng(seed).integers(0, 2, (n_cooperatives * 6, 4))


ALL = np.ones((12, 4), dtype=np.int64)


class Replay(gymnasium.Env):
    """One proxy's view of episodes that were played before."""

    def __init__(self, spaces, episodes):
        self.observation_space, self.action_space = spaces
        self._episodes = iter(episodes)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._rounds = iter(next(self._episodes))
        return next(self._rounds)

    def step(self, action):
        return next(self._rounds)


def as_gymnasium_says(info, codec, available, is_last=False):
    """An info of the PettingZoo face in this face's form: a flat mask, and metrics in a dictionary, after the last round only."""
    plain = {name: told for name, told in info.items() if not name.startswith("metrics/")} | {"action_mask": codec.flat_mask(available)}
    return plain | {"metrics": metrics_in(info)} if is_last else plain


def replays(what, rule, n_cooperatives, actions, seed):
    """The same cooperatives by the PettingZoo face, one Gymnasium environment a proxy."""
    made = []
    for e in range(n_cooperatives):
        env = cooperative_v0.parallel_env(what, rule)
        seen = {agent: [] for agent in env.possible_agents}
        for episode in range(len(actions)):
            observations, infos = env.reset(seed=seed + e if episode == 0 else None)
            for i, agent in enumerate(env.possible_agents):
                info = as_gymnasium_says(infos[agent], env._codec, env.engine.prospect.available[0, i])
                seen[agent].append([(observations[agent], info)])
            while env.agents:
                chosen = actions[episode][env.engine.t].reshape(n_cooperatives, 6, 4)[e]
                results = env.step(dict(zip(env.possible_agents, chosen, strict=True)))
                for i, agent in enumerate(env.possible_agents):
                    *told, info = (of_agents[agent] for of_agents in results)
                    info = as_gymnasium_says(info, env._codec, env.engine.prospect.available[0, i], is_last=not env.agents)
                    seen[agent][-1].append((*told, info))
        spaces = env.observation_space("proxy_0"), env.action_space("proxy_0")
        made += [partial(Replay, spaces, episodes) for episodes in seen.values()]
    return made


def assert_same(ours, theirs, exact=True):
    """The same structure, types, shapes and numbers."""
    assert ours[-1].keys() == theirs[-1].keys()
    assert all(data_equivalence(one, other, exact) for one, other in zip(ours, theirs, strict=True))


@every_mode
@pytest.mark.parametrize(
    ("what", "rule", "n_cooperatives"),
    [
        (SMALL, "loo", 2),
        (SPARSE, "equal", 1),
        (scenario.load("breast_cancer", horizon=3, settlement={"period": 2}), "in_run", 1),
    ],
    ids=["two cooperatives", "sparse", "settlement and lots' credit"],
)
def test_it_returns_what_gymnasium_s_vectoriser_returns_of_the_pettingzoo_face(mode, what, rule, n_cooperatives):
    n_rows, exact = n_cooperatives * 6, n_cooperatives == 1  # in a batch numbers are rounded otherwise
    actions = [[coins(10 * episode + t, n_cooperatives) for t in range(what.horizon)] for episode in range(3)]
    reference = SyncVectorEnv(replays(what, rule, n_cooperatives, actions, seed=7), autoreset_mode=mode)
    env = rows(n_cooperatives, what, rule, autoreset_mode=mode)
    assert env.single_observation_space == reference.single_observation_space
    assert env.single_action_space == reference.single_action_space
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space
    assert env.num_envs == reference.num_envs == n_rows
    assert env.metadata["autoreset_mode"] is mode
    assert_same(env.reset(seed=7), reference.reset(seed=7), exact)
    for episode in range(2):
        for action in actions[episode]:
            assert_same(env.step(action), reference.step(action), exact)
        if mode is AutoresetMode.NEXT_STEP:  # begins the next episode
            assert_same(env.step(action), reference.step(action), exact)
        elif mode is AutoresetMode.DISABLED:
            options = [{"reset_mask": np.ones(n_rows, dtype=bool)} for _ in range(2)]  # Gymnasium takes the mask out of its own
            assert_same(env.reset(options=options[0]), reference.reset(options=options[1]), exact)


def test_row_e_n_plus_i_is_proxy_i_of_cooperative_e_of_the_engine():
    env, engine = rows(3, rewards="own"), Engine(SMALL, "loo", 3)
    expected = engine.reset([5, 6, 7])
    observations, _ = env.reset(seed=5)
    assert np.array_equal(observations, expected.reshape(18, -1).numpy())
    result = engine.step(torch.from_numpy(coins(0, 3)).reshape(3, 6, 4))
    observations, rewards, terminations, truncations, infos = env.step(coins(0, 3))
    assert np.array_equal(observations, result.observations.reshape(18, -1).numpy())
    assert np.array_equal(rewards, result.rewards.flatten().double().numpy())
    assert np.array_equal(infos["credit"], result.credit.flatten().double().numpy())
    assert np.array_equal(infos["admitted"], result.admitted.reshape(18, 4).numpy())
    assert not terminations.any()
    assert not truncations.any()


def test_both_vectorised_faces_play_the_same_episode():
    env, other = rows(), CooperativeVecEnv(SMALL, "loo", 2)
    assert np.array_equal(env.reset(seed=3)[0], other.start([3, 4]))
    for t in range(3):
        observations, rewards, *_ = env.step(coins(t))
        of_other, rewards_of_other, dones, infos = other.step(coins(t))
        assert np.array_equal(rewards.astype(np.float32), rewards_of_other)
        assert np.array_equal(observations, np.stack([info["terminal_observation"] for info in infos]) if dones.all() else of_other)


def test_the_horizon_truncates_every_row_and_metrics_are_told():
    env = rows()
    env.reset(seed=0)
    for t in range(3):
        _, _, terminations, truncations, infos = env.step(ALL)
        assert not terminations.any()
        assert truncations.all() == truncations.any() == (t == 2)
        assert ("metrics" in infos) == (t == 2)
    metrics = episode_metrics(env.engine)
    assert np.array_equal(infos["metrics"]["return"], metrics["return"].flatten().double().numpy())
    assert np.array_equal(infos["metrics"]["welfare"], metrics["welfare"].double().numpy().repeat(6))
    assert infos["metrics"].keys() == {*metrics, *(f"_{name}" for name in metrics)}


def test_an_episode_s_first_step_after_the_last_ignores_its_actions_only_with_next_step():
    env = rows()
    first, _ = env.reset(seed=0)
    for _ in range(3):
        last, *_ = env.step(ALL)
    observations, rewards, _, truncations, infos = env.step(1 - ALL)
    assert not np.array_equal(observations, last)
    assert not np.array_equal(observations, first)  # another episode
    assert not rewards.any()
    assert not truncations.any()
    assert not infos["contributed"].any()
    assert env.engine.episode == 1
    env = rows(autoreset_mode="Disabled")
    env.reset(seed=0)
    for _ in range(3):
        env.step(ALL)
    with pytest.raises(RuntimeError, match="after the episode's 3 rounds: call reset first"):
        env.step(ALL)


def test_same_step_hands_over_the_last_observations_and_infos():
    env, other = rows(autoreset_mode="SameStep"), rows(autoreset_mode="Disabled")
    env.reset(seed=0)
    other.reset(seed=0)
    for _ in range(3):
        observations, *_, infos = env.step(ALL)
        last, *_, last_infos = other.step(ALL)
    following, following_infos = other.reset()
    assert np.array_equal(observations, following)
    assert np.array_equal(np.stack(infos["final_obs"]), last)
    assert all(final in env.single_observation_space for final in infos["final_obs"])
    assert data_equivalence(infos["final_info"], last_infos)
    assert data_equivalence({name: info for name, info in infos.items() if "final" not in name}, following_infos)


@every_mode
@both_forms
def test_what_it_returns_lies_in_its_spaces(mode, form):
    env = rows(actions=form, autoreset_mode=mode)
    env.action_space.seed(0)
    observations, _ = env.reset(seed=0)
    assert observations in env.observation_space
    for _ in range(3):
        actions = env.action_space.sample()
        assert actions in env.action_space
        observations, rewards, terminations, truncations, _ = env.step(actions)
        assert observations in env.observation_space
        assert rewards.shape == terminations.shape == truncations.shape == (12,)


def test_what_it_returned_is_not_changed_by_later_steps():
    env = rows()
    observations, infos = env.reset(seed=0)
    kept = observations.copy(), infos["action_mask"].copy()
    second, *_, second_infos = env.step(ALL)
    contributed = second_infos["contributed"].copy()
    observations[:], second[:], second_infos["contributed"][:] = 0, 0, False
    env.step(ALL)
    other = rows()
    assert np.array_equal(other.reset(seed=0)[0], kept[0])
    assert np.array_equal(infos["action_mask"], kept[1])
    assert np.array_equal(env.engine.history[0].contributed.reshape(12, 4).numpy(), contributed)


@both_forms
def test_masks_leave_out_lots_that_have_nothing_to_contribute(form):
    env = rows(what=SPARSE, rule="equal", actions=form)
    _, infos = env.reset(seed=0)
    mask, available = infos["action_mask"], env.engine.prospect.available.reshape(12, 4).numpy()
    assert not available.all()
    if form == "multi_discrete":
        assert np.array_equal(mask.reshape(12, 4, 2)[..., 1], available)
        assert mask.reshape(12, 4, 2)[..., 0].all()
        actions = ALL
    else:
        lots = np.arange(16)[:, None] >> np.arange(4) & 1
        assert np.array_equal(mask, ~(lots & ~available[:, None]).any(axis=-1))
        assert env.single_action_space.sample(mask[0].astype(np.int8)) in env.single_action_space
        actions = np.full(12, 15)
    *_, infos = env.step(actions)
    assert np.array_equal(infos["contributed"], available)


def test_team_rewards_are_the_mean_of_a_cooperative():
    own, team = rows(), rows(rewards="team")
    own.reset(seed=0)
    team.reset(seed=0)
    _, rewards, *_ = own.step(coins(0))
    _, shared, *_ = team.step(coins(0))
    assert np.allclose(shared.reshape(2, 6), rewards.reshape(2, 6).mean(axis=1, keepdims=True))


def test_plain_infos_hold_nothing_but_the_mask():
    env = rows(infos="mask", autoreset_mode="SameStep")
    _, infos = env.reset(seed=0)
    assert infos.keys() == {"action_mask", "_action_mask"}
    for _ in range(3):
        *_, infos = env.step(ALL)
    assert infos["final_info"].keys() == {"action_mask", "_action_mask"}


def test_seeds_are_one_a_cooperative_and_may_be_repeated_for_each_row():
    env = rows()
    first, _ = env.reset(seed=4)
    assert env.np_random_seed == 4
    assert env.engine.seeds.tolist() == [4, 5]
    for same in ([4, 5], np.array([4, 5]), [4] * 6 + [5] * 6, np.int64(4)):
        assert np.array_equal(env.reset(seed=same)[0], first)
    assert not np.array_equal(env.reset(seed=5)[0], first)
    assert np.array_equal(env.reset(seed=5)[0][:6], first[6:])  # the same cooperative in another place
    assert not np.array_equal(env.reset()[0], env.reset(seed=5)[0])  # the second episode of these seeds
    assert not np.array_equal(rows().reset()[0], rows().reset()[0])


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (-1, "seed=-1: must be a whole number from 0"),
        (2**63 - 1, "seed=9223372036854775807: must be a whole number from 0 to 9223372036854775806, as"),
        (0.5, "seed=0.5: must be a whole number, a list of them, or None"),
        ("12", "seed='12': must be a whole number, a list"),
        (True, "seed=True: must be a whole number, a list"),
        ([True, False], "seed=True: must be a whole number from 0"),
        (np.array(3), r"seed=array\(3\): must be a whole number, a list"),
        ([1, 2, 3], "seed has 3 entries: give one for each of 2 cooperatives or 12 rows"),
        ([1, None], "seed=None: must be a whole number"),
        (list(range(12)), "the 6 rows of a cooperative must have the same seed"),
    ],
)
def test_wrong_seeds_are_refused(seed, message):
    with pytest.raises(ValueError, match=message):
        rows().reset(seed=seed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset_mask": np.arange(12) < 6}, r"names 6 of 12 rows: the cooperatives step together .* pass a mask that is all True"),
        ({"reset_mask": np.zeros(12, dtype=bool)}, "names 0 of 12 rows"),
        ({"reset_mask": np.ones(12)}, r"is float64 \(12,\): must be a NumPy array, bool \(12,\)"),
        ({"reset_mask": np.ones(2, dtype=bool)}, r"is bool \(2,\): must be"),
        ({"reset_mask": [True] * 12}, "is list: must be a NumPy array"),
        ([np.ones(12, dtype=bool)], r"options is list: must be a dictionary, such as \{'reset_mask': mask\}, or None"),
        ([], "options is list: must be a dictionary"),
        ({"reset_maks": np.ones(12, dtype=bool)}, "unknown option of reset 'reset_maks' .did you mean 'reset_mask'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    env = rows(autoreset_mode="Disabled")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)
    assert env.engine.episode == 0


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (ALL[:11], r"the rows has shape \(11, 4\): must have shape \(12, 4\), 4 numbers, each 0 or 1 in each row$"),
        (ALL[:, :3], r"the rows has shape \(12, 3\): must have shape \(12, 4\)"),
        (np.ones(12), r"the rows has shape \(12,\): must have shape \(12, 4\)"),
        (ALL * 0.5, r"the rows has 0.5 at \(0, 0\): must be 4 numbers, each 0 or 1$"),
        (ALL * 2, r"the rows has 2 at \(0, 0\): must be"),
        ([[1, 1, 1, 1]] * 11 + [[1, 1, 1]], "the rows is a list that makes no array of numbers: must be"),
        (ALL.astype(str), "the rows is an array of <U21: must be"),
        (None, "the rows is None: must be"),
    ],
)
def test_wrong_actions_are_refused(actions, message):
    env = rows()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(actions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_cooperatives": 0}, "num_cooperatives=0: must be a whole number, at least 1"),
        ({"num_cooperatives": True}, "num_cooperatives=True: must be a whole number, at least 1"),
        ({"what": None}, "scenario=None: must be the name of a scenario, the path of its YAML file, or a Scenario"),
        ({"rule": 3}, "credit=3: must be a credit rule, its name, or None"),
        ({"actions": "binary"}, "unknown action form 'binary'"),
        ({"rewards": "mine"}, "unknown form of the rewards 'mine'"),
        ({"infos": "none"}, "unknown infos 'none'.* full, mask"),
        ({"autoreset_mode": "next_step"}, "unknown autoreset_mode 'next_step'.* NextStep, SameStep, Disabled"),
        ({"what": "digit"}, "unknown scenario 'digit'"),
        ({"rule": "lou"}, "unknown credit rule 'lou'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rows(**arguments)


def test_arguments_that_do_not_exist_are_answered_with_those_that_do():
    with pytest.raises(ValueError, match=r"unknown argument of proxycoop/cooperative-v0 'reward' \(did you mean 'rewards'\?\).*num_envs"):
        gymnasium.make_vec("proxycoop/cooperative-v0", num_cooperatives=2, reward="team")
    with pytest.raises(ValueError, match="num_cooperatives='8': must be a whole number, at least 1"):
        gymnasium.make_vec("proxycoop/cooperative-v0", num_cooperatives="8")


def test_gymnasium_s_make_says_what_to_call_for_several_proxies_and_for_one():
    with pytest.raises(ValueError, match=r"gymnasium.make_vec\('proxycoop/cooperative-v0'.*gymnasium.make\('proxycoop/seat-v0'\)"):
        gymnasium.make("proxycoop/cooperative-v0", scenario="digits")


def test_step_before_reset_says_so():
    with pytest.raises(RuntimeError, match="before the first reset: call reset first"):
        rows().step(ALL)


@every_mode
def test_returns_and_lengths_are_recorded_by_gymnasium_s_wrapper(mode):
    env = wrappers.RecordEpisodeStatistics(rows(autoreset_mode=mode))
    env.reset(seed=0)
    total = np.zeros(12)
    for t in range(3):
        _, rewards, *_, infos = env.step(coins(t))
        total += rewards
    assert np.allclose(infos["episode"]["r"], total)
    assert (infos["episode"]["l"] == 3).all()
    assert infos["_episode"].all()
    last = infos["final_info"] if mode is AutoresetMode.SAME_STEP else infos
    assert np.allclose(last["metrics"]["return"], total, rtol=1e-5)
    if mode is AutoresetMode.DISABLED:
        env.reset(options={"reset_mask": infos["_episode"]})
    for t in range(4):
        *_, truncations, infos = env.step(coins(t))
        if truncations.any():
            break
    assert (infos["episode"]["l"] == 3).all() or mode is AutoresetMode.SAME_STEP  # miscounted by Gymnasium before 1.4


def test_normalising_and_other_wrappers_of_gymnasium_take_it():
    env = wrappers.NormalizeReward(wrappers.NormalizeObservation(wrappers.RecordEpisodeStatistics(rows())), gamma=0.5)
    env = wrappers.DictInfoToList(wrappers.ClipReward(env, -10, 10))
    observations, _ = env.reset(seed=0)
    seen = [observations]
    for t in range(8):
        observations, rewards, _, truncations, infos = env.step(coins(t))
        assert np.isfinite(rewards).all()
        assert len(infos) == 12
        assert all(("episode" in info) == ("metrics" in info) == bool(ended) for info, ended in zip(infos, truncations, strict=True))
        seen.append(observations)
    assert np.isfinite(seen).all()
    assert np.abs(np.mean(seen)) < 0.5


def test_it_pickles_in_the_middle_of_an_episode():
    env = rows(rule="shapley")
    env.reset(seed=0)
    env.step(coins(0))
    again = pickle.loads(pickle.dumps(env))
    assert again.metadata == env.metadata
    for t in range(4):  # into the next episode
        assert_same(again.step(coins(t)), env.step(coins(t)))


def test_gymnasium_makes_it_by_name():
    env = gymnasium.make_vec("proxycoop/cooperative-v0", num_envs=12, scenario=SMALL, credit="loo", infos="mask")
    assert isinstance(env, CooperativeVectorEnv)
    assert (env.num_envs, env.engine.num_envs) == (12, 2)
    other = gymnasium.make_vec("proxycoop/cooperative-v0", num_cooperatives=2, scenario=SMALL, credit="loo", autoreset_mode="SameStep")
    assert np.array_equal(env.reset(seed=1)[0], other.reset(seed=1)[0])
    again = gymnasium.make_vec(other.spec)
    assert (again.num_envs, again.autoreset_mode) == (12, AutoresetMode.SAME_STEP)
    assert repr(other) == "CooperativeVectorEnv(proxycoop/cooperative-v0, num_envs=12)"
    assert CooperativeVectorEnv.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP  # the class's is nobody's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "num_envs=1: scenario 'digits' has 6 proxies, .* multiple of 6, such as 48; or pass num_cooperatives=8"),
        ({"num_envs": 16}, "num_envs=16: scenario 'digits' has 6 proxies"),
        ({"num_envs": 0}, "num_envs=0: "),
        ({"num_envs": 12, "num_cooperatives": 3}, "num_envs=12 contradicts num_cooperatives=3, which makes 18 rows"),
    ],
)
def test_rows_that_make_no_whole_cooperatives_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make_vec("proxycoop/cooperative-v0", **arguments)


def test_a_rule_of_ones_own_may_be_passed_as_an_object():
    env = CooperativeVectorEnv(SMALL, credit.make("loo"), 1)
    env.reset(seed=0)
    _, rewards, *_ = env.step(np.ones((6, 4)))
    assert rewards.shape == (6,)
