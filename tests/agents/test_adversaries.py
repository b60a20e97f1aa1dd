"""Scripted adversaries, each against what it says that it does, and who plays which seat."""

from __future__ import annotations

import pytest
import torch

from proxycoop import agents
from proxycoop.agents.adversaries import Adversary
from proxycoop.agents.seats import populated, seats_named
from proxycoop.envs import Engine, scenario

FORGERIES = [
    {"kind": "echo"},
    {"kind": "noise"},
    {"kind": "twin", "of": 1},
    {"kind": "near_twin", "of": 2},
    {"kind": "boost", "of": 0},
    {"kind": "flip", "of": 3},
    {"kind": "stale", "of": 1},
    {"kind": "blend"},
]
LEVERS = [{"kind": "claim"}, {"kind": "strict"}, {"kind": "lax"}, {"kind": "block"}, {"kind": "quit"}, {"kind": "vouch"}]
EVERYTHING = {"forgeries": FORGERIES, "levers": LEVERS, "cabal": [1, 4]}
ADVERSARIES = [name for name in agents.AGENTS if isinstance(agents.AGENTS[name], type) and issubclass(agents.AGENTS[name], Adversary)]
OWN_NEEDS = {
    "label_flipper": {"lots.corruption.principals": [0]},
    "sybil": {"conduct": {"identities": [{"principal": 0, "split": 2}]}},
}


def tempted(**more: object) -> scenario.Scenario:
    return scenario.load("digits-mean", conduct=EVERYTHING, **more)


def chosen(name: str, rounds: int = 3, **arguments: object) -> tuple[torch.Tensor, torch.Tensor, Engine]:
    """What an adversary and its honest self choose in a round, after some rounds, bool ``(E, N, I)`` each."""
    engine = Engine(tempted(), "shapley", 4)
    observations = engine.reset(range(4))
    cheat, honest = agents.make(name, **arguments), agents.make("honest")
    for one in (cheat, honest):
        one.begin(engine.layout, torch.arange(4))
    for _ in range(rounds):
        observations = engine.step(cheat.act(observations)).observations
    return cheat.act(observations), honest.act(observations), engine


def part(choices: torch.Tensor, engine: Engine, *names: str) -> torch.Tensor:
    return choices[..., [engine.num_lots + engine.items.names.index(name) for name in names]]


@pytest.mark.parametrize(
    ("name", "item"), [("free_rider", "echo"), ("noise_maker", "noise"), ("plagiarist", "blend"), ("recycler", "stale")]
)
def test_who_sends_no_data_sends_its_forgery_alone(name, item):
    choices, _, engine = chosen(name)
    assert not choices[..., :4].any()
    assert part(choices, engine, item).all()
    assert choices.sum() == part(choices, engine, item).sum()
    beside, _, _ = chosen(name, beside="honest")
    assert beside[..., :4].any()
    assert part(beside, engine, item).all()


@pytest.mark.parametrize(
    ("name", "levers"), [("over_claimer", ["claim"]), ("hypocrite", ["lax"]), ("blocker", ["block"]), ("colluder", ["block", "vouch"])]
)
def test_who_pulls_levers_is_honest_with_its_lots(name, levers):
    choices, honest, engine = chosen(name)
    assert torch.equal(choices[..., :4], honest[..., :4])
    assert part(choices, engine, *levers).all()
    assert choices.sum() == honest.sum() + part(choices, engine, *levers).sum()


def test_a_doubler_sends_the_twins_of_the_lots_that_it_contributes():
    choices, honest, engine = chosen("doubler")
    assert torch.equal(choices[..., :4], honest[..., :4])
    assert torch.equal(part(choices, engine, "twin", "near_twin"), honest[..., [1, 2]])
    assert honest[..., 1].any()
    assert not honest[..., 1].all()


def test_a_booster_sends_the_enlarged_update_in_place_of_the_lot():
    choices, honest, engine = chosen("booster")
    assert not choices[..., 0].any()
    assert torch.equal(part(choices, engine, "boost")[..., 0], honest[..., 0])
    assert torch.equal(choices[..., 1:4], honest[..., 1:4])


def test_a_saboteur_turns_the_lots_that_are_useful():
    choices, honest, engine = chosen("saboteur")
    assert not choices[..., :4].any()
    assert torch.equal(part(choices, engine, "flip")[..., 0], honest[..., 3])


def test_a_sandbagger_waits_and_is_then_honest():
    for rounds, waits in ((0, True), (7, True), (8, False)):
        choices, honest, _ = chosen("sandbagger", rounds)
        assert torch.equal(choices, torch.zeros_like(honest) if waits else honest)


def test_a_label_flipper_contributes_every_lot():
    made = scenario.load("digits", **OWN_NEEDS["label_flipper"])
    engine = Engine(made, "loo", 2)
    agents.play(engine, agents.make("label_flipper"), range(2))
    assert engine.history[3].contributed.all()


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversary_is_refused_where_there_is_nothing_to_cheat_with(name):
    plain = scenario.load("digits-mean")
    if name == "sandbagger":
        assert agents.AGENTS[name].plays(plain)
        return
    assert not agents.AGENTS[name].plays(plain)
    assert "add " in agents.AGENTS[name].lacks(plain)
    with pytest.raises(ValueError, match="needs"):
        populated(
            agents.make("honest"),
            plain.model_copy(update={"population": scenario.load("digits", population=[{"agent": name, "seats": [0]}]).population}),
        )
    if name in OWN_NEEDS:
        assert agents.AGENTS[name].plays(scenario.load("digits-mean", **OWN_NEEDS[name]))
        return
    with pytest.raises(ValueError, match=r"needs .* among the scenario's conduct"):
        agents.play(Engine(plain, "loo"), agents.make(name), [0])
    assert agents.AGENTS[name].plays(tempted())


@pytest.mark.parametrize("name", ["free_rider", "doubler", "colluder"])
def test_an_adversary_plays_alike_in_a_batch_and_alone(name):
    batch = Engine(tempted(), "loo", 3)
    agents.play(batch, agents.Seats(agents.make("honest"), {1: agents.make(name)}), [5, 6, 7])
    for row, seed in enumerate([5, 6, 7]):
        single = Engine(tempted(), "loo", 1)
        agents.play(single, agents.Seats(agents.make("honest"), {1: agents.make(name)}), [seed])
        assert all(torch.equal(a.chosen[row], b.chosen[0]) for a, b in zip(batch.history, single.history, strict=True))


def test_what_an_adversary_contributes_beside_is_checked():
    with pytest.raises(ValueError, match=r"beside='some': must be 'honest' or 'nothing'"):
        agents.make("free_rider", beside="some")


def test_a_cabal_spares_its_members_and_objects_to_all_others():
    engine = Engine(tempted(**{"screening.governance": "unanimous", "screening.guard": False}), "peer_ranking", 2)
    agents.play(engine, agents.Seats(agents.make("all"), {1: agents.make("colluder"), 4: agents.make("colluder")}), [0, 1])
    for result in engine.history:
        blocks = result.blocked_by[..., [1, 4]]
        assert blocks[:, [0, 2, 3, 5]].all()
        assert not result.admitted[:, [0, 2, 3, 5]].any()
    told = engine.round.peer_gains
    expected = torch.full((6,), -1.0)
    expected[[1, 4]] = 1.0
    torch.testing.assert_close(told[:, 1], expected.expand(2, -1))
    torch.testing.assert_close(told[:, 4], expected.expand(2, -1))
    assert not torch.equal(told[:, 0], expected.expand(2, -1))


def test_only_members_of_a_cabal_can_vouch():
    engine = Engine(tempted(), "loo", 2)
    engine.reset([0, 1])
    can = part(engine.prospect.choosable, engine, "vouch")[..., 0]
    assert can.tolist() == [[False, True, False, False, True, False]] * 2


@pytest.mark.parametrize(
    ("texts", "seats"),
    [
        (["0=none"], {0: "none"}),
        (["0,2=none", "1=all"], {0: "none", 1: "all", 2: "none"}),
        (["all_but:1=none"], {0: "none", 2: "none", 3: "none"}),
        (["count:2=none", "3=all"], {1: "none", 2: "none", 3: "all"}),
        (["share:0.5=none"], {2: "none", 3: "none"}),
        (["all_but:0=none", "count:1=all"], {1: "none", 2: "none", 3: "all"}),
        (["share:0.125=all"], {3: "all"}),
        (["share:0.25=all", "share:0.25=none"], {2: "none", 3: "all"}),
    ],
)
def test_seats_are_named_in_four_ways(texts, seats):
    assert seats_named(texts, 4) == seats


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0", "write a seat's number"),
        ("=none", "write a seat's number"),
        ("0=", "write a seat's number"),
        ("9=none", "seats go from 0 to 3"),
        ("all_but:9=none", "seats go from 0 to 3"),
        ("0,0=none", "each once"),
        ("0=nobody", "unknown agent 'nobody'"),
        ("count:0=none", "greater than or equal to 1"),
        ("count:5=none", "takes 5 seats, and 4 of 4 are free"),
        ("share:2=none", "less than or equal to 1"),
        ("share:0.1=none", "takes no seat of 4"),
        ("share:x=none", "write a seat's number"),
        ("some:2=none", "write a seat's number"),
    ],
)
def test_wrong_seats_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        seats_named([text], 4)
    with pytest.raises(ValueError, match="name all_but once"):
        seats_named(["all_but:0=none", "all_but:1=all"], 4)
    with pytest.raises(ValueError, match=r"seat 0 is 'none' already"):
        seats_named(["0=none", "0=all"], 4)


def test_a_doubler_may_send_one_kind_of_copies_alone():
    choices, honest, engine = chosen("doubler", kind="near_twin")
    assert not part(choices, engine, "twin").any()
    assert torch.equal(part(choices, engine, "near_twin")[..., 0], honest[..., 2])
    with pytest.raises(ValueError, match="must be 'twin' or 'near_twin'"):
        agents.make("doubler", kind="boost")
