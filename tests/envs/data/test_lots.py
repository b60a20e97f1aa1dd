"""Lots: class shares, label noise, dealing without replacement, site shift, padding, tags."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Data, HeldOut, Splits, load, split
from proxycoop.envs.data.lots import DrawnLots, Lots, LotSource
from proxycoop.envs.data.mixtures import DirichletMixture, LogisticNormalMixture

E, N, K = 300, 4, 3
KEYS = torch.arange(E) * 7919 + 13


@pytest.fixture(scope="module")
def splits() -> Splits:
    return split(Data(), {}, torch.float64)


def draw(splits: Splits, owned: Tensor | None = None, n: int = N, keys: Tensor = KEYS, **settings: object) -> DrawnLots:
    source = LotSource(Lots(**{"per_principal": K, "rows": 12, **settings}), splits, n)
    return source.draw(keys, torch.zeros(len(keys), n, splits.n_classes, dtype=torch.bool) if owned is None else owned)


def pool_index(splits: Splits) -> dict[bytes, int]:
    return {row.numpy().tobytes(): i for i, row in enumerate(splits.train.x)}


def test_rows_are_pool_rows_with_their_own_labels_dealt_without_replacement(splits: Splits) -> None:
    known = pool_index(splits)
    lots = draw(splits, keys=KEYS[:3])
    for e in range(3):
        rows = [known[row.numpy().tobytes()] for row in lots.x[e].flatten(end_dim=2)]
        assert len(set(rows)) == len(rows) == N * K * 12
        assert splits.train.y[rows].tolist() == lots.y[e].flatten().tolist()


def test_when_a_class_runs_out_it_is_dealt_again_evenly() -> None:
    small = split(Data(public_rows=0, validation=HeldOut(rows=1000), test=HeldOut(rows=600)), {}, torch.float64)
    known, lots = pool_index(small), draw(small, keys=KEYS[:3], rows=60)
    size = torch.bincount(small.train.y, minlength=10)
    for e in range(3):
        dealt = Counter(known[row.numpy().tobytes()] for row in lots.x[e].flatten(end_dim=2))
        for label in range(10):
            times = [dealt[i] for i in torch.nonzero(small.train.y == label).flatten().tolist()]
            wanted = int((lots.y[e] == label).sum())
            assert sum(times) == wanted
            assert wanted > size[label]  # every class runs out here
            assert max(times) - min(times) <= 1  # no row a third time before every row has come twice


def test_dirichlet_shares_sum_to_one_over_the_asked_number_of_classes_and_treat_them_alike(splits: Splits) -> None:
    owned = torch.zeros(E, N, 10, dtype=torch.bool)
    shares = DirichletMixture(concentration=3, classes_per_lot=6).shares(KEYS, K, owned, torch.ones(N, 1, 10), splits.dataset)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(E, N, K, dtype=torch.float64))
    assert ((shares > 0).sum(dim=-1) == 6).all()
    # a share is 0 with probability 0.4, else Beta(3, 15): mean 1/6, second moment (3·4)/(18·19)
    variance = 0.6 * 12 / 342 - 0.01
    assert (shares.mean(dim=(0, 1, 2)) - 0.1).abs().max() < 5 * math.sqrt(variance / (E * N * K))
    torch.testing.assert_close(shares.square().mean(), torch.tensor(0.6 * 12 / 342, dtype=torch.float64), rtol=0.05, atol=0)


def test_protected_classes_come_as_often_and_as_heavy_as_asked_and_more_often_with_owners(splits: Splits) -> None:
    mixture = DirichletMixture(protected=(8, "9"), owner_share=0.7, other_share=0.25, protected_weight=0.12)
    owned = torch.zeros(E, N, 10, dtype=torch.bool)
    owned[:, 0, 8] = owned[:, 1, 9] = True
    shares = mixture.shares(KEYS, K, owned, torch.ones(N, 1, 10), splits.dataset)
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(E, N, K, dtype=torch.float64))
    present = (shares > 0).double().mean(dim=(0, 2))  # (N, 10)
    expected = torch.ones(N, 10, dtype=torch.float64)
    expected[:, 8:] = 0.25
    expected[0, 8] = expected[1, 9] = 0.7
    assert (present - expected).abs().max() < 5 * math.sqrt(0.25 / (E * K))
    rare = (shares / shares[..., :8].sum(dim=-1, keepdim=True))[..., 8:]  # relative to the common classes' sum
    rare = rare[rare > 0]
    assert rare.min() >= 0.06
    assert rare.max() <= 0.18
    assert abs(float(rare.mean()) - 0.12) < 5 * 0.12 / math.sqrt(12 * len(rare))


def test_rows_follow_the_class_shares(splits: Splits) -> None:
    settings = {"mixture": LogisticNormalMixture(prevalence={0: 0.5, "1": 0.3}, site_deviation=0, lot_deviation=0)}
    lots = draw(splits, rows=12, **settings)
    frequency = torch.bincount(lots.y.flatten(), minlength=10) / lots.y.numel()
    expected = torch.tensor([0.5, 0.3] + [0.2 / 8] * 8)
    assert (frequency - expected).abs().max() < 5 * math.sqrt(0.25 / lots.y.numel())


def test_logistic_normal_log_odds_have_the_asked_spread_within_and_between_sites() -> None:
    data, owned = load("breast_cancer"), torch.zeros(E, N, 2, dtype=torch.bool)
    mixture = LogisticNormalMixture(prevalence={"malignant": 0.15}, site_deviation=0.6, lot_deviation=1.2)
    shares = mixture.shares(KEYS, 8, owned, torch.ones(N, 1, 2, dtype=torch.float64), data)
    odds = (shares[..., 1] / shares[..., 0]).log()  # (E, N, 8)
    assert abs(float(odds.mean()) - math.log(0.15 / 0.85)) < 5 * math.sqrt((0.36 + 1.44 / 8) / (E * N))
    assert float(odds.var(dim=-1).mean()) == pytest.approx(1.44, rel=0.1)
    assert float(odds.mean(dim=-1).var()) == pytest.approx(0.36 + 1.44 / 8, rel=0.25)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 6), (0.3, 4), (1.0, 12)])
def test_exactly_the_asked_share_of_lots_is_corrupt_anywhere_with_equal_chance(splits: Splits, share: float, count: int) -> None:
    corrupt = draw(splits, corruption={"share": share, "pairs": [[0, 1]]}).corrupt
    assert (corrupt.sum(dim=(1, 2)) == count).all()
    assert (corrupt.double().mean(dim=0) - count / 12).abs().max() <= 5 * math.sqrt(0.25 / E)


def test_labels_are_swapped_within_pairs_at_the_asked_rate_in_corrupt_lots_only(splits: Splits) -> None:
    known, partner = pool_index(splits), {0: 6, 6: 0, 1: 7, 7: 1}
    lots = draw(splits, keys=KEYS[:20], corruption={"share": 0.5, "rate": 0.7, "pairs": [[0, 6], ["1", 7]]})
    true = splits.train.y[[known[row.numpy().tobytes()] for row in lots.x.flatten(end_dim=3)]].reshape(lots.y.shape)
    wrong = true != lots.y
    assert not wrong[~lots.corrupt].any()
    swappable = torch.tensor([label in partner for label in range(10)])[true]
    assert not wrong[~swappable].any()
    assert all(partner[int(a)] == int(b) for a, b in zip(true[wrong], lots.y[wrong], strict=True))
    candidates = swappable & lots.corrupt[..., None]
    rate = float(wrong[candidates].double().mean())
    assert abs(rate - 0.7) < 5 * math.sqrt(0.21 / int(candidates.sum()))


def test_site_shift_is_one_constant_a_principal_with_the_asked_deviation(splits: Splits) -> None:
    keys = KEYS[:40]
    plain, shifted = draw(splits, keys=keys), draw(splits, keys=keys, site_shift=0.5)
    shift = shifted.x - plain.x  # (E, N, K, R, D)
    torch.testing.assert_close(shift, shift[:, :, :1, :1].expand_as(shift))
    of_site = shift[:, :, 0, 0]  # (E, N, D)
    count = of_site.numel()
    assert abs(float(of_site.mean())) < 5 * 0.5 / math.sqrt(count)
    assert float(of_site.var()) == pytest.approx(0.25, abs=5 * 0.25 * math.sqrt(2 / count))
    assert (of_site[:, 0] != of_site[:, 1]).all()


def test_tags_come_as_often_as_asked(splits: Splits) -> None:
    tags = draw(splits, tags={"a": 0.6, "b": 0.1, "c": 0.3}).tags
    frequency = torch.bincount(tags.flatten(), minlength=3) / tags.numel()
    assert (frequency - torch.tensor([0.6, 0.1, 0.3])).abs().max() < 5 * math.sqrt(0.25 / tags.numel())
    assert not draw(splits).tags.any()


def test_each_part_of_a_draw_has_a_stream_of_its_own(splits: Splits) -> None:
    plain = draw(splits, keys=KEYS[:5])
    richer = draw(splits, keys=KEYS[:5], corruption={"share": 0.5, "rate": 0.9, "pairs": [[0, 6]]}, tags={"a": 0.5, "b": 0.5})
    assert torch.equal(plain.x, richer.x)
    assert torch.equal(plain.y[~richer.corrupt], richer.y[~richer.corrupt])


def test_unequal_rows_are_padded_and_a_padded_row_changes_nothing() -> None:
    rows = [3, 20, 7, 11, 1, 16]
    for substrate in ({"kind": "fedavg", "local_steps": 3}, {"kind": "traversal", "batch": None}, {"kind": "traversal", "batch": 50}):
        made = scenario.load("digits", substrate=substrate, horizon=2, **{"lots.rows": rows, "reward.scale": 1.0})
        plain, spoilt = (Engine(made, "shapley", 2, dtype=torch.float64) for _ in range(2))
        plain.reset([1, 2])
        spoilt.reset([1, 2])
        present = spoilt.lots.present
        assert present.sum(dim=-1).tolist() == [[n] * 4 for n in rows]
        assert spoilt.lots.samples.tolist() == [[n] * 4 for n in rows]
        spoilt.lots.x.masked_fill_(~present[..., None], 1e3)
        spoilt.lots.y.masked_fill_(~present, 0)
        for _ in range(2):  # the first round's updates were made at reset; the second's see the spoilt padding
            before, after = plain.step(torch.ones(2, 6, 4)), spoilt.step(torch.ones(2, 6, 4))
            for name in ("observations", "rewards", "credit", "utility", "blocked_by"):
                torch.testing.assert_close(getattr(before, name), getattr(after, name))
        torch.testing.assert_close(plain.theta, spoilt.theta)


def test_a_lots_share_is_its_rows_of_all_rows() -> None:
    made = scenario.load("digits", **{"lots.rows": [3, 20, 7, 11, 1, 16], "reward.scale": 1.0})
    engine = Engine(made, None, dtype=torch.float64)
    engine.reset([1])
    expected = torch.tensor([3, 20, 7, 11, 1, 16], dtype=torch.float64) / (58 * 4)
    torch.testing.assert_close(engine.prospect.proposals.share[0], expected[:, None].expand(6, 4))


def test_a_fedavg_update_is_gradient_descent_on_the_lots_own_rows() -> None:
    substrate = {"kind": "fedavg", "local_lr": 0.3, "local_steps": 3}
    made = scenario.load("digits", substrate=substrate, **{"lots.rows": [3, 20, 7, 11, 1, 16], "reward.scale": 1.0})
    engine = Engine(made, None, dtype=torch.float64)
    engine.reset([1])
    for i, k in ((0, 0), (1, 2), (4, 3)):
        x, y = engine.lots.x[0, i, k][engine.lots.present[i, k]], engine.lots.y[0, i, k][engine.lots.present[i, k]]
        theta = engine.theta[0].clone()
        losses = []
        for _ in range(3):
            theta = theta.detach().requires_grad_()
            weight = theta.reshape(65, 10)
            loss = torch.nn.functional.cross_entropy(x @ weight[:64] + weight[64], y)
            losses.append(loss.item())
            theta = theta - 0.3 * torch.autograd.grad(loss, theta)[0]
        torch.testing.assert_close(engine.prospect.proposals.updates[0, i, k], theta.detach() - engine.theta[0])
        assert engine.prospect.proposals.loss[0, i, k].item() == pytest.approx(losses[0])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"rows": 0}, "at least one row"),
        ({"rows": ()}, "at least one row"),
        ({"rows": (1, 2)}, "2 entries for 4 principals"),
        ({"tags": {"a": 0.5}}, "sum to 1"),
        ({"tags": {"a": 1.5, "b": -0.5}}, "at least 0"),
        ({"corruption": {"share": 0.5}}, "no labels are swapped: give pairs"),
        ({"corruption": {"what": "links", "pairs": [[0, 6]]}}, "with what: links no labels are swapped"),
        ({"corruption": {"what": "links", "share": 0.5, "rate": 0}}, "no row is linked wrongly"),
        ({"corruption": {"pairs": [[0, 6], [6, 1]]}}, "repeats a class"),
        ({"corruption": {"pairs": [[3, 3]]}}, "repeats a class"),
        ({"corruption": {"pairs": [[0, "x"]]}}, "unknown class 'x'"),
        ({"mixture": {"kind": "dirichlet", "protected": ["x"]}}, "unknown class 'x'"),
        ({"mixture": {"kind": "dirichlet", "protected": list(range(10))}}, "unprotected"),
        ({"mixture": {"kind": "dirichlet", "protected": [8, 9], "classes_per_lot": 9}}, "only 8 common classes"),
        ({"mixture": {"kind": "logistic_normal", "prevalence": {"x": 0.5}}}, "unknown class 'x'"),
        ({"mixture": {"kind": "logistic_normal", "prevalence": "even"}}, "natural"),
        ({"strata": "sex"}, "a dirichlet mixture mixes only classes: use mixture.kind logistic_normal"),
        ({"strata": "sex", "mixture": {"kind": "logistic_normal"}}, "unknown attribute 'sex'.*no attributes"),
        ({"mixture": {"kind": "logistic_normal", "prevalence": {0: 1.0}}}, "strictly between"),
        ({"mixture": {"kind": "logistic_normal", "prevalence": {0: 0.7, 1: 0.6}}}, "leave something"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(splits: Splits, settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        draw(splits, keys=KEYS[:1], **settings)
