"""ShapFed: cosines class by class, by hand and by loops, and which models it takes."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proxycoop import credit
from proxycoop.envs import Engine, scenario

TARGET = torch.full((1, 4), 100.0, dtype=torch.float64)  # far, so that rounds gain


def with_head(the_round: credit.Round, head: list[int]) -> credit.Round:
    """The same round, of a model with this last layer."""
    return credit.Round(
        the_round.game,
        contributed=the_round.contributed,
        admitted=the_round.admitted,
        blocked_by=the_round.blocked_by,
        samples=the_round.samples,
        updates=lambda: the_round.updates,
        utility_gradient=the_round.utility_gradient,
        t=the_round.t,
        class_head=torch.tensor(head),
    )


def test_two_updates_of_two_classes_by_hand(learning_round):
    """Parameters 0 and 3 give the answer for class 0, parameter 2 for class 1; parameter 1 is of another layer.

    Updates (3, 9, 1, 0) and (0, −7, 1, 4): the aggregate's class 0 is (3, 4), of length 5, and class 1 is 2. Cosines of the first:
    3·3/(3·5) = 0.6 and 1, of the second: 4·4/(4·5) = 0.8 and 1. So s = (0.8, 0.9).
    In the second round (3, 0, −1, 0) and (0, 0, 3, 4): class 0 the same, class 1 is −1 and 3 of 2: s = ((0.6 − 1)/2, (0.8 + 1)/2) =
    (−0.2, 0.9). With μ = ½: γ = ((0.4 − 0.2)/1.5, (0.45 + 0.9)/1.5) = (0.2, 1.35)/1.5.
    """
    rule = credit.ShapFed(momentum=0.5)
    rule.reset(1, 2)
    for updates, expected in (
        ([[3.0, 9.0, 1.0, 0.0], [0.0, -7.0, 1.0, 4.0]], [0.8 / 1.7, 0.9 / 1.7]),
        ([[3.0, 0.0, -1.0, 0.0], [0.0, 0.0, 3.0, 4.0]], [0.2 / 1.55, 1.35 / 1.55]),
    ):
        the_round = with_head(learning_round(torch.tensor([updates]).double(), TARGET), [0, -1, 1, 0])
        share = rule.assign(the_round)[0] / the_round.gain
        assert share.tolist() == pytest.approx(expected, abs=1e-15)


def test_who_disagrees_gets_nothing_and_where_nobody_agrees_all_get_the_same(learning_round):
    rule = credit.ShapFed()
    rule.reset(1, 3)
    updates = torch.tensor([[[1.0, 0, 0, 0], [1.0, 0, 0, 0], [-1.0, 0, 0, 0]]]).double()
    the_round = learning_round(updates, TARGET)
    assert (rule.assign(the_round) / the_round.gain).tolist() == [[0.5, 0.5, 0.0]]
    rule.reset(1, 2)
    opposed = torch.tensor([[[0.1, 0.3, 0.7, 0.0], [-0.1, -0.3, -0.7, 0.0]]]).double()
    the_round = with_head(learning_round(opposed, TARGET), [0, 0, 0, 0])
    the_round.game = credit.CoalitionGame(lambda c: torch.ones(1, len(c)).double(), 2)
    assert rule.assign(the_round).tolist() == [[0.5, 0.5]]


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def agreement_by_loops(updates: Tensor, head: list[int]) -> list[float]:
    """s of every agent in one environment, ``(N, P)``."""
    n_classes = max(head) + 1
    rows = updates.tolist()
    everybody = [sum(column) for column in zip(*rows, strict=True)]
    found = []
    for row in rows:
        cosines = []
        for c in range(n_classes):
            mine = [x for x, label in zip(row, head, strict=True) if label == c]
            all_of_it = [x for x, label in zip(everybody, head, strict=True) if label == c]
            cosines.append(cosine(mine, all_of_it))
        found.append(sum(cosines) / n_classes)
    return found


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_the_running_mean_is_what_loops_over_rounds_environments_agents_and_classes_find(momentum, learning_round):
    head = [2, -1, 0, 1, -1, 0, 2, 2]
    generator = torch.Generator().manual_seed(0)
    rule = credit.ShapFed(momentum)
    rule.reset(3, 4)
    past: list[list[list[float]]] = []
    for t in range(5):
        updates = torch.randn(3, 4, 8, dtype=torch.float64, generator=generator)
        updates[:, t % 4] = 0
        updates[0, :, 3] = 0  # nobody of environment 0 knows class 1
        the_round = with_head(learning_round(updates, torch.ones(3, 8).double(), t=t), head)
        past.append([agreement_by_loops(updates[e], head) for e in range(3)])
        paid = rule.assign(the_round)
        weights = [momentum ** (t - tau) for tau in range(t + 1)]
        for e in range(3):
            mean = [sum(w * past[tau][e][i] for tau, w in enumerate(weights)) / sum(weights) for i in range(4)]
            standing = [max(m, 0.0) for m in mean]
            gain = float(the_round.gain[e])
            expected = [max(gain, 0.0) * s / sum(standing) + min(gain, 0.0) / len(standing) for s in standing]
            assert paid[e].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-13)


def test_a_little_of_what_all_do_earns_as_much_as_the_work_itself_which_is_its_known_failure(learning_round):
    work = torch.tensor([0.4, 0.3, 0.2, 0.1]).double()
    the_round = learning_round(torch.stack([work, 1e-6 * work])[None], TARGET)
    rule = credit.ShapFed()
    rule.reset(1, 2)
    assert rule.assign(the_round)[0].tolist() == pytest.approx([float(the_round.gain) / 2] * 2, rel=1e-12)
    assert credit.Shapley().assign(the_round)[0, 1] < 1e-5 * the_round.gain[0]


FACTORY = """
from torch import nn

def squashed(n_features, n_classes):
    return nn.Sequential(nn.Linear(n_features, n_classes), nn.Tanh())
"""


def test_a_model_without_a_class_head_is_refused_when_the_engine_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "proxycoop_test_squashed.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    made = scenario.load("digits", model={"kind": "module", "factory": "proxycoop_test_squashed:squashed"}, **{"reward.scale": 1.0})
    with pytest.raises(ValueError, match=r"has no class_head: the model's last layer must be linear, with one output a class"):
        Engine(made, "shapfed")
    Engine(made, "cgsv")


@pytest.mark.parametrize("model", [{"kind": "softmax"}, {"kind": "mlp", "hidden": [6, 5]}])
def test_agreement_is_that_of_the_last_layer_of_the_models_that_we_have(model):
    made = scenario.load("digits", model=model, horizon=2, **{"reward.scale": 1.0})
    engine = Engine(made, "shapfed", 2, dtype=torch.float64)
    engine.reset([1, 2])
    result = engine.step(torch.ones(2, 6, 4))
    for e in range(2):
        updates = engine.round.updates[e]
        if model["kind"] == "softmax":
            of_class = updates.reshape(6, 65, 10).transpose(1, 2)  # (N, C, D + 1)
        else:
            weight, bias = updates[:, -60:].split([50, 10], dim=1)  # 5 units feed the last layer of 10 outputs
            of_class = torch.cat([weight.reshape(6, 10, 5), bias[:, :, None]], dim=2)
        s = torch.cosine_similarity(of_class, of_class.sum(dim=0, keepdim=True), dim=2, eps=1e-30).mean(dim=1).clamp(min=0)
        torch.testing.assert_close(result.credit[e], result.gain[e] * s / s.sum(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan"), True, None, "0.9"])
def test_other_momenta_are_refused(momentum):
    with pytest.raises(ValueError, match=f"momentum={momentum!r}: must be a number from 0 to 1"):
        credit.ShapFed(momentum)


def test_it_passes_the_suite_with_momentum_too():
    credit.check_rule("shapfed(momentum=0.5)")


def test_a_loss_is_borne_by_all_alike(learning_round):
    """Updates .5, .5 and −2.5 of one parameter with target 1: x = −1.5, so v(N) = −2.625. Who did the harm agrees with the step."""
    rule = credit.ShapFed()
    rule.reset(1, 3)
    updates, target = torch.tensor([[[0.5], [0.5], [-2.5]]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    assert rule.assign(learning_round(updates, target)).tolist() == [[-0.875] * 3]
