"""Identities: principals that take part under several names, by the scenario."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from torch import Tensor

from proxycoop import agents, credit
from proxycoop.envs import Engine, Scenario, cooperative_v0, episode_metrics, scenario
from proxycoop.envs.compiled import functions
from proxycoop.envs.data.names import Names
from proxycoop.envs.gymnasium_vector import CooperativeVectorEnv, vector_env
from proxycoop.envs.rendering import render_text
from proxycoop.envs.rounds import compiled
from proxycoop.envs.scenario import n_agents_of
from proxycoop.envs.shared import require_served
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.analysis.audit import audit
from proxycoop.training.analysis.explain import explain
from proxycoop.training.analysis.interaction import interaction
from proxycoop.training.evaluate import evaluate
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.pages.description import describe
from proxycoop.training.train import train

DEALT = [{"principal": 2, "split": 3}, {"principal": 0, "split": 2}]
COPIED = [{"principal": 1, "split": 3, "lots": "copied"}]


def load(name: str = "digits", identities: object = None, conduct: dict[str, object] | None = None, **more: Any) -> Scenario:
    """A small cooperative of four principals, with identities if there are any."""
    settings: dict[str, Any] = {"principals": 4, "horizon": 5, "reward.scale": 100.0, **more}
    if identities is not None or conduct is not None:
        settings["conduct"] = {**(conduct or {}), **({} if identities is None else {"identities": identities})}
    return scenario.load(name, **settings)


def some_lots(engine: Engine, t: int, n_agents: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(t)
    return torch.rand(engine.num_envs, n_agents, engine.num_items, generator=generator) < 0.6


# who sits where


def test_own_names_stay_in_their_seats_and_the_others_come_last_in_order():
    made = load(identities=DEALT)
    assert made.n_agents == 7
    assert made.names == Names(
        (0, 1, 2, 3, 2, 2, 0),
        (
            (True, True, False, False),
            (True, True, True, True),
            (True, True, False, False),
            (True, True, True, True),
            (False, False, True, False),
            (False, False, False, True),
            (False, False, True, True),
        ),
    )
    assert load(identities=COPIED).names == Names((0, 1, 2, 3, 1, 1), ((True,) * 4,) * 6)
    assert load().names is None
    assert load(identities=[]).names is None
    assert load().n_agents == 4


@pytest.mark.parametrize(("n_lots", "n_names", "sizes"), [(5, 2, [3, 2]), (5, 3, [2, 2, 1]), (7, 3, [3, 2, 2]), (3, 3, [1, 1, 1])])
def test_lots_are_dealt_in_blocks_as_equal_as_possible(n_lots, n_names, sizes):
    names = Names.of(2, n_lots, [(1, n_names, False)])
    held = torch.tensor(names.holds)[names.names_of(1)]
    assert held.sum(dim=1).tolist() == sizes
    assert held.long().argmax(dim=0).tolist() == [name for name, size in enumerate(sizes) for _ in range(size)]
    assert names.holds[0] == (True,) * n_lots


def test_two_names_are_those_of_split_and_copied():
    assert Names.of(3, 5, [(1, 2, False)]) == Names.split(3, 5, 1)
    assert Names.of(3, 5, [(2, 2, True)]) == Names.copied(3, 5, 2)


@pytest.mark.parametrize(
    ("several", "message"),
    [
        ([(3, 2, False)], "principal=3: principals go from 0 to 2"),
        ([(0, 2, True), (0, 3, True)], "principal=0 is there twice"),
        ([(0, 1, True)], "n_names=1: must be at least 2"),
        ([(0, 5, False)], "n_lots=4: 4 lots cannot be split between 5 names"),
    ],
)
def test_names_that_cannot_be_are_refused(several, message):
    with pytest.raises(ValueError, match=message):
        Names.of(3, 4, several)


# a scenario says the same as an engine's argument


@pytest.mark.parametrize("identities", [DEALT, COPIED])
def test_a_scenario_s_names_are_the_engine_s_to_the_last_bit(identities):
    made = load(identities=identities)
    engine, told = Engine(made, "shapley", 2), Engine(load(), "shapley", 2, names=made.names)
    assert engine.num_agents == made.n_agents == told.num_agents
    assert not engine.items
    for one in (engine, told):
        one.reset([3, 4])
    for t in range(made.horizon):
        chosen = some_lots(engine, t, made.n_agents)
        one, other = engine.step(chosen), told.step(chosen)
        assert torch.equal(one.rewards, other.rewards)
        assert torch.equal(one.observations, other.observations)
        assert torch.equal(engine.theta, told.theta)
    assert engine.observations.isfinite().all()


def test_names_given_twice_are_refused():
    with pytest.raises(ValueError, match=r"names=Names.*scenario 'digits' has conduct.identities, which say who has which names"):
        Engine(load(identities=DEALT), None, names=Names.split(4, 4))


def test_without_identities_all_is_as_it_was_to_the_last_bit():
    plain, none = load(), load(identities=[])
    engines = [Engine(one, "shapley", 2) for one in (plain, none)]
    for engine in engines:
        engine.reset([1, 2])
    for t in range(plain.horizon):
        one, other = (engine.step(some_lots(engine, t)) for engine in engines)
        assert torch.equal(one.rewards, other.rewards)
        assert torch.equal(one.observations, other.observations)
    assert "identities" not in none.to_yaml()


# what changes, and what does not


@pytest.mark.parametrize("name", ["digits", "digits-mean", "breast_cancer"])
@pytest.mark.parametrize("governance", ["unanimous", "own"])
def test_dealing_lots_leaves_the_steps_as_they_are(name, governance):
    more = {"screening.governance": governance, "lots.per_principal": 4}
    made, plain = load(name, DEALT, **more), load(name, **more)
    several, one = (Engine(which, "in_run", 3, dtype=torch.float64) for which in (made, plain))
    for engine in (several, one):
        engine.reset([5, 6, 7])
    names = made.names
    for t in range(plain.horizon):
        lots = some_lots(one, t)
        with_names, without = several.step(names.choices(lots)), one.step(lots)
        torch.testing.assert_close(several.theta, one.theta, rtol=1e-10, atol=1e-12)
        admitted = torch.stack([with_names.admitted[:, names.names_of(i)].any(dim=1) for i in range(4)], dim=1)
        assert torch.equal(admitted, without.admitted)
        credited = torch.stack([with_names.credit[:, names.names_of(i)].sum(dim=1) for i in range(4)], dim=1)
        torch.testing.assert_close(credited, without.credit, rtol=1e-8, atol=1e-10)  # in-run credit adds up over lots
    found, expected = episode_metrics(several), episode_metrics(one)
    for measure in ("clean_share", "corrupt_share", "admitted_share", "utility", "welfare"):
        torch.testing.assert_close(found[measure], expected[measure], rtol=1e-9, atol=1e-9)
    assert expected["clean_share"].min() > 0
    assert expected["corrupt_share"].min() > 0


def test_every_name_has_its_principal_s_profile_and_offers_its_lots():
    made = load(identities=[*COPIED, {"principal": 3}])
    engine, plain = Engine(made, "loo", 8), Engine(load(), "loo", 8)
    for one in (engine, plain):
        one.reset(range(8))
    owner = list(made.names.owner)
    assert owner == [0, 1, 2, 3, 1, 1, 3]
    assert torch.equal(engine.profiles.kind, plain.profiles.kind[:, owner])
    assert torch.equal(engine.profiles.tolerance, plain.profiles.tolerance[:, owner])
    assert torch.equal(engine.lots.x, plain.lots.x[:, owner])
    available = engine.prospect.available[0]
    assert available[:3].all()
    assert available.sum(dim=1).tolist() == [4, 4, 4, 2, 4, 4, 2]
    assert engine.prospect.proposals.share[0].sum(dim=1).tolist() == pytest.approx([1 / 6] * 3 + [1 / 12] + [1 / 6] * 2 + [1 / 12])


def test_what_a_name_does_not_offer_is_neither_clean_nor_corrupt():
    made = load(identities=DEALT)
    engine, plain = Engine(made, None, 4), Engine(load(), None, 4)
    for one in (engine, plain):
        one.reset(range(4))
    for kind in ("clean", "corrupt"):
        assert torch.equal(getattr(engine.lots, kind).sum(dim=(1, 2)), getattr(plain.lots, kind).sum(dim=(1, 2)))
    assert torch.equal(engine.lots.severity.sum(dim=(1, 2)), plain.lots.severity.sum(dim=(1, 2)))
    assert torch.equal(engine.lots.clean | engine.lots.corrupt, engine.prospect.available)
    metrics = agents.play(engine, agents.make("all"), range(4))
    assert metrics["clean_share"].tolist() == metrics["corrupt_share"].tolist() == [1] * 4


def test_the_reward_scale_is_that_of_the_principals_honest_work():
    more = {"reward.scale": "auto"}
    assert Engine(load("breast_cancer", DEALT, **more), None).reward_scale == Engine(load("breast_cancer", **more), None).reward_scale


def test_batches_play_as_single_cooperatives():
    made = load("digits-mean", DEALT, {"forgeries": [{"kind": "noise"}, {"kind": "twin"}], "levers": [{"kind": "quit"}]})
    together = Engine(made, "shapley", 3, dtype=torch.float64)
    together.reset([5, 6, 7])
    chosen = [some_lots(together, t, 7) for t in range(3)]
    results = [together.step(one) for one in chosen]
    for e in range(3):
        alone = Engine(made, "shapley", 1, dtype=torch.float64)
        alone.reset([5 + e])
        for one, result in zip(chosen, results, strict=True):
            torch.testing.assert_close(alone.step(one[e : e + 1]).rewards[0], result.rewards[e], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alone.observations[0], together.observations[e], rtol=1e-5, atol=1e-5)


def test_names_have_items_of_their_own_and_forge_from_what_they_offer():
    made = load(
        identities=[{"principal": 0, "split": 2}], conduct={"forgeries": [{"kind": "twin", "of": 3}], "levers": [{"kind": "claim"}]}
    )
    engine = Engine(made, "data_size", 1)
    engine.reset([0])
    assert engine.prospect.choosable[0, :, 4].tolist() == [False, True, True, True, True]  # lot 3 is the second name's
    assert engine.prospect.choosable[0, :, 5].all()
    result = engine.step(torch.ones(1, 5, 6, dtype=torch.bool))
    assert result.contributed[0, 4].tolist() == [False, False, True, True, True]
    assert "proxy_4" in render_text(engine)


def test_money_is_for_every_name():
    made = load("breast_cancer", DEALT, settlement={"period": 5})
    engine = Engine(made, "equal", 2)
    metrics = agents.play(engine, agents.make("oracle"), [1, 2])
    assert metrics["paid"].shape == (2, 7)
    assert (metrics["paid"].sum(dim=1) <= metrics["revenue"]).all()
    assert metrics["paid"].max() > 0


# governance: who objects counts as a member, unless stakes are weighed

OBJECTOR = [{"holders": 1, "max_norm": 1e-9}]
"""The first principal's profile: it finds every update inadmissible."""


@pytest.mark.parametrize(
    ("screening", "lots", "passes"),
    [
        ({"governance": "quorum", "quorum": 0.7}, "dealt", False),  # 3 of 6 consent, without names 3 of 4
        ({"governance": "weighted", "quorum": 0.7, "weigh_by": "data"}, "dealt", True),  # the same rows as without names
        ({"governance": "weighted", "quorum": 0.7, "weigh_by": "data"}, "copied", False),  # three times its rows
        ({"governance": "weighted", "quorum": 0.7, "weigh_by": "stake"}, "dealt", True),
        ({"governance": "weighted", "quorum": 0.7, "weigh_by": "stake"}, "copied", True),
        ({"governance": "unanimous"}, "dealt", False),
    ],
)
def test_names_count_as_members_but_share_a_stake(screening, lots, passes):
    more = {"profiles": OBJECTOR, "profiles_drawn": False, "screening": screening}
    plain = Engine(load(**more), None, 2)
    plain.reset([1, 2])
    assert bool(plain.prospect.passes.all()) == (screening["governance"] != "unanimous")
    engine = Engine(load(identities=[{"principal": 0, "split": 3, "lots": lots}], **more), None, 2)
    engine.reset([1, 2])
    assert bool(engine.prospect.passes[:, 1:4].all()) == bool(engine.prospect.passes[:, 1:4].any()) == passes


def test_a_principal_s_names_have_its_stake_between_them():
    stakes = [{"holders": 1, "stake": 3.0}, {"holders": 1, "stake": 1.5}, {"holders": 2, "stake": 6.0}]
    more = {"profiles": stakes, "profiles_drawn": False, "screening": {"governance": "weighted", "weigh_by": "stake"}}
    engine = Engine(load(identities=[{"principal": 0, "split": 3}, {"principal": 3, "split": 2}], **more), None, 1)
    engine.reset([0])
    assert (engine.profiles.stake[0] * 6.0).tolist() == pytest.approx([1, 1.5, 6, 3, 1, 1, 3])
    weight = engine.prospect.verdicts.weight[0]
    assert weight.tolist() == pytest.approx([part / 16.5 for part in (1, 1.5, 6, 3, 1, 1, 3)])


# faces and learners


def test_pettingzoo_s_checkers_pass_with_a_proxy_for_each_name():
    made = {"scenario": load(identities=DEALT), "credit": "loo"}
    assert cooperative_v0.parallel_env(**made).possible_agents == [f"proxy_{i}" for i in range(7)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel_api_test(cooperative_v0.parallel_env(**made), num_cycles=12)
        parallel_seed_test(lambda: cooperative_v0.parallel_env(**made))
        api_test(cooperative_v0.env(**made), num_cycles=20)


def test_gymnasium_s_vector_has_a_row_for_each_name():
    made = load(identities=DEALT)
    env = vector_env(num_envs=14, scenario=made, credit="loo")
    assert isinstance(env, CooperativeVectorEnv)
    observations, _ = env.reset(seed=[3, 4])
    assert len(observations) == 14
    _, rewards, _, _, infos = env.step(env.action_space.sample())
    assert rewards.shape == (14,)
    assert infos["credit"].shape == (14,)
    with pytest.raises(ValueError, match="num_envs=12: scenario 'digits' has 7 proxies, a row each"):
        vector_env(num_envs=12, scenario=made)
    assert CooperativeVecEnv(made, "loo", 2).num_envs == 14


@pytest.mark.parametrize(("library", "algo"), [("ippo", "ppo"), ("ippo", "grpo"), ("sb3", "ppo")])
def test_learners_train_in_every_seat_and_what_they_learned_plays_without_false_names(tmp_path, library, algo):
    made = load(identities=DEALT)
    seats = ("6=none",)
    settings = settings_for(library, algo, scenario=made, credit="loo", total_steps=2 * 4 * 5 * 6, seed=1, num_cooperatives=4, seats=seats)
    assert settings.n_learners == 6
    assert settings.company().learners == [0, 1, 2, 3, 4, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = train(settings, tmp_path / "run", tensorboard=False)
    learned = agents.make("learned", path=folder)
    for which, n_agents in ((made, 7), (load(), 4)):
        assert agents.play(Engine(which, "loo", 2), learned, [1, 2])["return"].shape == (2, n_agents)
    with pytest.raises(ValueError, match="seats go from 0 to 6"):
        settings_for(library, algo, scenario=made, credit="loo", seats=("7=none",))


def test_compiled_rounds_are_served(monkeypatch):
    """But for the compiler, which takes a minute."""
    monkeypatch.setattr(functions, "_compiled", lambda traced, on_cuda: traced.forward)
    monkeypatch.setattr(compiled, "require_compiler", lambda device: None)
    monkeypatch.setattr(compiled, "_made", {})
    made = load(identities=DEALT)
    engine, plain = (Engine(made, "shapley", 2, dtype=torch.float64, compile=which) for which in (True, False))
    for one in (engine, plain):
        one.reset([1, 2])
    for t in range(3):
        chosen = some_lots(engine, t, 7)
        torch.testing.assert_close(engine.step(chosen).rewards, plain.step(chosen).rewards, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="conduct leads to rounds that depend on those before them"):
        Engine(load(identities=DEALT, conduct={"forgeries": [{"kind": "echo"}]}), None, compile=True)


def test_a_rule_must_serve_all_names():
    many = {"principals": 12, "profiles": []}
    require_served(load(**many), credit.make("nucleolus"))
    too_many = load(identities=[{"principal": 0, "split": 4}], **many)
    for ask in (
        lambda: require_served(too_many, credit.make("nucleolus")),
        lambda: Engine(too_many, "nucleolus"),
        lambda: settings_for("ippo", "ppo", scenario=too_many, credit="nucleolus"),
    ):
        with pytest.raises(ValueError, match="Nucleolus takes at most 12 agents, got 15"):
            ask()


# analyses


def test_analyses_count_names():
    made = load("breast_cancer", DEALT, {"levers": [{"kind": "quit"}]}, horizon=2)
    assert interaction(made, episodes=2).agents == 7
    assert made.without_items().names == made.names
    assert not made.without_items().conduct.names
    assert load(conduct={"levers": [{"kind": "quit"}]}).without_items().conduct is None
    found = audit(made.without_items(), lambda: agents.make("all"), credit="loo", episodes=2)
    assert found.blocks_by_seat.shape == (7, 7)
    told = dict(describe(made.to_dict()))
    assert told["Principals (N)"] == "4, under 7 names"
    assert dict(describe(load().to_dict()))["Principals (N)"] == "4"


def test_an_explanation_counts_the_lots_that_names_offer():
    made = load("breast_cancer", [{"principal": 0, "split": 2}], horizon=2, **{"start.steps": 1})
    found = explain(made, lambda: agents.make("honest"), credit="loo", episodes=2, budget=60, draws=1)
    engine = Engine(made, None, 2)
    engine.reset([0, 1])
    assert torch.equal(found.proxies.clean.sum(dim=1), engine.lots.clean.sum(dim=(1, 2)))
    assert found.proxies.seats.shape == (2, 5)


def test_what_a_further_name_gains_is_not_measured_where_principals_have_several():
    found = evaluate(load(identities=DEALT), "loo", lambda: agents.make("all"), episodes=2, unscreened=False)
    assert found.measures["split_gain"].mean is None
    assert found.measures["copy_gain"].mean is None
    assert found.measures["clean_share"].mean == 1
    assert evaluate(load(), "loo", lambda: agents.make("all"), episodes=2, unscreened=False).measures["split_gain"].mean is not None


# settings


def test_a_scenario_with_identities_is_read_back_as_it_was(tmp_path):
    made = load(identities=[*DEALT, *COPIED])
    (tmp_path / "names.yaml").write_text(made.to_yaml(), encoding="utf-8")
    again = scenario.load(tmp_path / "names.yaml")
    assert again == made
    assert again.names == made.names
    assert n_agents_of(made.to_dict()) == made.n_agents == 9
    assert n_agents_of(load().to_dict()) == 4
    assert scenario.load(tmp_path / "names.yaml", **{"conduct.identities.0.split": 2}).n_agents == 8
    assert "split: 3" in made.to_yaml()
    assert "identities" not in load(conduct={"levers": [{"kind": "quit"}]}).to_yaml()


@pytest.mark.parametrize(
    ("identities", "message"),
    [
        ([{"principal": 4}], r"conduct.identities.0.principal: principals go from 0 to 3 \(got 4\)"),
        ([{"principal": -1}], "conduct.identities.0.principal: .*greater than or equal to 0"),
        ([{"principal": 1}, {"principal": 1}], "conduct.identities.1.principal: identities.0 is of principal 1 already"),
        ([{"principal": 1, "split": 1}], "conduct.identities.0.split: .*greater than or equal to 2"),
        ([{"principal": 1, "split": 5}], "conduct.identities.0.split: split=5: there must be a lot for each name, and a principal has 4"),
        ([{"principal": 1, "lots": "shared"}], "conduct.identities.0.lots: Input should be 'dealt' or 'copied'"),
        ([{"principal": True}], "must be a number, not true or false"),
        ([{"split": 2}], "conduct.identities.0.principal: Field required"),
        ({"principal": 1}, r"conduct.identities: must be a list, such as \[\{principal: 0, split: 2\}\]"),
        ([1], r"conduct.identities: must be a list, such as \[\{principal: 0, split: 2\}\]"),
        ([{"principal": 1, "names": 2}], "unknown key 'conduct.identities.0.names'"),
        (
            [{"principal": 1, "split": 1022, "lots": "copied"}],
            "conduct.identities: 1025 proxies with all names: there may be 1,024 at most",
        ),
    ],
)
def test_identities_that_cannot_be_are_refused_with_their_place(identities, message):
    with pytest.raises(ValueError, match=message):
        load(identities=identities)


def test_columns_have_one_name():
    with pytest.raises(
        ValueError, match=r"conduct.identities: seats of a vertical cooperative hold columns, which only one name can offer"
    ):
        scenario.load("breast_cancer-vertical", conduct={"identities": [{"principal": 0}]})


def test_a_name_gains_a_share_under_equal_pay():
    """By its formula: k of N + k − 1 shares of the same gains, instead of one of N."""
    made = load("digits-mean", [{"principal": 1, "split": 3}])
    engine, plain = Engine(made, "equal", 4, dtype=torch.float64), Engine(load("digits-mean"), "equal", 4, dtype=torch.float64)
    for one in (engine, plain):
        one.reset(range(4))
    for _ in range(plain.horizon):
        lots = ~plain.lots.corrupt
        engine.step(made.names.choices(lots))
        plain.step(lots)
    whole = plain.credit_so_far.sum(dim=1)
    torch.testing.assert_close(engine.credit_so_far[:, made.names.names_of(1)].sum(dim=1), whole * 3 / 6)
    assert math.isclose(float(plain.credit_so_far[0, 1]), float(whole[0]) / 4, rel_tol=1e-9)
