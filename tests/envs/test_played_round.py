"""What the engine's rounds offer to credit rules, also later and elsewhere."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from proxycoop.credit import Round, coalition_matrix
from proxycoop.envs import Engine

ACTIONS = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(3)) < 0.7


def everything_of(asked: Round) -> dict[str, Tensor]:
    coalitions = coalition_matrix(asked.num_agents)[1:9]
    sets = asked.contributed[:, None] & coalitions[None, :, :, None]
    return {
        "gain": asked.gain,
        "value": asked.value(coalitions),
        "updates": asked.updates,
        "lot updates": asked.lot_updates,
        "lots": asked.lots.value(sets),
        "gradient": asked.utility_gradient(),
        "curvature": asked.utility_curvature(asked.updates.sum(dim=1)),
        "let through": asked.let_through(coalitions),
        "peer gains": asked.peer_gains,
        "class head": asked.class_head,
    }


@pytest.fixture(scope="module")
def engine() -> Engine:
    engine = Engine("breast_cancer", "loo", num_envs=2)
    engine.reset([1, 2])
    engine.step(ACTIONS)
    return engine


@pytest.mark.parametrize("clone", [lambda engine: pickle.loads(pickle.dumps(engine)), copy.deepcopy], ids=["pickle", "copy"])
@pytest.mark.parametrize("asked_before", [False, True])
def test_a_copied_engine_answers_all_that_rules_may_ask_of_its_last_round(engine, clone, asked_before):
    if not asked_before:
        engine.reset([1, 2])
        engine.step(ACTIONS)
    else:
        everything_of(engine.round)
    twin = clone(engine)
    answers, expected = everything_of(twin.round), everything_of(engine.round)
    assert all(torch.equal(answers[what], expected[what]) for what in expected)
    assert torch.equal(twin.step(ACTIONS).observations, clone(engine).step(ACTIONS).observations)


def test_a_round_answers_for_itself_after_the_engine_has_gone_on(engine):
    engine.reset([1, 2])
    engine.step(ACTIONS)
    first, answers = engine.round, everything_of(pickle.loads(pickle.dumps(engine)).round)
    engine.step(ACTIONS)
    later = everything_of(first)
    assert all(torch.equal(later[what], answers[what]) for what in answers)
