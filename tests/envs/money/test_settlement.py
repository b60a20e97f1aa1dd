"""Money in a cooperative: what rounds earn, what settlements pay, what proxies see of it and are rewarded by."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from proxycoop import agents
from proxycoop.agents.network import save
from proxycoop.credit.money.settlement import Accounts, SettlementPolicy
from proxycoop.envs import Engine, ObservationLayout, Scenario, cooperative_v0, episode_metrics, scenario
from proxycoop.envs.engine import reference, reference_scale
from proxycoop.envs.money.settlement import Improvement, Level, Meter, SettlementTerms, Treasury
from proxycoop.envs.rendering import render_picture, render_text
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.evaluate import evaluate
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

HORIZON = 5
POLICIES = (
    {},
    {"split": "equal"},
    {"decay": 0.5, "solidarity": 0.25},
    {"early": 0.9, "floor": 40},
    {"cap": 3000, "reserve": 0.1},
    {"clawback": True},
)


def with_money(name: str = "breast_cancer", /, horizon: int = HORIZON, **settlement: object) -> Scenario:
    return scenario.load(name, horizon=horizon, settlement=settlement)


def random_actions(engine: Engine) -> Tensor:
    shape = (engine.horizon, engine.num_envs, engine.num_agents, engine.num_lots)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.6


def played(made: Scenario, seeds: list[int], credit: str = "shapley", **kwargs: object) -> Engine:
    """An engine after an episode of random choices, the same in every environment."""
    engine = Engine(made, credit, len(seeds), **kwargs)
    engine.reset(seeds)
    for choices in random_actions(Engine(made, None)):
        engine.step(choices.expand(len(seeds), -1, -1))
    return engine


def utilities(*rows: list[float]) -> list[Tensor]:
    return [torch.tensor(row, dtype=torch.float64) for row in rows]


# --- revenue


def test_an_improvement_is_paid_once_however_often_the_model_falls_and_rises() -> None:
    start, *after = utilities([-1.0, -1.0], [-0.75, -1.5], [-0.875, -1.25], [-0.75, -0.5], [-0.5, -0.5])
    meter = Meter(Improvement(per_unit=1000), start)
    assert [meter.read(utility, t).tolist() for t, utility in enumerate(after)] == [[250, 0], [0, 0], [0, 500], [250, 0]]


def test_a_level_is_paid_in_every_round_by_how_far_it_lies_above_the_start() -> None:
    start, *after = utilities([-1.0, -1.0], [-0.75, -1.5], [-0.875, -1.25], [-0.75, -0.5], [-0.5, -0.5])
    meter = Meter(Level(per_unit=1000, base=7), start)
    assert [meter.read(utility, t).tolist() for t, utility in enumerate(after)] == [[257, 7], [132, 7], [257, 507], [507, 507]]


def test_revenue_is_rounded_half_to_even() -> None:
    start, *after = utilities([0.0] * 4, [0.25, 0.75, 1.25, 1.375])
    assert Meter(Level(per_unit=2), start).read(after[0], 0).tolist() == [0, 2, 2, 3]


def test_a_model_that_answers_with_no_number_earns_no_money_but_an_error() -> None:
    start, after = utilities([-1.0], [float("nan")])
    with pytest.raises(ValueError, match="diverged in round 3: lower the learning rates"):
        Meter(Improvement(), start).read(after, 3)


@pytest.mark.parametrize("kind", ["improvement", "level"])
def test_the_engine_s_revenue_is_what_its_utilities_say(kind: str) -> None:
    engine = played(with_money(revenue={"kind": kind, "per_unit": 10**7, "base": 11}), [3, 4])
    for e in range(2):
        path = [float(engine.initial_utility[e]), *(float(result.utility[e]) for result in engine.history)]
        for t, result in enumerate(engine.history):
            over = path[0] if kind == "level" else max(path[: t + 1])
            assert int(result.revenue[e]) == 11 + round(10**7 * max(path[t + 1] - over, 0.0))


# --- settlement


def test_payouts_of_an_episode_worked_out_by_hand() -> None:
    terms = SettlementTerms(revenue=Improvement(per_unit=100), period=2, policy=SettlementPolicy())
    treasury = Treasury(terms, (1, 3), 5, 0.5)
    start, *after = utilities([-1.0], [-0.9], [-0.79], [-0.85], [-0.5], [-0.4])
    treasury.begin(start)
    credited = [[1.0, 1.0, 0.0], [1.0, -5.0, 1.0], [0.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]]
    turnovers = [treasury.close(t, torch.tensor([credit]), u) for t, (credit, u) in enumerate(zip(credited, after, strict=True))]
    assert [one.revenue.tolist() for one in turnovers] == [[10], [11], [0], [29], [10]]
    # 21 by 2 : 1 : 1 is 10.5, 5.25, 5.25, and the odd unit goes to the largest fraction; 29 by 2 : 4 : 1 is 8.29, 16.57, 4.14;
    # 10 by 2 : 4 : 2 is 2.5, 5, 2.5, and the odd unit to who comes first
    assert [one.payouts.tolist()[0] for one in turnovers] == [[0, 0, 0], [11, 5, 5], [0, 0, 0], [8, 17, 4], [3, 5, 2]]
    assert turnovers[1].worth.tolist() == [[5.5, 2.5, 2.5]]
    assert treasury.accounts.paid.tolist() == [[22, 27, 11]]


@pytest.mark.parametrize("period", [1, 2, 4, 99])
def test_settlements_come_every_period_and_at_the_end_and_pay_all_revenue(period: int) -> None:
    engine = played(with_money(period=period), [0, 1, 2])
    waiting = torch.zeros(3, dtype=torch.int64)
    for t, result in enumerate(engine.history):
        assert result.revenue.dtype == result.payouts.dtype == torch.int64
        waiting += result.revenue
        due = (t + 1) % period == 0 or t + 1 == HORIZON
        assert torch.equal(result.payouts.sum(dim=1), waiting if due else torch.zeros_like(waiting))
        waiting = torch.zeros_like(waiting) if due else waiting
    assert int(engine.history[0].revenue.min()) > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_an_engine_s_accounts_are_those_of_its_credits_and_revenues(policy: dict[str, object]) -> None:
    engine = played(with_money(period=2, policy=policy), [5, 6], "loo")
    for e in range(2):
        accounts, waiting = Accounts(SettlementPolicy(**policy), engine.num_agents), 0
        for t, result in enumerate(engine.history):
            accounts.credit(result.credit[[e]].double().numpy(), t)
            waiting += int(result.revenue[e])
            if t in (1, 3, 4):
                assert result.payouts[e].tolist() == accounts.settle([waiting]).payouts[0].tolist()
                waiting = 0
        assert engine.treasury.accounts.paid[e].tolist() == accounts.paid[0].tolist()
        assert engine.treasury.accounts.reserve[e] == accounts.reserve[0]


def test_a_reset_begins_new_accounts() -> None:
    made = with_money(period=2)
    engine = played(made, [7])
    first = [result.payouts.tolist() for result in engine.history]
    engine.reset([7])
    assert not engine.treasury.accounts.paid.any()
    for choices in random_actions(Engine(made, None)):
        engine.step(choices)
    assert [result.payouts.tolist() for result in engine.history] == first


@pytest.mark.parametrize("reward", ["credit", "settlement"])
def test_money_of_environment_e_of_a_batch_is_that_of_the_single_environment_with_its_seed(reward: str) -> None:
    made = with_money(period=2, reward=reward)
    seeds = [11, 12, 13]
    batch = played(made, seeds, dtype=torch.float64)
    for e, seed in enumerate(seeds):
        for a, b in zip(batch.history, played(made, [seed], dtype=torch.float64).history, strict=True):
            assert torch.equal(a.revenue[e], b.revenue[0])
            assert torch.equal(a.payouts[e], b.payouts[0])
            torch.testing.assert_close(a.rewards[e], b.rewards[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(a.observations[e], b.observations[0], rtol=1e-6, atol=1e-6)


def test_a_pickled_engine_pays_on_as_it_would_have() -> None:
    made = with_money(period=2)
    engine, choices = Engine(made, num_envs=2), random_actions(Engine(made, num_envs=2))
    engine.reset([0, 1])
    engine.step(choices[0])
    twin = pickle.loads(pickle.dumps(engine))
    for chosen in choices[1:]:
        assert torch.equal(engine.step(chosen).payouts, twin.step(chosen).payouts)


# --- rewards


def test_bookkeeping_alone_changes_neither_what_happens_nor_rewards() -> None:
    plain = played(scenario.load("breast_cancer", horizon=HORIZON), [1, 2])
    booked = played(with_money(period=2, reward="credit"), [1, 2])
    size = plain.layout.size
    for a, b in zip(plain.history, booked.history, strict=True):
        assert a.revenue is None
        assert a.payouts is None
        for name in ("rewards", "credit", "utility", "contributed", "admitted", "cost"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert torch.equal(a.observations, b.observations[..., :size])
    paid, metrics = episode_metrics(booked), episode_metrics(plain)
    assert set(paid) - set(metrics) == {"revenue", "paid"}
    assert all(torch.equal(paid[name], metrics[name]) for name in metrics)


@pytest.mark.parametrize("period", [1, 3])
def test_under_reward_settlement_payouts_stand_in_the_place_of_credit(period: int) -> None:
    engine = played(with_money(period=period, reward="settlement"), [1, 2])
    for result in engine.history:
        worth = engine.reward_scale / 1_000_000 * result.payouts.double()
        torch.testing.assert_close(result.rewards.double(), worth - result.cost, rtol=1e-6, atol=1e-6)
    assert float(engine.history[-1].rewards.max()) > 0


def test_the_public_share_of_the_gain_is_enjoyed_when_it_comes() -> None:
    made = scenario.load(
        "breast_cancer", **{"horizon": 2, "settlement.period": 2, "settlement.reward": "settlement", "reward.public_share": 0.5}
    )
    engine = played(made, [1])
    first = engine.history[0]
    expected = 0.5 * engine.reward_scale * first.gain[:, None] - first.cost
    torch.testing.assert_close(first.rewards, expected)


@pytest.mark.parametrize(
    "revenue", [{}, {"per_unit": 5000}, {"base": 3000}, {"kind": "level"}, {"kind": "level", "per_unit": 40_000, "base": 100}]
)
def test_all_payouts_of_a_good_episode_are_worth_about_n_times_t(revenue: dict[str, object]) -> None:
    made = scenario.load(
        "breast_cancer", **{"settlement.revenue": revenue, "settlement.reward": "settlement", "screening.governance": "none"}
    ).unlimited()
    engine = Engine(made, None, 32)
    engine.reset(range(32))
    while engine.t < engine.horizon:
        engine.step(~engine.lots.corrupt)
    worth = engine.treasury.money_scale * episode_metrics(engine)["revenue"].mean()
    assert float(worth) == pytest.approx(engine.num_agents * engine.horizon, rel=0.02)


def test_a_number_as_reward_scale_weighs_money_as_it_weighs_utility() -> None:
    made = scenario.load("breast_cancer", **{"settlement.revenue.kind": "level", "settlement.reward": "settlement", "reward.scale": 3.0})
    path = reference(made)
    revenue = [round(1_000_000 * max(float(u) - float(path[0, e]), 0.0)) for e in range(32) for u in path[1:, e]]
    expected = 3.0 * float((path[-1] - path[0]).mean()) / (sum(revenue) / 32)
    assert Engine(made, None).treasury.money_scale == pytest.approx(expected, rel=1e-6)
    assert (
        Engine(
            scenario.load("breast_cancer", **{"settlement.revenue.per_unit": 50, "settlement.reward": "settlement", "reward.scale": 3.0})
        ).treasury.money_scale
        == 0.06
    )


def test_the_scale_of_utility_does_not_depend_on_the_settlement() -> None:
    assert reference_scale(with_money(revenue={"kind": "level"})) == reference_scale(scenario.load("breast_cancer", horizon=HORIZON))


# --- observations


def test_what_waits_for_a_whole_episode_stays_within_bounds() -> None:
    engine = Engine(scenario.load("breast_cancer", settlement={"period": 100, "reward": "settlement"}), None, 8)
    engine.reset(range(8))
    most = 0.0
    while engine.t < engine.horizon - 1:
        engine.step(~engine.lots.corrupt)
        most = max(most, float(engine.layout.agent(engine.observations, "waiting").max()))
    assert 0.5 < most < 5


MONEY = ("paid_share", "last_payout", "waiting", "until_settlement")


def test_a_scenario_without_a_settlement_observes_what_it_always_did() -> None:
    plain, booked = (ObservationLayout.of(made) for made in (scenario.load("breast_cancer"), with_money(reward="settlement")))
    assert ObservationLayout.of(with_money(reward="credit")) == plain, "what proxies are not rewarded by they need not see"
    assert booked.agent_features == (*plain.agent_features, *MONEY)
    assert booked.lot_features == plain.lot_features
    assert booked != plain
    assert not set(MONEY) & set(plain.describe())
    assert set(booked.describe()) == {*booked.lot_features, *booked.agent_features}


def test_proxies_see_their_share_their_last_payout_what_waits_and_until_when() -> None:
    engine = played(with_money(period=2, revenue={"per_unit": 100_000}, reward="settlement"), [8, 9])
    engine.reset([8, 9])
    see = {name: [engine.layout.agent(engine.observations, name)] for name in MONEY}
    for choices in random_actions(Engine(with_money(), None)):
        engine.step(choices.expand(2, -1, -1))
        for name, seen in see.items():
            seen.append(engine.layout.agent(engine.observations, name))
    scale = engine.reward_scale / 100_000
    paid, last, waiting = torch.zeros(2, 6), torch.zeros(2, 6), torch.zeros(2)
    until = [1.0, 0.5, 1.0, 0.5, 0.5, 0.0]
    for t in range(HORIZON + 1):
        if t:
            result = engine.history[t - 1]
            paid, waiting = paid + result.payouts, waiting + result.revenue
            if t in (2, 4, 5):
                last, waiting = scale * result.payouts, torch.zeros(2)
        share = paid / paid.sum(dim=1, keepdim=True) if t > 1 else torch.full((2, 6), 1 / 6)
        torch.testing.assert_close(see["paid_share"][t], share)
        torch.testing.assert_close(see["last_payout"][t], (last / 2).clamp(-10, 10).float())
        torch.testing.assert_close(see["waiting"][t], (scale / 12 * waiting)[:, None].expand(2, 6).float())
        assert see["until_settlement"][t].unique().tolist() == [until[t]]


def test_a_policy_from_a_scenario_without_money_is_refused_in_one_with_it(tmp_path: Path) -> None:
    plain = Engine(scenario.load("breast_cancer", horizon=2), None)
    network = agents.LotNetwork(**plain.layout.sizes)
    n_features = len(plain.layout.lot_features) + len(plain.layout.agent_features)
    save(tmp_path / "policy.pt", network, torch.zeros(n_features), torch.ones(n_features), plain.layout)
    agents.play(plain, agents.make("learned", path=tmp_path), [0])
    with pytest.raises(ValueError, match=r"trained on other agent features.*until_settlement"):
        agents.play(Engine(with_money(horizon=2, reward="settlement"), None), agents.make("learned", path=tmp_path), [0])
    agents.play(Engine(with_money(horizon=2), None), agents.make("learned", path=tmp_path), [0])


@pytest.mark.parametrize("agent", ["honest", "planner", "random"])
def test_scripted_agents_play_for_money_as_they_do_without(agent: str) -> None:
    plain, booked = (
        agents.play(Engine(made), agents.make(agent), [4])["return"]
        for made in (scenario.load("breast_cancer", horizon=3), with_money(horizon=3))
    )
    assert torch.equal(plain, booked)


# --- faces


def test_infos_tell_each_proxy_what_it_was_paid() -> None:
    env = cooperative_v0.parallel_env(with_money(horizon=4, period=2))
    _, infos = env.reset(seed=3)
    assert {name: infos["proxy_0"][name] for name in ("payout", "paid", "paid_share")} == {"payout": 0, "paid": 0, "paid_share": 1 / 6}
    paid = np.zeros(6, dtype=np.int64)
    while env.agents:
        *_, infos = env.step({agent: [1, 1, 1, 1] for agent in env.agents})
        result = env.engine.history[-1]
        paid += result.payouts[0].numpy()
        for i, agent in enumerate(env.possible_agents):
            assert type(infos[agent]["payout"]) is type(infos[agent]["paid"]) is int
            assert infos[agent]["payout"] == int(result.payouts[0, i])
            assert infos[agent]["paid"] == paid[i]
            assert infos[agent]["paid_share"] == pytest.approx(paid[i] / paid.sum() if paid.any() else 1 / 6)
    assert paid.sum() > 0
    assert infos["proxy_2"]["metrics/paid"] == paid[2]
    assert infos["proxy_2"]["metrics/revenue"] == paid.sum()


def test_infos_of_a_scenario_without_money_hold_no_money() -> None:
    _, infos = cooperative_v0.parallel_env("breast_cancer").reset(seed=0)
    assert not {"payout", "paid", "paid_share"} & set(infos["proxy_0"])


def test_passes_pettingzoo_s_tests() -> None:
    made = with_money(period=2, reward="settlement")
    parallel_api_test(cooperative_v0.parallel_env(made), num_cycles=12)
    parallel_seed_test(lambda: cooperative_v0.parallel_env(made))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Action space for each agent probably should be", UserWarning)
        api_test(cooperative_v0.env(made), num_cycles=40)


def test_rows_for_stable_baselines3_are_paid_by_settlements() -> None:
    made = with_money(horizon=3, period=2, reward="settlement")
    env = CooperativeVecEnv(made, "loo", 2, seed=0)
    normalised = VecNormalize(env)
    assert normalised.reset().shape == (12, ObservationLayout.of(made).size)
    env.reset()
    rounds = [env.step(np.ones((12, 4), dtype=np.int64)) for _ in range(3)]
    first, second = rounds[0][1], rounds[1][1]
    assert (first < 0).all()  # costs, and nothing paid yet
    assert (second > 0).any()
    assert env.last_episode["paid"].sum(dim=1).tolist() == env.last_episode["revenue"].tolist()


def test_a_seat_passes_stable_baselines3_s_check() -> None:
    check_env(agents.SeatEnv(with_money(period=2, reward="settlement"), actions="discrete"), skip_render_check=True)


def test_a_policy_is_trained_on_settlements_and_plays_for_them(tmp_path: Path) -> None:
    made = with_money(horizon=3, period=2, reward="settlement")
    settings = settings_for("sb3", "ppo", scenario=made, credit="loo", total_steps=72, num_cooperatives=2)
    folder = train(settings, tmp_path / "run", tensorboard=False)
    learned = agents.make("learned", path=folder)
    measures = evaluate(scenario.load(folder / "scenario.yaml"), "loo", learned, episodes=2).measures
    assert measures["revenue"].mean == pytest.approx(6 * measures["paid"].mean)
    with pytest.raises(ValueError, match="trained on other agent features"):
        agents.play(Engine(scenario.load("breast_cancer", horizon=3), None), learned, [0])


def test_the_text_and_the_picture_show_payouts_where_there_are_any() -> None:
    made = with_money(horizon=2, period=2, currency="JPY", policy={"reserve": 0.25})
    engine = Engine(made)
    engine.reset([0])
    assert "no revenue yet, 0 JPY in all: 0 paid, 0 waiting, 0 in reserve" in render_text(engine)
    everything = torch.ones(1, 6, 4)
    engine.step(everything)
    engine.step(everything)
    text = render_text(engine)
    result, revenue = engine.history[-1], [int(result.revenue[0]) for result in engine.history]
    assert "payout, JPY  in all" in text
    for i, line in enumerate(text.splitlines()[3:9]):
        assert f" {int(result.payouts[0, i])} " in f"{line} "
    reserve = sum(revenue) // 4
    told = f"{sum(revenue)} JPY in all: {sum(revenue) - reserve} paid, 0 waiting, {reserve} in reserve"
    assert f"revenue {revenue[-1]} JPY, {told}" in text
    plain = Engine(scenario.load("breast_cancer", horizon=2))
    plain.reset([0])
    plain.step(everything)
    plain.step(everything)
    assert "JPY" not in render_text(plain)
    assert not np.array_equal(render_picture(engine), render_picture(plain))


# --- settings


def test_an_empty_settlement_is_the_default_one() -> None:
    assert with_money().settlement == SettlementTerms()
    assert scenario.load("breast_cancer").settlement is None


def test_one_setting_switches_the_settlement_on() -> None:
    made = scenario.load("breast_cancer", **{"settlement.period": 4, "settlement.policy.decay": 0.5, "settlement.revenue.kind": "level"})
    assert made.settlement == SettlementTerms(period=4, policy=SettlementPolicy(decay=0.5), revenue=Level())


def test_a_settlement_survives_a_round_trip_and_its_absence_leaves_no_trace(tmp_path: Path) -> None:
    for made in (with_money(period=3, revenue={"kind": "level"}, policy={"cap": 5}, currency="USDC", exponent=6), scenario.load("digits")):
        path = tmp_path / "one.yaml"
        path.write_text(made.to_yaml(), encoding="utf-8")
        assert scenario.load(path) == made
    assert "settlement" not in scenario.load("digits").to_dict()
    path.write_text("extends: breast_cancer\nsettlement: null\n", encoding="utf-8")
    assert scenario.load(path).settlement is None
    assert scenario.load(path, **{"settlement.period": 2}).settlement == SettlementTerms(period=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("  peroid: 3", r"one.yaml:3: unknown key 'settlement.peroid'; did you mean 'period'\?.*allowed here: currency, exponent, period"),
        ("  policy: {decai: 1}", r"one.yaml:3: unknown key 'settlement.policy.decai'; did you mean 'decay'\?"),
        ("  revenue: {kind: level, per_units: 1}", r"one.yaml:3: unknown key 'settlement.revenue.per_units'; did you mean 'per_unit'\?"),
        ("  period: 0", r"one.yaml:3: settlement.period: .*greater than or equal to 1 \(got 0\)"),
        ("  period: 1.5", "settlement.period: .*valid integer"),
        ("  revenue: {per_unit: 0}", "settlement.revenue.per_unit: .*greater than or equal to 1"),
        ("  revenue: {per_unit: 2.5}", "settlement.revenue.per_unit: .*valid integer"),
        ("  revenue: {per_unit: 9007199254740993}", "settlement.revenue.per_unit: .*less than or equal to 9007199254740992"),
        ("  revenue: {base: -1}", "settlement.revenue.base: .*greater than or equal to 0"),
        ("  revenue: {kind: rent}", "settlement.revenue.*'improvement', 'level'"),
        ("  reward: money", "settlement.reward: .*'credit' or 'settlement'"),
        ("  currency: euro", "settlement: currency 'euro': write 3 to 12 capital letters or digits"),
        ("  exponent: 19", "settlement: exponent=19 of EUR: must be a whole number of decimals from 0 to 18"),
        ("  policy: {reserve: 1}", "settlement.policy.reserve: .*less than 1"),
        ("  policy: {cap: 1, floor: 2}", "settlement.policy: cap=1 is below floor=2"),
    ],
)
def test_wrong_settings_are_named_with_their_line_and_what_is_allowed(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"extends: breast_cancer\nsettlement:\n{text}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        scenario.load(path)


@pytest.mark.parametrize("revenue", [{"per_unit": 2**53}, {"per_unit": 2**52, "base": 2**53}])
def test_revenue_beyond_what_can_be_counted_is_refused_before_the_first_round(revenue: dict[str, object]) -> None:
    made = scenario.load("digits", **{"settlement.revenue": revenue, "horizon": 2})  # which begins above 1 nat of loss
    with pytest.raises(ValueError, match=r"settlement.revenue: per_unit=.* could bring .* each of 2 rounds: must be at most 2\^53"):
        Engine(made, None)


def test_a_level_that_good_episodes_do_not_reach_cannot_be_weighed() -> None:
    made = with_money(horizon=1, revenue={"kind": "level", "per_unit": 1}, reward="settlement")
    with pytest.raises(ValueError, match=r"settlement.revenue: the worth of money .* earns 0 minor units: raise per_unit"):
        Engine(made, None)


def test_money_goes_with_accuracy_as_utility_too() -> None:
    engine = played(with_money(horizon=3, revenue={"per_unit": 700}).model_copy(update={"utility": "accuracy"}), [0])
    gained = max(float(result.utility[0]) for result in engine.history) - float(engine.initial_utility[0])
    assert sum(int(result.revenue[0]) for result in engine.history) == round(700 * max(gained, 0.0))
