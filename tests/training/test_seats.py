"""Agents that play some of the seats: in a training they do not learn, and everywhere else they take the policy's place."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from proxycoop import agents
from proxycoop.agents.seats import Company, seated, seats_named
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.vector import CooperativeVecEnv
from proxycoop.training.analysis.audit import audit
from proxycoop.training.analysis.explain import explain
from proxycoop.training.commands.options import seats_of
from proxycoop.training.compare import cells, compare, results
from proxycoop.training.evaluate import agent_maker, evaluate
from proxycoop.training.libraries.registry import LIBRARIES, settings_for
from proxycoop.training.pages.again import command
from proxycoop.training.train import train

ABLE = [("ippo", "ppo"), ("sb3", "ppo"), ("sb3", "a2c"), ("sb3-contrib", "maskable_ppo")]


def settings(small, library="ippo", algo="ppo", **changes):
    """Four updates of 48 agent-steps: two of three proxies learn."""
    chosen = {"scenario": small, "credit": "loo", "total_steps": 180, "num_cooperatives": 4, "seats": ("1=all",), **changes}
    return settings_for(library, algo, **chosen)


# who sits where


def test_seats_are_written_as_on_the_command_line_and_come_in_order():
    assert seats_named(["2=none", "0=all"], 3) == {0: "all", 2: "none"}
    assert seats_named([], 3) == {}


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["none"], "seat 'none': write a seat's number and an agent's name, such as 0=none"),
        (["-1=none"], "seat '-1=none': write a seat's number"),
        (["0="], "seat '0=': write a seat's number"),
        (["3=none"], "seat '3=none': seats go from 0 to 2"),
        (["0=none", "0=all"], "seat '0=all': seat 0 is 'none' already: name each seat once"),
        (["0=nome"], r"unknown agent 'nome' \(did you mean 'none'\?\): the known ones are all, best_reply, blocker"),
    ],
)
def test_wrong_seats_are_refused(assignments, message):
    with pytest.raises(ValueError, match=message):
        seats_named(assignments, 3)


@pytest.mark.parametrize("seat", ["random", "honest", "oracle"])
def test_rows_around_fixed_seats_play_what_the_same_agents_play_in_their_seats(small, seat):
    env = CooperativeVecEnv(small, "loo", 4, others=Company({1: seat}, 3), seed=5)
    engine = Engine(small, "loo", 4)
    assert env.num_envs == 8
    observations = env.reset()
    seeds = env.engine.seeds.tolist()
    for _ in range(2):  # the next episode begins by itself
        rounds = []
        agents.play(engine, seated(agents.make("all"), {1: seat}), seeds, before_round=lambda engine: rounds.append(engine.observations))  # noqa: B023
        for seen, result in zip(rounds, engine.history, strict=True):
            assert np.array_equal(observations, seen[:, [0, 2]].flatten(end_dim=1).numpy())
            observations, rewards, *_ = env.step(np.ones((8, 4), dtype=np.int64))
            assert np.array_equal(rewards, result.rewards[:, [0, 2]].flatten().numpy())
        seeds = None


# training


@pytest.mark.parametrize(("library", "algo"), [*ABLE, ("sb3", "dqn")])
def test_every_library_that_says_so_trains_around_seats_that_do_not_learn(small, tmp_path, monkeypatch, library, algo):
    contributed = []
    step = Engine.step

    def look(engine, actions):
        result = step(engine, actions)
        contributed.append(result.contributed)
        return result

    monkeypatch.setattr(Engine, "step", look)
    folder = train(settings(small, library, algo, seats=("0=none", "1=all")), tmp_path / "run", tensorboard=False)
    played = torch.stack([one for one in contributed if len(one) == 4])  # (T, E, N, K)
    assert not played[:, :, 0].any()
    assert played[:, :, 1].all()
    assert 0.1 < played[:, :, 2].float().mean() < 0.9
    assert json.loads((folder / "run.json").read_text())["settings"]["seats"] == ["0=none", "1=all"]
    steps = [point["agent_steps"] for point in json.loads((folder / "curve.json").read_text())["updates"]]
    assert steps[0] == 6 * 4  # of the one proxy that learns


@pytest.mark.parametrize(("library", "algo"), ABLE)
def test_a_run_around_fixed_seats_that_is_cut_off_goes_on_to_the_same_numbers(small, resumed, library, algo):
    whole_episodes = {"n_steps": 6} if algo == "a2c" else {}
    resumed(settings(small, library, algo, seats=("1=random",), checkpoint_every=1, **whole_episodes), after=100)


@pytest.mark.parametrize("library", [name for name, one in LIBRARIES.items() if not one.seats])
def test_a_library_that_cannot_says_so_and_which_can(small, library):
    with pytest.raises(ValueError, match=f"library '{library}' cannot train around agents in fixed seats: .* sb3, sb3-contrib, ippo"):
        settings(small, library, None)
    settings(small, library, None, seats=())


@pytest.mark.parametrize(
    ("seats", "message"),
    [
        (["0=learned"], "0=learned: the policy that is trained plays all seats that are not named"),
        (["0=none", "1=none", "2=none"], "all 3 seats are taken: leave one to the policy that is trained"),
        (["3=none"], "seats go from 0 to 2"),
    ],
)
def test_seats_that_leave_nobody_or_nothing_to_learn_are_refused(small, seats, message):
    with pytest.raises(ValueError, match=message):
        settings(small, seats=seats)


def test_a_run_without_fixed_seats_is_recorded_as_before(small):
    assert "seats" not in settings(small, seats=()).plain()


# evaluating, auditing, explaining, playing


def test_commands_say_whose_seats_are_whose_and_a_policy_keeps_the_company_that_it_learned_in(small, tmp_path, run):
    folder = train(settings(small), tmp_path / "run", tensorboard=False)
    words = ["evaluate", folder, "--episodes", 2, "--json", tmp_path / "a.json"]
    assert "played by the policy of" in (out := run(*words)[1])
    assert ", with all in seat 1" in out
    assert json.loads((tmp_path / "a.json").read_text())["seats"] == {"1": "all"}
    alone = run(*words[:-1], tmp_path / "b.json", "--seat", "1=learned", "--seat", "0=none")[1]
    assert ", with none in seat 0\n" in alone
    assert json.loads((tmp_path / "b.json").read_text())["seats"] == {"0": "none"}
    page = tmp_path / "audit.html"
    assert ", with all in seat 1" in run("audit", folder, "--episodes", 1, "--out", page)[1]
    assert ", with all in seat 1" in page.read_text()
    page = tmp_path / "explain.html"
    wanted = ["explain", folder, "--episodes", 2, "--budget", 60, "--draws", 1, "--seat", "2=none", "--out", page]
    assert ", with all in seat 1 and none in seat 2" in run(*wanted)[1]
    assert ", with all in seat 1 and none in seat 2" in page.read_text()
    for command_name in ("evaluate", "audit", "explain"):
        code, _, err = run(command_name, "--agent", "honest", "-s", folder / "scenario.yaml", "--seat", "7=none")
        assert (code, err) == (2, "error: --seat '7=none': seats go from 0 to 2\n")
        code, _, err = run(command_name, "--agent", "honest", "-s", folder / "scenario.yaml", "--seat", "1=learned")
        assert (code, err) == (2, "error: --seat 1=learned: there is no policy; give the folder of a training run\n")


def test_the_evaluation_of_a_seated_agent_is_that_of_the_mixed_company(small, tmp_path, run):
    text = tmp_path / "small.yaml"
    text.write_text(small.to_yaml())
    words = ["-s", text, "-c", "loo", "--episodes", 4, "--seed", 9, "--home", "--json", tmp_path / "a.json"]
    run("evaluate", "--agent", "honest", "--seat", "0=none", *words)
    engine = Engine(small, "loo", 4)
    metrics = agents.play(engine, agents.Seats(agents.make("honest"), {0: agents.make("none")}), range(9, 13))
    measured = json.loads((tmp_path / "a.json").read_text())["measures"]
    assert measured["welfare"][0] == pytest.approx(float(metrics["welfare"].double().mean()), rel=1e-5)


def test_features_are_explained_of_the_policy_alone_and_proxies_of_everybody(small):
    found = explain(small, agent_maker("honest"), credit="loo", seats={0: "none", 1: "oracle"}, episodes=2, seed=9, budget=60, draws=1)
    read = [name for name, is_read in zip(found.features.outcomes.players, found.features.is_read, strict=True) if is_read]
    assert read == ["lot/excess_loss", "lot/own_admissible"]  # the others read nothing
    whole = explain(small, agent_maker("honest"), credit="loo", episodes=2, seed=9, budget=60, draws=1)
    assert 3 * found.features.n_lots == whole.features.n_lots
    idle = found.proxies.seats == 0
    assert (found.proxies.returns[idle] == 0).all()
    assert (found.proxies.welfare[idle] == 0).all()  # who contributes nothing is worth nothing
    assert (found.proxies.welfare[found.proxies.seats == 1] != 0).any()
    with pytest.raises(ValueError, match="all 3 seats are taken, and none is left to the policy"):
        explain(small, agent_maker("honest"), seats=dict.fromkeys(range(3), "none"), episodes=2)


# comparing


def test_a_comparison_trains_and_plays_in_the_same_company_and_says_so_in_its_results(small, tmp_path, forking):
    how = {"total_steps": 48, "num_cooperatives": 2, "episodes": 2, "library": "ippo"}
    todo = cells([small], ["loo"], [0], seats=["1=none"], **how)
    with forking():
        compare(todo, tmp_path / "out", jobs=1, quiet=True)
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        assert {row["seats"] for row in csv.DictReader(file)} == {"1=none"}
    found = results(tmp_path / "out")
    assert all(result["cell"]["seats"] == ["1=none"] for result in found)
    for result in found:
        if result["cell"]["agent"] == "all":
            assert result["measures"]["clean_share"][0] < 1
    with pytest.raises(ValueError, match=r"another seats \(seats: \['1=none'\] and \[\]\)"):
        compare(cells([small], ["loo"], [0], **how), tmp_path / "out", quiet=True)


def test_the_command_that_repeats_a_comparison_seats_the_same_agents(small):
    from proxycoop.training.analysis.summary import summarise

    todo = cells([small], ["loo"], [0], seats=["1=none", "0=all"], total_steps=48, episodes=2, library="ippo")
    found = [{"cell": cell.description(), "measures": {}, "series": {}, "curve": []} for cell in todo]
    assert "--seat 0=all --seat 1=none" in command(found, summarise(found))[0]


# populations


@pytest.fixture
def peopled(small):
    """Three proxies, of which the last contributes everything and the first nothing."""
    members = Scenario.model_validate({"population": [{"agent": "none", "seats": [0]}, {"agent": "all", "count": 1}]}).population
    return small.model_copy(update={"population": members})


def test_a_population_takes_its_seats_in_a_training_and_all_is_as_with_the_same_seats(peopled, small, tmp_path):
    assert peopled.company == {0: "none", 2: "all"}
    of_population, by_seats = settings(peopled, seats=()), settings(small, seats=("0=none", "2=all"))
    assert of_population.seats == ("0=none", "2=all")
    assert of_population.n_learners == 1
    policies = [train(one, tmp_path / name, tensorboard=False) for one, name in ((of_population, "a"), (by_seats, "b"))]
    weights = [agents.make("learned", path=folder)._network.state_dict() for folder in policies]
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())


def test_seats_that_are_given_take_the_place_of_the_population_s(peopled):
    assert settings(peopled, seats=("0=learned", "1=random")).seats == ("1=random", "2=all")
    with pytest.raises(ValueError, match=r"all 3 seats are taken"):
        settings(peopled, seats=("1=random",))


def test_a_seat_that_was_given_back_in_the_training_stays_the_policy_s(peopled, small, tmp_path):
    run = train(settings(peopled, seats=("0=learned",)), tmp_path / "run", tensorboard=False)
    assert seats_of(None, peopled, run) == {2: "all"}
    assert seats_of(["2=learned"], peopled, run) == {}
    other = peopled.model_copy(update={"population": (*peopled.population, peopled.population[0].model_copy(update={"seats": (1,)}))})
    assert seats_of(None, other, run) == {0: "none", 1: "none", 2: "all"}
    assert seats_of(None, small, run) == {2: "all"}


def test_evaluate_audit_and_explain_seat_the_population(peopled, small):
    given = evaluate(small, "loo", lambda: seated(agents.make("honest"), {0: "none", 2: "all"}), episodes=2)
    own = evaluate(peopled, "loo", agents.make("honest"), episodes=2)
    assert own.measures["welfare"] == given.measures["welfare"]
    plain = evaluate(peopled, "loo", lambda: seated(agents.make("honest"), {}, instead=True), episodes=2)
    assert plain.measures["welfare"] == evaluate(small, "loo", agents.make("honest"), episodes=2).measures["welfare"]
    found = audit(peopled, lambda: agents.make("honest"), credit="loo", episodes=2)
    assert not found.contributed[:, :, 0].any()


def test_a_comparison_seats_the_population_of_each_scenario(peopled, small, tmp_path):
    other = small.model_copy(update={"name": "other"})
    todo = cells([peopled, other], ["loo"], [0], episodes=2, evaluation_splits=1, library="ippo", total_steps=48, num_cooperatives=4)
    assert {cell.settings.scenario.name: cell.settings.seats for cell in todo} == {peopled.name: ("0=none", "2=all"), "other": ()}
    compare([cell for cell in todo if cell.agent in ("learned", "honest")], tmp_path, jobs=1, quiet=True)
    with (tmp_path / "results.csv").open() as file:
        seats = {(row["scenario"], row["agent"]): row["seats"] for row in csv.DictReader(file)}
    assert seats[peopled.name, "honest"] == seats[peopled.name, "learned"] == "0=none 2=all"
    assert seats["other", "honest"] == ""


def test_a_seat_s_environment_leaves_the_population_its_seats(peopled):
    env = agents.SeatEnv(peopled, "loo", seat=0, others="all")
    env.reset(seed=1)
    env.step(np.ones(env.action_space.shape, dtype=np.int64))
    assert env.engine.history[0].contributed.all()
    env = agents.SeatEnv(peopled, "loo", seat=1, others="all")
    env.reset(seed=1)
    env.step(np.ones(env.action_space.shape, dtype=np.int64))
    assert not env.engine.history[0].contributed[:, 0].any()


@pytest.mark.parametrize(
    ("population", "said"),
    [
        ([{"agent": "none"}], "needs one of seats, all_but, count, share"),
        ([{"agent": "none", "seats": [0], "count": 1}], "needs one of seats, all_but, count, share"),
        ([{"agent": "none", "seats": [7]}], "seats go from 0 to 5"),
        ([{"agent": "none", "seats": []}], "at least one seat"),
        ([{"agent": "none", "share": 1}], "takes all 6 seats"),
        ([{"agent": "none", "share": 0}], "greater than 0"),
        ([{"agent": "none", "seats": [0]}, {"agent": "all", "seats": [0]}], "seat 0 is 'none' already"),
    ],
)
def test_wrong_populations_are_refused(population, said):
    with pytest.raises(ValueError, match=said):
        scenario.load("digits", population=population)
