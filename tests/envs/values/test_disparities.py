"""Disparity: gaps by each criterion, in closed form, against everybody else and against another group."""

import numpy as np
import pytest
import torch
from torch import Tensor

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Dataset, Rows
from proxycoop.envs.values import Disparity

TOY = Dataset(
    features=np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]),
    labels=np.array([0, 1, 0, 1, 0, 1]),
    class_names=("no", "yes"),
    feature_names=("age",),
)
PROBE = Rows(x=torch.zeros(4, 1), y=torch.tensor([1, 0, 1, 1]), groups={"old": torch.tensor([True, True, False, False])})
EIGHT = Rows(
    x=torch.zeros(8, 1),
    y=torch.tensor([1, 0, 1, 0, 1, 0, 1, 0]),
    groups={"old": torch.arange(8) < 4, "young": torch.arange(8) >= 6},
)


def with_probability(p: list[float]) -> Tensor:
    """Logits of two classes under which "yes" has these probabilities."""
    p = torch.tensor(p, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()], dim=-1)


def smooth(gap: float) -> float:
    return (gap**2 + 1e-6) ** 0.5 - 1e-3


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


# on EIGHT the old have true-positive scores .9, .7 and false-positive scores .2, .4; others .5, .1 and .3, .3; the young among them .1, .3
SCORES = [0.9, 0.2, 0.7, 0.4, 0.5, 0.3, 0.1, 0.3]


@pytest.mark.parametrize(
    ("settings", "gap"),
    [
        ({}, 0.55 - 0.3),
        ({"against": "young"}, 0.55 - 0.2),
        ({"criterion": "equal_opportunity"}, 0.8 - 0.3),
        ({"criterion": "equal_opportunity", "against": "young"}, 0.8 - 0.1),
        ({"criterion": "equal_opportunity", "label": "no"}, 0.0),  # .7 among the old, .7 among the others
    ],
)
def test_the_criterion_says_among_which_rows_scores_are_compared(settings: dict[str, str], gap: float) -> None:
    value = Disparity(**{"group": "old", "label": "yes", **settings})
    assert value.loss(with_probability(SCORES), EIGHT, TOY).item() == pytest.approx(smooth(gap), abs=1e-12)


@pytest.mark.parametrize(
    ("true_positive", "false_positive"), [(0.5, 0.1), (0.1, 0.5), (0.3, 0.3), (0.0, 0.0), (0.02, 0.025), (-0.4, 0.2), (0.2, -0.4)]
)
def test_equalised_odds_is_the_wider_of_the_gaps_within_its_stated_error(true_positive: float, false_positive: float) -> None:
    scores = [0.5 + true_positive, 0.5 + false_positive, 0.5 + true_positive, 0.5 + false_positive, 0.5, 0.5, 0.5, 0.5]
    loss = Disparity(group="old", label="yes", criterion="equalised_odds").loss(with_probability(scores), EIGHT, TOY).item()
    widest = max(abs(true_positive), abs(false_positive))
    assert widest - 0.01 * np.log(2) - 1e-3 <= loss <= widest
    gaps = np.array([smooth(true_positive), smooth(false_positive)])
    assert loss == pytest.approx(0.01 * np.log(np.mean(np.exp(gaps / 0.01))), abs=1e-12)


def test_equalised_odds_is_the_same_for_either_class_of_two() -> None:
    yes, no = (
        Disparity(group="old", label=c, criterion="equalised_odds").loss(with_probability(SCORES), EIGHT, TOY) for c in ("yes", "no")
    )
    torch.testing.assert_close(yes, no)


def test_a_model_that_is_always_right_has_equal_odds_but_not_parity_where_the_classes_shares_differ() -> None:
    right = with_probability([float(label) * 0.9998 + 1e-4 for label in (1, 1, 1, 0, 1, 0, 0, 0)])
    probe = Rows(x=EIGHT.x, y=torch.tensor([1, 1, 1, 0, 1, 0, 0, 0]), groups=EIGHT.groups)
    for criterion in ("equal_opportunity", "equalised_odds"):
        assert Disparity(group="old", label="yes", criterion=criterion).loss(right, probe, TOY).item() == pytest.approx(0, abs=1e-9)
    assert Disparity(group="old", label="yes").loss(right, probe, TOY).item() == pytest.approx(0.5, abs=2e-3)


def test_equality_of_odds_has_no_gradient() -> None:
    value = Disparity(group="old", label="yes", criterion="equalised_odds")
    assert value.loss_and_gradient(with_probability([0.4, 0.3] * 4), EIGHT, TOY)[1].abs().max() < 1e-12


GROUPS = {"old": TOY.features[:, 0] > 2, "young": TOY.features[:, 0] < 2, "eldest": TOY.features[:, 0] > 4}


def strata(**settings: str) -> list[list[int]]:
    return [np.flatnonzero(mask).tolist() for mask in Disparity(**{"group": "old", "label": "yes", **settings}).strata(TOY, GROUPS)]


def test_strata_are_both_sides_by_true_class_where_the_criterion_asks_for_it() -> None:
    assert strata() == [[3, 4, 5], [0, 1, 2]]
    assert strata(against="young") == [[3, 4, 5], [0, 1]]
    assert strata(criterion="equal_opportunity") == [[3, 5], [1]]
    assert strata(criterion="equal_opportunity", label="no", against="young") == [[4], [0]]
    assert strata(criterion="equalised_odds") == [[4], [0, 2], [3, 5], [1]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"against": "eldest"}, "1 rows are in group 'old' and in group 'eldest'"),
        ({"group": "eldest", "criterion": "equalised_odds"}, "no rows of class 'no' in group 'eldest'"),
        ({"group": "young", "against": "eldest", "criterion": "equal_opportunity", "label": "no"}, "of class 'no' in group 'eldest'"),
        ({"group": "all"}, "no rows outside group 'all'"),
    ],
)
def test_a_side_without_rows_and_sides_that_overlap_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Disparity(**{"group": "old", "label": "yes", **settings}).strata(TOY, {**GROUPS, "all": np.ones(6, dtype=bool)})


def test_a_group_is_not_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="against='old' is the group itself"):
        Disparity(group="old", label="yes", against="old")


def test_an_unknown_criterion_lists_the_known() -> None:
    with pytest.raises(ValueError, match="'demographic_parity', 'equal_opportunity' or 'equalised_odds'"):
        scenario.load("breast_cancer", **{"values.gap": {"kind": "disparity", "group": "a", "label": 1, "criterion": "parity"}})


def test_a_cooperative_draws_probes_by_group_and_class() -> None:
    settings = {
        "data.groups": {"large": {"column": "mean radius", "above": 0.5}, "small": {"column": "mean radius", "below": 0.5}},
        "data.probe_rows": 8,
        "values": {
            "odds": {"kind": "disparity", "group": "large", "against": "small", "label": "malignant", "criterion": "equalised_odds"}
        },
        "reward.scale": 1.0,
    }
    engine = Engine(scenario.load("breast_cancer", **settings), None, dtype=torch.float64)
    engine.reset([1])
    probe = engine.splits.probe["odds"]
    assert probe.y.tolist() == [0] * 16 + [1] * 16
    assert probe.groups["large"].tolist() == ([True] * 8 + [False] * 8) * 2
    score = engine.model.logits(engine.theta, probe.x)[0].softmax(dim=-1)[:, 1].reshape(2, 2, 8).mean(dim=-1)
    false_positive, true_positive = (score[:, 0] - score[:, 1]).tolist()
    gaps = np.array([smooth(false_positive), smooth(true_positive)])
    assert engine.prospect.value_losses[0, 2].item() == pytest.approx(0.01 * np.log(np.mean(np.exp(gaps / 0.01))), abs=1e-12)
