"""Training by PPO."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from proxycoop import agents
from proxycoop.credit import RULES
from proxycoop.envs import Engine, scenario
from proxycoop.envs.data.sources import _load
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.compare import cells, compare
from proxycoop.training.libraries.policy import LotPolicy
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.libraries.shared.sb3_normalise import normalised
from proxycoop.training.settings import PPOSettings
from proxycoop.training.train import train


def settings(small, **changes):
    """Seven updates of 72 agent-steps, with a checkpoint after the fifth."""
    return settings_for(**{"scenario": small, "credit": "loo", "total_steps": 500, "num_cooperatives": 4, "checkpoint_every": 5, **changes})


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    return train(settings(small), tmp_path_factory.mktemp("trained") / "run", tensorboard=False)


@pytest.fixture
def run_folder(trained, tmp_path):
    """A finished run that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def weights(folder):
    return torch.load(folder / "policy.pt", weights_only=True)["network"]


def identical(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_proxies_learn_to_contribute_clean_lots_and_to_withhold_corrupt_ones(small, tmp_path):
    folder = train(settings(small, total_steps=10_000, num_cooperatives=16), tmp_path / "run", tensorboard=False)
    engine = Engine(small, "loo", 32)
    learned = agents.play(engine, agents.make("learned", path=folder), range(900, 932))
    random = agents.play(engine, agents.make("random"), range(900, 932))
    assert float(learned["corrupt_share"].mean()) < 0.2
    assert float(learned["clean_share"].mean()) > 0.4
    assert float(learned["welfare"].mean()) > float(random["welfare"].mean()) + 5


def test_a_run_holds_its_scenario_seed_and_settings(small, tmp_path):
    told = []
    folder = train(settings(small, seed=7), tmp_path / "run", progress=lambda *what: told.append(what))
    run = json.loads((folder / "run.json").read_text())
    assert run["finished"]
    assert run["settings"]["seed"] == 7
    assert run["settings"]["credit"] == "loo"
    assert scenario.load(folder / "scenario.yaml") == small
    assert list((folder / "tb").rglob("events.out.tfevents.*"))
    assert not (folder / "checkpoint.pt").exists()
    curve = json.loads((folder / "curve.json").read_text())["updates"]
    assert [point["agent_steps"] for point in curve] == [done for done, _, _ in told]
    assert curve[-1]["agent_steps"] >= 500
    assert {"welfare", "clean_share", "corrupt_share"} <= curve[0].keys()


def test_the_same_seed_trains_the_same_policy_and_another_seed_another(small, trained, tmp_path):
    again, other = (train(settings(small, seed=seed), tmp_path / name, tensorboard=False) for name, seed in (("a", 0), ("b", 2)))
    assert identical(weights(trained), weights(again))
    assert not identical(weights(trained), weights(other))


@pytest.mark.parametrize("rule", ["loo", "smoothed(rule='shapley(budget=5)', decay=0.5)"])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(small, resumed, rule):
    folder = resumed(settings(small, credit=rule), after=400)
    assert json.loads((folder / "run.json").read_text())["settings"]["credit"] == rule
    with pytest.raises(ValueError, match="run with another credit"):
        train(settings(small, credit="shapley(budget=6)"), folder, resume=True)


def test_a_finished_run_is_not_run_again_and_not_overwritten(small, run_folder):
    before = (run_folder / "policy.pt").stat().st_mtime_ns
    with pytest.raises(ValueError, match="holds a run already: resume it with --resume"):
        train(settings(small), run_folder)
    told = []
    assert train(settings(small), run_folder, resume=True, told=told.append) == run_folder
    assert told == ["the run is already finished: nothing to do"]
    assert (run_folder / "policy.pt").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="run with another gamma, seed"):
        train(settings(small, seed=3, gamma=0.9), run_folder, resume=True)


def test_a_damaged_checkpoint_and_a_half_written_run_are_named(small, run_folder):
    run = json.loads((run_folder / "run.json").read_text())
    (run_folder / "policy.pt").unlink()
    (run_folder / "run.json").write_text(json.dumps(run | {"finished": False}))
    (run_folder / "checkpoint.pt").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"checkpoint\.pt' is damaged"):
        train(settings(small), run_folder, resume=True)
    (run_folder / "run.json").write_text('{"finished": fal')
    with pytest.raises(ValueError, match=r"run\.json' is damaged or half-written"):
        train(settings(small), run_folder, resume=True)


@pytest.mark.parametrize("form", ["multi_discrete", "discrete"])
def test_the_policy_is_a_product_of_coins_in_either_form(small, form):
    env = CooperativeVecEnv(small, "loo", 2, actions=form, seed=0)
    layout = env.engine.layout
    kwargs = {"n_lot_features": len(layout.lot_features), "n_agent_features": len(layout.agent_features), "hidden": 8}
    model = PPO(LotPolicy, env, n_steps=6, batch_size=12, policy_kwargs=kwargs, seed=0, device="cpu")
    torch.nn.init.normal_(model.policy.network.decide.weight)
    observations = torch.from_numpy(env.reset())
    logits = model.policy.network.logits(observations)
    actions, values, log_prob = model.policy(observations)
    choices = env._rows.codec.decode(actions.numpy(), "the rows")
    expected = torch.where(choices, logits, -logits).sigmoid().log().sum(dim=1)
    assert torch.allclose(log_prob, expected, atol=1e-5)
    assert torch.allclose(values[:, 0], model.policy.value_net(model.policy.network.pooled(observations))[:, 0], atol=1e-6)
    _, again, entropy = model.policy.evaluate_actions(observations, actions)
    assert torch.allclose(again, log_prob, atol=1e-6)
    p = logits.sigmoid()
    assert torch.allclose(entropy, -(p * p.log() + (1 - p) * (1 - p).log()).sum(dim=1), atol=1e-5)


def test_the_discrete_form_trains_too(small, tmp_path):
    folder = train(settings(small, actions="discrete"), tmp_path / "run", tensorboard=False)
    metrics = agents.play(Engine(small, "loo", 4), agents.make("learned", path=folder), range(4))
    assert np.isfinite(metrics["welfare"].numpy()).all()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("nope", f"known ones are {', '.join(RULES)}"),
        ("shapley(60)", "write a name, or a name with arguments"),
        ("shapley(budgte=60)", "does not take these arguments"),
        ("shapley(budgte=60)", "it takes budget, seed, surrogate"),
        ("shapley(surrogate=maybe)", "surrogate=maybe is no value: write a number, True, False, None, a list, or text in quotes"),
        ("normalised(rule='nope')", "unknown credit rule 'nope'"),
        ("shapley(budget=2)", "budget=2 is too small for .* with 3 players"),
        ("owen(unions=[[0], [1]])", "of 2 players, but there are 3"),
    ],
)
def test_a_rule_that_is_wrong_or_cannot_serve_so_many_is_refused_before_anything_is_written(small, rule, said):
    with pytest.raises(ValueError, match=said):
        settings(small, credit=rule)


def test_a_folder_that_cannot_be_written_is_named(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"output folder .* cannot be written"):
        train(settings(small), tmp_path / "file" / "run")


def test_a_policy_of_unknown_origin_is_not_taken_for_a_finished_run(small, tmp_path):
    (tmp_path / "policy.pt").write_bytes(b"")
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"holds a policy\.pt of unknown origin"):
            train(settings(small), tmp_path, resume=resume)


def test_statistics_are_pooled_over_lots(small):
    rows = CooperativeVecEnv(small, "loo", 2, seed=0)
    env, seen = normalised(rows, rows.engine.layout, 0.5)
    observations = [env.unnormalize_obs(env.reset())]
    for _ in range(3):
        observations.append(env.unnormalize_obs(env.step(np.ones((6, 4), dtype=np.int64))[0]))
    every = np.concatenate(observations)
    layout = rows.engine.layout
    lots = every[:, : 4 * len(layout.lot_features)].reshape(-1, len(layout.lot_features))
    mean, variance = seen.per_feature()
    assert mean[: len(layout.lot_features)] == pytest.approx(lots.mean(axis=0), abs=1e-3)
    assert variance[: len(layout.lot_features)] == pytest.approx(lots.var(axis=0), abs=2e-2)
    assert mean[len(layout.lot_features) :] == pytest.approx(every[:, 4 * len(layout.lot_features) :].mean(axis=0), abs=1e-3)


@pytest.mark.parametrize(("n_rows", "wanted", "size"), [(1536, 512, 512), (560, 512, 280), (96, 512, 96), (7, 4, 7), (2018, 512, 1009)])
def test_minibatches_divide_an_update_evenly_and_are_not_tiny(small, n_rows, wanted, size):
    assert PPOSettings(scenario=small, batch_size=wanted).minibatch(n_rows) == size


def test_minibatches_can_be_counted_in_rounds_and_need_two_agent_steps(small):
    assert PPOSettings(scenario=small, batch_size=512).minibatch(256, 6) == 64  # at most 85 rounds of six
    assert PPOSettings(scenario=small, batch_size=2).minibatch(4, 6) == 1
    with pytest.raises(ValueError, match="one agent-step, which PPO cannot compare with others: raise num_cooperatives"):
        PPOSettings(scenario=small).minibatch(1)


def test_a_cooperative_of_one_proxy_one_lot_and_one_round_trains(tmp_path):
    tiny = {"principals": 1, "horizon": 1, "lots.per_principal": 1, "lots.corruption.share": 0.0, "profiles": []}
    lonely = scenario.load("breast_cancer", **tiny)
    folder = train(settings(lonely, num_cooperatives=3, total_steps=7, hidden=1), tmp_path / "run", tensorboard=False)
    curve = json.loads((folder / "curve.json").read_text())["updates"]
    assert [point["agent_steps"] for point in curve] == [3, 6, 9]
    with pytest.raises(ValueError, match="raise num_cooperatives"):
        train(settings(lonely, num_cooperatives=1, total_steps=7), tmp_path / "other", tensorboard=False)


def test_settings_that_were_refused_leave_the_folder_to_corrected_ones(small, tmp_path):
    with pytest.raises(ValueError, match="device='cuda"):
        train(settings_for("ippo", scenario=small, credit="loo", total_steps=100, device="cuda:77"), tmp_path / "run")
    train(settings_for("ippo", scenario=small, credit="loo", total_steps=100), tmp_path / "run", tensorboard=False)
    assert (tmp_path / "run" / "policy.pt").exists()


def test_a_run_that_goes_on_logs_every_update_once_and_counts_all_its_seconds(small, tmp_path, cut_off):
    cut_off(settings(small), tmp_path, after=400)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    (first,) = (tmp_path / "tb").glob("events.*")
    first.rename(first.with_name("events.out.tfevents.0"))  # TensorBoard reads files in the order of their names, which hold whole seconds
    train(settings(small), tmp_path, resume=True)
    assert json.loads((tmp_path / "run.json").read_text())["seconds"] > kept["seconds"] > 0
    logs = EventAccumulator(str(tmp_path / "tb"))
    logs.Reload()
    steps = [event.step for event in logs.Scalars("cooperative/welfare")]
    curve = json.loads((tmp_path / "curve.json").read_text())["updates"]
    assert steps == [point["agent_steps"] for point in curve]


def test_a_training_is_the_same_whatever_the_caller_has_set_in_torch(small, trained, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            folder = train(settings(small), tmp_path / "run", tensorboard=False)
    finally:
        torch.set_default_dtype(torch.float32)
    expected = weights(trained)
    for name, parameter in weights(folder).items():
        assert torch.equal(parameter, expected[name])


def test_what_becomes_of_a_resumed_run_is_told(small, tmp_path, cut_off):
    chosen, told = settings(small, checkpoint_every=1), []
    cut_off(chosen, tmp_path / "run", 400, tensorboard=False)
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["curve"][-1]["agent_steps"]
    train(chosen, tmp_path / "run", resume=True, tensorboard=False, told=told.append)
    assert told == [f"the run goes on at step {int(kept):,} of {chosen.total_steps:,}"]
    train(chosen, tmp_path / "new", resume=True, tensorboard=False, told=told.append)
    assert told[1] == "the run begins: there is none in the folder yet"
    record = json.loads((tmp_path / "new" / "run.json").read_text())
    (tmp_path / "new" / "run.json").write_text(json.dumps(record | {"finished": False}))
    train(chosen, tmp_path / "new", resume=True, tensorboard=False, told=told.append)
    assert told[2] == "the run begins anew: there is no checkpoint yet"


def test_data_that_is_missing_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PROXYCOOP_DATA", str(tmp_path))
    _load.cache_clear()  # another test may have read the files where they are
    fashion = scenario.load("fashion", **{"data.split_seed": 12345})
    with pytest.raises(ValueError, match="the four files of Fashion-MNIST are in none of"):
        train(settings(fashion, credit="equal"), tmp_path / "run")
    with pytest.raises(ValueError, match="the four files of Fashion-MNIST are in none of"):
        compare(cells([fashion], ["equal"], [0]), tmp_path / "table", quiet=True)
    assert not list(tmp_path.iterdir())
