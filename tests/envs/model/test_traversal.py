"""Traversal learning is lossless: the lots' shares add up to the centralised step on the pooled virtual batch."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from proxycoop.envs import Engine, scenario
from proxycoop.envs.randomness import Purpose, fold

SMALL = {"screening.governance": "none", "reward.scale": 1.0, "horizon": 20}
MODELS = {"softmax": {"kind": "softmax"}, "mlp": {"kind": "mlp", "hidden": [12, 8]}}
LR = 0.4


def make_engine(model: str, batch: int | None, num_envs: int = 2, **overrides: object) -> Engine:
    settings = {**SMALL, "substrate": {"kind": "traversal", "lr": LR, "batch": batch}, "model": MODELS[model], **overrides}
    return Engine(scenario.load("digits", **settings).unlimited(), None, num_envs, dtype=torch.float64)


def forward(model: str, theta: Tensor, x: Tensor) -> Tensor:
    """The two models written out by hand on a flat parameter vector."""
    if model == "softmax":
        weight = theta.reshape(65, 10)
        return x @ weight[:64] + weight[64]
    sizes = [(12, 64), (12,), (8, 12), (8,), (10, 8), (10,)]
    parts = [part.reshape(size) for part, size in zip(theta.split([torch.Size(s).numel() for s in sizes]), sizes, strict=True)]
    hidden = linear(x, parts[0], parts[1]).relu()
    return linear(linear(hidden, parts[2], parts[3]).relu(), parts[4], parts[5])


def pooled_step(model: str, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """One step of plain gradient descent on one pooled batch."""
    theta = theta.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(forward(model, theta, x), y), theta)
    return -LR * gradient


def drawn_batch(engine: Engine) -> Tensor:
    """The virtual batch of the round that comes next, from the seeds alone."""
    keys = fold(fold(engine.seeds, engine.episode), Purpose.VIRTUAL_BATCH, engine.t)
    return engine.scenario.substrate.virtual_batch(engine.lots, keys)


def everything(engine: Engine) -> Tensor:
    return torch.ones(engine.num_envs, engine.num_agents, engine.num_lots, dtype=torch.bool)


@pytest.mark.parametrize("batch", [None, 64])
@pytest.mark.parametrize("model", MODELS)
def test_sum_of_shares_is_the_centralised_step_in_each_of_20_rounds(model: str, batch: int | None) -> None:
    engine = make_engine(model, batch)
    engine.reset([3, 4])
    for _ in range(20):
        rows, before = drawn_batch(engine), engine.theta.clone()
        proposals = engine.prospect.proposals
        shared = (proposals.share[..., None] * proposals.updates).sum(dim=(1, 2))  # (E, P)
        engine.step(everything(engine))
        for e in range(2):
            step = pooled_step(model, before[e], engine.lots.x[e][rows[e]], engine.lots.y[e][rows[e]])
            assert (shared[e] - step).norm() <= 1e-6 * step.norm()
            assert (engine.theta[e] - before[e] - step).norm() <= 1e-6 * step.norm()


@pytest.mark.parametrize("model", MODELS)
def test_twenty_rounds_of_traversal_follow_twenty_steps_of_gradient_descent(model: str) -> None:
    engine = make_engine(model, None, num_envs=1)
    engine.reset([8])
    theta = engine.theta[0].clone()
    x, y = engine.lots.x[0].flatten(end_dim=2), engine.lots.y[0].flatten()
    for _ in range(20):
        theta = theta + pooled_step(model, theta, x, y)
        engine.step(everything(engine))
    assert (engine.theta[0] - theta).norm() <= 1e-6 * theta.norm()


def test_unequal_lots_still_pool_to_the_centralised_step() -> None:
    engine = make_engine("softmax", None, num_envs=1, **{"lots.rows": [3, 20, 7, 11, 1, 16]})
    engine.reset([5])
    rows, before = drawn_batch(engine)[0], engine.theta[0].clone()
    assert rows.sum(dim=-1).tolist() == [[n] * 4 for n in (3, 20, 7, 11, 1, 16)]
    engine.step(everything(engine))
    step = pooled_step("softmax", before, engine.lots.x[0][rows], engine.lots.y[0][rows])
    assert (engine.theta[0] - before - step).norm() <= 1e-6 * step.norm()


def test_participants_weights_pool_only_the_rows_of_what_was_contributed() -> None:
    engine = make_engine("softmax", 64, num_envs=1, weights="participants")
    engine.reset([6])
    actions = torch.arange(24).reshape(1, 6, 4) % 3 != 0
    rows, before = drawn_batch(engine)[0] & actions[0][..., None], engine.theta[0].clone()
    engine.step(actions)
    step = pooled_step("softmax", before, engine.lots.x[0][rows], engine.lots.y[0][rows])
    assert (engine.theta[0] - before - step).norm() <= 1e-6 * step.norm()


def test_fixed_weights_lose_exactly_the_withheld_rows() -> None:
    engine = make_engine("softmax", 64, num_envs=1)
    engine.reset([6])
    actions = torch.arange(24).reshape(1, 6, 4) % 3 != 0
    batch, before = drawn_batch(engine)[0], engine.theta[0].clone()
    rows = batch & actions[0][..., None]
    engine.step(actions)
    step = pooled_step("softmax", before, engine.lots.x[0][rows], engine.lots.y[0][rows]) * rows.sum() / batch.sum()
    assert (engine.theta[0] - before - step).norm() <= 1e-6 * step.norm()


def test_virtual_batch_has_the_asked_size_and_no_padded_row_and_changes_every_round() -> None:
    engine = make_engine("softmax", 64, **{"lots.rows": [3, 20, 7, 11, 1, 16]})
    engine.reset([1, 2])
    drawn = []
    for _ in range(3):
        rows = drawn_batch(engine)
        assert rows.sum(dim=(1, 2, 3)).tolist() == [64, 64]
        assert not (rows & ~engine.lots.present).any()
        torch.testing.assert_close(engine.prospect.proposals.share, rows.sum(dim=-1) / 64.0, check_dtype=False)
        drawn.append(rows)
        engine.step(everything(engine))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_every_row_is_equally_likely_to_be_in_the_virtual_batch() -> None:
    engine = make_engine("softmax", 64, num_envs=400, **{"lots.rows": 5})
    engine.reset(range(400))
    often = drawn_batch(engine).double().mean(dim=0)  # (N, K, R), expected 64 / 120
    p = 64 / 120
    assert (often - p).abs().max() < 5 * (p * (1 - p) / 400) ** 0.5


def test_a_batch_larger_than_all_data_is_all_data() -> None:
    engine, full = make_engine("softmax", 10_000, num_envs=1), make_engine("softmax", None, num_envs=1)
    engine.reset([1])
    full.reset([1])
    assert drawn_batch(engine).all()
    torch.testing.assert_close(engine.prospect.proposals.updates, full.prospect.proposals.updates)


def test_a_lot_without_a_row_in_the_batch_is_unavailable_and_choosing_it_costs_and_changes_nothing() -> None:
    engine = make_engine("softmax", 8, num_envs=1)
    engine.reset([2])
    absent = drawn_batch(engine).sum(dim=-1) == 0
    assert absent.any()
    assert torch.equal(engine.prospect.available, ~absent)
    before = engine.theta.clone()
    result = engine.step(absent)
    assert not result.contributed.any()
    assert torch.equal(result.cost, torch.zeros(1, 6, dtype=torch.float64))
    assert torch.equal(engine.theta, before)
