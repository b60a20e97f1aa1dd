"""What the benchmark of attacks measures: who attacks, what the aggregator is told, and who earns what."""

from __future__ import annotations

import pytest
import torch

from proxycoop import agents, credit
from proxycoop.envs import Engine, scenario


@pytest.fixture(scope="module")
def script(benchmark_script):
    return benchmark_script("values/robustness")


def cell(script, attack: str, attackers: int, defence: str):
    return script.Cell("breast_cancer", attack, attackers, defence, 1_000_000)


@pytest.mark.parametrize("attack", ["wrong labels", "sign turned", "little is enough", "last step sent back"])
def test_attackers_sit_in_the_first_seats_and_send_as_many_updates_as_others_have_lots(script, attack):
    made = cell(script, attack, 2, "trimmed_mean").played
    assert list(made.company) == [0, 1]
    assert made.aggregator.f == 2 * made.lots.per_principal
    assert made.screening.governance == "none"
    if attack != "wrong labels":
        assert made.conduct is not None
        assert len(made.conduct.forgeries) == made.lots.per_principal


def test_half_of_all_as_attackers_are_more_than_can_be_withstood_and_as_many_as_can_be_are_told(script):
    assert cell(script, "sign turned", 3, "krum").played.aggregator.f == 10
    assert cell(script, "sign turned", 3, "trimmed_mean").played.aggregator.f == 11
    assert cell(script, "sign turned", 3, "minimum_diameter").played.aggregator.f == 2


def test_every_defence_can_be_made_in_every_scenario(script):
    for name in script.SCENARIOS:
        for defence in script.DEFENCES:
            for n in (0, *script.ATTACKERS):
                attack = next(iter(script.ATTACKS)) if n else script.NOBODY
                script.Cell(name, attack, n, defence, 1_000_000).played  # noqa: B018


def test_what_is_earned_is_what_rules_pay_in_the_played_rounds(script):
    of = cell(script, "sign turned", 2, "median")
    found = script.measured(of, 2, ["loo", "equal"])
    engine = Engine(of.played, "loo", 2)
    engine.reset(range(script.EVALUATION_SEED, script.EVALUATION_SEED + 2))
    chosen = torch.zeros(2, 6, engine.num_items, dtype=torch.bool)
    chosen[:, 2:, : engine.num_lots] = True
    total = torch.zeros(2, 6)
    equal = torch.zeros(2, 6)
    while engine.t < engine.horizon:
        flips = chosen.clone()
        flips[:, :2, engine.num_lots :] = _honest_lots(engine)[:, :2]
        result = engine.step(flips)
        total += engine.reward_scale * result.credit
        equal += engine.reward_scale * credit.make("equal").assign(engine.round)
    assert found["earned/loo"] == pytest.approx(float(total[:, :2].mean()), abs=1e-3)
    assert found["honest/loo"] == pytest.approx(float(total[:, 2:].mean()), abs=1e-3)
    assert found["earned/equal"] == pytest.approx(float(equal[:, :2].mean()), abs=1e-3)


def _honest_lots(engine: Engine) -> torch.Tensor:
    """The lots that an honest proxy would contribute now."""
    honest = agents.make("honest")
    honest.begin(engine.layout, engine._keys)
    return honest.act(engine.observations)[..., : engine.num_lots]


def test_the_worst_attack_is_the_one_with_the_least_accuracy(script):
    rows = [
        {"attack": attack, "defence": "mean", "attackers": "1", "test_accuracy": str(accuracy), "scenario": "x"}
        for attack, accuracy in zip(script.ATTACKS, (0.9, 0.4, 0.8, 0.7, 0.95, 0.6, 0.99), strict=True)
    ]
    attack, least = script.worst(rows, "test_accuracy", defence="mean", attackers="1")
    assert (attack, least.mean) == ("sign turned", pytest.approx(0.4))


def test_scenarios_of_the_benchmark_are_those_that_ship(script):
    assert set(script.SCENARIOS) <= set(scenario.names())
