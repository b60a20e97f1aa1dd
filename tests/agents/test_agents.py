"""Scripted, privileged and learned proxies."""

from __future__ import annotations

import pytest
import torch

from proxycoop import agents
from proxycoop.agents.network import LotNetwork, save
from proxycoop.envs import Engine, scenario

SEEDS = range(8)


@pytest.fixture(scope="module")
def engine():
    return Engine(scenario.load("breast_cancer"), "shapley", len(SEEDS))


def choices_of(engine, agent):
    """What an agent contributes over one episode, bool (T, E, N, K)."""
    agents.play(engine, agent, SEEDS)
    return torch.stack([result.contributed for result in engine.history])


def test_all_contributes_everything_and_none_nothing(engine):
    assert choices_of(engine, agents.make("all")).all()
    assert not choices_of(engine, agents.make("none")).any()


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_random_contributes_with_its_probability(engine, probability):
    share = choices_of(engine, agents.make("random", probability=probability)).double().mean()
    assert float(share) == pytest.approx(probability, abs=0.05)


def test_random_is_the_same_on_any_batch_and_new_in_every_round_and_episode(engine):
    together = choices_of(engine, agents.make("random"))
    alone = Engine(engine.scenario, "equal")
    agents.play(alone, agents.make("random"), [SEEDS[3]])
    assert (torch.stack([result.contributed for result in alone.history])[:, 0] == together[:, 3]).all()
    assert (together[0] != together[1]).any()
    agents.play(alone, agents.make("random"))
    assert (torch.stack([result.contributed for result in alone.history])[:, 0] != together[:, 3]).any()


def test_honest_contributes_own_admissible_lots_no_harder_than_validation_data(engine):
    observations = engine.reset(SEEDS)
    agent = agents.make("honest")
    agent.begin(engine.layout, engine.seeds)
    look = engine.prospect
    own = ~look.blocked_by.diagonal(dim1=1, dim2=3).transpose(1, 2)
    easy = look.proposals.loss <= look.validation_loss[:, None, None]
    assert (agent.act(observations) == (own & easy)).all()


def test_honest_keeps_out_mislabelled_lots(engine):
    metrics = agents.play(engine, agents.make("honest"), SEEDS)
    assert float(metrics["corrupt_share"].mean()) < 0.05
    assert float(metrics["clean_share"].mean()) > 0.3


def test_oracle_contributes_exactly_the_clean_lots_that_pass(engine):
    agent = agents.make("oracle")
    agents.play(engine, agent, SEEDS)
    assert all(((result.contributed & engine.lots.corrupt) == 0).all() for result in engine.history)
    assert all((result.contributed == result.admitted).all() for result in engine.history)


def test_planner_contributes_what_its_first_order_gain_pays_for(engine):
    engine.reset(SEEDS)
    agent = agents.make("planner")
    agent.watch(engine)
    agent.begin(engine.layout, engine.seeds)
    step = 1e-4
    for environment, i, k in [(0, 0, 0), (1, 2, 3), (5, 5, 1), (7, 4, 2)]:
        direction = engine.prospect.proposals.updates[environment, i, k].double()
        rows = engine.splits.validation
        ahead, behind = (
            -torch.nn.functional.cross_entropy(
                engine.model.logits((engine.theta[environment].double() + sign * step * direction)[None], rows.x.double())[0], rows.y
            )
            for sign in (1, -1)
        )
        gain = engine.reward_scale / 24 * float(ahead - behind) / (2 * step)
        expected = gain > engine.scenario.reward.contribution_cost and bool(engine.prospect.passes[environment, i, k])
        assert bool(agent.choose(engine.observations)[environment, i, k]) == expected


def test_references_come_in_the_order_of_what_they_see(engine):
    welfare = {name: float(agents.play(engine, agents.make(name), SEEDS)["welfare"].mean()) for name in agents.AGENTS if name != "learned"}
    assert welfare["none"] == 0
    assert welfare["all"] < welfare["random"] < welfare["honest"] < welfare["oracle"]
    assert welfare["planner"] > welfare["honest"]


def test_only_references_are_privileged():
    assert {name for name in agents.AGENTS if agents.AGENTS[name].privileged} == {"oracle", "planner"}


def test_seats_hold_different_agents(engine):
    mixed = choices_of(engine, agents.Seats(agents.make("all"), {2: agents.make("none"), 4: agents.make("oracle")}))
    oracle = choices_of(engine, agents.make("oracle"))
    assert not mixed[:, :, 2].any()
    assert mixed[:, :, [0, 1, 3, 5]].all()
    assert (mixed[0, :, 4] == oracle[0, :, 4]).all()
    with pytest.raises(ValueError, match="seat 6: seats go from 0 to 5"):
        agents.play(engine, agents.Seats(agents.make("all"), {6: agents.make("none")}), SEEDS)


def test_the_network_treats_lots_alike_whatever_their_order_or_number():
    torch.manual_seed(0)
    network = LotNetwork(3, 2)
    lots, agent = torch.randn(5, 4, 3), torch.randn(5, 2)
    order = [2, 0, 3, 1]
    observe = lambda some: torch.cat([some.flatten(start_dim=1), agent], dim=1)  # noqa: E731
    assert torch.allclose(network.logits(observe(lots))[:, order], network.logits(observe(lots[:, order])), atol=1e-6)
    assert torch.allclose(network.pooled(observe(lots)), network.pooled(observe(lots[:, order])), atol=1e-6)
    doubled = torch.cat([lots, lots], dim=1)
    assert torch.allclose(network.logits(observe(doubled))[:, :4], network.logits(observe(lots)), atol=1e-6)


@pytest.fixture
def policy(engine, tmp_path):
    torch.manual_seed(0)
    network = LotNetwork(len(engine.layout.lot_features), len(engine.layout.agent_features))
    torch.nn.init.normal_(network.decide.weight)
    size = len(engine.layout.lot_features) + len(engine.layout.agent_features)
    save(tmp_path / "policy.pt", network, torch.full((size,), 0.1), torch.full((size,), 2.0), engine.layout)
    return network, tmp_path


def test_a_saved_policy_plays_what_its_network_says(engine, policy):
    network, folder = policy
    observations = engine.reset(SEEDS)
    agent = agents.make("learned", path=folder, deterministic=True)
    agent.begin(engine.layout, engine.seeds)
    expected = network.logits((observations - 0.1) / 2**0.5) > 0
    assert (agent.act(observations) == expected).all()


def test_a_saved_policy_draws_with_its_probabilities_whatever_the_batch(engine, policy):
    _, folder = policy
    together = choices_of(engine, agents.make("learned", path=folder / "policy.pt"))
    alone = Engine(engine.scenario, "shapley")
    agents.play(alone, agents.make("learned", path=folder), [SEEDS[5]])
    assert (torch.stack([result.contributed for result in alone.history])[:, 0] == together[:, 5]).all()
    greedy = choices_of(engine, agents.make("learned", path=folder, deterministic=True))
    assert (greedy != together).any()


def test_a_policy_for_other_observations_is_refused(policy):
    _, folder = policy
    with pytest.raises(ValueError, match="other lot features"):
        agents.play(Engine(scenario.load("digits"), "equal"), agents.make("learned", path=folder), [0])


def test_a_policy_plays_with_any_number_of_lots(engine, policy):
    network, folder = policy
    for n_lots in (1, 2, 7):
        other = Engine(scenario.load("breast_cancer", **{"lots.per_principal": n_lots, "lots.rows": 5}), "equal")
        observations = other.reset([0])
        agent = agents.make("learned", path=folder, deterministic=True)
        agent.begin(other.layout, other.seeds)
        assert (agent.act(observations) == (network.logits((observations - 0.1) / 2**0.5) > 0)).all()


def test_one_agent_object_in_several_seats_acts_once_a_round(engine):
    shared, alone = agents.make("random"), agents.make("random")
    together = choices_of(engine, agents.Seats(agents.make("none"), {1: shared, 3: shared}))
    expected = choices_of(engine, alone)
    assert (together[:, :, [1, 3]] == expected[:, :, [1, 3]]).all()
    assert not agents.Seats(agents.make("none"), {1: shared}).privileged
    assert agents.Seats(agents.make("none"), {1: agents.make("oracle")}).privileged


def test_a_missing_damaged_or_hostile_policy_is_refused(policy, tmp_path):
    _, folder = policy
    with pytest.raises(ValueError, match="no policy at"):
        agents.make("learned", path=tmp_path / "nowhere")
    whole = (folder / "policy.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        agents.make("learned", path=tmp_path / "half.pt")

    class Hostile:
        def __reduce__(self):
            return (tmp_path.joinpath("harmed").touch, ())

    torch.save({"format": 1, "network": Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match="damaged or not a policy"):
        agents.make("learned", path=tmp_path / "hostile.pt")
    assert not (tmp_path / "harmed").exists()


def test_unknown_agent_lists_the_known():
    with pytest.raises(ValueError, match="known ones are all, honest, learned, none, oracle, planner, random"):
        agents.make("nope")
    with pytest.raises(ValueError, match="does not take these arguments"):
        agents.make("all", strength=3)
    with pytest.raises(ValueError, match="probability=2"):
        agents.make("random", probability=2)


def test_policies_of_value_based_learners_are_played_greedily_and_have_no_coins(engine, tmp_path):
    layout = engine.layout
    torch.manual_seed(0)
    network = LotNetwork(**layout.sizes)
    torch.nn.init.normal_(network.decide.weight)
    n_features = sum(layout.sizes.values())
    for name, greedy in (("coins", False), ("values", True)):
        save(tmp_path / f"{name}.pt", network, torch.zeros(n_features), torch.ones(n_features), layout, greedy=greedy)
    coins = agents.make("learned", path=tmp_path / "coins.pt", deterministic=True)
    values = agents.make("learned", path=tmp_path / "values.pt")
    assert torch.equal(choices_of(engine, coins), choices_of(engine, values))
    observations = engine.observations
    assert torch.equal(values.probabilities(observations), (values.probabilities(observations) > 0.5).float())
    assert torch.equal(coins.probabilities(observations), values.probabilities(observations))
    with pytest.raises(ValueError, match="was learned from action values, which give no probabilities"):
        agents.make("learned", path=tmp_path / "values.pt", deterministic=False)
