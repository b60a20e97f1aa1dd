"""What lots are credited for is the same in the protocol and in the engine: updates, shares and losses on the same draws."""

import pytest
import torch

from proxycoop.envs import Engine, scenario
from proxycoop.envs.randomness import Purpose, fold
from proxycoop.traversal import Local, Node, Orchestrator, SplitModel, from_mask

SETTINGS = {"screening.governance": "none", "reward.scale": 1.0, "model": {"kind": "mlp", "hidden": [12, 8]}}
BOUND = {torch.float64: 1e-12, torch.float32: 1e-5}


def engine(batch: int | None, dtype: torch.dtype, **overrides: object) -> Engine:
    settings = {**SETTINGS, "substrate": {"kind": "traversal", "lr": 0.4, "batch": batch}, **overrides}
    made = Engine(scenario.load("digits", **settings).unlimited(), None, 2, dtype=dtype)
    made.reset([3, 4])
    return made


def federation(cooperative: Engine, e: int, cut: int) -> Orchestrator:
    """Environment e of an engine as nodes: a node for each principal, with its lots."""
    lots = cooperative.lots
    module = cooperative.model.module.to(lots.x.dtype).requires_grad_(True)
    split = SplitModel(module, cut)
    nodes = {}
    for i in range(cooperative.num_agents):
        present = lots.present[i].flatten()
        x, y = lots.x[e, i].flatten(end_dim=1)[present], lots.y[e, i].flatten()[present]
        nodes[i] = Node(split, x, y, tuple(lots.samples[i].tolist()))
    orchestrator = Orchestrator(split, Local(nodes))
    orchestrator.census(list(nodes))
    return orchestrator


@pytest.mark.parametrize("dtype", list(BOUND))
@pytest.mark.parametrize(("batch", "cut", "rows"), [(None, 2, 40), (64, 1, 40), (64, 4, (20, 60, 40, 80, 50, 30))])
def test_the_protocol_proposes_what_the_engine_s_substrate_proposes(batch, cut, rows, dtype):
    cooperative = engine(batch, dtype, **{"lots.rows": rows})
    for _ in range(3):
        keys = fold(fold(cooperative.seeds, cooperative.episode), Purpose.VIRTUAL_BATCH, cooperative.t)
        drawn = cooperative.scenario.substrate.virtual_batch(cooperative.lots, keys)
        proposals = cooperative.prospect.proposals
        for e in range(2):
            orchestrator = federation(cooperative, e, cut)
            orchestrator.theta = cooperative.theta[e].clone()
            shares = orchestrator.propose(from_mask(dict(enumerate(drawn[e])), orchestrator.counts))
            assert set(shares.lots) == set(map(tuple, proposals.available[e].nonzero().tolist()))
            i, k = torch.tensor(shares.lots).T
            wanted = proposals.updates[e, i, k]
            assert (shares.updates(0.4) - wanted).abs().max() <= BOUND[dtype] * wanted.abs().max()
            torch.testing.assert_close(shares.share, proposals.share[e, i, k])
            if batch is None:  # the engine's loss is that of the whole lot
                torch.testing.assert_close(shares.loss, proposals.loss[e, i, k])
        cooperative.step(torch.ones(2, cooperative.num_agents, cooperative.num_lots, dtype=torch.bool))
