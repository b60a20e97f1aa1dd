"""Scripted, privileged and learned proxies."""

from __future__ import annotations

import pytest
import torch

from proxycoop import agents
from proxycoop.agents.network import LotNetwork, save
from proxycoop.agents.privileged import GreedySearch
from proxycoop.credit import coalition_matrix
from proxycoop.envs import Engine, ObservationLayout, scenario

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


def test_agents_that_say_that_they_cannot_play_a_scenario_are_refused_before_anything_is_played():
    class Alone(agents.AGENTS["honest"]):
        """Plays no cooperative of several."""

        @classmethod
        def plays(cls, scenario):
            return scenario.principals == 1

    for agent, changes, message in (
        (agents.make("planner"), {"utility": "accuracy", "reward.scale": 1.0}, "agent planner needs a utility with a gradient"),
        (agents.make("plagiarist"), {}, "agent Plagiarist needs blend"),
        (Alone(), {}, "agent Alone cannot play scenario 'breast_cancer'"),
    ):
        engine = Engine(scenario.load("breast_cancer", **changes), None)
        with pytest.raises(ValueError, match=message):
            agents.play(engine, agent)
        assert not engine.history


STRICT = [{"holders": 1, "tolerances": {"missed_cancer": 0.1}}]
COOPERATIVES = {
    "fixed weights": {},
    "participants": {"weights": "participants"},
    "a server that remembers": {"server": {"momentum": 0.9}},
    "a model with a hidden layer": {"model": {"kind": "mlp"}},
    "accuracy": {"utility": "accuracy", "reward.scale": 100.0},
}


@pytest.mark.parametrize("changes", COOPERATIVES.values(), ids=COOPERATIVES)
def test_the_lot_game_of_the_coming_round_is_what_the_round_then_gains(changes):
    engine = Engine(scenario.load("breast_cancer", principals=3, horizon=4, profiles=STRICT, **changes), None, 4)
    with pytest.raises(RuntimeError, match="lot_game was called before the first reset"):
        engine.lot_game()
    engine.reset(range(4))
    for t in range(4):
        chosen = (torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(t)) < 0.6) & engine.prospect.passes
        expected = engine.lot_game().value(chosen[:, None])[:, 0]
        torch.testing.assert_close(engine.step(chosen).gain, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("changes", COOPERATIVES.values(), ids=COOPERATIVES)
def test_the_greedy_search_finds_a_set_that_no_lot_improves_and_that_is_no_worse_than_the_planner_s(changes):
    """All 2^4 sets of two agents with two lots each are looked at."""
    engine = Engine(
        scenario.load("breast_cancer", principals=2, horizon=3, profiles=STRICT, **{"lots.per_principal": 2}, **changes), None, 6
    )
    cost = engine.scenario.reward.contribution_cost
    every = coalition_matrix(4).reshape(16, 2, 2).expand(6, -1, -1, -1)
    engine.reset(SEEDS[:6])
    found = 0
    for _ in range(3):
        agent = GreedySearch()
        agent.watch(engine)
        agent.begin(engine.layout, engine.seeds)
        chosen = agent.act(engine.observations)
        game = engine.lot_game()
        worth = engine.reward_scale * game.value(every) - cost * every.sum(dim=(2, 3))
        worth = torch.where((every & ~game.candidates[:, None]).flatten(start_dim=2).any(dim=-1), -torch.inf, worth)  # (E, 16)
        code = (chosen.flatten(1) * 2 ** torch.arange(4)).sum(dim=1)  # which of the sets
        mine = worth.gather(1, code[:, None])
        assert (worth.gather(1, torch.stack([code ^ 2**lot for lot in range(4)], dim=1)) <= mine + 1e-3).all()
        if agents.Planner.plays(engine.scenario):
            planner = agents.make("planner")
            planner.watch(engine)
            theirs = (planner.choose(engine.observations).flatten(1) * 2 ** torch.arange(4)).sum(dim=1)
            assert (mine >= worth.gather(1, theirs[:, None]) - 1e-3).all()
        assert (mine >= -1e-3).all()  # the empty set brings 0
        found += int((mine[:, 0] >= worth.amax(dim=1) - 1e-3).sum())
        engine.step(chosen)
    assert found >= 15  # of 18 rounds: greedy, but here nearly always the best of all sets


def test_where_steps_overshoot_the_planner_loses_and_the_one_that_measures_does_not():
    wild = Engine(scenario.load("breast_cancer", horizon=6, **{"substrate.local_lr": 60.0, "reward.scale": 100.0}), None, len(SEEDS))
    welfare = {name: agents.play(wild, agents.make(name), SEEDS)["welfare"] for name in ("planner", "measuring_planner")}
    assert (welfare["planner"] < 0).any()
    assert (welfare["measuring_planner"] > 0).all()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("digits", {"principals": 8, "data.split_seed": 12}),
        ("breast_cancer", {}),
        ("digits-mean", {}),
        ("breast_cancer", {"server": {"momentum": 0.9}}),
    ],
)
def test_no_cooperative_ends_below_the_oracle_or_the_planner_where_everybody_plays_the_measuring_planner(name, changes):
    """Also where the oracle is above the planner: with eight principals on this split of digits it is."""
    engine = Engine(scenario.load(name, horizon=8, **changes), None, len(SEEDS))
    welfare = {who: agents.play(engine, agents.make(who), SEEDS)["welfare"] for who in ("oracle", "planner", "measuring_planner")}
    least = torch.maximum(welfare["oracle"], welfare["planner"])
    assert (welfare["measuring_planner"] >= least - 1e-4).all()
    assert (welfare["oracle"] > welfare["planner"]).any() or (welfare["measuring_planner"] > least).any()


def test_a_fork_goes_on_as_the_cooperative_would_and_changes_nothing_in_it():
    engine = Engine(scenario.load("breast_cancer", horizon=4, settlement={}), "aristocrat", 3)
    engine.reset(range(3))
    lots = torch.rand(4, 3, 6, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    engine.step(lots[0])
    other = engine.fork()
    there = [other.step(lots[t]) for t in (1, 2, 3)]
    assert (engine.t, len(engine.history), other.t, len(other.history)) == (1, 1, 4, 4)
    again = Engine(engine.scenario, "aristocrat", 3)
    again.reset(range(3))
    expected = [again.step(lots[t]) for t in range(4)]
    here = [engine.step(lots[t]) for t in (1, 2, 3)]
    for forked, mine, alone in zip(there, here, expected[1:], strict=True):
        for part in ("rewards", "credit", "observations", "utility", "payouts"):
            assert torch.equal(getattr(mine, part), getattr(alone, part))
        assert torch.equal(forked.utility, alone.utility)
        assert not forked.credit.any()


def test_the_measuring_planner_plays_every_environment_as_if_it_were_alone(engine):
    together = choices_of(engine, agents.make("measuring_planner"))
    alone = Engine(engine.scenario, None)
    agents.play(alone, agents.make("measuring_planner"), [SEEDS[3]])
    assert torch.equal(torch.stack([result.contributed for result in alone.history])[:, 0], together[:, 3])


def test_references_come_in_the_order_of_what_they_see(engine):
    names = ("none", "all", "random", "honest", "oracle", "planner", "measuring_planner")
    welfare = {name: float(agents.play(engine, agents.make(name), SEEDS)["welfare"].mean()) for name in names}
    assert welfare["none"] == 0
    assert welfare["all"] < welfare["random"] < welfare["honest"] < welfare["oracle"]
    assert welfare["honest"] < welfare["planner"] < welfare["measuring_planner"]


def test_only_references_are_privileged():
    assert {name for name in agents.AGENTS if agents.AGENTS[name].privileged} == {"oracle", "planner", "measuring_planner", "best_reply"}


def test_seats_hold_different_agents(engine):
    mixed = choices_of(engine, agents.Seats(agents.make("all"), {2: agents.make("none"), 4: agents.make("oracle")}))
    oracle = choices_of(engine, agents.make("oracle"))
    assert not mixed[:, :, 2].any()
    assert mixed[:, :, [0, 1, 3, 5]].all()
    assert (mixed[0, :, 4] == oracle[0, :, 4]).all()
    with pytest.raises(ValueError, match="seat 6: seats go from 0 to 5"):
        agents.play(engine, agents.Seats(agents.make("all"), {6: agents.make("none")}), SEEDS)
    for seat in (True, 1.0, -1, "0"):
        with pytest.raises(ValueError, match=f"seat={seat!r}: seats are whole numbers from 0 on"):
            agents.Seats(agents.make("all"), {seat: agents.make("none")})
    with pytest.raises(ValueError, match=r"others\[0\]='none': must be an agent, as from agents.make"):
        agents.Seats(agents.make("all"), {0: "none"})
    with pytest.raises(ValueError, match=r"agent='all': must be an agent, as from agents\.make"):
        agents.play(engine, "all", SEEDS)


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


class Trained(agents.Agent):
    """A network of one's own, with weights for every place of an observation."""

    def __init__(self, layout, made_for=None):
        self.weights = torch.randn(layout.size, layout.n_lots, generator=torch.Generator().manual_seed(0))
        if made_for is not None:
            self.made_for = made_for

    def choose(self, observations):
        return observations @ self.weights > 0


def test_an_agent_of_ones_own_plays_only_where_observations_and_actions_mean_what_it_was_made_for():
    home, abroad = Engine(scenario.load("digits"), "equal"), Engine(scenario.load("breast_cancer"), "equal")
    assert home.layout.size == abroad.layout.size
    trained = Trained(home.layout, home.layout)
    agents.play(home, trained, [0])
    agents.play(Engine(scenario.load("digits", horizon=2), "equal"), trained, [0])
    differs = (
        "agent Trained was made for other observations than this scenario has: of the lot features it reads harm/eights, harm/nines, here "
        "are harm/missed_cancer, harm/false_alarm; of the agent features it reads value_loss/eights, "
    )
    for agent in (trained, agents.Seats(agents.make("honest"), {2: trained})):
        with pytest.raises(ValueError, match=differs):
            agents.play(abroad, agent, [0])
    with pytest.raises(ValueError, match=differs):
        agents.SeatEnv("breast_cancer", "equal", others=trained).reset(seed=0)
    more = Engine(scenario.load("digits", **{"lots.per_principal": 5, "lots.rows": 20}), "equal")
    with pytest.raises(ValueError, match=r"than this scenario has: it has 4 lots, here are 5\. Play it"):
        agents.play(more, trained, [0])


def test_the_order_of_features_counts(policy):
    layout = ObservationLayout(4, ("a", "b"))
    assert layout.differences(ObservationLayout(4, ("a", "b"))) == []
    (lots, own) = layout.differences(ObservationLayout(4, ("b", "a")))
    assert lots == "of the lot features it reads harm/a at place 9, where harm/b is here"
    assert own == "of the agent features it reads value_loss/a at place 8, where value_loss/b is here"
    settles = layout.differences(ObservationLayout(4, ("a", "b"), settles=True))
    assert settles == ["of the agent features here are paid_share, last_payout, waiting, until_settlement"]
    _, folder = policy
    learned = agents.make("learned", path=folder)
    with pytest.raises(ValueError, match=r"trained on other lot features .* harm/missed_cancer at place 9, where harm/false"):
        learned.begin(ObservationLayout(4, ("false_alarm", "missed_cancer")), torch.tensor([0]))


def test_an_agent_must_say_what_it_was_made_for_and_may_say_that_it_fits_everything(engine):
    with pytest.raises(ValueError, match=r"agent Trained does not say which observations it reads .*: set made_for = engine.layout"):
        agents.play(engine, Trained(engine.layout), SEEDS)
    for other in ("digits", "breast_cancer"):
        agents.play(Engine(other, "equal"), Trained(engine.layout, "any"), [0])
    assert all(agents.AGENTS[name].made_for == "any" for name in agents.AGENTS if name != "learned")


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
    with pytest.raises(ValueError, match=f"known ones are {', '.join(agents.AGENTS)}"):
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


class Answers(agents.Agent):
    """Answers what it is told to, and spoils what it observes."""

    made_for = "any"

    def __init__(self, answer):
        self.answer = answer

    def choose(self, observations):
        observations.zero_()
        return self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (torch.full((8, 6, 4), 0.7), "numbers other than 0"),
        (torch.full((8, 6, 4), 2), "numbers other than 0"),
        (torch.ones(8, 1, 4), r"answered with \(8, 1, 4\)"),
        (None, "answered with NoneType"),
    ],
)
def test_an_answer_that_is_no_choice_is_refused_in_any_seat(engine, answer, said):
    agent = Answers(answer)
    for company in (agent, agents.Seats(agents.make("honest"), {3: agent})):
        with pytest.raises(ValueError, match=f"agent Answers .*{said}"):
            agents.play(engine, company, SEEDS)
    seat = agents.SeatEnv("breast_cancer", "loo", others=agent)
    seat.reset(seed=0)
    with pytest.raises(ValueError, match="agent Answers"):
        seat.step([1] * 4)


def test_what_an_agent_does_to_its_observations_nobody_else_sees(engine):
    spoils = agents.Seats(Answers(torch.zeros(8, 6, 4)), {0: agents.make("honest")})
    alone = agents.Seats(agents.make("none"), {0: agents.make("honest")})
    one, other = (agents.play(engine, company, SEEDS)["return"] for company in (spoils, alone))
    assert torch.equal(one, other)
    assert engine.history[0].observations.any()


def test_an_agent_that_begins_by_itself_is_told_to_call_super(engine):
    class Forgets(Answers):
        def begin(self, layout, keys):
            pass

    with pytest.raises(RuntimeError, match=r"super\(\).begin\(layout, keys\)"):
        agents.play(engine, Forgets(torch.zeros(8, 6, 4)), SEEDS)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("random", {"probability": "0.5"}),
        ("random", {"probability": True}),
        ("random", {"probability": None}),
        ("honest", {"margin": float("nan")}),
        ("honest", {"margin": "x"}),
        ("learned", {"path": None}),
        ("learned", {"path": 5}),
        ("learned", {"path": "run", "deterministic": "False"}),
    ],
)
def test_arguments_of_agents_are_not_read_otherwise(name, wrong):
    with pytest.raises(ValueError, match=f"^{list(wrong)[-1]}="):
        agents.make(name, **wrong)


def test_seats_and_play_say_what_they_take(engine):
    with pytest.raises(ValueError, match=r"others=.*must be a dictionary of agents by seat"):
        agents.Seats(agents.make("honest"), [agents.make("none")])
    with pytest.raises(ValueError, match="engine='digits': must be an Engine"):
        agents.play("digits", agents.make("honest"))
