"""Worst-group loss, miss rate, confidence and drift: closed forms, limits, and what the engine gives them."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from torch import Tensor
from torch.nn.functional import cross_entropy

from proxycoop.envs import Engine, scenario
from proxycoop.envs.data import Dataset, Rows
from proxycoop.envs.values import Confidence, Drift, MissRate, WorstGroupLoss

TOY = Dataset(features=np.zeros((6, 1)), labels=np.array([0, 1, 0, 1, 0, 1]), class_names=("no", "yes"), feature_names=("age",))
PROBE = Rows(
    x=torch.zeros(4, 1),
    y=torch.tensor([1, 0, 1, 1]),
    groups={"old": torch.tensor([True, True, False, False]), "young": torch.tensor([False, False, True, True])},
)
THREE = Dataset(features=np.zeros((3, 1)), labels=np.arange(3), class_names=("a", "b", "c"), feature_names=("age",))


def with_probability(p: list[float]) -> Tensor:
    """Logits of two classes under which "yes" has these probabilities."""
    p = torch.tensor(p, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()], dim=-1)


@pytest.mark.parametrize("p", [[0.5, 0.2, 0.9, 0.1], [0.9, 0.1, 0.2, 0.2], [0.5, 0.5, 0.5, 0.5]])
@pytest.mark.parametrize("temperature", [1.0, 0.05, 0.001])
def test_worst_group_loss_is_the_larger_mean_cross_entropy_within_its_stated_error(p: list[float], temperature: float) -> None:
    logits = with_probability(p)
    worst = max(cross_entropy(logits[:2], PROBE.y[:2]).item(), cross_entropy(logits[2:], PROBE.y[2:]).item())
    loss = WorstGroupLoss(groups=("old", "young"), temperature=temperature).loss(logits, PROBE, TOY).item()
    assert worst - temperature * np.log(2) - 1e-12 <= loss <= worst + 1e-12


def test_worst_group_loss_is_the_common_loss_of_groups_that_are_served_alike() -> None:
    logits = with_probability([0.7, 0.3, 0.7, 0.7])
    assert WorstGroupLoss(groups=("old", "young")).loss(logits, PROBE, TOY).item() == pytest.approx(-np.log(0.7))


def test_the_gradient_of_worst_group_loss_is_the_worst_groups() -> None:
    logits = with_probability([0.9, 0.1, 0.2, 0.2])
    gradient = WorstGroupLoss(groups=("old", "young"), temperature=0.01).loss_and_gradient(logits, PROBE, TOY)[1]
    expected = torch.zeros(4, 2, dtype=torch.float64)
    expected[2:] = torch.tensor([0.8, -0.8]) / 2  # probability minus truth, of a mean over two rows
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


def test_groups_that_share_members_are_refused() -> None:
    groups = {"a": np.array([True, True, True, False, False, False]), "b": np.array([False, True, True, True, False, False])}
    with pytest.raises(ValueError, match=r"2 rows are in group 'a' and in group 'b'.*group_loss of its own"):
        WorstGroupLoss(groups=("a", "b")).strata(TOY, groups)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": ("old",)}, "at least 2 items"),
        ({"groups": ("old", "young", "old")}, "name each group once"),
        ({"groups": ("old", "young"), "temperature": 0}, "greater than 0"),
        ({"groups": ("old", "young"), "temperature": float("inf")}, "finite"),
    ],
)
def test_worst_group_loss_refuses_settings_that_make_no_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorstGroupLoss(**settings)


def test_miss_rate_is_what_a_model_that_answers_by_its_probabilities_misses() -> None:
    assert MissRate(label="yes").loss(with_probability([0.5, 0.2, 0.9, 0.1]), PROBE, TOY).item() == pytest.approx(1 - 1.7 / 4)
    assert MissRate(label="no").loss(with_probability([0.5, 0.2, 0.9, 0.1]), PROBE, TOY).item() == pytest.approx(1.7 / 4)


def test_miss_rate_tends_to_the_share_of_cases_whose_most_probable_answer_is_another() -> None:
    logits = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = Rows(x=torch.zeros(200, 1), y=torch.full((200,), 2), groups={})
    missed = (logits.argmax(dim=-1) != 2).double().mean().item()
    distance = [abs(MissRate(label="c", temperature=T).loss(logits, rows, THREE).item() - missed) for T in (1.0, 0.1, 0.01, 1e-4)]
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 1e-3


def test_miss_rate_is_the_sigmoid_of_the_smooth_lead_over_the_rivals() -> None:
    logits = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    T = 0.3
    lead = logits[:, 1] - T * (logits[:, [0, 2]] / T).logsumexp(dim=-1)
    rows = Rows(x=torch.zeros(1, 1), y=torch.tensor([1]), groups={})
    torch.testing.assert_close(MissRate(label="b", temperature=T).loss(logits, rows, THREE), torch.sigmoid(-lead / T)[0])


def test_confidence_is_the_mean_probability_of_the_true_labels() -> None:
    assert Confidence().loss(with_probability([0.5, 0.2, 0.9, 0.1]), PROBE, TOY).item() == pytest.approx((0.5 + 0.8 + 0.9 + 0.1) / 4)


def test_confidence_rises_when_a_record_is_trained_on() -> None:
    logits = with_probability([0.5, 0.2, 0.9, 0.1])
    loss, gradient = Confidence().loss_and_gradient(logits, PROBE, TOY)
    descent = logits.clone().requires_grad_()
    (training,) = torch.autograd.grad(cross_entropy(descent, PROBE.y), descent)
    assert (gradient * -training).sum() > 0
    assert Confidence().loss(logits - 0.1 * training, PROBE, TOY) > loss


def test_drift_is_the_mean_divergence_from_the_references_answers() -> None:
    before, after = [0.5, 0.2, 0.9, 0.1], [0.4, 0.2, 0.5, 0.6]
    probe = replace(PROBE, reference=with_probability(before))
    expected = np.mean([rel_entr(p, q) + rel_entr(1 - p, 1 - q) for p, q in zip(before, after, strict=True)])
    loss, gradient = Drift().loss_and_gradient(with_probability(after), probe, TOY)
    assert loss.item() == pytest.approx(expected)
    torch.testing.assert_close(gradient[:, 1], (torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)) / 4)


def test_drift_without_a_reference_says_where_to_get_one() -> None:
    for call in (Drift().loss, Drift().loss_and_gradient):
        with pytest.raises(ValueError, match=r"no reference: add the start model's logits.*\(n_rows, n_classes\)"):
            call(with_probability([0.5, 0.2, 0.9, 0.1]), PROBE, TOY)


@pytest.fixture(scope="module")
def drifting() -> Engine:
    settings = {"values": {"change": {"kind": "drift"}, "eights_change": {"kind": "drift", "label": 8}}, "reward.scale": 1.0}
    return Engine(scenario.load("digits", **settings), None, num_envs=2, dtype=torch.float64)


def divergence(engine: Engine, rows: Rows) -> np.ndarray:
    """Mean divergence of the engine's model from the one it starts on, ``(E,)``, by scipy."""
    start = engine.model.logits(engine._ground.theta[None], rows.x).softmax(dim=-1).numpy()
    now = engine.model.logits(engine.theta, rows.x).softmax(dim=-1).numpy()
    return rel_entr(start, now).sum(axis=-1).mean(axis=-1)


def test_drift_is_measured_from_the_model_on_which_every_episode_starts(drifting: Engine) -> None:
    for seeds in ([1, 2], [3, 4]):
        drifting.reset(seeds)
        assert drifting.prospect.value_losses[:, 2:].abs().max() < 1e-12
        assert drifting.prospect.value_gradients[:, 2:].abs().max() < 1e-12
        for _ in range(3):
            drifting.step(torch.ones(2, 6, 4))
        for m, name in ((2, "change"), (3, "eights_change")):
            expected = divergence(drifting, drifting.splits.probe[name])
            assert (expected > 1e-4).all()
            np.testing.assert_allclose(drifting.prospect.value_losses[:, m].numpy(), expected, rtol=1e-9)
            tested = drifting.test()[f"value/{name}"].numpy()
            np.testing.assert_allclose(tested, divergence(drifting, drifting.splits.probe_test[name]), rtol=1e-9)


def test_only_values_that_ask_for_it_get_a_reference(drifting: Engine) -> None:
    for probes in (drifting.splits.probe, drifting.splits.probe_test):
        assert {name for name, rows in probes.items() if rows.reference is not None} == {"change", "eights_change"}
        reference = probes["eights_change"].reference
        assert reference is not None
        assert reference.shape == (35, 10)
        assert not reference.requires_grad


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))], ids=["copy", "pickle"])
def test_a_copied_engine_keeps_its_reference(drifting: Engine, clone: object) -> None:
    drifting.reset([1, 2])
    other = clone(drifting)
    for engine in (drifting, other):
        engine.step(torch.ones(2, 6, 4))
    assert torch.equal(drifting.prospect.value_losses, other.prospect.value_losses)
