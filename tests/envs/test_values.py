"""Values: gradients against automatic differentiation, closed forms, groups, and errors that list what is known."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Dataset, Group, Rows, load
from proxycoop.envs.values import VALUES, ClassLoss, Disparity, GroupLoss, Value

TOY = Dataset(
    features=np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]),
    labels=np.array([0, 1, 0, 1, 0, 1]),
    class_names=("no", "yes"),
    feature_names=("age",),
)
PROBE = Rows(x=torch.zeros(4, 1), y=torch.tensor([1, 0, 1, 1]), groups={"old": torch.tensor([True, True, False, False])})
MADE = [ClassLoss(label="yes"), GroupLoss(group="old"), Disparity(group="old", label="yes")]


def with_probability(p: list[float]) -> Tensor:
    """Logits of two classes under which "yes" has these probabilities."""
    p = torch.tensor(p, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()], dim=-1)


@pytest.mark.parametrize("value", MADE, ids=lambda value: type(value).__name__)
def test_gradient_is_the_derivative_of_the_loss(value: Value) -> None:
    logits = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (expected,) = torch.autograd.grad(value.loss(logits, PROBE, TOY).sum(), logits)
    with torch.no_grad():
        torch.testing.assert_close(value.loss_and_gradient(logits.detach(), PROBE, TOY)[1], expected)


@pytest.mark.parametrize("value", MADE, ids=lambda value: type(value).__name__)
def test_gradient_predicts_a_small_change_of_the_loss(value: Value) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, direction = torch.randn(2, 4, 2, dtype=torch.float64, generator=generator)
    slope = (value.loss(logits + 1e-6 * direction, PROBE, TOY) - value.loss(logits - 1e-6 * direction, PROBE, TOY)) / 2e-6
    torch.testing.assert_close((value.loss_and_gradient(logits, PROBE, TOY)[1] * direction).sum(), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("value", MADE[:2], ids=lambda value: type(value).__name__)
def test_class_and_group_loss_are_the_mean_cross_entropy_on_their_probe(value: Value) -> None:
    p = [0.5, 0.2, 0.9, 0.1]
    expected = -np.mean(np.log([0.5, 0.8, 0.9, 0.1]))  # the labels are yes, no, yes, yes
    assert value.loss(with_probability(p), PROBE, TOY).item() == pytest.approx(expected)
    torch.testing.assert_close(value.loss(with_probability(p), PROBE, TOY), cross_entropy(with_probability(p), PROBE.y))


@pytest.mark.parametrize(
    ("p", "gap"),
    [([0.9, 0.7, 0.3, 0.1], 0.6), ([0.3, 0.1, 0.9, 0.7], 0.6), ([0.4, 0.6, 0.5, 0.5], 0.0), ([0.5, 0.5, 0.499, 0.499], 0.001)],
)
def test_disparity_is_the_smooth_gap_between_mean_scores(p: list[float], gap: float) -> None:
    loss = Disparity(group="old", label="yes").loss(with_probability(p), PROBE, TOY).item()
    assert loss == pytest.approx((gap**2 + 1e-6) ** 0.5 - 1e-3, abs=1e-12)
    assert gap - 1e-3 <= loss <= gap


def test_disparity_is_the_same_for_either_class_of_two() -> None:
    logits = with_probability([0.9, 0.7, 0.3, 0.2])
    yes, no = (Disparity(group="old", label=label).loss(logits, PROBE, TOY) for label in ("yes", 0))
    torch.testing.assert_close(yes, no)


def test_disparity_at_equality_has_no_gradient() -> None:
    gradient = Disparity(group="old", label="yes").loss_and_gradient(with_probability([0.4, 0.6, 0.5, 0.5]), PROBE, TOY)[1]
    assert gradient.abs().max() < 1e-12


def test_strata_are_the_rows_that_the_value_is_about() -> None:
    old = {"old": np.array([False, False, False, True, True, True])}
    assert [mask.tolist() for mask in ClassLoss(label="yes").strata(TOY, {})] == [[False, True] * 3]
    assert [mask.tolist() for mask in ClassLoss(label=0).strata(TOY, {})] == [[True, False] * 3]
    assert [mask.tolist() for mask in GroupLoss(group="old").strata(TOY, old)] == [[False] * 3 + [True] * 3]
    assert [mask.tolist() for mask in Disparity(group="old", label="yes").strata(TOY, old)] == [
        [False] * 3 + [True] * 3,
        [True] * 3 + [False] * 3,
    ]


def test_only_a_class_loss_protects_a_class() -> None:
    assert ClassLoss(label="yes").protected_class(TOY) == 1
    assert GroupLoss(group="old").protected_class(TOY) is None
    assert Disparity(group="old", label="yes").protected_class(TOY) is None


def test_groups_are_strictly_above_or_below_a_quantile() -> None:
    # 0, 1, 2, 3, 4, 5: the median is 2.5, the 0.2-quantile 1, the 0.8-quantile 4
    assert Group(column="age", above=0.5).members(TOY).tolist() == [False] * 3 + [True] * 3
    assert Group(column="age", below=0.2).members(TOY).tolist() == [True] + [False] * 5
    assert Group(column="age", above=0.8).members(TOY).tolist() == [False] * 5 + [True]
    assert Group(column="age", above=0.0).members(TOY).tolist() == [False] + [True] * 5


@pytest.mark.parametrize("limits", [{}, {"above": 0.5, "below": 0.5}])
def test_a_group_needs_exactly_one_limit(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one of 'above' and 'below'"):
        Group(column="age", **limits).members(TOY)


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (ClassLoss(label="maybe"), "unknown class 'maybe'.* no, yes"),
        (ClassLoss(label=2), "unknown class 2.* no, yes"),
        (ClassLoss(label=-1), "unknown class -1.* no, yes"),
        (GroupLoss(group="odl"), "unknown group 'odl'.*did you mean 'old'.* old, young"),
        (Disparity(group="odl", label="yes"), "unknown group 'odl'.* old, young"),
        (Disparity(group="old", label="maybe"), "unknown class 'maybe'.* no, yes"),
    ],
)
def test_unknown_classes_and_groups_list_the_known(value: Value, known: str) -> None:
    groups = {"old": TOY.features[:, 0] > 2, "young": TOY.features[:, 0] < 2}
    with pytest.raises(ValueError, match=known):
        value.strata(TOY, groups)


def test_an_unknown_group_where_there_are_none_says_where_to_define_one() -> None:
    with pytest.raises(ValueError, match=r"data\.groups"):
        GroupLoss(group="old").strata(TOY, {})


def test_an_unknown_column_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown column 'aeg'.*did you mean 'age'"):
        Group(column="aeg", above=0.5).members(TOY)


def test_unknown_value_kinds_list_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown value 'clas_loss'.*class_loss, disparity, group_loss"):
        VALUES.make("clas_loss", label=1)


@pytest.fixture(scope="module")
def grouped() -> Engine:
    settings = {
        "data.groups": {"large": {"column": "mean radius", "above": 0.6}},
        "data.probe_rows": 12,
        "values": {"gap": {"kind": "disparity", "group": "large", "label": "malignant"}, "large": {"kind": "group_loss", "group": "large"}},
        "profiles": [{"holders": 2, "tolerances": {"gap": 0.02}}, {"holders": 1, "tolerances": {"large": 0.05}}],
        "reward.scale": 1.0,
    }
    engine = Engine(scenario.load("breast_cancer", **settings), None, num_envs=3, dtype=torch.float64)
    engine.reset([1, 2, 3])
    return engine


def test_group_values_get_probes_of_their_strata(grouped: Engine) -> None:
    data = load("breast_cancer")
    radius = data.features[:, data.column("mean radius")]
    assert Group(column="mean radius", above=0.6).members(data).sum() == (radius > np.quantile(radius, 0.6)).sum()
    for probes in (grouped.splits.probe, grouped.splits.probe_test):
        assert probes["gap"].groups["large"].tolist() == [True] * 12 + [False] * 12
        assert probes["large"].groups["large"].tolist() == [True] * 12


def test_value_losses_and_gradients_of_a_cooperative_equal_autograd(grouped: Engine) -> None:
    assert list(grouped.values) == ["missed_cancer", "false_alarm", "gap", "large"]  # overrides merge into the file's values
    theta = grouped.theta.clone().requires_grad_()
    weight = theta.reshape(3, 10, 2)
    gap_probe, large_probe = grouped.splits.probe["gap"], grouped.splits.probe["large"]
    score = (gap_probe.x @ weight[:, :9] + weight[:, 9:]).softmax(dim=-1)[..., 1]
    gap = ((score[:, :12].mean(dim=1) - score[:, 12:].mean(dim=1)) ** 2 + 1e-6).sqrt() - 1e-3
    logits = large_probe.x @ weight[:, :9] + weight[:, 9:]
    large = torch.stack([cross_entropy(one, large_probe.y) for one in logits])
    gradients = [torch.autograd.grad(loss.sum(), theta, retain_graph=True)[0] for loss in (gap, large)]
    torch.testing.assert_close(grouped.prospect.value_losses[:, 2:], torch.stack([gap, large], dim=1).detach())
    torch.testing.assert_close(grouped.prospect.value_gradients[:, 2:], torch.stack(gradients, dim=1))


def test_a_cooperative_without_values_plays() -> None:
    engine = Engine(scenario.load("digits", values={}, profiles=[]), "shapley")
    engine.reset([1])
    result = engine.step(torch.ones(1, 6, 4))
    assert result.value_losses.shape == (1, 0)
    assert result.admitted.all()
    assert not result.violated.any()
