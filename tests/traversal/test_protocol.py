"""The protocol's step is the centralised step on the rows that stayed, whatever the model, the cut and who drops out."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from proxycoop.traversal import Local, Node, Orchestrator, SplitModel, plan
from proxycoop.traversal.wire import BackwardReply, BackwardRequest, CountReply, CountRequest, ForwardReply, ForwardRequest, LabelReply

NAMES = ["mlp", "cnn", "transformer", "lora"]
BOUND = {torch.float64: 1e-12, torch.float32: 2e-5}


def ready(lab, name, cut, dtype=torch.float64, fails=None, transport=Local, **more):
    split = lab.made(name, cut, dtype)
    nodes = lab.nodes_of(split, dtype)
    orchestrator = Orchestrator(split, transport(nodes, fails), **more)
    assert orchestrator.census(sorted(nodes)) == {}
    return split, nodes, orchestrator


@pytest.mark.parametrize("dtype", list(BOUND))
@pytest.mark.parametrize("name", NAMES)
def test_the_step_is_the_centralised_one_at_every_cut(lab, name, dtype):
    for cut in lab.cuts_of(name):
        split, nodes, orchestrator = ready(lab, name, cut, dtype)
        for batch in plan(orchestrator.counts, 20, seed=cut):
            shares = orchestrator.propose(batch)
            wanted = lab.centralised(split, orchestrator.theta, *lab.batch_of(nodes, batch.visits))
            assert lab.relative(shares.pooled, wanted) < BOUND[dtype]
            assert shares.missing == {}
            orchestrator.theta -= 0.5 * shares.pooled  # so that the second step is taken from elsewhere


@pytest.mark.parametrize("kind", [ForwardRequest, BackwardRequest])
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_node_that_drops_out_leave_the_batch_and_the_step_is_the_centralised_one_on_those_that_stayed(lab, name, kind):
    for cut in lab.cuts_of(name):
        split, nodes, orchestrator = ready(lab, name, cut, fails=lambda node, request: node == 2 and isinstance(request, kind))
        (batch,) = plan(orchestrator.counts, None, seed=0)
        shares = orchestrator.propose(batch)
        wanted = lab.centralised(split, orchestrator.theta, *lab.batch_of(nodes, [visit for visit in batch.visits if visit.node != 2]))
        if kind is BackwardRequest and not split.n_below:
            continue
        assert lab.relative(shares.pooled, wanted) < 1e-12
        assert shares.missing == {2: f"{kind.__name__.removesuffix('Request').lower()}: no answer"}
        assert shares.counts.sum() == 21


def test_if_everybody_drops_out_the_step_is_zero(lab):
    _, _, orchestrator = ready(lab, "mlp", 2, fails=lambda node, request: not isinstance(request, CountRequest))
    (batch,) = plan(orchestrator.counts, None, seed=0)
    shares = orchestrator.propose(batch)
    assert shares.lots == []
    assert shares.pooled.abs().max() == 0
    assert set(shares.missing) == {0, 1, 2}


@pytest.mark.parametrize("name", NAMES)
def test_each_lot_s_share_is_the_gradient_of_its_own_rows_above_and_below_the_cut(lab, name):
    split, nodes, orchestrator = ready(lab, name, lab.cuts_of(name)[1])
    batch = plan(orchestrator.counts, 25, seed=5)[0]
    shares = orchestrator.propose(batch)
    rows = {visit.node: visit.rows for visit in batch.visits}
    for (node, lot), gradient, count, loss in zip(shares.lots, shares.gradient, shares.counts, shares.loss, strict=True):
        first = sum(lab.data[node][:lot])
        own = rows[node][(rows[node] >= first) & (rows[node] < first + lab.data[node][lot])]
        x, y = nodes[node].x[own], nodes[node].y[own]
        assert count == len(own)
        assert lab.relative(gradient, lab.centralised(split, orchestrator.theta, x, y)) < 1e-12
        assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(split.logits(orchestrator.theta, x), y)), rel=1e-12)
    assert torch.equal(shares.updates(0.1), -0.1 * shares.gradient)
    assert float(shares.share.sum()) == pytest.approx(1)


def test_the_order_of_visits_changes_nothing_but_rounding(lab):
    _, _, orchestrator = ready(lab, "mlp", 2)
    (batch,) = plan(orchestrator.counts, None, seed=0)
    once, again = orchestrator.propose(batch), orchestrator.propose(replace(batch, visits=batch.visits[::-1]))
    assert once.lots == again.lots
    assert torch.equal(once.gradient, again.gradient)


def test_an_optimiser_of_torch_takes_the_pooled_gradient(lab):
    split, nodes, orchestrator = ready(lab, "mlp", 2)
    optimiser = torch.optim.Adadelta([orchestrator.theta.requires_grad_()], lr=1.0)
    central = split.theta.clone().requires_grad_()
    reference = torch.optim.Adadelta([central], lr=1.0)
    for epoch in range(3):
        for batch in plan(orchestrator.counts, 10, 0, epoch):
            central.grad = lab.centralised(split, central.detach(), *lab.batch_of(nodes, batch.visits))
            orchestrator.theta.grad = orchestrator.propose(batch).pooled
            reference.step()
            optimiser.step()
    assert lab.relative(orchestrator.theta.detach(), central.detach()) < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_with_labels_instead_of_errors_the_step_is_the_same_and_what_is_above_the_cut_is_not_sent(lab, name):
    for cut in lab.cuts_of(name):
        split, _, orchestrator = ready(lab, name, cut)
        _, _, other = ready(lab, name, cut, tells="labels")
        (batch,) = plan(orchestrator.counts, None, seed=0)
        first, second = orchestrator.propose(batch), other.propose(batch)
        assert first.lots == second.lots
        assert lab.relative(second.gradient, first.gradient) < 1e-12
        torch.testing.assert_close(second.loss, first.loss)
        above = 8 * (split.n_parameters - split.n_below)
        assert orchestrator.traffic.down - other.traffic.down == 3 * above
        assert orchestrator.traffic.up - other.traffic.up == 34 * 8 * (10 - 1)
    with pytest.raises(ValueError, match="tells='both': must be error or labels"):
        Orchestrator(split, Local({}), "both")


# bytes


def test_bytes_are_those_of_the_tensors_that_were_sent(lab):
    split, _, orchestrator = ready(lab, "mlp", 2, torch.float32)
    batch = plan(orchestrator.counts, 20, seed=1)[0]
    shares = orchestrator.propose(batch)
    sent = orchestrator.traffic.sent
    visited, lots = len(batch.visits), len(shares.lots)
    assert sent["CountRequest"] == 0
    assert sent["CountReply"] == 8 * 6  # six lots
    assert sent["ForwardRequest"] == visited * (16 + 4 * split.n_parameters) + 8 * 20
    assert sent["ForwardReply"] == visited * 8 + 20 * 4 * (12 + 10)
    assert sent["BackwardRequest"] == visited * 8 + 20 * 4 * 12
    assert sent["BackwardReply"] == visited * 8 + lots * 4 * split.n_below
    assert orchestrator.traffic.down + orchestrator.traffic.up == orchestrator.traffic.total == sum(sent.values())
    assert orchestrator.traffic.messages["ForwardReply"] == visited


def test_without_trained_parameters_below_the_cut_nodes_are_not_asked_for_gradients(lab):
    split = lab.made("mlp", 1)
    module = split.module.requires_grad_(True)
    module[0].requires_grad_(False)
    split = type(split)(module, 1)
    nodes = lab.nodes_of(split)
    orchestrator = Orchestrator(split, Local(nodes))
    orchestrator.census([0, 1, 2])
    (batch,) = plan(orchestrator.counts, None, 0)
    pooled = orchestrator.propose(batch).pooled
    assert lab.relative(pooled, lab.centralised(split, split.theta, *lab.batch_of(nodes, batch.visits))) < 1e-12
    assert "BackwardRequest" not in orchestrator.traffic.sent


# what a wrong node does


class Altering(Local):
    """A transport that changes what node 1 answers."""

    change = None

    def exchange(self, requests):
        replies = super().exchange(requests)
        if 1 in replies and not isinstance(replies[1], CountReply):
            replies[1] = type(self).change(replies[1])
        return replies


def altering(which, change):
    class Its(Altering):
        @staticmethod
        def change(reply):
            return change(reply) if isinstance(reply, which) else reply

    return Its


@pytest.mark.parametrize(
    ("which", "change", "reason"),
    [
        (ForwardReply, lambda r: replace(r, error=r.error * float("nan")), "forward: error is not finite"),
        (
            ForwardReply,
            lambda r: replace(r, error=r.error[:, :9]),
            r"forward: error: torch.float64 \(9, 9\), must be .* \(9, 10\)",
        ),
        (ForwardReply, lambda r: replace(r, error=r.error + 0.1), r"forward: error differs by 0\.1 from what its activations give"),
        (ForwardReply, lambda r: replace(r, error=r.error * 1e9), "forward: error differs by .* from what its activations give"),
        (ForwardReply, lambda r: replace(r, activations=r.activations[:3]), r"forward: activations are torch.float64 \(3, 12\)"),
        (ForwardReply, lambda r: replace(r, activations=r.activations.float()), "forward: activations are torch.float32"),
        (
            ForwardReply,
            lambda r: replace(r, activations=r.activations[:, :5]),
            r"forward: activations of shape \(9, 5\) do not fit",
        ),
        (ForwardReply, lambda r: replace(r, activations=r.activations / 0), "forward: activations are not finite"),
        (ForwardReply, lambda r: replace(r, step=7), "forward: the reply is of step 7, and this is step 1"),
        (ForwardReply, lambda r: BackwardReply(1, r.error), "forward: answered with a BackwardReply"),
        (LabelReply, lambda r: replace(r, labels=r.labels + 10), "forward: labels are not all from 0 to 9"),
        (LabelReply, lambda r: replace(r, labels=r.labels.float()), "forward: labels: torch.float32"),
        (BackwardReply, lambda r: replace(r, gradients=r.gradients[:, 1:]), r"backward: gradients: torch.float64 \(1, 779\), must be"),
        (BackwardReply, lambda r: replace(r, gradients=r.gradients * float("inf")), "backward: gradients is not finite"),
        (BackwardReply, lambda r: replace(r, step=0), "backward: the reply is of step 0, and this is step 1"),
    ],
)
def test_a_reply_that_does_not_fit_leaves_the_batch_and_says_why(lab, which, change, reason):
    tells = "labels" if which is LabelReply else "error"
    split, nodes, orchestrator = ready(lab, "mlp", 2, transport=altering(which, change), tells=tells)
    (batch,) = plan(orchestrator.counts, None, seed=0)
    shares = orchestrator.propose(batch)
    assert set(shares.missing) == {1}
    with pytest.raises(ValueError, match=reason):
        raise ValueError(shares.missing[1])
    wanted = lab.centralised(split, orchestrator.theta, *lab.batch_of(nodes, [visit for visit in batch.visits if visit.node != 1]))
    assert lab.relative(shares.pooled, wanted) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tells", ["error", "labels"])
def test_a_node_whose_rows_the_model_is_sure_of_stays_though_their_errors_are_all_zeros(tells, dtype):
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).to(dtype)
    for layer in module:
        layer.weight.data = 40 * torch.eye(3, dtype=dtype)
    split, y = SplitModel(module, 1), torch.arange(3)
    nodes = {0: Node(split, torch.eye(3, dtype=dtype), y), 1: Node(split, torch.eye(3, dtype=dtype), y.roll(1))}  # right and wrong labels
    orchestrator = Orchestrator(split, Local(nodes), tells)
    orchestrator.census([0, 1])
    shares = orchestrator.propose(plan(orchestrator.counts, None, seed=0)[0])
    assert shares.missing == {}
    assert shares.loss.tolist() == [0.0, 1600.0]  # the logits are 1,600 and zeros
    assert not shares.gradient[0].any()


def test_a_batch_must_fit_the_census(lab):
    split = lab.made("mlp", 2)
    orchestrator = Orchestrator(split, Local(lab.nodes_of(split)))
    (batch,) = plan(lab.data, None, seed=0)
    with pytest.raises(ValueError, match="the census has none: call census first"):
        orchestrator.propose(batch)
    orchestrator.census([0, 1])
    with pytest.raises(ValueError, match="batch visits node 2: the census has 0, 1"):
        orchestrator.propose(batch)
    visit = batch.visits[0]
    with pytest.raises(ValueError, match="must be at least one, each once"):
        orchestrator.propose(replace(batch, visits=(visit, visit)))
    (batch,) = plan({0: (13,), 1: (9,)}, None, seed=0)
    with pytest.raises(ValueError, match="batch asks node 0 for rows that are not ascending from 0 to 11"):
        orchestrator.propose(batch)


def test_a_node_without_an_answer_is_left_out_of_the_census(lab):
    split = lab.made("mlp", 2)
    orchestrator = Orchestrator(split, Local(lab.nodes_of(split), fails=lambda node, request: node == 1))
    assert orchestrator.census([0, 1, 2]) == {1: "count: no answer"}
    assert orchestrator.counts == {0: (7, 5), 2: (4, 6, 3)}
    with pytest.raises(ValueError, match="the nodes have no rows"):
        orchestrator.census([1])
