"""Values: gradients against automatic differentiation, closed forms, groups, and errors that list what is known."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor
from torch.func import jvp
from torch.nn.functional import cross_entropy

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Bools, Dataset, Group, Rows, load
from proxycoop.envs.values import VALUES, ClassLoss, Confidence, Disparity, Drift, GroupLoss, MissRate, Value, WorstGroupLoss
from proxycoop.envs.values.interface import rows_of

TOY = Dataset(
    features=np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]),
    labels=np.array([0, 1, 0, 1, 0, 1]),
    class_names=("no", "yes"),
    feature_names=("age",),
)
PROBE = Rows(x=torch.zeros(4, 1), y=torch.tensor([1, 0, 1, 1]), groups={"old": torch.tensor([True, True, False, False])})

COLOURS = Dataset(features=np.zeros((12, 1)), labels=np.arange(12) % 3, class_names=("red", "green", "blue"), feature_names=("age",))
COLOURED = Rows(
    x=torch.zeros(12, 1),
    y=torch.arange(12) % 3,
    groups={"old": torch.arange(12) < 6, "young": torch.arange(12) >= 9, "rest": (torch.arange(12) >= 6) & (torch.arange(12) < 9)},
    reference=torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9)),
)
KINDS: list[Value] = [
    ClassLoss(label="blue"),
    GroupLoss(group="old"),
    WorstGroupLoss(groups=("old", "young", "rest"), temperature=0.2),
    *(
        Disparity(group="old", label="red", criterion=criterion, against=against)
        for criterion in ("demographic_parity", "equal_opportunity", "equalised_odds")
        for against in (None, "young")
    ),
    MissRate(label="green"),
    MissRate(label="green", temperature=0.3),
    Confidence(),
    Drift(),
]


def with_probability(p: list[float]) -> Tensor:
    """Logits of two classes under which "yes" has these probabilities."""
    p = torch.tensor(p, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()], dim=-1)


def answers(n: int) -> Tensor:
    """n sets of logits on the probe of three classes, ``(n, 12, 3)``."""
    return torch.randn(n, 12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_every_kind_is_among_those_whose_derivatives_are_checked() -> None:
    assert {VALUES.name_of(type(value)) for value in KINDS} == set(VALUES)


@pytest.mark.parametrize("value", KINDS, ids=repr)
def test_gradient_is_the_derivative_of_the_loss(value: Value) -> None:
    logits = answers(3).requires_grad_()
    (expected,) = torch.autograd.grad(value.loss(logits, COLOURED, COLOURS).sum(), logits)
    with torch.no_grad():
        torch.testing.assert_close(value.loss_and_gradient(logits.detach(), COLOURED, COLOURS)[1], expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch.func.jvp loads rules that use it
@pytest.mark.parametrize("value", KINDS, ids=repr)
def test_forward_derivatives_of_first_and_second_order_are_those_of_finite_differences(value: Value) -> None:
    logits, direction = answers(6).chunk(2)  # (3, 12, 3) each

    def loss(logits: Tensor) -> Tensor:
        return value.loss(logits, COLOURED, COLOURS)

    def slope(logits: Tensor) -> Tensor:
        return jvp(loss, (logits,), (direction,))[1]

    first, second = jvp(slope, (logits,), (direction,))
    assert first.shape == second.shape == (3,)
    step = 1e-5 * direction
    torch.testing.assert_close(first, (loss(logits + step) - loss(logits - step)) / 2e-5, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(second, (slope(logits + step) - slope(logits - step)) / 2e-5, rtol=1e-5, atol=1e-7)
    assert second.abs().min() > 1e-4  # none is linear in the logits


@pytest.mark.parametrize("value", KINDS, ids=repr)
def test_a_batch_of_answers_has_the_losses_and_gradients_of_each(value: Value) -> None:
    logits = answers(4).reshape(2, 2, 12, 3)
    together = value.loss_and_gradient(logits, COLOURED, COLOURS)
    alone = [value.loss_and_gradient(one, COLOURED, COLOURS) for one in logits.flatten(end_dim=1)]
    torch.testing.assert_close(together[0].flatten(), torch.stack([loss for loss, _ in alone]))
    torch.testing.assert_close(together[1].flatten(end_dim=1), torch.stack([gradient for _, gradient in alone]))


@pytest.mark.parametrize("value", KINDS, ids=repr)
def test_a_value_reads_back_from_its_plain_settings(value: Value) -> None:
    plain = scenario.load("digits", values={"it": value}, profiles=[]).to_dict()["values"]["it"]
    assert scenario.load("digits", values={"it": plain}, profiles=[]).values["it"] == value


@pytest.mark.parametrize("value", [ClassLoss(label="yes"), GroupLoss(group="old")], ids=repr)
def test_class_and_group_loss_are_the_mean_cross_entropy_on_their_probe(value: Value) -> None:
    p = [0.5, 0.2, 0.9, 0.1]
    expected = -np.mean(np.log([0.5, 0.8, 0.9, 0.1]))  # the labels are yes, no, yes, yes
    assert value.loss(with_probability(p), PROBE, TOY).item() == pytest.approx(expected)
    torch.testing.assert_close(value.loss(with_probability(p), PROBE, TOY), cross_entropy(with_probability(p), PROBE.y))


def test_strata_are_the_rows_that_the_value_is_about() -> None:
    old = {"old": np.array([False, False, False, True, True, True])}
    assert [mask.tolist() for mask in ClassLoss(label="yes").strata(TOY, {})] == [[False, True] * 3]
    assert [mask.tolist() for mask in ClassLoss(label=0).strata(TOY, {})] == [[True, False] * 3]
    assert [mask.tolist() for mask in GroupLoss(group="old").strata(TOY, old)] == [[False] * 3 + [True] * 3]
    old_yes = [[False, False, False, True, False, True]]
    for value in (ClassLoss(label="yes", group="old"), MissRate(label="yes", group="old"), Confidence(label="yes", group="old")):
        assert [mask.tolist() for mask in value.strata(TOY, old)] == old_yes
    assert [mask.tolist() for mask in Drift(group="old").strata(TOY, old)] == [[False] * 3 + [True] * 3]
    assert [mask.tolist() for mask in Confidence().strata(TOY, {})] == [[True] * 6]
    young = {"old": old["old"], "young": ~old["old"]}
    assert [mask.tolist() for mask in WorstGroupLoss(groups=("young", "old")).strata(TOY, young)] == [
        [True] * 3 + [False] * 3,
        [False] * 3 + [True] * 3,
    ]


def test_values_about_the_cases_of_a_class_protect_it() -> None:
    protecting = [value for value in KINDS if value.protected_class(COLOURS) is not None]
    assert protecting == [ClassLoss(label="blue"), MissRate(label="green"), MissRate(label="green", temperature=0.3)]
    assert [value.protected_class(COLOURS) for value in protecting] == [2, 1, 1]


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
        (Disparity(group="old", label="yes", against="yuong"), "unknown group 'yuong'.* old, young"),
        (WorstGroupLoss(groups=("old", "yuong")), "unknown group 'yuong'.* old, young"),
        (MissRate(label="maybe"), "unknown class 'maybe'.* no, yes"),
        (MissRate(label="yes", group="odl"), "unknown group 'odl'.* old, young"),
        (Confidence(label="maybe"), "unknown class 'maybe'.* no, yes"),
        (Drift(group="odl"), "unknown group 'odl'.* old, young"),
        (Disparity(group="old", label="maybe"), "unknown class 'maybe'.* no, yes"),
    ],
)
def test_unknown_classes_and_groups_list_the_known(value: Value, known: str) -> None:
    groups = {"old": TOY.features[:, 0] > 2, "young": TOY.features[:, 0] < 2}
    with pytest.raises(ValueError, match=known):
        value.strata(TOY, groups)


def test_a_class_that_a_group_has_no_rows_of_is_refused() -> None:
    with pytest.raises(ValueError, match="the data has no rows of class 'no' in group 'eldest'"):
        MissRate(label="no", group="eldest").strata(TOY, {"eldest": TOY.features[:, 0] > 4})


def test_an_unknown_group_where_there_are_none_says_where_to_define_one() -> None:
    with pytest.raises(ValueError, match=r"data\.groups"):
        GroupLoss(group="old").strata(TOY, {})


def test_an_unknown_column_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"unknown column 'aeg'.*did you mean 'age'"):
        Group(column="aeg", above=0.5).members(TOY)


def test_unknown_value_kinds_list_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"unknown value 'clas_loss'.*class_loss, confidence, disparity, drift, group_loss, miss_rate, worst_group_loss"
    ):
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


def cancer(**values: object) -> Engine:
    """A cooperative with groups of middling and giant tumours (the giant are all malignant) and these values beside its own."""
    groups = {
        "middling": {"column": "mean radius", "below": 0.7},
        "giant": {"column": "mean radius", "above": 0.9},
    }
    settings = {"data.groups": groups, "data.probe_rows": 20, "values": values, "reward.scale": 1.0}
    engine = Engine(scenario.load("breast_cancer", **settings), None, num_envs=2, dtype=torch.float64)
    engine.reset([1, 2])
    return engine


ONE_CLASS = "of class 'malignant' only: .*always answers this class.* Raise data.probe_rows, or use a value about one class"


@pytest.mark.parametrize(
    ("settings", "holds"),
    [
        ({"kind": "group_loss", "group": "giant"}, "rows"),
        ({"kind": "worst_group_loss", "groups": ["giant", "middling"]}, "rows of group 'giant'"),
    ],
)
def test_a_probe_set_of_one_class_is_refused_where_it_would_teach_to_answer_that_class(settings: dict[str, object], holds: str) -> None:
    with pytest.raises(ValueError, match=f"the probe set of value 'theirs' holds {holds} {ONE_CLASS}"):
        cancer(theirs=settings)


@pytest.mark.parametrize("kind", ["class_loss", "miss_rate"])
def test_a_probe_set_of_one_class_is_what_a_value_about_a_class_wants(kind: str) -> None:
    probes = cancer(theirs={"kind": kind, "label": "malignant", "group": "giant"}).splits.probe
    assert probes["theirs"].y.eq(1).all()
    assert probes["theirs"].groups["giant"].all()


def test_which_probe_sets_of_one_class_are_refused() -> None:
    of_blue = Rows(x=COLOURED.x[:4], y=torch.full((4,), 2), groups={"old": torch.arange(4) < 2, "young": torch.arange(4) >= 2})
    parity = Disparity(group="old", label="red")
    for value in (GroupLoss(group="old"), parity, WorstGroupLoss(groups=("old", "young"))):
        value.check(COLOURED, COLOURS)
        with pytest.raises(ValueError, match="of class 'blue' only"):
            value.check(of_blue, COLOURS)
    opportunity = Disparity(group="old", label="blue", criterion="equal_opportunity")  # is about the cases of one class
    for value in (opportunity, ClassLoss(label="blue"), MissRate(label="blue"), Confidence(label="blue"), Drift(label="blue")):
        value.check(of_blue, COLOURS)


def test_a_group_without_rows_in_the_probe_set_is_refused() -> None:
    nobody = Rows(x=COLOURED.x, y=COLOURED.y, groups={**COLOURED.groups, "young": torch.zeros(12, dtype=torch.bool)})
    with pytest.raises(ValueError, match="holds no rows of group 'young'"):
        WorstGroupLoss(groups=("old", "young")).check(nobody, COLOURS)


class Calm(Value):
    """Mean square of the answers to one class, in squared logits."""

    label: int | str = Field(description="The class.")

    def strata(self, dataset: Dataset, groups: Mapping[str, Bools]) -> Sequence[Bools]:
        return [rows_of(dataset, groups, label=self.label)]

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        return logits.square().mean(dim=(-1, -2))

    def check(self, probe: Rows, dataset: Dataset) -> None:
        if len(probe) > 30:
            raise ValueError("is too long: lower data.probe_rows")


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VALUES, "_factories", dict(VALUES._factories))
    VALUES.register("calm")(Calm)


def test_a_value_of_ones_own_screens_like_any_other(calm: None) -> None:
    settings = {"values": {"quiet": {"kind": "calm", "label": 3}}, "profiles": [{"holders": 6, "tolerances": {"quiet": 0.01}}]}
    with pytest.raises(ValueError, match=r"the probe set of value 'quiet' is too long: lower data\.probe_rows"):
        Engine(scenario.load("digits", **settings), "equal")
    engine = Engine(scenario.load("digits", **settings, **{"data.probe_rows": 30}), "equal", num_envs=2, dtype=torch.float64)
    engine.reset([1, 2])
    probe = engine.splits.probe["quiet"]
    assert probe.y.eq(3).all()
    theta = engine.theta.clone().requires_grad_()
    losses = engine.model.logits(theta, probe.x).square().mean(dim=(-1, -2))
    (gradient,) = torch.autograd.grad(losses.sum(), theta)
    before = engine.prospect
    torch.testing.assert_close(before.value_losses[:, 2], losses.detach())
    torch.testing.assert_close(before.value_gradients[:, 2], gradient)
    harm = (before.proposals.updates * gradient[:, None, None]).sum(dim=-1)  # (E, N, K)
    result = engine.step(torch.ones(2, 6, 4))
    assert 0 < result.admitted.sum() < result.admitted.numel()
    assert torch.equal(result.admitted, harm <= 0.01)


def test_a_value_of_ones_own_that_is_not_registered_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"value class Calm is not registered: decorate it with @VALUES.register"):
        Engine(scenario.load("digits", **{"values.quiet": Calm(label=3)}), "equal")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda logits: logits.mean(), r"answered with torch.float32 of shape \(\)"),
        (lambda logits: logits[..., 0], "answered with torch.float32 of shape"),
        (lambda logits: None, "answered with NoneType"),
        (lambda logits: logits.detach().mean(dim=(-1, -2)), "does not depend on the logits"),
        (lambda logits: logits.mean(dim=(-1, -2)) * torch.nan, "its loss is nan where every episode starts"),
    ],
)
def test_a_value_of_ones_own_that_answers_wrongly_is_named(monkeypatch, loss, said):
    class Wrong(Value):
        def strata(self, dataset, groups):
            return [rows_of(dataset, groups)]

        def loss(self, logits, probe, dataset):
            return loss(logits)

    monkeypatch.setitem(VALUES._factories, "test_values_wrong", Wrong)
    wrong = scenario.load("breast_cancer", horizon=2, values={"mine": {"kind": "test_values_wrong"}}, profiles=[])
    with pytest.raises(ValueError, match=f"value .*{said}"):
        Engine(wrong, "loo").reset([0])
