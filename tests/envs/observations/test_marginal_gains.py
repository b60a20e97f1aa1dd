"""The observation of marginal gains: what it tells, and that nothing else changes."""

from copy import copy

import pytest
import torch

from proxycoop import agents
from proxycoop.envs import Engine, ObservationLayout, scenario

SMALL = {"principals": 3, "horizon": 3, "lots.per_principal": 2, "reward.scale": 10.0}
SMALL["profiles"] = [{"holders": 1, "tolerances": {"missed_cancer": 0.05}}]
INFORMED = SMALL | {"observations.marginal_gains": True}
PLACES = {
    "fixed weights": {},
    "participants": {"weights": "participants"},
    "a server that remembers": {"server": {"momentum": 0.9}},
    "a hidden layer": {"model": {"kind": "mlp"}},
    "accuracy": {"utility": "accuracy"},
}


@pytest.mark.parametrize("changes", PLACES.values(), ids=PLACES)
def test_it_is_what_the_round_gains_more_with_the_lot_than_without_it(changes):
    engine = Engine(scenario.load("breast_cancer", **INFORMED | changes), "equal", 3, dtype=torch.float64)
    engine.reset(range(3))
    last = torch.zeros(3, 3, 2, dtype=torch.bool)
    refused = 0
    for t in range(3):
        told = engine.layout.lot(engine.observations, "marginal_gain")
        for i in range(3):
            for k in range(2):
                gains = []
                for there in (True, False):
                    choices = last.clone()
                    choices[:, i, k] = there
                    gains.append(copy(engine).step(choices).gain)
                expected = torch.where(engine.prospect.passes[:, i, k], engine.reward_scale * (gains[0] - gains[1]), 0.0)
                torch.testing.assert_close(told[:, i, k], expected.float(), rtol=1e-5, atol=1e-6)
        refused += int((~engine.prospect.passes).sum())
        last = torch.rand(3, 3, 2, generator=torch.Generator().manual_seed(t)) < 0.5
        engine.step(last)
    assert refused


def test_it_is_one_more_feature_of_each_lot_and_all_else_stays_the_same():
    blind, informed = (scenario.load("breast_cancer", **changes) for changes in (SMALL, INFORMED))
    without, layout = ObservationLayout.of(blind), ObservationLayout.of(informed)
    assert layout.size == without.size + 2
    assert layout.lot_features == (*without.lot_features, "marginal_gain")
    assert "reward units" in layout.describe()["marginal_gain"]
    assert "marginal_gain" not in without.describe()
    assert without.differences(layout) == ["of the lot features here is marginal_gain"]
    played = []
    for one in (blind, informed):
        engine = Engine(one, "shapley", 4)
        agents.play(engine, agents.make("random"), range(4))
        played.append(engine)
    for mine, theirs in zip(*(engine.history for engine in played), strict=True):
        assert torch.equal(mine.rewards, theirs.rewards)
        lots, own = played[0].layout.split(mine.observations)
        more_lots, same_own = played[1].layout.split(theirs.observations)
        assert torch.equal(lots, more_lots[..., :-1])
        assert torch.equal(own, same_own)


def test_each_environment_is_told_as_if_it_were_alone():
    made = scenario.load("digits", horizon=2, **{"reward.scale": 500.0, "observations.marginal_gains": True})
    together, alone = Engine(made, "equal", 4), Engine(made, "equal", 1)
    several, one = together.reset(range(4)), alone.reset([2])
    torch.testing.assert_close(several[2], one[0])


def test_it_is_off_unless_a_scenario_asks_for_it_and_files_leave_it_out():
    assert not scenario.load("digits").observations.marginal_gains
    assert "observations" not in scenario.load("digits").to_dict()
    informed = scenario.load("digits", **{"observations.marginal_gains": True})
    assert informed.to_dict()["observations"] == {"marginal_gains": True}
    with pytest.raises(ValueError, match=r"observations\.marginal_gains"):
        scenario.load("digits", **{"observations.marginal_gains": "perhaps"})
