"""The secure mode is exact to the ring's rounding, and a server's view alone says nothing of the rows."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from proxycoop.traversal import Helper, Local, Orchestrator, Ring, SecureLocal, SecureNode, SecureOrchestrator, SplitModel, plan
from proxycoop.traversal.batches import lots_of
from proxycoop.traversal.secure import masked
from proxycoop.traversal.secure_wire import CutErrorShare, GradientKey, HelperStart, Reveal, SecureForwardRequest
from proxycoop.traversal.wire import ForwardRequest

LAST = {"mlp": 4, "cnn": 8, "transformer": 5, "lora": 4}


def deterministic(seed: int):
    """Key material that a test can draw again; never used outside of tests."""
    count = itertools.count()
    return lambda n: hashlib.sha256(f"{seed} {next(count)}".encode()).digest()[:n]


def ready(lab, name, fraction=20, fails=None, dtype=torch.float64, seed=0, **helper):
    split = lab.made(name, LAST[name], dtype)
    rings = [Ring(fraction, deterministic(10 * seed + i)) for i in range(3)]
    nodes = lab.nodes_of(split, dtype, kind=SecureNode, ring=rings[0])
    orchestrator = SecureOrchestrator(split, SecureLocal(nodes, Helper(split, rings[1], **helper), fails), rings[2])
    assert orchestrator.census([0, 1, 2]) == {}
    return split, nodes, orchestrator


@pytest.mark.parametrize("fraction", [12, 16, 20, 24])
@pytest.mark.parametrize("name", LAST)
def test_the_step_is_the_centralised_one_to_the_ring_s_rounding(lab, name, fraction):
    split, nodes, orchestrator = ready(lab, name, fraction)
    for batch in plan(orchestrator.counts, 20, seed=1):
        step = orchestrator.propose(batch)
        x, y = lab.batch_of(nodes, batch.visits)
        wanted = lab.centralised(split, orchestrator.theta, x, y)
        delta = 2.0 ** -(fraction + 1)
        activations = split.activations(orchestrator.theta, x)
        bound = delta * (1 + float(activations.abs().max()) + delta)  # of each row's product, and so of their mean
        above = ~split.below
        assert (step.pooled - wanted)[above].abs().max() <= bound
        assert lab.relative(step.pooled, wanted) < 200 * delta
        orchestrator.theta -= 0.3 * step.pooled


def test_integers_that_come_out_are_those_of_plain_integer_arithmetic(lab):
    split, nodes, orchestrator = ready(lab, "mlp", by_lot=True)
    (batch,) = plan(orchestrator.counts, None, seed=1)
    step = orchestrator.propose(batch, by_lot=True)
    scale = 2**20
    for (node, lot), n, gradient in zip(step.lots, step.counts, step.gradient, strict=True):
        rows = next(visit.rows for visit in batch.visits if visit.node == node)
        activations, error = nodes[node].forward(ForwardRequest(0, orchestrator.theta, rows))
        own = lots_of(rows, nodes[node].counts) == lot
        a = [[round(v * scale) for v in row] for row in activations[own].tolist()]
        e = [[round(v * scale) for v in row] for row in error[own].tolist()]
        weight = [[sum(e[r][c] * a[r][h] for r in range(n)) for h in range(9)] for c in range(10)]
        bias = [sum(e[r][c] for r in range(n)) * scale for c in range(10)]
        exact = torch.tensor([v for row in weight for v in row] + bias, dtype=torch.float64) / scale**2 / n
        torch.testing.assert_close(gradient[~split.below], exact, rtol=1e-14, atol=0)


def test_lots_are_those_of_the_open_protocol(lab):
    split, nodes, orchestrator = ready(lab, "mlp", 24, by_lot=True)
    plain = Orchestrator(split, Local(nodes))
    plain.census([0, 1, 2])
    (batch,) = plan(orchestrator.counts, None, seed=1)
    step, shares = orchestrator.propose(batch, by_lot=True), plain.propose(batch)
    order = [step.lots.index(lot) for lot in shares.lots]
    assert torch.equal(step.counts[order], shares.counts)
    assert lab.relative(step.gradient[order], shares.gradient) < 1e-6
    assert lab.relative(step.pooled, shares.pooled) < 1e-6


@pytest.mark.parametrize("stage", ["forward", "after_forward", "backward"])
def test_a_node_that_drops_out_leaves_nothing_behind(lab, stage):
    split, nodes, orchestrator = ready(lab, "cnn", 24, fails=lambda at, node: at == stage and node == 1)
    (batch,) = plan(orchestrator.counts, None, seed=1)
    step = orchestrator.propose(batch)
    wanted = lab.centralised(split, orchestrator.theta, *lab.batch_of(nodes, [visit for visit in batch.visits if visit.node != 1]))
    assert lab.relative(step.pooled, wanted) < 1e-6
    assert step.missing == {1: f"{'forward' if stage == 'forward' else 'backward'}: no answer"}
    assert step.rows == 25


# what the servers see


def views(lab, seeds):
    """What each server receives of node 0 in many steps, as bytes."""
    seen = {"orchestrator": [], "helper": []}
    split = lab.made("mlp", 4)
    for seed in seeds:
        node = lab.nodes_of(split, kind=SecureNode, ring=Ring(20, deterministic(seed)))[0]
        for server, came in zip(seen, node.forward_shares(SecureForwardRequest(1, split.theta, torch.arange(12), 34)), strict=True):
            masks = [Ring.mask(came.key, label, shape.shape) for label, shape in (("U", came.activations), ("V", came.error))]
            words = [came.activations, came.error, *masks, came.products if len(came.products) else Ring.mask(came.key, "VU", (2, 10, 9))]
            seen[server].append(np.concatenate([part.ravel() for part in words]))
    return {server: np.stack(parts) for server, parts in seen.items()}


def test_what_a_server_sees_is_uniform(lab):
    for words in views(lab, range(100)).values():
        assert words.shape == (100, 2 * (12 * 9 + 12 * 10) + 2 * 10 * 9)
        counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).ravel(), minlength=256)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4
        assert scipy.stats.kstest(words.ravel() / 2.0**64, "uniform").pvalue > 1e-4


def test_plain_words_are_not_uniform(lab):
    """So that the test above can fail."""
    split = lab.made("mlp", 4)
    node = lab.nodes_of(split)[0]
    words = Ring().encode(node.forward(ForwardRequest(1, split.theta, torch.arange(12)))[0], "activations", 1e3)
    counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).ravel(), minlength=256)
    assert scipy.stats.chisquare(counts).pvalue < 1e-100


@pytest.mark.parametrize("server", [0, 1])
def test_whatever_a_server_sees_any_other_rows_would_have_shown_with_other_masks(server):
    """So with uniform masks its view has the same distribution for all rows: the other server's mask makes up for any difference."""
    draw = np.random.default_rng(0)
    words = lambda *shape: draw.integers(0, 2**64, shape, dtype=np.uint64)  # noqa: E731
    a, e, sizes = words(5, 4), words(5, 3), [2, 3]
    masks = {(j, label): words(*shape) for j in (0, 1) for label, shape in {"U": (5, 4), "V": (5, 3), "VU": (2, 3, 4)}.items()}

    class Given(Ring):
        table = masks

        @classmethod
        def mask(cls, key, label, shape):
            return cls.table[key[0], label].reshape(shape)

    keys = bytes([0]), bytes([1])
    d, f, products = masked(Given(), a, e, sizes, keys)
    other_a, other_e, other = words(5, 4), words(5, 3), 1 - server
    Given.table = {**masks, (other, "U"): masks[other, "U"] + other_a - a, (other, "V"): masks[other, "V"] + other_e - e}
    d2, f2, products2 = masked(Given(), other_a, other_e, sizes, keys)
    assert np.array_equal(d, d2)
    assert np.array_equal(f, f2)
    if server == 0:  # it also sees its share of the products, which the helper's mask of them can make the same
        Given.table = {**Given.table, (1, "VU"): masks[1, "VU"] + products2 - products}
        assert np.array_equal(masked(Given(), other_a, other_e, sizes, keys)[2], products)


def test_shares_of_gradients_and_of_the_error_at_the_cut_are_masked(lab):
    split = lab.made("mlp", 4)
    sent = []

    class Watched(SecureOrchestrator):
        def _sent(self, link, message):
            sent.append((link, message))
            return super()._sent(link, message)

    nodes = lab.nodes_of(split, kind=SecureNode, ring=Ring(20, deterministic(5)))
    orchestrator = Watched(split, SecureLocal(nodes, Helper(split)))
    orchestrator.census([0, 1, 2])
    orchestrator.propose(plan(orchestrator.counts, None, seed=0)[0])
    shares = [message.gradients.ravel() for link, message in sent if link == "nodes to orchestrator" and hasattr(message, "gradients")]
    revealed = [message.gradients for _, message in sent if type(message).__name__ == "Revealed"]
    for words in (np.concatenate(shares), *revealed):
        counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).ravel(), minlength=256)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_keys_are_fresh_and_come_from_the_operating_system():
    ring = Ring()
    keys = {ring.key() for _ in range(50)}
    assert len(keys) == 50
    assert {len(key) for key in keys} == {32}


# refusals


def test_numbers_that_may_overflow_are_refused_at_the_node(lab):
    split = lab.made("mlp", 4)
    node = lab.nodes_of(split, kind=SecureNode, ring=Ring(28))[0]
    with pytest.raises(ValueError, match=r"errors: reach .*, must be at most 0\.64 for sums to fit 64 bits with 2·28 fractional ones"):
        node.forward_shares(SecureForwardRequest(1, split.theta, torch.arange(12), 100))
    with pytest.raises(ValueError, match="weights above the cut: reach"):
        node.forward_shares(SecureForwardRequest(1, split.theta * 1e3, torch.arange(12), 34))


def test_a_node_whose_numbers_may_overflow_leaves_the_batch(lab):
    split, nodes, orchestrator = ready(lab, "lora", 20)
    nodes[1].x = nodes[1].x * 1e9
    (batch,) = plan(orchestrator.counts, None, seed=0)
    step = orchestrator.propose(batch)
    assert list(step.missing) == [1]
    assert step.missing[1].startswith("forward: activations: reach")
    wanted = lab.centralised(split, orchestrator.theta, *lab.batch_of(nodes, [visit for visit in batch.visits if visit.node != 1]))
    assert lab.relative(step.pooled, wanted) < 1e-5


@pytest.mark.parametrize("fraction", [0, 31])
def test_fractional_bits_have_a_range(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction}: must be from 1 to 30"):
        Ring(fraction)


def test_numbers_come_back_and_those_that_do_not_fit_are_refused():
    ring = Ring(16)
    x = torch.tensor([0.0, -1.5, 3.25, -(2.0**-32)])
    assert torch.equal(ring.decode(ring.encode(x, "x", 10, products=True)).float(), x)
    words, key = ring.split(ring.encode(x, "x", 10, products=True), "G")
    assert torch.equal(ring.decode(words + ring.mask(key, "G", (4,))).float(), x)
    for value in (10.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"x: reach .*, must be at most 10"):
            ring.encode(torch.tensor([value]), "x", 10)


def test_more_than_one_linear_layer_above_the_cut_is_refused(lab):
    split = lab.made("mlp", 2)
    with pytest.raises(ValueError, match=r"cut=2: secure mode needs exactly one nn.Linear above the cut.*: must be 4"):
        lab.nodes_of(split, kind=SecureNode)
    with pytest.raises(ValueError, match=r"cut=2: secure mode needs exactly one"):
        Helper(split)
    with pytest.raises(ValueError, match="no cut of this module leaves just a linear layer above it"):
        Helper(SplitModel(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3), nn.Softplus()), 1))
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    module[1].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="secure mode trains the whole layer above the cut"):
        Helper(SplitModel(module, 1))


def test_the_helper_answers_once_a_step_and_for_enough_nodes(lab):
    _, _, orchestrator = ready(lab, "mlp")
    helper = orchestrator.transport.helper
    orchestrator.propose(plan(orchestrator.counts, None, seed=0)[0])
    with pytest.raises(ValueError, match="step 1 was revealed before"):
        helper.reveal(Reveal(1, torch.tensor([0, 1]), False))
    alone = ready(lab, "mlp", fails=lambda stage, node: node != 0)[2]
    with pytest.raises(ValueError, match="1 nodes: the helper reveals a sum over at least 2"):
        alone.propose(plan(alone.counts, None, seed=0)[0])
    with pytest.raises(ValueError, match="the helper does not reveal lots"):
        ready(lab, "mlp")[2].propose(plan(orchestrator.counts, None, seed=0)[0], by_lot=True)


def test_another_helper_goes_on_from_a_state_and_does_not_reveal_again(lab):
    split, _, orchestrator = ready(lab, "mlp")
    (batch,) = plan(orchestrator.counts, None, seed=0)
    wanted = orchestrator.propose(batch).pooled
    split, nodes, orchestrator = ready(lab, "mlp")

    class Restarted(SecureLocal):
        def to_helper(self, request, handed):
            state, self.helper = self.helper.state(), Helper(split)
            self.helper.restore(state)
            return super().to_helper(request, handed)

    orchestrator.transport = Restarted(nodes, Helper(split))
    assert torch.equal(orchestrator.propose(batch).pooled, wanted)
    after = Helper(split)
    after.restore(orchestrator.transport.helper.state())
    with pytest.raises(ValueError, match="step 1 was revealed before"):
        after.reveal(Reveal(1, torch.tensor([0, 1]), False))
    assert len(after.state().above) == len(after.state().below) == 0  # it forgot the shares


def test_another_node_goes_on_from_an_open_step(lab):
    split = lab.made("mlp", 4)
    request = SecureForwardRequest(1, split.theta, torch.arange(12), 34)
    share = CutErrorShare(1, np.zeros((12, 9), dtype=np.uint64))
    first, second = (lab.nodes_of(split, kind=SecureNode)[0] for _ in range(2))
    first.answer_secure(request)
    second.reopen_secure(request)
    (one, key), (other, other_key) = (node.answer_secure(share, share) for node in (first, second))
    mask = [Ring.mask(came.key, "G", one.gradients.shape) for came in (key, other_key)]
    assert np.array_equal(one.gradients + mask[0], other.gradients + mask[1])
    with pytest.raises(ValueError, match=r"shares of the error have shapes \(12, 9\) and \(1, 9\): must be \(12, 9\)"):
        first.backward_shares(share, CutErrorShare(1, share.error[:1]))
    with pytest.raises(ValueError, match="batch=5: must be at least the node's 12 rows"):
        first.reopen_secure(SecureForwardRequest(1, split.theta, torch.arange(12), 5))
    with pytest.raises(ValueError, match="a node cannot answer a CutErrorShare with nothing from the helper"):
        first.answer_secure(share)


def test_the_helper_takes_what_fits_its_step_once(lab):
    split = lab.made("mlp", 4)
    helper, nodes = Helper(split), lab.nodes_of(split, kind=SecureNode)
    weight = torch.zeros(10, 9)
    with pytest.raises(ValueError, match=r"weight has shape \(9, 10\): the helper's model has \(10, 9\) above the cut"):
        helper.start(HelperStart(1, weight.T))
    came = {i: node.forward_shares(SecureForwardRequest(1, split.theta, torch.arange(9), 34))[1] for i, node in nodes.items()}
    _, said = helper.answer(HelperStart(1, weight), came)
    assert all(isinstance(answer, CutErrorShare) for answer in said.values())
    with pytest.raises(ValueError, match="shares of node 0 in step 1 came before"):
        helper.take_forward(0, came[0])
    cut = dataclasses.replace(came[0], error=came[0].error[:, :3])
    with pytest.raises(ValueError, match=r"shares of \(9, 9\) and \(9, 3\) for lots of \[7, 2\] rows: must be \(9, 9\) and \(9, 10\)"):
        helper.take_forward(7, cut)
    key = GradientKey(1, bytes(32), 2)
    helper.take_key(0, key)
    for again in (key, GradientKey(1, bytes(32), 10**12)):
        with pytest.raises(ValueError, match=r"a key for \d+ lots: node 0 has 2 in step 1, or its key came before"):
            helper.take_key(0, again)
    with pytest.raises(ValueError, match=r"gradients of step 2 have shape \(1, \d+\): must be \(1, \d+\) in step 1"):
        helper.take_key(1, GradientKey(2, bytes(32), 1))
    with pytest.raises(ValueError, match=r"nodes \[0, 1\] are to be added up: must be of \[0\], whose shares came, each once"):
        helper.reveal(Reveal(1, torch.tensor([0, 1]), False))
    helper.take_key(1, GradientKey(1, bytes(32), 1))
    with pytest.raises(ValueError, match=r"nodes \[0, 1, 1\] are to be added up"):
        helper.reveal(Reveal(1, torch.tensor([0, 1, 1]), False))
    _, said = helper.answer(HelperStart(2, weight), {0: key})
    assert said == {0: "came with a GradientKey: must be a MaskedForward"}
    with pytest.raises(ValueError, match="a helper cannot answer a CutErrorShare: must be a HelperStart or a Reveal"):
        helper.answer(CutErrorShare(1, came[0].error), {})


class Changed(SecureLocal):
    """A transport that changes one party's answers."""

    def __init__(self, *arguments, node=lambda reply: reply, helper=lambda revealed: revealed) -> None:
        super().__init__(*arguments)
        self.node, self.after = node, helper

    def introduce(self, nodes):
        helper, came = super().introduce(nodes)
        return helper, {i: self.node(one) if i == 1 else one for i, one in came.items()}

    def to_nodes(self, requests):
        came = super().to_nodes(requests)
        return {i: (self.node(reply[0]), reply[1]) if i == 1 else reply for i, reply in came.items()}

    def to_helper(self, request, handed):
        revealed, said = super().to_helper(request, handed)
        return self.after(revealed), said


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, dtype=np.uint64)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("NodeIntroduction", {"counts": torch.tensor([2.0])}, "introduction: counts are torch.float32 (1,): must be int64"),
        ("MaskedForward", {"sizes": torch.tensor([4, 5])}, "forward: lots of [4, 5] rows: the node was asked for [9]"),
        (
            "MaskedForward",
            {"products": zeros(2, 10, 9)},
            "forward: products have shape (2, 10, 9): must be (1, 10, 9)",
        ),
        ("MaskedForward", {"step": 7}, "forward: shares of step 7: this is step 1"),
        (
            "GradientShare",
            {"gradients": zeros(2, 897)},
            "backward: gradients of step 1 have shape (2, 897): must be (1, 897)",
        ),
        ("GradientShare", {"step": 7}, "backward: gradients of step 7 have shape (1, 897): must be (1, 897) in step 1"),
    ],
)
def test_a_node_with_an_answer_that_does_not_fit_leaves_the_batch(lab, kind, change, reason):
    split = lab.made("mlp", 4)

    def node(reply):
        return dataclasses.replace(reply, **change) if type(reply).__name__ == kind else reply

    transport = Changed(lab.nodes_of(split, kind=SecureNode), Helper(split), node=node)
    orchestrator = SecureOrchestrator(split, transport)
    missing = orchestrator.census([0, 1, 2])
    if not missing:
        missing = orchestrator.propose(plan(orchestrator.counts, None, seed=0)[0]).missing
    assert list(missing) == [1]
    assert missing[1].startswith(reason)


def test_a_helper_whose_shares_do_not_fit_is_an_error(lab):
    split = lab.made("mlp", 4)
    nodes = lab.nodes_of(split, kind=SecureNode)
    for change in (lambda revealed: None, lambda revealed: revealed and dataclasses.replace(revealed, gradients=revealed.gradients[:5])):
        orchestrator = SecureOrchestrator(split, Changed(nodes, Helper(split), helper=change))
        orchestrator.census([0, 1, 2])
        with pytest.raises(ValueError, match=r"the helper's step and the shape of its shares are .*: must be \(1, \("):
            orchestrator.propose(plan(orchestrator.counts, None, seed=0)[0])


def test_a_batch_must_fit_the_nodes(lab):
    _, _, orchestrator = ready(lab, "mlp")
    with pytest.raises(ValueError, match="batch visits node 7: the census has 0, 1, 2"):
        orchestrator.propose(plan({7: (3,)}, None, seed=0)[0])


def test_rings_must_agree(lab):
    split = lab.made("mlp", 4)
    with pytest.raises(ValueError, match=r"rings have \[18, 20\] fractional bits"):
        SecureOrchestrator(split, SecureLocal(lab.nodes_of(split, kind=SecureNode), Helper(split, Ring(18)))).census([0, 1, 2])
