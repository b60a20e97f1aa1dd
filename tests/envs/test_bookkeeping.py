"""A cooperative's ledger: what stands in it is what was played, once."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from proxycoop.credit.ledger import Ledger
from proxycoop.credit.money.settlement import SettlementPolicy
from proxycoop.envs import Engine, Scenario, cooperative_v0, scenario
from proxycoop.envs.bookkeeping import Bookkeeper
from proxycoop.training.commands.cli import app

HORIZON, PERIOD = 5, 2
POLICIES = (
    {},
    {"split": "equal", "floor": 5},
    {"decay": 0.5, "solidarity": 0.25},
    {"early": 0.9, "floor": 4000, "reserve": 0.5},
    {"cap": 900, "reserve": 0.1},
    {"clawback": True},
)


def with_money(policy: dict[str, object] | None = None, **overrides: object) -> Scenario:
    settlement = {"period": PERIOD, "currency": "USDC", "exponent": 3, "policy": policy or {}}
    return scenario.load("breast_cancer", horizon=HORIZON, settlement=settlement, **overrides)


def play(env: cooperative_v0.CooperativeEnv, seed: int | None = 3, chance: float = 0.6, rounds: int = HORIZON) -> None:
    """An episode of random choices, the same for the same chance."""
    random = np.random.default_rng(0)
    env.reset(seed=seed)
    for _ in range(rounds):
        env.step({agent: (random.random(4) < chance).astype(int) for agent in env.agents})


def rows(ledger: Ledger, cooperative: str, table: str) -> list[dict[str, object]]:
    return [entry.fields for entry in ledger.entries(cooperative) if entry.table == table]


def n_rows(path: Path) -> int:
    with Ledger(path, read_only=True) as ledger:
        return sum(1 for one in ledger.cooperatives() for _ in ledger.entries(one.name))


@pytest.mark.parametrize("kind", ["improvement", "level"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_ledger_holds_every_round_and_pays_what_the_engine_paid(policy: dict[str, object], kind: str, tmp_path: Path) -> None:
    made = with_money(policy, **{"settlement.revenue.kind": kind})
    env = cooperative_v0.parallel_env(made, "loo", ledger=tmp_path / "ledger.db")
    play(env)
    env.close()
    name, members = "breast_cancer/loo/seed-3/episode-0", env.possible_agents
    with Ledger(tmp_path / "ledger.db", read_only=True) as ledger:
        cooperative = ledger.cooperative(name)
        assert cooperative.members == tuple(members)
        assert (cooperative.currency.code, cooperative.currency.exponent) == ("USDC", 3)
        assert cooperative.policy == SettlementPolicy(**policy)
        history = env.engine.history
        for t, result in enumerate(history):
            credits_ = {row["position"]: row["credit"] for row in rows(ledger, name, "credits") if row["round"] == t}
            assert credits_ == dict(enumerate(result.credit[0].double().tolist()))
            assert sum(row["amount"] for row in rows(ledger, name, "revenue") if row["round"] == t) == int(result.revenue[0])
        paid = [[0] * len(members) for _ in range(3)]
        for row in rows(ledger, name, "payouts"):
            paid[row["settlement"] - 1][row["position"]] = row["amount"]
        assert paid == [history[t].payouts[0].tolist() for t in (1, 3, 4)]
        last = rows(ledger, name, "settlements")[-1]
        assert last["reserve"] == env.engine.treasury.accounts.reserve[0]
        assert sum(map(sum, paid)) + last["reserve"] == sum(int(result.revenue[0]) for result in history) > 0


def test_a_period_that_earned_nothing_has_no_settlement(tmp_path: Path) -> None:
    env = cooperative_v0.parallel_env(with_money(), ledger=tmp_path / "ledger.db")
    play(env, chance=0.0)
    env.close()
    with Ledger(tmp_path / "ledger.db", read_only=True) as ledger:
        name = ledger.cooperatives()[0].name
        assert len(rows(ledger, name, "rounds")) == HORIZON
        assert rows(ledger, name, "settlements") == []
    assert not env.engine.treasury.accounts.paid.any()


def test_playing_the_same_episode_again_writes_nothing_and_the_next_is_another_cooperative(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    env = cooperative_v0.parallel_env(with_money(), ledger=path)
    play(env)
    before = n_rows(path)
    play(env)
    env.close()
    again = cooperative_v0.parallel_env(with_money(), ledger=path)
    play(again)
    assert n_rows(path) == before
    play(again, seed=None)
    again.close()
    with Ledger(path, read_only=True) as ledger:
        assert [one.name for one in ledger.cooperatives()] == [f"breast_cancer/shapley/seed-3/episode-{n}" for n in (0, 1)]


def test_an_episode_that_was_cut_off_is_completed_by_playing_it_again(tmp_path: Path) -> None:
    for path, cuts in ((tmp_path / "whole.db", []), (tmp_path / "cut.db", [1, 2, 3])):
        for rounds in [*cuts, HORIZON]:
            env = cooperative_v0.parallel_env(with_money(), ledger=path)
            play(env, rounds=rounds)
            env.close()
    with Ledger(tmp_path / "whole.db", read_only=True) as whole, Ledger(tmp_path / "cut.db", read_only=True) as cut:
        name = whole.cooperatives()[0].name
        for a, b in zip(whole.entries(name), cut.entries(name), strict=True):
            assert {**a.fields, "at": ""} == {**b.fields, "at": ""}


def test_other_play_under_the_same_name_is_refused_and_another_name_helps(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    env = cooperative_v0.parallel_env(with_money(), ledger=path)
    play(env)
    before = n_rows(path)
    with pytest.raises(
        ValueError, match=r"differs.*was in the ledger before this episode.*another name \(ledger_name=, or --cooperative\)"
    ):
        play(env, chance=1.0)
    assert n_rows(path) == before
    for changed in (with_money({"decay": 0.5}), with_money(**{"settlement.period": 1})):
        other = cooperative_v0.parallel_env(changed, ledger=path)
        with pytest.raises(ValueError, match="was in the ledger before this episode"):
            play(other)
        other.close()
    assert n_rows(path) == before
    env.close()
    named = cooperative_v0.parallel_env(with_money(), ledger=path, ledger_name="everybody")
    play(named, chance=1.0)
    named.close()
    with Ledger(path, read_only=True) as ledger:
        assert ledger.cooperatives()[-1].name == "everybody/seed-3/episode-0"


def test_the_agent_environment_cycle_writes_the_same_ledger(tmp_path: Path) -> None:
    env = cooperative_v0.env(with_money(), ledger=tmp_path / "aec.db")
    env.reset(seed=3)
    for _ in env.agent_iter():
        env.step(None if env.last()[3] else [1, 1, 1, 1])
    env.close()
    parallel = cooperative_v0.parallel_env(with_money(), ledger=tmp_path / "parallel.db")
    play(parallel, chance=1.0)
    parallel.close()
    assert n_rows(tmp_path / "aec.db") == n_rows(tmp_path / "parallel.db") > 0


def test_an_open_ledger_may_be_given_and_stays_open(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        env = cooperative_v0.parallel_env(with_money(), ledger=ledger)
        play(env)
        env.close()
        assert len(ledger.cooperatives()) == 1


def test_a_pickled_environment_goes_on_writing(tmp_path: Path) -> None:
    env = cooperative_v0.parallel_env(with_money(), ledger=tmp_path / "ledger.db")
    play(env, rounds=3)
    twin = pickle.loads(pickle.dumps(env))
    env.close()
    while twin.agents:
        twin.step({agent: [1, 1, 1, 1] for agent in twin.agents})
    twin.close()
    with Ledger(tmp_path / "ledger.db", read_only=True) as ledger:
        name = ledger.cooperatives()[0].name
        assert [row["round"] for row in rows(ledger, name, "rounds")] == list(range(HORIZON))
        assert len(rows(ledger, name, "settlements")) == 3


def test_what_cannot_be_kept_is_refused_at_the_door(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scenario 'breast_cancer' has no settlement, .*settlement=\{\}"):
        cooperative_v0.parallel_env("breast_cancer", ledger=tmp_path / "ledger.db")
    with pytest.raises(ValueError, match="ledger_name='mine' names the cooperatives in a ledger: give ledger= too"):
        cooperative_v0.parallel_env(with_money(), ledger_name="mine")
    with pytest.raises(ValueError, match="num_envs=2: must be 1, a ledger records one cooperative at a time"):
        Bookkeeper(Engine(with_money(), num_envs=2), tmp_path / "ledger.db")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, however long it may be. " * 30, encoding="utf-8")
    env = cooperative_v0.parallel_env(with_money(), ledger=tmp_path / "text.db")
    with pytest.raises(ValueError, match=r"text\.db"):
        play(env)
    env.close()


def test_play_writes_a_ledger_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    words = ["play", "-s", "breast_cancer", "--set", "horizon=3", "--set", "settlement.period=2", "--last"]
    done = CliRunner().invoke(app, [*words, "--ledger", str(path)], catch_exceptions=False)
    assert done.output.splitlines()[-1] == (
        f"wrote 'breast_cancer/shapley/seed-0/episode-0' into the ledger '{path}'; next: proxycoop ledger verify '{path}'"
    )
    before = n_rows(path)
    CliRunner().invoke(app, [*words, "--ledger", str(path)], catch_exceptions=False)
    assert n_rows(path) == before
    CliRunner().invoke(app, [*words, "--agent", "all", "--ledger", str(path), "--cooperative", "all of it"], catch_exceptions=False)
    with Ledger(path, read_only=True) as ledger:
        assert [one.name for one in ledger.cooperatives()] == ["breast_cancer/shapley/seed-0/episode-0", "all of it/seed-0/episode-0"]
    with pytest.raises(ValueError, match="--cooperative 'x' is a name in a ledger: give --ledger FILE too"):
        CliRunner().invoke(app, [*words, "--cooperative", "x"], catch_exceptions=False)
