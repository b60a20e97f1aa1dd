"""Harm: against inner products, Hessians by automatic differentiation and differences of losses, for every kind of value."""

import math
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Dataset, Rows
from proxycoop.envs.screening import harm
from proxycoop.envs.screening.harm import Harm, predicted_harm
from proxycoop.envs.values import VALUES, Value, losses_and_gradients

VALUES_OF_EVERY_KIND = {
    "class": {"kind": "class_loss", "label": "malignant"},
    "class_in_group": {"kind": "class_loss", "label": "benign", "group": "coarse"},
    "group": {"kind": "group_loss", "group": "coarse"},
    "worst": {"kind": "worst_group_loss", "groups": ["coarse", "fine"]},
    "missed": {"kind": "miss_rate", "label": "malignant", "temperature": 0.5},
    "parity": {"kind": "disparity", "group": "coarse", "label": "malignant"},
    "opportunity": {"kind": "disparity", "group": "coarse", "label": "malignant", "criterion": "equal_opportunity"},
    "odds": {"kind": "disparity", "group": "coarse", "label": "malignant", "criterion": "equalised_odds"},
    "private": {"kind": "confidence"},
    "drift": {"kind": "drift"},
}
MODELS = {
    "softmax": {"kind": "softmax"},
    "mlp": {"kind": "mlp", "hidden": [5]},
    "smooth": {"kind": "module", "factory": "proxycoop_test_smooth:smooth"},
}


# units without kinks, so that second derivatives say more than those of ReLU
FACTORY = """
from torch import nn


def smooth(n_features, n_classes):
    return nn.Sequential(nn.Linear(n_features, 4), nn.Tanh(), nn.Linear(4, n_classes))
"""


def logits_of(kind: str, theta: Tensor, x: Tensor) -> Tensor:
    """The model's answers by hand, ``(P,)``, ``(V, features)`` → ``(V, classes)``."""
    features, width = x.shape[1], 0
    if kind == "softmax":
        weight = theta.reshape(features + 1, 2)
        return x @ weight[:-1] + weight[-1]
    width = {"mlp": 5, "smooth": 4}[kind]
    first, bias, second, last = theta.split([features * width, width, width * 2, 2])
    hidden = x @ first.reshape(width, features).T + bias
    return (hidden.relu() if kind == "mlp" else hidden.tanh()) @ second.reshape(2, width).T + last


@pytest.fixture(autouse=True, scope="module")
def _importable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("factory")
    (folder / "proxycoop_test_smooth.py").write_text(FACTORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@cache
def at_work(model: str, dtype: torch.dtype = torch.float64) -> Engine:
    """Two cooperatives after two rounds, so that the model is no longer where it began."""
    settings = {
        "reward.scale": 1.0,
        "model": MODELS[model],
        "data.groups": {"coarse": {"column": "mean symmetry", "above": 0.5}, "fine": {"column": "mean symmetry", "below": 0.5}},
        "data.probe_rows": 8,
        "data.split_seed": 0,  # one that leaves both classes in every probe set
        "data.validation.rows": 30,
        "data.test.rows": 30,
        "values": VALUES_OF_EVERY_KIND,
        "profiles": [],
        "principals": 3,
        "lots.per_principal": 2,
    }
    engine = Engine(scenario.load("breast_cancer", **settings), None, num_envs=2, dtype=dtype)
    engine.reset([1, 2])
    for _ in range(2):
        engine.step(torch.ones(2, 3, 2))
    return engine


def foreseen(engine: Engine, kind: str) -> Harm:
    return Harm(kind, engine.values, engine._ground.probes, engine.model, engine.splits.dataset)


def arguments(engine: Engine, updates: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    look = engine.prospect
    return engine.theta, look.proposals.updates if updates is None else updates, look.value_losses, look.value_gradients


def value_loss(engine: Engine, model: str, name: str, theta: Tensor) -> Tensor:
    """A value's loss from the parameters, by the answers computed by hand."""
    probe = engine.splits.probe[name]
    return engine.values[name].loss(logits_of(model, theta, probe.x), probe, engine.splits.dataset)


def test_every_registered_kind_of_value_is_tried() -> None:
    assert {settings["kind"] for settings in VALUES_OF_EVERY_KIND.values()} == set(VALUES)


@pytest.mark.parametrize("model", MODELS)
def test_first_and_second_order_are_the_terms_of_taylor_s_expansion_for_every_kind_of_value(model: str) -> None:
    engine = at_work(model)
    theta, updates, *_ = arguments(engine)
    first, second = (foreseen(engine, kind)(*arguments(engine)) for kind in ("first_order", "second_order"))
    for m, name in enumerate(engine.values):
        for e in range(2):
            gradient = torch.autograd.functional.jacobian(lambda t, n=name: value_loss(engine, model, n, t), theta[e])
            hessian = torch.autograd.functional.hessian(lambda t, n=name: value_loss(engine, model, n, t), theta[e])
            linear = updates[e] @ gradient
            torch.testing.assert_close(first[e, ..., m], linear, rtol=1e-9, atol=1e-12)
            bent = linear + torch.einsum("nkp,pq,nkq->nk", updates[e], hessian, updates[e]) / 2
            torch.testing.assert_close(second[e, ..., m], bent, rtol=1e-8, atol=1e-11)
            assert (bent - linear).abs().max() > 1e-6  # so that forgetting the second term would show


@pytest.mark.parametrize("model", MODELS)
def test_measured_harm_is_the_difference_of_the_losses(model: str) -> None:
    engine = at_work(model)
    theta, updates, *_ = arguments(engine)
    measured = foreseen(engine, "measured")(*arguments(engine))
    for m, name in enumerate(engine.values):
        for e in range(2):
            for i in range(3):
                for k in range(2):
                    after = value_loss(engine, model, name, theta[e] + updates[e, i, k])
                    before = value_loss(engine, model, name, theta[e])
                    torch.testing.assert_close(measured[e, i, k, m], after - before, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", ["softmax", "smooth"])
def test_the_shorter_the_update_the_closer_each_order_comes_to_what_is_measured(model: str) -> None:
    engine = at_work(model)
    error = {kind: [] for kind in ("first_order", "second_order")}
    for size in (0.1, 0.01):
        short = arguments(engine, size * engine.prospect.proposals.updates)
        measured = foreseen(engine, "measured")(*short)
        for kind in error:
            error[kind].append((foreseen(engine, kind)(*short) - measured).abs().amax(dim=(0, 1, 2)))
    smooth_values = [m for m, name in enumerate(engine.values) if name not in ("parity", "opportunity", "odds")]  # bent within 0.001 of 0
    ratio = {kind: (long / short)[smooth_values] for kind, (long, short) in error.items()}
    assert (ratio["first_order"] > 10**1.5).all()  # a tenth of the length, a hundredth of the error
    assert (ratio["second_order"] > 10**2.3).all()  # a thousandth


@pytest.mark.parametrize("kind", ["first_order", "second_order", "measured"])
@pytest.mark.parametrize("model", MODELS)
def test_harm_along_updates_is_the_harm_of_their_parts(model: str, kind: str) -> None:
    engine = at_work(model)
    harms, (theta, updates, *rest) = foreseen(engine, kind), arguments(engine)
    factor = torch.rand(updates.shape[:-1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        harms.along(theta, updates, *rest)(factor), harms(theta, factor[..., None] * updates, *rest), rtol=1e-9, atol=1e-12
    )
    step = updates[:, 0, 0]  # as the guard asks: one step an environment
    assert harms(theta, step, *rest).shape == (2, len(engine.values))
    torch.testing.assert_close(
        harms.along(theta, step, *rest)(factor[:, 0, 0]), harms(theta, factor[:, 0, 0, None] * step, *rest), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("kind", ["second_order", "measured"])
@pytest.mark.parametrize("model", MODELS)
def test_updates_in_small_portions_do_the_same_harm(model: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = at_work(model)
    whole = foreseen(engine, kind)(*arguments(engine))
    for portion in (1, 2 * engine.theta.shape[1] * 4):
        monkeypatch.setattr(harm, "_CHUNK", portion)
        torch.testing.assert_close(foreseen(engine, kind)(*arguments(engine)), whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["first_order", "second_order", "measured"])
def test_in_single_precision_harm_is_the_same_to_rounding(kind: str) -> None:
    single, double = at_work("softmax", torch.float32), at_work("softmax")
    updates = double.prospect.proposals.updates
    theta, losses, gradients = double.theta, double.prospect.value_losses, double.prospect.value_gradients
    expected = foreseen(double, kind)(theta, updates, losses, gradients)
    got = foreseen(single, kind)(theta.float(), updates.float(), losses.float(), gradients.float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=3e-6)


@pytest.mark.parametrize("kind", ["first_order", "second_order", "measured"])
def test_without_values_there_is_no_harm_to_foresee(kind: str) -> None:
    engine = at_work("softmax")
    nothing = Harm(kind, {}, [], engine.model, engine.splits.dataset)
    assert nothing.linear
    theta, updates, *_ = arguments(engine)
    empty = theta.new_empty(2, 0, theta.shape[1])
    assert nothing(theta, updates, theta.new_empty(2, 0), empty).shape == (2, 3, 2, 0)
    assert nothing.along(theta, updates, theta.new_empty(2, 0), empty)(theta.new_ones(2, 3, 2)).shape == (2, 3, 2, 0)


def test_only_first_order_harm_is_linear() -> None:
    engine = at_work("softmax")
    assert [foreseen(engine, kind).linear for kind in ("first_order", "second_order", "measured")] == [True, False, False]


class MeanLogit(Value):
    """Linear in the answers, and so in the parameters of a linear model."""

    def strata(self, dataset: Dataset, groups: object) -> list[object]:
        raise NotImplementedError

    def loss(self, logits: Tensor, probe: Rows, dataset: Dataset) -> Tensor:
        return logits[..., 0].mean(dim=-1)


def test_a_value_without_curvature_has_the_same_harm_by_all_definitions() -> None:
    engine = at_work("softmax")
    theta, updates, *_ = arguments(engine)
    losses, gradients = losses_and_gradients(
        {"mean": MeanLogit()},
        [engine.splits.probe["group"]],
        [engine.model.logits(theta, engine.splits.probe["group"].x)],
        engine.model,
        theta,
        engine.splits.dataset,
    )
    by_kind = [
        Harm(kind, {"mean": MeanLogit()}, [engine.splits.probe["group"]], engine.model, engine.splits.dataset)(
            theta, updates, losses, gradients
        )
        for kind in ("first_order", "second_order", "measured")
    ]
    assert by_kind[0].abs().max() > 1e-3
    torch.testing.assert_close(by_kind[1], by_kind[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(by_kind[2], by_kind[0], rtol=1e-9, atol=1e-12)


def test_no_update_does_no_harm() -> None:
    engine = at_work("smooth")
    for kind in ("first_order", "second_order", "measured"):
        assert foreseen(engine, kind)(*arguments(engine, engine.theta.new_zeros(2, 3, 2, engine.theta.shape[1]))).abs().max() < 1e-14


def test_predicted_harm_takes_any_axes_between() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients, updates = torch.randn(3, 4, 7, generator=generator), torch.randn(3, 2, 5, 6, 7, generator=generator)
    torch.testing.assert_close(predicted_harm(gradients, updates), torch.einsum("emp,eabcp->eabcm", gradients, updates))
    torch.testing.assert_close(predicted_harm(gradients, updates[:, 0, 0, 0]), torch.einsum("emp,ep->em", gradients, updates[:, 0, 0, 0]))


def test_for_convex_values_a_mean_of_updates_that_are_measured_harmless_is_harmless() -> None:
    settings = {"reward.scale": 1.0, "screening.harm": "measured"}
    strict = {"profiles": [{"holders": 3, "tolerances": {"eights": 0.1, "nines": 0.05}}]}
    for weights in ("fixed", "participants"):
        engine = Engine(scenario.load("digits", weights=weights, **settings, **strict), None, num_envs=8, dtype=torch.float64)
        engine.reset(range(8))
        n_blocked = 0
        while engine.t < engine.horizon:
            before = engine.prospect.value_losses
            result = engine.step(torch.ones(8, 6, 4))
            n_blocked += int((~result.admitted).sum())
            raised = engine.prospect.value_losses - before
            assert (raised <= torch.tensor([0.1, 0.05]) + 1e-12).all()
            torch.testing.assert_close(result.step_harm, raised, rtol=0, atol=1e-12)
            assert not result.violated.any()
        assert n_blocked > 500  # of 3072


def test_a_gap_is_not_convex_so_harmless_updates_can_make_a_harmful_mean() -> None:
    """Two steps that bring neither group ahead of the other by more than allowed, because each overshoots: halfway between they do."""
    engine = at_work("softmax")
    names = list(engine.values)
    harms = foreseen(engine, "measured")
    generator = torch.Generator().manual_seed(3)
    one = torch.randn(2, 4000, 1, engine.theta.shape[1], dtype=torch.float64, generator=generator) * 2
    other = torch.randn(one.shape, dtype=torch.float64, generator=generator) * 2
    m = names.index("parity")
    each = torch.maximum(harms(*arguments(engine, one))[..., m], harms(*arguments(engine, other))[..., m])
    mean = harms(*arguments(engine, (one + other) / 2))[..., m]
    assert (mean > each + 0.05).any()
    convex = names.index("class")
    each = torch.maximum(harms(*arguments(engine, one))[..., convex], harms(*arguments(engine, other))[..., convex])
    assert (harms(*arguments(engine, (one + other) / 2))[..., convex] <= each + 1e-9).all()
    assert math.isfinite(float(mean.sum()))
