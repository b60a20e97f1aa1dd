"""Corruption: graded rates, noise in features, stale rows, and that nothing else changes with them."""

from __future__ import annotations

import math

import pytest
import torch

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Data, Splits, split
from proxycoop.envs.data.lots import DrawnLots, Lots, LotSource

E, N, K, R = 60, 4, 3, 30
KEYS = torch.arange(E) * 7919 + 13
PAIRS = [[0, 6], [1, 7], [2, 4], [3, 5], [8, 9]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return split(Data(), {}, torch.float64)


def draw(splits: Splits, keys: torch.Tensor = KEYS, **corruption: object) -> DrawnLots:
    source = LotSource(Lots(per_principal=K, rows=R, corruption={"share": 0.5, **corruption}), splits, N)
    return source.draw(keys, torch.zeros(len(keys), N, splits.n_classes, dtype=torch.bool))


def test_a_range_of_rates_gives_each_corrupt_lot_its_own_and_labels_follow_it(splits: Splits) -> None:
    lots = draw(splits, rate=[0.1, 0.6], pairs=PAIRS)
    rate = lots.severity[lots.corrupt]
    assert not lots.severity[~lots.corrupt].any()
    assert 0.1 < rate.min() < 0.12
    assert 0.58 < rate.max() < 0.6
    assert float(rate.mean()) == pytest.approx(0.35, abs=5 * 0.5 / math.sqrt(12 * len(rate)))
    wrong = (lots.y != splits.train.y[lots.rows]).double().mean(dim=-1)  # (E, N, K)
    assert not wrong[~lots.corrupt].any()
    error = (wrong[lots.corrupt] - rate) / (rate * (1 - rate) / R).sqrt()  # standard errors
    assert float(error.mean()) == pytest.approx(0, abs=5 / math.sqrt(len(rate)))
    assert float(error.square().mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / len(rate)))


def test_two_equal_rates_are_one_rate(splits: Splits) -> None:
    one, two = draw(splits, rate=0.7, pairs=PAIRS), draw(splits, rate=[0.7, 0.7], pairs=PAIRS)
    assert torch.equal(one.y, two.y)
    assert torch.equal(one.severity, 0.7 * one.corrupt.double())


def test_noise_moves_features_by_the_asked_number_of_their_own_deviations(splits: Splits) -> None:
    lots, deviation = draw(splits, what="features", rate=1.0, size=0.5), splits.train.x.std(dim=0, correction=0)
    noise = lots.x - splits.train.x[lots.rows]
    assert not noise[~lots.corrupt].any()
    assert torch.equal(lots.y, splits.train.y[lots.rows])
    varies = deviation > 0
    assert not noise[..., ~varies].any()  # what does not vary has no deviation to be a multiple of
    unit = (noise[lots.corrupt] / deviation)[..., varies] / 0.5
    assert float(unit.mean()) == pytest.approx(0, abs=5 / math.sqrt(unit.numel()))
    assert float(unit.square().mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / unit.numel()))
    assert torch.equal(lots.severity, 0.5 * lots.corrupt.double())


def test_noise_is_in_the_asked_share_of_rows_and_as_large_as_the_lot_drew(splits: Splits) -> None:
    lots, deviation = draw(splits, what="features", rate=0.4, size=[0.5, 3.0]), splits.train.x.std(dim=0, correction=0)
    unit = ((lots.x - splits.train.x[lots.rows]) / deviation.clamp(min=1e-9))[lots.corrupt]  # (lots, R, D)
    noisy = unit.any(dim=-1)
    assert float(noisy.double().mean()) == pytest.approx(0.4, abs=5 * math.sqrt(0.24 / noisy.numel()))
    size = lots.severity[lots.corrupt] / 0.4
    assert 0.5 < size.min() < 0.6
    assert 2.9 < size.max() < 3.0
    spread = (unit.square().sum(dim=(1, 2)) / (noisy.sum(dim=1) * int((deviation > 0).sum())).clamp(min=1)).sqrt()
    torch.testing.assert_close(spread, size, rtol=0.3, atol=0)


def test_stale_rows_of_a_class_moved_alike_each_lot_by_its_own_age(splits: Splits) -> None:
    lots, deviation = draw(splits, KEYS[:8], what="stale", rate=1.0, size=[0.5, 3.0]), splits.train.x.std(dim=0, correction=0)
    assert torch.equal(lots.y, splits.train.y[lots.rows])
    moved = lots.x - splits.train.x[lots.rows]
    assert not moved[~lots.corrupt].any()
    per_class = {}
    for e, i, k in torch.nonzero(lots.corrupt).tolist():
        for r in range(R):
            move = moved[e, i, k, r] / lots.severity[e, i, k]
            torch.testing.assert_close(per_class.setdefault((e, int(lots.y[e, i, k, r])), move), move)
    moves = torch.stack(list(per_class.values()))[:, deviation > 0] / deviation[deviation > 0]
    assert float(moves.square().mean()) == pytest.approx(1, abs=5 * math.sqrt(2 / moves.numel()))
    assert (moves[0] != moves[1]).all()  # every class goes its own way


def test_a_part_of_a_stale_lot_may_be_recent(splits: Splits) -> None:
    lots = draw(splits, what="stale", rate=0.3)
    old = (lots.x != splits.train.x[lots.rows]).any(dim=-1)[lots.corrupt]
    assert float(old.double().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / old.numel()))


@pytest.mark.parametrize("what", ["features", "stale"])
def test_what_is_wrong_changes_neither_which_lots_nor_which_rows(splits: Splits, what: str) -> None:
    plain, other = draw(splits, rate=0.9, pairs=PAIRS), draw(splits, what=what, size=[0.5, 2.0])
    assert torch.equal(plain.corrupt, other.corrupt)
    assert torch.equal(plain.rows, other.rows)
    again, alone = draw(splits, what=what, size=[0.5, 2.0]), draw(splits, KEYS[5:6], what=what, size=[0.5, 2.0])
    assert torch.equal(other.x, again.x)
    assert torch.equal(other.x[5:6], alone.x)
    assert torch.equal(other.severity[5:6], alone.severity)


def test_wrong_links_follow_the_rate_that_a_lot_drew() -> None:
    made = scenario.load("breast_cancer-vertical", **{"lots.corruption.rate": [0.2, 0.9], "reward.scale": 1.0})
    clean = made.model_copy(update={"lots": made.lots.model_copy(update={"corruption": type(made.lots.corruption)()})})
    engine, right = (Engine(one, None, 4, dtype=torch.float64) for one in (made, clean))
    engine.reset(range(4))
    right.reset(range(4))
    block = torch.arange(30) // 2  # two columns a lot
    for e in range(4):
        differs = engine.lots.x[e, 0, 0] != right.lots.x[e, 0, 0]  # (R, D)
        for lot in range(15):
            severity = float(engine.lots.severity[e].flatten()[lot])
            n_wrong = int(differs[:, block == lot].any(dim=1).sum())
            assert n_wrong <= round(severity * 60)
            assert n_wrong >= round(severity * 60) - 8  # a few rows carry equal values of another
    drawn = engine.lots.severity[engine.lots.corrupt]
    assert len(drawn.unique()) == len(drawn)
    assert 0.2 < drawn.min() < drawn.max() < 0.9


def test_loss_hardly_tells_stale_lots_from_recent_ones_though_they_matter() -> None:
    """The area under the curve of a lot's loss, over lots of an episode, as in a test of whether a lot is corrupt."""

    def area(name: str) -> float:
        engine = Engine(scenario.load(name, **{"reward.scale": 1.0}), None, 32)
        engine.reset(range(32))
        loss, corrupt = engine.prospect.proposals.loss.flatten(1), engine.lots.corrupt.flatten(1)
        above = (loss[:, :, None] > loss[:, None]) & corrupt[:, :, None] & ~corrupt[:, None]
        return float((above.sum(dim=(1, 2)) / (corrupt.sum(dim=1) * (~corrupt).sum(dim=1))).mean())

    assert area("breast_cancer") > 0.9
    assert area("breast_cancer-stale") < 0.75
    engine = Engine(scenario.load("breast_cancer-stale"), None, 16)
    welfare = {
        name: float(agents.play(engine, agents.make(name), range(16))["welfare"].mean()) for name in ("all", "honest", "oracle", "planner")
    }
    assert welfare["all"] < 0.6 * welfare["oracle"]
    assert welfare["honest"] < 0.8 * welfare["oracle"] < welfare["planner"]
