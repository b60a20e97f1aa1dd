"""Sites and strata: who holds whose rows, of which kinds they are, dealing within them, and errors."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from proxycoop.envs import scenario
from proxycoop.envs.data import Data, Dataset, HeldOut, Rows, Splits, load, split
from proxycoop.envs.data.lots import DrawnLots, Lots, LotSource
from proxycoop.envs.data.mixtures import LogisticNormalMixture
from proxycoop.envs.data.sites import Sites

E, N, K = 200, 4, 3
KEYS = torch.arange(E) * 7919 + 13
ROWS = 240
NATURAL = {"kind": "logistic_normal", "prevalence": "natural", "site_deviation": 0, "lot_deviation": 0}


def toy() -> Splits:
    """240 rows, each known by its only feature: 120 in town a, 80 in b, 40 in c; a third are women, yes is rarer in c and among women."""
    row = np.arange(ROWS)
    town = np.repeat(["a", "b", "c"], [120, 80, 40])
    sex = np.where(row % 3 == 0, "female", "male")
    labels = ((row % 5 < 2) & ~((town == "c") & (row % 5 == 0)) & ~((sex == "female") & (row % 2 == 0))).astype(np.int64)
    dataset = Dataset(row[:, None].astype(float), labels, ("no", "yes"), ("row",), {"town": town, "sex": sex})
    all_rows = Rows(x=torch.tensor(dataset.features), y=torch.tensor(labels), groups={})
    return Splits(dataset, row, all_rows, all_rows, all_rows, all_rows, {}, {})


SPLITS = toy()
TOWN, SEX = SPLITS.dataset.attributes["town"], SPLITS.dataset.attributes["sex"]


def draw(n: int = N, keys: Tensor = KEYS, **settings: object) -> DrawnLots:
    source = LotSource(Lots.model_validate({"per_principal": K, "rows": 8, **settings}), SPLITS, n)
    return source.draw(keys, torch.zeros(len(keys), n, 2, dtype=torch.bool))


def rows_of(lots: DrawnLots) -> np.ndarray:
    """Which rows the lots hold, ``(E, N, K·R)``."""
    rows: np.ndarray = lots.x[..., 0].flatten(start_dim=2).long().numpy()
    return rows


def test_one_site_of_all_levels_draws_exactly_what_no_sites_draw() -> None:
    for mixture in ({"kind": "dirichlet"}, {"kind": "logistic_normal", "prevalence": {"yes": 0.3}}):
        plain, one = draw(mixture=mixture), draw(mixture=mixture, sites={"attribute": "town", "levels": [["a", "b", "c"]]})
        assert torch.equal(plain.x, one.x)
        assert torch.equal(plain.y, one.y)


def test_rows_are_dealt_as_a_loop_over_one_shuffled_deck_a_cell_would() -> None:
    from proxycoop.envs import randomness
    from proxycoop.envs.randomness import Purpose, fold

    settings = {"sites": {"attribute": "town"}, "strata": "sex", "mixture": {"kind": "logistic_normal", "prevalence": "natural"}}
    lots = draw(n=3, keys=KEYS[:4], **settings)
    keys = fold(KEYS[:4], Purpose.ROWS, 1)
    levels = SPLITS.dataset.levels("sex")
    cell = np.array([("abc".index(TOWN[i]) * 2 + levels.index(SEX[i])) * 2 + SPLITS.dataset.labels[i] for i in range(ROWS)])
    by_cell = np.argsort(cell, kind="stable")
    u = randomness.uniform(keys, ROWS).numpy()
    for e in range(4):
        decks = {c: [int(by_cell[j]) for j in np.argsort(u[e]) if cell[by_cell[j]] == c] for c in range(12)}
        dealt: Counter[int] = Counter()
        for row in rows_of(lots)[e].flatten().tolist():
            c = int(cell[row])
            assert row == decks[c][dealt[c] % len(decks[c])]
            dealt[c] += 1


def test_principals_hold_rows_of_their_own_site_alone_largest_level_first() -> None:
    rows = rows_of(draw(n=3, sites={"attribute": "town"}))
    assert [set(TOWN[rows[:, i]].flatten()) for i in range(3)] == [{"a"}, {"b"}, {"c"}]


def test_levels_may_be_joined_and_left_out() -> None:
    rows = rows_of(draw(n=2, sites={"attribute": "town", "levels": ["c", ["a"]]}))
    assert [set(TOWN[rows[:, i]].flatten()) for i in range(2)] == [{"c"}, {"a"}]
    rows = rows_of(draw(n=2, sites={"attribute": "town", "levels": [["c", "b"], "a"]}))
    assert [set(TOWN[rows[:, i]].flatten()) for i in range(2)] == [{"b", "c"}, {"a"}]


def test_more_levels_than_principals_leave_the_rarest_to_nobody() -> None:
    rows = rows_of(draw(n=2, sites={"attribute": "town"}))
    assert [set(TOWN[rows[:, i]].flatten()) for i in range(2)] == [{"a"}, {"b"}]


def test_fewer_sites_than_principals_are_shared_in_turn_without_sharing_rows() -> None:
    rows = rows_of(draw(n=5, keys=KEYS[:20], rows=4, sites={"attribute": "town"}, mixture=NATURAL))
    assert [set(TOWN[rows[:, i]].flatten()) for i in range(5)] == [{"a"}, {"b"}, {"c"}, {"a"}, {"b"}]
    for e in range(20):
        assert not set(rows[e, 0]) & set(rows[e, 3])
        assert len(set(rows[e, 0])) == rows.shape[-1]


def test_rows_come_again_only_when_their_cell_has_run_out_and_evenly() -> None:
    rows = rows_of(draw(n=3, keys=KEYS[:5], rows=40, sites={"attribute": "town"}, strata="sex", mixture=NATURAL))
    labels = SPLITS.dataset.labels
    for e in range(5):
        dealt = Counter(rows[e].flatten().tolist())
        for town in "abc":
            for sex in ("female", "male"):
                for label in (0, 1):
                    members = np.flatnonzero((town == TOWN) & (sex == SEX) & (labels == label))
                    times = [dealt[i] for i in members.tolist()]
                    assert max(times) - min(times) <= 1


def test_a_column_is_cut_at_its_quantiles_lowest_first() -> None:
    names, site = Sites(column="row").divide(SPLITS.dataset, 4)
    assert np.array_equal(site, np.repeat([0, 1, 2, 3], 60))
    assert len(names) == 4
    rows = rows_of(draw(n=4, sites={"column": "row"}))
    assert all((rows[:, i] // 60 == i).all() for i in range(4))


def test_natural_prevalence_follows_each_sites_own_rows() -> None:
    lots, labels = draw(n=3, rows=10, sites={"attribute": "town"}, mixture=NATURAL), SPLITS.dataset.labels
    for i, town in enumerate("abc"):
        expected = labels[town == TOWN].mean()
        assert abs(float(lots.y[:, i].double().mean()) - expected) < 5 * math.sqrt(expected * (1 - expected) / (E * K * 10))


def test_natural_prevalence_without_sites_follows_the_pool() -> None:
    expected = SPLITS.dataset.labels.mean()
    assert abs(float(draw(mixture=NATURAL).y.double().mean()) - expected) < 5 * math.sqrt(0.25 / (E * N * K * 8))


def test_strata_are_shared_out_within_a_class_as_in_the_data() -> None:
    settings = {"kind": "logistic_normal", "prevalence": {"yes": 0.7}, "site_deviation": 0, "lot_deviation": 0}
    lots = draw(rows=8, strata="sex", mixture=settings)
    rows = rows_of(lots).flatten()
    women, label = SEX == "female", SPLITS.dataset.labels
    assert abs((label[rows] == 1).mean() - 0.7) < 5 * math.sqrt(0.21 / len(rows))
    for one in (0, 1):
        expected = women[label == one].mean()
        dealt = women[rows[label[rows] == one]]
        assert abs(dealt.mean() - expected) < 5 * math.sqrt(expected * (1 - expected) / len(dealt))


def test_strata_vary_from_lot_to_lot_in_log_odds_as_classes_do() -> None:
    counts = torch.tensor([[[30.0, 10.0], [15.0, 5.0]]], dtype=torch.float64).expand(N, 2, 2)
    mixture = LogisticNormalMixture(prevalence="natural", site_deviation=0.6, lot_deviation=1.2)
    shares = mixture.shares(KEYS, 8, torch.zeros(E, N, 2, dtype=torch.bool), counts, SPLITS.dataset)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(E, N, 8, dtype=torch.float64))
    odds = (shares[..., 3] / shares[..., 0]).log()  # of the second class in the second stratum to the first in the first
    assert abs(float(odds.mean()) - math.log(5 / 30)) < 5 * math.sqrt((0.36 + 1.44 / 8) / (E * N))
    assert float(odds.var(dim=-1).mean()) == pytest.approx(1.44, rel=0.1)


def test_kinds_of_which_a_site_has_no_rows_are_never_asked_for_by_natural_shares() -> None:
    counts = torch.tensor([[[30.0, 10.0], [15.0, 0.0]]], dtype=torch.float64).expand(N, 2, 2)
    shares = LogisticNormalMixture(prevalence="natural").shares(KEYS, K, torch.zeros(E, N, 2, dtype=torch.bool), counts, SPLITS.dataset)
    assert (shares[..., 3] == 0).all()
    assert (shares[..., :3] > 0).all()


def test_labels_of_corrupt_lots_are_swapped_within_any_stratum() -> None:
    lots = draw(strata="sex", mixture=NATURAL, corruption={"share": 0.5, "rate": 1.0, "pairs": [["no", "yes"]]})
    true = torch.tensor(SPLITS.dataset.labels)[torch.from_numpy(rows_of(lots)).reshape(lots.y.shape)]
    assert torch.equal(lots.y != true, lots.corrupt[..., None].expand_as(true))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "exactly one of 'attribute' and 'column'"),
        ({"attribute": "town", "column": "row"}, "exactly one of 'attribute' and 'column'"),
        ({"column": "row", "levels": ["a"]}, "'levels' needs 'attribute'"),
        ({"attribute": "town", "levels": []}, "levels"),
        ({"attribute": "town", "levels": [[]]}, "every site needs at least one level"),
        ({"attribute": "town", "levels": ["a", ["b", "a"]]}, "level 'a' is named twice"),
        ({"attribute": "twon"}, r"unknown attribute 'twon' \(did you mean 'town'\?\)"),
        ({"attribute": "town", "levels": ["a", "d"]}, "unknown level of attribute 'town' 'd'"),
        ({"attribute": "town", "levels": ["a", "b", "c"]}, "names 3 sites for 2 principals"),
        ({"column": "rwo"}, "unknown column 'rwo'"),
    ],
)
def test_sites_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        draw(n=2, sites=settings)


def test_a_column_with_too_few_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sites\.column='pixel_0_0' has too few different numbers to be cut into 3 parts"):
        Sites(column="pixel_0_0").divide(load("digits"), 3)  # always white


def test_a_site_that_lacks_a_class_is_named_unless_shares_are_natural() -> None:
    made = split(Data(source="breast_cancer", test=HeldOut(rows=100), public_rows=0), {}, torch.float64)
    sites = {"column": "worst perimeter"}  # the smallest are all benign
    owned = torch.zeros(1, 6, 2, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=r"train pool for malignant at site \"part 1 of 'worst perimeter'\".*join levels into larger sites"
    ):
        LotSource(Lots.model_validate({"sites": sites}), made, 6)
    lots = LotSource(Lots.model_validate({"sites": sites, "mixture": NATURAL}), made, 6).draw(KEYS[:1], owned)
    assert not lots.y[:, 0].any()


def test_sites_do_not_go_with_columns() -> None:
    with pytest.raises(ValueError, match=r"substrate vertical does not go with lots\.sites"):
        scenario.load("breast_cancer-vertical", **{"lots.sites": {"column": "mean area"}})


def test_what_an_environment_gets_does_not_depend_on_its_batch() -> None:
    settings = {"sites": {"attribute": "town"}, "strata": "sex", "mixture": {"kind": "logistic_normal", "prevalence": "natural"}}
    whole, alone = draw(**settings), draw(keys=KEYS[7:8], **settings)
    assert torch.equal(whole.x[7:8], alone.x)
    assert torch.equal(whole.y[7:8], alone.y)
