"""Who holds what: lots that several principals hold, classes that a principal holds, and what such cooperatives are like."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Data, DirichletMixture, Splits, split
from proxycoop.envs.data.lots import DrawnLots, Lots, LotSource

N, K, R = 6, 3, 12
KEYS = torch.arange(40) * 7919 + 13
PAIRS = [[0, 6], [1, 7], [2, 4], [3, 5], [8, 9]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return split(Data(), {}, torch.float64)


def draw(splits: Splits, n: int = N, keys: torch.Tensor = KEYS, owned: torch.Tensor | None = None, **settings: object) -> DrawnLots:
    source = LotSource(Lots(**{"per_principal": K, "rows": R, **settings}), splits, n)
    return source.draw(keys, torch.zeros(len(keys), n, splits.n_classes, dtype=torch.bool) if owned is None else owned)


@pytest.mark.parametrize(("n", "holders", "groups"), [(6, 2, [2, 2, 2]), (6, 3, [3, 3]), (6, 6, [6]), (5, 2, [1, 2, 2])])
def test_principals_of_a_group_hold_the_same_lots_with_the_same_faults_and_others_hold_other_rows(
    splits: Splits, n: int, holders: int, groups: list[int]
) -> None:
    lots = draw(splits, n, holders=holders, corruption={"share": 0.5, "rate": [0.1, 0.9], "pairs": PAIRS}, tags={"a": 0.5, "b": 0.5})
    for e in range(len(KEYS)):
        held: dict[tuple[int, ...], list[int]] = {}
        for i in range(n):
            held.setdefault(tuple(lots.rows[e, i].flatten().tolist()), []).append(i)
        assert sorted(map(len, held.values())) == groups
        for members in held.values():
            for name in ("x", "y", "corrupt", "severity", "tags"):
                part = getattr(lots, name)[e]
                assert all(torch.equal(part[members[0]], part[i]) for i in members)
        rows = [row for held_rows in held for row in held_rows]
        assert len(set(rows)) == len(rows)
        distinct = torch.stack([lots.corrupt[e, members[0]] for members in held.values()])
        assert int(distinct.sum()) == round(0.5 * len(groups) * K)  # equally many corrupt lots in every cooperative


def test_who_holds_the_same_as_whom_is_drawn_anew_and_evenly(splits: Splits) -> None:
    keys = torch.arange(600) * 31 + 7
    lots = draw(splits, keys=keys, holders=3)
    first = lots.rows[:, :, 0, 0]
    together = Counter(tuple(torch.nonzero(first[e, 1:] == first[e, 0]).flatten().tolist()) for e in range(len(keys)))
    assert len(together) == 10  # pairs of the other five
    assert max(abs(count / len(keys) - 0.1) for count in together.values()) < 5 * (0.09 / len(keys)) ** 0.5


def test_one_holder_is_the_default_and_changes_nothing(splits: Splits) -> None:
    plain, one = draw(splits), draw(splits, holders=1)
    assert torch.equal(plain.x, one.x)
    assert torch.equal(plain.rows, one.rows)


def test_a_copied_lot_takes_no_rows_from_the_pool(splits: Splits) -> None:
    """Six principals in one group need 36 rows a lot of each kind at most: fewer than the pool has, so none comes twice."""
    lots = draw(splits, holders=6, rows=60, keys=KEYS[:4])
    for e in range(4):
        rows = lots.rows[e, 0].flatten().tolist()
        assert len(set(rows)) == len(rows)


def test_what_one_of_a_group_protects_is_in_the_group_s_lots_as_its_own(splits: Splits) -> None:
    keys = torch.arange(400) * 17 + 3
    owned = torch.zeros(len(keys), N, 10, dtype=torch.bool)
    owned[:, 0, 8] = True
    mixture = {"protected": [8], "owner_share": 1.0, "other_share": 0.0, "protected_weight": 20.0}
    lots = draw(splits, keys=keys, owned=owned, holders=3, mixture=mixture)
    has = (lots.y == 8).any(dim=-1).all(dim=-1)  # (E, N)
    assert has[:, 0].all()
    assert (has.sum(dim=1) == 3).all()


def test_a_principal_holds_so_many_classes_and_all_are_held(splits: Splits) -> None:
    lots = draw(splits, keys=KEYS, rows=60, mixture={"protected": [8, 9], "classes_per_principal": 2, "other_share": 0.0})
    holders = Counter[int]()
    for e in range(len(KEYS)):
        held = [set(lots.y[e, i].flatten().tolist()) for i in range(N)]
        assert all(len(one) == 2 and one <= set(range(8)) for one in held)
        count = Counter(label for one in held for label in one)
        assert sorted(count.values()) == [1, 1, 1, 1, 2, 2, 2, 2]  # 12 places for 8 classes, dealt one after another
        holders.update(held[0])
    assert len(holders) == 8  # drawn anew: the first principal does not always hold the same


def test_a_lot_has_classes_of_its_principal_only(splits: Splits) -> None:
    lots = draw(splits, rows=40, mixture={"classes_per_principal": 4, "classes_per_lot": 2})
    for e in range(len(KEYS)):
        for i in range(N):
            kinds = [set(lots.y[e, i, k].tolist()) for k in range(K)]
            assert all(len(one) <= 2 for one in kinds)
            assert len(set().union(*kinds)) <= 4


def test_holding_all_classes_is_holding_any(splits: Splits) -> None:
    plain = draw(splits, mixture={"classes_per_lot": 6})
    assert torch.equal(plain.rows, draw(splits, mixture={"classes_per_lot": 6, "classes_per_principal": 10}).rows)


@pytest.mark.parametrize("alpha", [0.1, 0.6, 3.0])
def test_principals_shares_of_classes_have_the_moments_of_a_dirichlet_distribution(alpha: float) -> None:
    """Of Dir(α, …, α) over n classes each share has mean 1/n and variance (1/n)(1 − 1/n)/(n·α + 1)."""
    n, keys = 5, torch.arange(4000) * 13 + 5
    weight = DirichletMixture(principal_concentration=alpha)._principals_weights(keys, 2, n)
    share = (weight / weight.sum(dim=-1, keepdim=True)).flatten(0, 1)  # (8000, n)
    variance = (1 / n) * (1 - 1 / n) / (n * alpha + 1)
    assert (share.mean(dim=0) - 1 / n).abs().max() < 5 * (variance / len(share)) ** 0.5
    assert share.var(dim=0).mean().item() == pytest.approx(variance, rel=0.04)
    first, second = share.unflatten(0, (-1, 2)).unbind(dim=1)  # principals of one cooperative draw by themselves
    assert abs(float(((first - 1 / n) * (second - 1 / n)).mean())) < 5 * variance / len(keys) ** 0.5


def test_lots_of_a_principal_are_alike_where_principals_differ(splits: Splits) -> None:
    lots = draw(splits, rows=60, mixture={"principal_concentration": 0.1, "concentration": 100})
    counts = torch.nn.functional.one_hot(lots.y, 10).sum(dim=3).double() / 60  # (E, N, K, 10)
    within, between = counts.var(dim=2).mean(), counts.mean(dim=2).var(dim=1).mean()
    assert between > 10 * within


def test_principals_are_alike_where_the_parameter_is_large(splits: Splits) -> None:
    counts = torch.nn.functional.one_hot(draw(splits, rows=60, mixture={"principal_concentration": 1e6, "concentration": 1000}).y, 10)
    assert counts.sum(dim=(2, 3)).double().div(60 * K).sub(0.1).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"holders": 7}, "lots.holders=7: there are only 6 principals"),
        ({"holders": 2, "sites": {"attribute": "office"}}, "principals of different sites cannot hold the same lots"),
        ({"holders": 2, "rows": (9, 8, 8, 8, 8, 8)}, "equally many rows"),
        ({"mixture": {"classes_per_principal": 11}}, "there are only 10 common classes"),
        ({"mixture": {"classes_per_principal": 3, "classes_per_lot": 4}}, "a principal holds only 3 common classes"),
    ],
)
def test_what_cannot_be_held_is_refused(splits: Splits, settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        draw(splits, keys=KEYS[:1], **settings)


def test_lots_of_columns_cannot_be_held_by_several() -> None:
    with pytest.raises(ValueError, match=r"lots\.holders=2: all lots share the same rows"):
        scenario.load("breast_cancer-vertical", **{"lots.holders": 2})


# Scenarios

NAMES = ["complement", "redundant", "giant", "digits-steep", "digits-graded", "breast_cancer-steep", "breast_cancer-stale", "adult-steep"]
SEEDS = range(12)
each_split = pytest.mark.parametrize("split_seed", [0, pytest.param(3, marks=pytest.mark.slow)])


@each_split
@pytest.mark.parametrize("name", NAMES)
def test_the_dilemma_is_wide(name: str, split_seed: int) -> None:
    engine = Engine(scenario.load(name, **{"data.split_seed": split_seed}), None, num_envs=len(SEEDS))
    made = ("all", "random", "oracle", "measuring_planner")
    welfare = {one: float(agents.play(engine, agents.make(one), SEEDS)["welfare"].mean()) for one in made}
    assert welfare["all"] < welfare["oracle"] <= welfare["measuring_planner"]
    assert max(welfare["all"], welfare["random"]) < 0.8 * welfare["measuring_planner"]


@each_split
@pytest.mark.parametrize("name", NAMES)
def test_the_values_bind_and_something_passes(name: str, split_seed: int) -> None:
    blocked: list[float] = []
    engine = Engine(scenario.load(name, **{"data.split_seed": split_seed}), None, num_envs=len(SEEDS))

    def count(played: Engine) -> None:
        blocked.append(float(played.history[-1].blocked_by.any(dim=-1).double().mean()))

    metrics = agents.play(engine, agents.make("oracle"), SEEDS, on_round=count)
    assert 0.1 < sum(blocked) / len(blocked) < 0.6
    assert float(metrics["clean_share"].mean()) > 0.3


def test_one_of_a_group_can_be_spared_and_the_group_cannot() -> None:
    """What the last of three holders adds to all others is far less than what the three add together."""
    engine = Engine(scenario.load("redundant", **{"screening.governance": "none", "reward.scale": 1.0}), None, 16)
    engine.reset(range(16))
    engine.step(~engine.lots.corrupt)
    first = engine.lots.rows[:, :, 0, 0]
    whole = torch.ones(1, 6, dtype=torch.bool)
    one = torch.eye(6, dtype=torch.bool)[:1]
    group = first == first[:, :1]  # (E, N): who holds what principal 0 holds
    assert (group.sum(dim=1) == 3).all()
    worth = engine.round.value(torch.cat([whole, whole & ~one]))  # (E, 2)
    without_group = torch.stack([engine.round.value(~group[e : e + 1])[e, 0] for e in range(16)])
    one_lost, group_lost = (worth[:, 0] - worth[:, 1]).mean(), (worth[:, 0] - without_group).mean()
    assert group_lost > 0
    assert one_lost < 0.25 * group_lost


def test_the_giant_has_most_of_the_rows() -> None:
    engine = Engine(scenario.load("giant", **{"reward.scale": 1.0}), None)
    engine.reset([0])
    share = engine.prospect.proposals.share[0].sum(dim=1)
    torch.testing.assert_close(share, torch.tensor([0.6, *[0.08] * 5]))
