"""Corruption: graded rates, noise in features, stale rows, and that nothing else changes with them."""

from __future__ import annotations

import math

import pytest
import torch

from proxycoop import agents
from proxycoop.envs import Engine, randomness, scenario
from proxycoop.envs.data import Data, Splits, split
from proxycoop.envs.data.corruption import Corruption
from proxycoop.envs.data.lots import DrawnLots, Lots, LotSource
from proxycoop.envs.randomness import Purpose, fold
from proxycoop.training.pages.description import describe

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


# principals whose lots are all corrupt

NAMED = [1, 3]


def test_all_lots_of_named_principals_are_corrupt_and_a_share_of_the_others(splits: Splits) -> None:
    alone = draw(splits, share=0.0, principals=NAMED, pairs=PAIRS)
    assert alone.corrupt[:, NAMED].all()
    assert not alone.corrupt[:, [0, 2]].any()
    wrong = (alone.y != splits.train.y[alone.rows]).double().mean(dim=-1)
    assert float(wrong[:, NAMED].mean()) == pytest.approx(0.9, abs=5 * math.sqrt(0.09 / (E * 2 * K * R)))
    assert not wrong[:, [0, 2]].any()
    assert torch.equal(alone.severity, 0.9 * alone.corrupt.double())
    beside = draw(splits, share=0.5, principals=NAMED, pairs=PAIRS)
    assert beside.corrupt[:, NAMED].all()
    without = draw(splits, share=0.5, pairs=PAIRS)
    assert torch.equal(beside.corrupt[:, [0, 2]], without.corrupt[:, [0, 2]])  # naming principals changes nothing for the others
    assert torch.equal(beside.rows, alone.rows)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.45, 1.0])
def test_so_many_lots_are_corrupt_on_average(splits: Splits, share: float) -> None:
    lots = draw(splits, share=share, principals=NAMED, pairs=PAIRS)
    expected = Corruption(share=share, principals=NAMED, pairs=PAIRS).mean_corrupt(N, K)
    assert float(lots.corrupt.sum(dim=(1, 2)).double().mean()) == pytest.approx(expected, abs=0.3)


def test_naming_nobody_changes_nothing(splits: Splits) -> None:
    one, other = draw(splits, pairs=PAIRS), draw(splits, pairs=PAIRS, principals=[])
    place = randomness.uniform(fold(KEYS, Purpose.CORRUPTION), N * K).argsort(dim=-1).argsort(dim=-1)
    assert torch.equal(one.corrupt, (place < 6).reshape(E, N, K))
    for name in ("corrupt", "y", "rows", "severity"):
        assert torch.equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("what", ["features", "stale"])
def test_named_principals_features_are_corrupt_too(splits: Splits, what: str) -> None:
    lots = draw(splits, KEYS[:8], what=what, share=0.0, principals=[2], rate=1.0)
    moved = (lots.x != splits.train.x[lots.rows]).any(dim=-1)
    assert moved[:, 2].all()
    assert not moved[:, [0, 1, 3]].any()


def test_named_principals_of_a_vertical_cooperative_have_wrong_links() -> None:
    made = scenario.load("breast_cancer-vertical", **{"lots.corruption.share": 0, "lots.corruption.principals": [4], "reward.scale": 1.0})
    clean = scenario.load("breast_cancer-vertical", **{"lots.corruption.share": 0, "reward.scale": 1.0})
    engine, right = Engine(made, None, 4), Engine(clean, None, 4)
    engine.reset(range(4))
    right.reset(range(4))
    assert engine.lots.corrupt[:, 4].all()
    assert not engine.lots.corrupt[:, :4].any()
    differs = (engine.lots.x[:, 0, 0] != right.lots.x[:, 0, 0]).any(dim=1)  # (E, D)
    assert differs.any(dim=0).tolist() == [False] * 24 + [True] * 6


def test_a_flipper_s_batch_is_its_singles_and_each_episode_has_it() -> None:
    made = scenario.load("digits", **{"lots.corruption.principals": [2, 3], "lots.corruption.share": 0.25, "reward.scale": 1.0})
    engine, alone = Engine(made, None, 3), Engine(made, None, 1)
    for episode in range(2):
        engine.reset([7, 8, 9], episode=episode)
        alone.reset([8], episode=episode)
        assert engine.lots.corrupt[:, [2, 3]].all()
        assert (engine.lots.corrupt.sum(dim=(1, 2)) >= 8).all()
        assert torch.equal(engine.lots.corrupt[1], alone.lots.corrupt[0])
        assert torch.equal(engine.lots.y[1], alone.lots.y[0])


def test_named_principals_are_in_files_only_where_there_are_some() -> None:
    assert "principals:" not in scenario.load("digits").to_yaml().partition("lots:")[2]
    made = scenario.load("digits", **{"lots.corruption.principals": [2, 3]})
    assert scenario.Scenario.model_validate(made.to_dict()) == made
    assert made.lots.corruption.principals == (2, 3)


@pytest.mark.parametrize(
    ("name", "corruption", "message"),
    [
        ("digits", {"principals": [6]}, r"lots.corruption.principals.0: principals go from 0 to 5 \(got 6\)"),
        ("digits", {"principals": [0, -1]}, "lots.corruption.principals.1: .*greater than or equal to 0"),
        ("digits", {"principals": [0.5]}, "lots.corruption.principals.0: .*valid integer"),
        ("digits", {"principals": [True]}, "lots.corruption.principals: must be a number"),
        ("digits", {"principals": [1, 2, 1]}, "lots.corruption.principals.2: principal 1 is named already: name each once"),
        (
            "digits",
            {"principals": [1], "share": 0, "pairs": []},
            r"all lots of principals=\[1\] must be corrupt, but no labels are swapped",
        ),
        ("digits", {"principals": [1], "share": 0, "rate": 0}, "but no labels are swapped: give pairs and a rate above 0"),
        ("digits", {"principals": [1], "share": 0, "pairs": [], "what": "stale", "size": 0}, "but no row differs: give a rate and a size"),
        ("redundant", {"principals": [1]}, "holders=3: principals that hold the same lots also hold what is wrong with them"),
        ("breast_cancer-vertical", {"principals": [1], "share": 0, "rate": 0}, "but no row is linked wrongly: give a rate above 0"),
        ("breast_cancer-vertical", {"principals": [1], "share": 0, "rate": 0.02}, "wrong links need at least two rows"),
        (
            "breast_cancer-vertical",
            {"principals": [1], "share": 0, "what": "labels", "pairs": [["malignant", "benign"]]},
            "lots.corruption.what=labels: principals hold columns",
        ),
        (
            "digits",
            {"principals": [1], "share": 0, "what": "links", "pairs": []},
            "lots.corruption.what=links needs substrate vertical",
        ),
    ],
)
def test_principals_that_cannot_be_corrupt_are_refused(name: str, corruption: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scenario.load(name, **{f"lots.corruption.{key}": value for key, value in corruption.items()})


def test_everybody_may_be_corrupt_where_nobody_is_drawn(splits: Splits) -> None:
    assert draw(splits, share=0.0, principals=[0, 1, 2, 3], pairs=PAIRS).corrupt.all()


@pytest.mark.parametrize(
    ("corruption", "said"),
    [
        ({}, "50 % of them corrupt (90 % of labels swapped)"),
        ({"principals": [2, 3]}, "all of principals 2, 3 and 50 % of all corrupt (90 % of labels swapped)"),
        ({"principals": [2], "share": 0}, "all of principal 2 corrupt (90 % of labels swapped)"),
    ],
)
def test_a_page_says_whose_lots_are_corrupt(corruption: dict[str, object], said: str) -> None:
    made = scenario.load("digits", **{f"lots.corruption.{key}": value for key, value in corruption.items()})
    assert dict(describe(made.to_dict()))["Lots each (K)"].endswith(said)
