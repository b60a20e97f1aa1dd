"""Which cuts a model allows, what a node refuses, and virtual batches."""

import pytest
import torch
from torch import nn

from proxycoop.traversal import Node, SplitModel, from_mask, plan
from proxycoop.traversal.batches import lots_of
from proxycoop.traversal.wire import BackwardRequest, CountReply, CountRequest, ForwardRequest


class Named(nn.Module):
    """Not a Sequential, but a chain of named blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(4, 5), nn.Linear(5, 3), nn.ReLU()

    def forward(self, x):
        return self.second(self.act(self.first(x)))


def tied() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    module[1].weight = module[0].weight
    return module


def test_parts_put_together_are_the_module(lab):
    for name in lab.models:
        for cut in lab.cuts_of(name):
            split = lab.made(name, cut)
            x = torch.rand(3, 64, dtype=torch.float64)
            torch.testing.assert_close(split.head(split.theta, split.activations(split.theta, x)), split.module(x))
            torch.testing.assert_close(split.logits(split.theta, x), split.module(x))


@pytest.mark.parametrize("cut", [0, 5, -1, True, 1.0, None])
def test_a_cut_that_is_not_allowed_lists_those_that_are(cut):
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"cut=.*: must be a number of blocks below the cut out of 1, 2, 3, 4 \(blocks: 0, 1, 2, 3, 4\)"):
        SplitModel(module, cut)


def test_a_cut_below_which_rows_would_leave_as_they_are_is_not_allowed():
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3), nn.Identity())
    assert SplitModel(module, 2).cuts == [2, 3]
    with pytest.raises(ValueError, match="out of 2, 3 "):
        SplitModel(module, 1)


def test_a_chain_of_named_blocks_is_checked_against_the_module():
    example = torch.rand(3, 4)
    split = SplitModel(Named(), 2, ["first", "act", "second"], example)
    torch.testing.assert_close(split.logits(split.theta, example), split.module(example))
    assert split.cuts == [1, 2]
    with pytest.raises(ValueError, match="do not give the module's own answer"):
        SplitModel(Named(), 1, ["first", "second"], example)
    with pytest.raises(ValueError, match="blocks needs example"):
        SplitModel(Named(), 1, ["first", "act", "second"])
    with pytest.raises(ValueError, match=r"blocks has 'third': the module's children are first, second, act"):
        SplitModel(Named(), 1, ["third"])
    with pytest.raises(ValueError, match=r"must be an nn\.Sequential, or pass blocks"):
        SplitModel(Named(), 1)
    with pytest.raises(ValueError, match="must be a list of names"):
        SplitModel(Named(), 1, "first")


def test_a_parameter_that_is_used_twice_may_not_be_on_both_sides():
    assert SplitModel(tied(), 2).cuts == [2]
    with pytest.raises(ValueError, match="out of 2 "):
        SplitModel(tied(), 1)


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("mlp", "got a str, must be an nn.Module"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), "batch normalisation"),
        (nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3)), "lazy layers"),
        (nn.Sequential(nn.ReLU()), "no parameters to learn"),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).double()), r"2 types \(torch.float32, torch.float64\)"),
        (nn.Sequential(nn.Linear(4, 3)), "cut=1: must be a number of blocks below the cut out of none"),
    ],
)
def test_modules_that_cannot_be_split(module, problem):
    with pytest.raises(ValueError, match=problem):
        SplitModel(module, 1)


def test_buffers_are_refused():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    module[0].register_buffer("mean", torch.zeros(4))
    with pytest.raises(ValueError, match="module has buffers"):
        SplitModel(module, 1)


def test_the_module_itself_stays_as_it_is():
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    SplitModel(module, 1)
    assert module.training
    assert all(one.requires_grad for one in module.parameters())


# nodes


@pytest.fixture
def node() -> Node:
    split = SplitModel(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)), 1)
    return Node(split, torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), (2, 4))


def test_a_node_tells_how_many_rows_it_has_and_nothing_else(node):
    reply = node.answer(CountRequest())
    assert isinstance(reply, CountReply)
    assert reply.counts.tolist() == [2, 4]


@pytest.mark.parametrize("rows", [[6], [-1], [1, 1], [2, 0], [], [0.0]])
def test_a_node_refuses_rows_that_it_does_not_have(node, rows):
    with pytest.raises(ValueError, match="rows must be"):
        node.answer(ForwardRequest(1, node.split.theta, torch.tensor(rows, dtype=torch.int64 if rows != [0.0] else torch.float32)))


def test_a_node_refuses_another_model_s_parameters_and_a_step_that_it_was_not_asked_for(node):
    theta = node.split.theta
    with pytest.raises(
        ValueError, match=r"theta has shape \(34,\) and type .*: the node's model has 35 trained parameters, 20 of them below"
    ):
        node.answer(ForwardRequest(1, theta[1:], torch.tensor([0])))
    with pytest.raises(ValueError, match="the node's open step is none"):
        node.answer(BackwardRequest(1, torch.zeros(1, 4)))
    node.answer(ForwardRequest(1, theta, torch.tensor([0, 3])))
    with pytest.raises(ValueError, match="backward request of step 2: the node's open step is 1"):
        node.answer(BackwardRequest(2, torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="error has 1 rows: the step has 2"):
        node.answer(BackwardRequest(1, torch.zeros(1, 4)))
    with pytest.raises(ValueError, match=r"error is torch\.float64, or not finite: must be finite torch\.float32"):
        node.answer(BackwardRequest(1, torch.zeros(2, 4, dtype=torch.float64)))
    with pytest.raises(ValueError, match="or not finite"):
        node.answer(BackwardRequest(1, torch.full((2, 4), float("nan"))))
    node.answer(BackwardRequest(1, torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="the node's open step is none"):  # not twice
        node.answer(BackwardRequest(1, torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="a node cannot answer a CountReply"):
        node.answer(CountReply(torch.tensor([1])))


def test_rows_labels_and_lots_must_fit(node):
    split = node.split
    with pytest.raises(ValueError, match=r"6 rows, 5 labels of type torch.int64, and lots of \(6,\) rows"):
        Node(split, torch.rand(6, 4), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"lots of \(2, 3\) rows"):
        Node(split, torch.rand(6, 4), torch.zeros(6, dtype=torch.int64), (2, 3))
    with pytest.raises(ValueError, match=r"rows of torch.float32 \(5,\) do not fit the model: "):
        Node(split, torch.rand(6, 5), torch.zeros(6, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels are from 0 to 3: the model has the classes 0 to 2"):
        Node(split, torch.rand(4, 4), torch.arange(4))
    node.answer(ForwardRequest(1, split.theta, torch.tensor([0])))
    with pytest.raises(ValueError, match=r"error at the cut has shape \(1, 3\): the activations have \(1, 4\)"):
        node.answer(BackwardRequest(1, torch.zeros(1, 3)))
    with pytest.raises(ValueError, match="not finite"):
        Node(split, torch.full((6, 4), float("nan")), torch.zeros(6, dtype=torch.int64))


# virtual batches


def test_an_epoch_has_each_row_once(lab):
    batches = plan(lab.data, 8, seed=3, epoch=2)
    assert [batch.size for batch in batches] == [8, 8, 8, 8, 2]
    seen = {(visit.node, row) for batch in batches for visit in batch.visits for row in visit.rows.tolist()}
    assert seen == {(node, row) for node, lots in lab.data.items() for row in range(sum(lots))}


def test_a_plan_depends_on_seed_and_epoch_only(lab):
    def flat(seed, epoch):
        return [(visit.node, visit.rows.tolist()) for batch in plan(lab.data, 8, seed, epoch) for visit in batch.visits]

    assert flat(3, 1) == flat(3, 1)
    assert flat(3, 1) != flat(3, 2)
    assert flat(3, 1) != flat(4, 1)
    orders = {tuple(visit.node for visit in plan(lab.data, None, 0, epoch)[0].visits) for epoch in range(40)}
    assert len(orders) == 6  # each order of three nodes comes


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (({0: ()}, 8, 0), "counts of node 0"),
        (({0: (-1,)}, 8, 0), "counts of node 0"),
        (({0: (1.5,)}, 8, 0), "counts of node 0"),
        (({0: (0,)}, 8, 0), "the nodes have no rows"),
        (({}, 8, 0), "the nodes have no rows"),
        (({0: (3,)}, 0, 0), "batch=0: must be at least 1 row"),
        (({0: (3,)}, 1, -1), "seed=-1"),
        (({0: (3,)}, 1, 0, 2**31), "epoch=2147483648"),
    ],
)
def test_plans_that_cannot_be_made(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        plan(*arguments)


def test_rows_belong_to_lots():
    assert lots_of(torch.arange(6), (2, 0, 4)).tolist() == [0, 0, 2, 2, 2, 2]


def test_a_mask_becomes_a_batch():
    mask = torch.tensor([[True, False, False], [False, True, True]])
    batch = from_mask({4: mask, 5: torch.zeros(1, 3, dtype=torch.bool)}, {4: (2, 3), 5: (3,)})
    assert [(visit.node, visit.rows.tolist()) for visit in batch.visits] == [(4, [0, 3, 4])]
    with pytest.raises(ValueError, match="True only for rows of its lots"):
        from_mask({4: ~mask}, {4: (2, 3)})
