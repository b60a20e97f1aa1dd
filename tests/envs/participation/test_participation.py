"""Partial participation: who is present, what everybody has, and that a sample of all is the whole cooperative to the last bit."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from pettingzoo.test import parallel_api_test, parallel_seed_test
from torch import Tensor

from proxycoop import agents
from proxycoop.envs import Engine, cooperative_v0, randomness, scenario
from proxycoop.envs.data.lots import DealtLots, _turns
from proxycoop.envs.metrics import episode_metrics, round_infos
from proxycoop.envs.participation import Attendance
from proxycoop.envs.records import RoundResult
from proxycoop.envs.vector import CooperativeVecEnv

SMALL = {"principals": 9, "horizon": 4, "reward.scale": 100.0, "participation": {"sample": 4}}


def small(name: str = "digits", **more: object) -> scenario.Scenario:
    return scenario.load(name, **(SMALL | more))


def played(
    made: scenario.Scenario, rule: str | None = "loo", *, seeds: range = range(2), chance: float = 0.6, dtype: torch.dtype = torch.float32
) -> Engine:
    """An episode of proxies that contribute each lot by a coin of its own."""
    engine = Engine(made, rule, num_envs=len(seeds), dtype=dtype)
    engine.reset(list(seeds))
    while engine.t < engine.horizon:
        keys = torch.tensor([1000 * seed + engine.t for seed in seeds])
        engine.step(randomness.uniform(keys, engine.num_agents, engine.num_lots) < chance)
    return engine


def tensors(result: RoundResult, *but: str) -> dict[str, Tensor]:
    found = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor) and name not in but}


@pytest.mark.parametrize(
    ("name", "more", "rule"),
    [
        ("digits", {}, "shapley"),
        ("giant", {}, "cgsv"),
        ("digits", {"screening.governance": "quorum", "screening.quorum": 0.7}, "loo"),
        ("digits", {"screening.governance": "stakeholders", "screening.quorum": 0.6}, "loo"),
        ("digits", {"screening.governance": "own", "screening.filter": "project"}, "comfedsv"),
        ("breast_cancer", {"lots.holders": 2, "lots.corruption": {"what": "features", "share": 0.5, "rate": 0.5, "pairs": []}}, "smoothed"),
        ("breast_cancer", {"settlement": {"period": 2, "reward": "settlement"}, "lots.site_shift": 0.3}, "fedsv"),
        ("digits", {"admission": {"capacity": 8}, "weights": "participants"}, "shapley"),
    ],
)
def test_a_sample_of_all_is_the_cooperative_without_participation_to_the_last_bit(name: str, more: dict[str, object], rule: str) -> None:
    whole = scenario.load(name, horizon=4, **{"reward.scale": 100.0}, **more)
    sampled = whole.model_copy(update={"participation": small().participation.model_copy(update={"sample": whole.principals})})
    one, other = played(whole, rule), played(sampled, rule)
    assert torch.equal(one.theta, other.theta)
    for plain, some in zip(one.history, other.history, strict=True):
        expected, found = tensors(plain, "blocked_by"), tensors(some, "blocked_by", "present")
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=0, equal_nan=True, msg=key)
        kinds = other.profiles.kind
        assert kinds is not None
        by_holder = some.blocked_by.gather(3, kinds[:, None, None].expand(*some.blocked_by.shape[:3], -1))
        assert torch.equal(by_holder, plain.blocked_by)
    measured = episode_metrics(other)
    for key, value in episode_metrics(one).items():
        torch.testing.assert_close(measured[key], value, rtol=1e-6, atol=1e-6, equal_nan=True, msg=key)


def test_environment_e_of_a_batch_is_the_single_environment_with_its_seed() -> None:
    batch = played(small(), "shapley", seeds=range(3), dtype=torch.float64)
    for e in range(3):
        single = played(small(), "shapley", seeds=range(e, e + 1), dtype=torch.float64)
        for together, alone in zip(batch.history, single.history, strict=True):
            for name, value in tensors(alone, "evaluations").items():
                torch.testing.assert_close(getattr(together, name)[e], value[0], rtol=1e-5, atol=1e-6, equal_nan=True, msg=name)
            assert together.present is not None
            assert torch.equal(together.present[e], alone.present[0])  # type: ignore[index]


def test_the_same_seed_gives_the_same_numbers_and_another_episode_other_agents() -> None:
    one, again = played(small()), played(small())
    assert torch.equal(one.theta, again.theta)
    first = torch.stack([result.attended for result in one.history])
    one.reset()
    while one.t < one.horizon:
        one.step(torch.ones(2, 9, 4, dtype=torch.bool))
    assert not torch.equal(first, torch.stack([result.attended for result in one.history]))


def test_every_set_of_so_many_agents_is_equally_likely() -> None:
    keys = torch.arange(30_000)
    drawn = Attendance.drawn(keys, 3, 5, 2)
    assert (drawn.agents.diff(dim=1) > 0).all()  # without replacement, in order
    codes = (2**drawn.agents).sum(dim=1)
    counts = torch.bincount(codes, minlength=32)
    assert int((counts > 0).sum()) == 10
    statistic = ((counts[counts > 0] - 3000.0) ** 2 / 3000).sum()
    assert statistic < 27.9  # χ² with 9 degrees of freedom is above with probability 0.001
    assert drawn.mask.double().mean().item() == pytest.approx(2 / 5)
    assert torch.equal(Attendance.drawn(keys[7:8], 3, 5, 2).agents, drawn.agents[7:8])


def test_lots_are_those_of_the_whole_cooperative_and_features_are_looked_up_for_those_present() -> None:
    more = {"lots.site_shift": 0.4, "lots.corruption": {"what": "features", "share": 0.5, "rate": 0.5, "pairs": [], "size": [0.5, 2.0]}}
    some, whole = Engine(small(**more), None, num_envs=2), Engine(small(**more, participation=None), None, num_envs=2)
    some.reset([3, 4])
    whole.reset([3, 4])
    assert isinstance(some.lots, DealtLots)
    for name in ("y", "rows", "corrupt", "tags", "severity", "samples"):
        assert torch.equal(getattr(some.lots, name).to(getattr(whole.lots, name)), getattr(whole.lots, name)), name
    assert some.attendance is not None
    assert torch.equal(some._at_work.x, some.attendance.of(whole.lots.x))
    assert torch.equal(some._at_work.y, some.attendance.of(whole.lots.y))
    assert some.prospect.proposals.updates.shape[1] == 4


def test_with_fixed_weights_a_lot_weighs_its_share_of_the_data_of_those_sampled() -> None:
    rows = tuple(range(8, 17))
    engine = Engine(small(**{"lots.rows": rows}), None, num_envs=2)
    engine.reset([0, 1])
    assert engine.attendance is not None
    held = torch.tensor(rows)[engine.attendance.agents].double()  # (E, m)
    expected = (held / (4 * held.sum(dim=1, keepdim=True)))[..., None].expand(-1, -1, 4)
    torch.testing.assert_close(engine.prospect.proposals.share.double(), expected, rtol=1e-6, atol=0)


def test_the_absent_keep_what_they_observed_and_nothing_of_theirs_happens() -> None:
    engine = Engine(small(), "shapley", num_envs=2)
    before = engine.reset([5, 6]).clone()
    assert engine.attendance is not None
    assert not before[~engine.attendance.mask].any()
    everything = torch.ones(2, 9, 4, dtype=torch.bool)
    while engine.t < engine.horizon:
        assert not engine.choosable[~engine.attendance.mask].any()
        result = engine.step(everything)
        absent, unseen = ~result.attended, ~engine.attendance.mask
        assert torch.equal(result.observations[unseen], before[unseen])
        assert (result.observations != before).any(dim=2)[engine.attendance.mask].all()
        for name in ("contributed", "admitted", "kept", "credit", "cost", "rewards", "blocked_by", "harm"):
            assert not getattr(result, name)[absent].any(), name
        assert result.contributed[result.attended].all()
        before = result.observations.clone()


def test_an_action_of_an_absent_agent_does_nothing() -> None:
    one, other = (Engine(small(), "loo", num_envs=1) for _ in range(2))
    one.reset([1])
    other.reset([1])
    while one.t < one.horizon:
        assert one.attendance is not None
        chosen = one.attendance.mask[..., None].expand(-1, -1, 4)
        first, second = one.step(chosen), other.step(torch.ones_like(chosen))
        assert all(torch.equal(value, getattr(second, name)) for name, value in tensors(first).items())


def test_the_profiles_of_the_absent_stay_in_force() -> None:
    """One principal of forty holds the only profile. Whether or not it is there, no step breaks its tolerance."""
    made = small(principals=40, profiles=[{"holders": 1, "tolerances": {"eights": 0.01}}])
    engine = played(made, None, seeds=range(8), chance=1.0)
    kinds = engine.profiles.kind
    assert kinds is not None
    holder = (kinds == 0).int().argmax(dim=1)  # (E,)
    away = 0
    for result in engine.history:
        assert result.present is not None
        absent = ~(result.present == holder[:, None]).any(dim=1)
        away += int(absent.sum())
        objected = (result.harm[..., 0] > 0.01) & result.contributed
        assert torch.equal(result.blocked_by[..., 0] & result.contributed, objected)
        assert not (objected & result.admitted).any()
        assert not result.violated.any()
    assert away > 20
    assert any((result.blocked_by[..., 0] & result.contributed).any() for result in engine.history)


def test_a_quorum_counts_all_principals() -> None:
    """Of nine principals four hold a profile that nothing passes: with a quorum of 5/9 all may enter, and with 6/9 nothing may."""
    strict = [{"holders": 4, "max_norm": 1e-9}]
    for quorum, enters in ((5 / 9, True), (6 / 9, False)):
        engine = played(small(profiles=strict, screening={"governance": "quorum", "quorum": quorum}), None)
        assert all(bool(result.admitted.any()) == enters for result in engine.history)


def test_a_public_share_and_loyalty_are_everybodys() -> None:
    more = {"reward.public_share": 0.5, "reward.loyalty": 1.0}
    engine = played(small(**more), "loo")
    result = engine.history[-1]
    absent = ~result.attended
    before = engine.history[-2].value_losses
    suffered = engine.profiles.suffered(before, result.value_losses, engine.horizon)
    expected = 0.5 * 100.0 * result.gain[:, None] - suffered
    torch.testing.assert_close(result.rewards[absent], expected[absent].to(result.rewards), rtol=1e-4, atol=1e-4)


def test_a_settlement_pays_all_that_was_earned_to_those_who_were_credited() -> None:
    engine = played(small(settlement={"period": 2, "reward": "settlement"}), "shapley")
    metrics = episode_metrics(engine)
    assert torch.equal(metrics["paid"].sum(dim=1), metrics["revenue"])
    assert not metrics["paid"][:, :][(engine.credit_so_far <= 0) & (metrics["paid"] > 0)].any()


def test_metrics_count_the_lots_of_those_present() -> None:
    made = small()
    clean = agents.play(Engine(made, "loo", num_envs=2), agents.make("all"), [0, 1])
    assert clean["clean_share"].tolist() == clean["corrupt_share"].tolist() == [1.0, 1.0]
    for name in ("oracle", "planner", "measuring_planner", "honest", "random"):
        engine = Engine(made, "loo", num_envs=2)
        metrics = agents.play(engine, agents.make(name), [0, 1])
        assert all(value.isfinite().all() for value in metrics.values()), name
    assert round_infos(engine)["present"].shape == (2, 9)
    assert round_infos(engine)["present"].sum(axis=1).tolist() == [4, 4]


@pytest.mark.parametrize("actions", ["multi_discrete", "discrete"])
def test_the_pettingzoo_face_keeps_all_agents_and_says_who_is_present(actions: str) -> None:
    make = lambda: cooperative_v0.parallel_env(small(), "loo", actions=actions)  # type: ignore[arg-type]  # noqa: E731
    parallel_api_test(make(), num_cycles=20)
    parallel_seed_test(make)
    env = make()
    _, infos = env.reset(seed=0)
    assert len(env.agents) == 9
    assert sum(info["present"] for info in infos.values()) == 4
    for info in infos.values():
        mask = info["action_mask"]
        allowed = sum(int(pair[1]) for pair in mask) if actions == "multi_discrete" else int(mask.sum()) - 1
        assert (allowed > 0) == info["present"]


def test_the_rows_of_the_absent_are_masked() -> None:
    rows = CooperativeVecEnv(small(), "loo", 2, seed=0)
    rows.reset()
    assert rows.present().shape == (18,)
    assert rows.present().sum() == 8
    assert not rows.action_masks().reshape(18, 4, 2)[~rows.present(), :, 1].any()


def test_a_round_is_told_in_a_few_lines_and_not_drawn() -> None:
    env = cooperative_v0.parallel_env(scenario.load("crowd", **{"reward.scale": 1000.0}), "loo", render_mode="ansi")
    env.reset(seed=0)
    env.step({agent: [1, 1] for agent in env.agents})
    text = env.render()
    assert isinstance(text, str)
    assert "32 of 1,000 proxies in a round" in text
    assert "contributed 64 of 64 lots" in text
    assert len(text.splitlines()) < 12
    picture = cooperative_v0.parallel_env(small(), "loo", render_mode="rgb_array")
    picture.reset(seed=0)
    with pytest.raises(ValueError, match="a picture of each proxy's lots needs all agents in every round, but 4 of 9 are present"):
        picture.render()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("peer_ranking", r"of 72 pairs 12 can \(0.17 of all\)"),
        ("veto_shapley", "the profiles of all 9 principals are in force"),
        ("aristocrat", "remembers agents by their place"),
        ("smoothed(rule='aristocrat')", "remembers agents by their place"),
        ("shapfed", "remembers agents by their place"),
        ("owen(unions=2)", "unions are of agents by their place"),
        ("myerson(graph='line')", "graph connects agents by their place"),
        ("coopetition(interdependence=((0, 1), (1, 0)))", "interdependence is a matrix"),
    ],
)
def test_rules_that_need_the_same_agents_in_every_round_are_refused(rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(small(), rule)


@pytest.mark.parametrize("rows", [12, [5, 8, 11, 14]])
def test_peers_rank_each_other_in_a_sample_of_all_as_without_participation(rows: int | list[int]) -> None:
    whole, sampled = (
        played(small(principals=4, profiles=[], participation=part, **{"lots.rows": rows}), "peer_ranking")
        for part in (None, {"sample": 4})
    )
    for one, other in zip(whole.history, sampled.history, strict=True):
        assert torch.equal(one.credit, other.credit)


def test_a_veto_rule_says_of_a_sample_of_all_what_to_leave_out() -> None:
    with pytest.raises(ValueError, match=r"participation\.sample=9 is everybody, so leave participation out"):
        Engine(small(participation={"sample": 9}), "veto_shapley")


def test_limits_on_the_number_of_agents_are_of_those_present() -> None:
    played(small(principals=300, participation={"sample": 6}), "shapley", seeds=range(1))
    with pytest.raises(ValueError, match="at most 20 agents, got 32"):
        Engine("crowd", "shapley")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"participation": {"sample": 10}}, "must be at most the number of principals, 9"),
        ({"participation": {"sample": 0}}, "greater than or equal to 1"),
        ({"participation": {"sample": 2.5}}, "participation.sample"),
        ({"participation": {"share": 0.1}}, "unknown key"),
        ({"participation": {}}, r"participation.sample: is missing: give the number of agents .* \{sample: 16\}"),
        ({"participation": 16}, r"participation: write \{sample: 16\}"),
        ({"principals": 2000, "participation": None}, "1,024 where all take part in every round"),
        ({"principals": 70_000, "participation": {"sample": 4}}, "less than or equal to 65536"),
        ({"conduct": {"forgeries": [{"kind": "noise"}]}}, "does not go with participation"),
        ({"screening": {"governance": "negotiate"}}, "override screening: screening.governance: negotiate does not go with participation"),
        ({"screening": {"governance": "quorum", "filter": "scale"}}, "do not go with participation"),
        ({"substrate": {"kind": "traversal"}, "lots.rows": list(range(1, 10))}, "does not go with participation under substrate traversal"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        small(**settings)
    assert len(str(refused.value).splitlines()) <= 2


def test_columns_names_copies_and_compilation_are_refused() -> None:
    with pytest.raises(ValueError, match="vertical does not go with participation"):
        scenario.load("breast_cancer-vertical", participation={"sample": 2})
    with pytest.raises(ValueError, match="other agents are present in every round"):
        Engine(small(), "loo", compile=True)
    with pytest.raises(ValueError, match="seats cannot be copied"):
        Engine(small(), "loo").reset([0], copies={1: 0})


def test_some_normal_numbers_are_those_of_all() -> None:
    keys = torch.tensor([3, 2**62, 5])
    whole = randomness.normal(keys, 6, 4)
    places = torch.tensor([[0, 5, 23], [7, 7, 1], [22, 2, 11]])
    assert torch.equal(randomness.normal_at(keys, places), whole.flatten(1).gather(1, places))


def test_turns_by_sorting_are_those_by_counting() -> None:
    generator = torch.Generator().manual_seed(0)
    cell = torch.randint(5, (3, 40), generator=generator)
    there = torch.rand(3, 40, generator=generator) < 0.7
    found = _turns(cell, there)
    for e in range(3):
        for i in range(40):
            assert found[e, i] == (there[e, :i] & (cell[e, :i] == cell[e, i])).sum()


def test_ten_thousand_principals_take_part() -> None:
    profiles = [{"holders": 2000, "tolerances": {name: 0.7}} for name in ("eights", "nines")]
    made = scenario.load("crowd", principals=10_000, horizon=2, profiles=profiles, **{"reward.scale": 1000.0})
    engine = played(made, "cgsv", seeds=range(1))
    assert engine.observations.shape[1] == 10_000
    assert int(torch.stack([result.credit != 0 for result in engine.history]).any(dim=0).sum()) <= 64
    assert engine.prospect.proposals.updates.shape[:3] == (1, 32, 2)
