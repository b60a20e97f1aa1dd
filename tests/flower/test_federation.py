"""These tests need flwr, which lives in a virtual environment of its own: ``make compat-flower`` runs them."""

import importlib.util
import os
import sqlite3
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # before flwr is imported
pytest.importorskip("flwr.serverapp", reason="flwr is an extra: make compat-flower")
pytest.importorskip("flwr.clientapp", reason="flwr is an extra: make compat-flower")

from flwr.app import ConfigRecord, Message, RecordDict

from proxycoop import agents
from proxycoop.agents.network import FORMAT, LotNetwork
from proxycoop.agents.saved import write
from proxycoop.credit.ledger import Ledger
from proxycoop.envs import Engine
from proxycoop.envs.observations.layout import ObservationLayout
from proxycoop.envs.randomness import fold
from proxycoop.flower import Federation, OwnRows, Site
from proxycoop.flower.messages import Ask, Hello, Introduction, Look, Norms, Offer, from_records, to_records


def load_helpers(name):
    path = Path(__file__).parents[2] / "benchmarks" / "federation" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # the other script imports it by its name
    spec.loader.exec_module(module)
    return module


in_process, kills = load_helpers("in_process"), load_helpers("kills")
FaultyGrid, differences, made, place_of, sites_of = (
    getattr(in_process, name) for name in ("FaultyGrid", "differences", "made", "place_of", "sites_of")
)


def policy(path, cooperative):
    """A policy as training saves it, with random weights: it draws, and reads all that a proxy sees."""
    layout = ObservationLayout.of(cooperative)
    torch.manual_seed(0)
    network = LotNetwork(**layout.sizes, hidden=8)
    size = sum(layout.sizes.values())
    data = {"format": FORMAT, "hidden": 8, "network": network.state_dict(), "greedy": False}
    data |= {"mean": torch.zeros(size), "variance": torch.ones(size)}
    data |= {"lot_features": list(layout.lot_features), "agent_features": list(layout.agent_features)}
    write(path, data, "policy")
    return f"learned(path={str(path)!r})"


# equal to the simulator


@pytest.mark.parametrize("rule", ["shapley", "loo", "fedsv", "shapley(budget=40, seed=1)"])
@pytest.mark.parametrize("governance", ["quorum", "stakeholders"])
@pytest.mark.parametrize("weights", ["fixed", "participants"])
def test_an_episode_is_that_of_the_simulator(rule, governance, weights, tmp_path):
    cooperative = made(weights=weights, **{"screening.governance": governance})
    agent = policy(tmp_path / "policy.pt", cooperative)
    found = differences(cooperative, rule, agent, 4, tmp_path / "rounds", tmp_path / "ledger.db")
    exact = ("contributed", "admitted", "blocked_by", "revenue", "payouts")
    assert {name: found.pop(name) for name in exact} == dict.fromkeys(exact, 0.0)
    assert max(found.values()) < 2e-6
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.verify().ok


@pytest.mark.parametrize(
    ("settings", "agent"),
    [
        ({"screening.filter": "scale", "screening.governance": "own"}, "all"),
        ({"screening.filter": "project", "server": {"kind": "adam", "lr": 0.05}}, "all"),
        ({"settlement": {"period": 2, "reward": "settlement"}}, "random(probability=0.6)"),
        ({"admission": {"capacity": 3, "choose": "by_gain"}, "screening.governance": "none"}, "all"),
        ({"aggregator": {"kind": "median"}, "screening.governance": "none"}, "honest"),
        ({"lots.tags": {"own": 0.5, "scraped": 0.5}, "profiles": [{"holders": 2, "forbidden_tags": ["scraped"]}]}, "all"),
        ({"model": {"kind": "mlp"}, "substrate.local_steps": 2, "screening.governance": "none"}, "all"),
    ],
)
def test_filters_servers_money_admission_and_tags_are_those_of_the_simulator(settings, agent, tmp_path):
    cooperative = made(horizon=4, **settings)
    found = differences(cooperative, "loo", agent, 2, tmp_path)
    assert found["contributed"] == found["admitted"] == found["payouts"] == 0.0
    assert max(found.values()) < 2e-5


def test_what_leaves_a_site_is_one_sum_of_norms_and_the_updates_that_it_offers(tmp_path):
    cooperative, sent = made(horizon=2), []

    def watched(reply, request):
        sent.append(from_records(reply.content))
        return [reply]

    sites = sites_of(cooperative)
    Federation(cooperative, "loo", seed=1, folder=tmp_path).run(FaultyGrid(sites, watched))
    kinds = [type(message) for message in sent]
    assert [kinds.count(kind) for kind in (Introduction, Norms, Offer)] == [6, 12, 12]
    for message in sent:
        if isinstance(message, Norms):
            assert vars(message).keys() == {"place", "t", "total", "n_finite"}
        if isinstance(message, Offer):
            assert len(message.updates) < 4
            assert all(update.shape == (650,) for update in message.updates.values())


def test_sites_with_rows_of_their_own_play_as_if_these_had_been_drawn(tmp_path):
    cooperative = made(horizon=3)
    engine = Engine(cooperative, "loo")
    engine.reset([7])
    policy = agents.make("honest")
    policy.begin(engine.layout, fold(engine.seeds, 0))
    sites = []
    for i in range(6):
        x, y = engine.lots.x[0, i].flatten(0, 1), engine.lots.y[0, i].flatten()
        sites.append(Site(cooperative, "honest", i, OwnRows(x, y, torch.arange(4).repeat_interleave(20), n_classes=10)))
    federation = Federation(cooperative, "loo", seed=7, folder=tmp_path)
    federation.run(FaultyGrid(sites))
    for remote in federation.engine.history:
        ours = engine.step(policy.act(engine.observations))
        assert ours.contributed.equal(remote.contributed)
        torch.testing.assert_close(ours.credit, remote.credit, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(engine.theta, federation.engine.theta, rtol=1e-5, atol=1e-7)


def half_frozen(n_features, n_classes):
    """A layer that is drawn and frozen, and a head that is trained."""
    return torch.nn.Sequential(torch.nn.Linear(n_features, 8).requires_grad_(False), torch.nn.Tanh(), torch.nn.Linear(8, n_classes))


def test_what_a_model_does_not_train_is_the_same_at_a_site_with_rows_of_its_own_on_every_split(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "half_frozen", sys.modules[__name__])
    model = {"kind": "module", "factory": "half_frozen:half_frozen"}
    cooperative = made(horizon=2, model=model, **{"data.splits": 2, "reward.scale": 10.0, "screening.governance": "none"})
    engine, lot = Engine(cooperative, "loo"), torch.arange(4).repeat_interleave(20)
    for episode in range(2):
        engine.reset([7], episode=episode)
        rows = [OwnRows(engine.lots.x[0, i].flatten(0, 1), engine.lots.y[0, i].flatten(), lot, 10) for i in range(6)]
        sites = [Site(cooperative, "all", i, rows[i]) for i in range(6)]
        federation = Federation(cooperative, "loo", seed=7, episode=episode, folder=tmp_path / str(episode))
        federation.run(FaultyGrid(sites))
        while engine.t < 2:
            engine.step(torch.ones(1, 6, 4))
        torch.testing.assert_close(engine.theta, federation.engine.theta, rtol=1e-5, atol=1e-6)


# the ledger


def test_the_ledger_says_who_offered_what_who_objected_by_how_much_and_what_entered(tmp_path):
    cooperative = made(settlement={"period": 2}, horizon=3)
    federation = Federation(cooperative, "shapley", seed=4, folder=tmp_path, ledger=tmp_path / "ledger.db")
    federation.run(FaultyGrid(sites_of(cooperative, "all")))
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.verify().ok
        statements = [ledger.statement("digits/shapley/seed-4/episode-0", f"proxy_{i}") for i in range(6)]
    objected = 0
    for t, result in enumerate(federation.engine.history):
        for i, statement in enumerate(statements):
            one = statement.rounds[t]
            assert one.said["offered"] == [0, 1, 2, 3]
            assert one.said["entered"] == result.admitted[0, i].nonzero()[:, 0].tolist()
            assert one.credit == result.credit[0, i].item()
            assert one.revenue == result.revenue[0].item()
            by_lot = {}
            for it in one.said.get("objections", ()):
                assert it["amount"] > it["limit"]
                assert it["about"] in ("eights", "nines")
                by_lot.setdefault(it["lot"], set()).add(int(it["by"].removeprefix("proxy_")))
                objected += 1
            for k in range(4):
                assert by_lot.get(k, set()) == set(result.blocked_by[0, i, k].nonzero()[:, 0].tolist())
    assert objected
    assert statements[0].rounds[-1].of_all["utility"] == federation.engine.history[-1].utility.item()


# what goes wrong with a site


def broken(kind, change):
    """A fault of principal 2 from round 1 on: of this kind of answer, what ``change`` makes of it."""

    def fault(reply, request):
        message = from_records(reply.content)
        if place_of(reply) != 2 or not isinstance(message, kind) or message.t < 1:
            return [reply]
        return [Message(content, reply_to=request) for content in change(message)]

    return fault


def changed(**fields):
    return lambda message: [to_records(replace(message, **fields))]


def updates(change):
    return lambda message: [to_records(replace(message, updates={k: change(update) for k, update in message.updates.items()}))]


FAULTS = {
    "missing": (Offer, lambda message: [], "did not answer; Flower gave it up after 0 s"),
    "no norm": (Norms, lambda message: [], "did not answer; Flower gave it up after 0 s"),
    "late": (Offer, changed(t=0), "answered about round 0"),
    "shape": (Offer, updates(lambda update: update[:-1]), r"shape (649,) (torch.float32): must be (650,)"),
    "type": (Offer, updates(lambda update: update.double()), "(torch.float64): must be (650,) (torch.float32)"),
    "lot": (Offer, lambda m: [to_records(replace(m, updates={"7": next(iter(m.updates.values()))}))], "offered lot '7'"),
    "id": (Offer, changed(place=3), "answered under the id of 3, and its node is that of proxy_2"),
    "norm's id": (Norms, changed(place=3), "answered under the id of 3"),
    "other message": (Offer, lambda message: [to_records(Norms(2, message.t, 0.0, 4))], "answered with Norms: must be Offer"),
    "nonsense": (Offer, lambda message: [RecordDict({"a": ConfigRecord({"b": 1})})], "sent what cannot be read: its kind is None"),
    "norm": (Norms, changed(total=float("nan")), "said that its updates have norm nan"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_is_no_answer_counts_for_nothing_and_the_ledger_says_why(fault, tmp_path):
    kind, change, reason = FAULTS[fault]
    cooperative = made(**{"screening.governance": "none"})
    federation = Federation(cooperative, "loo", seed=1, folder=tmp_path, ledger=tmp_path / "ledger.db")
    federation.run(FaultyGrid(sites_of(cooperative, "all"), broken(kind, change)))
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.verify().ok
        rounds = ledger.statement(federation.books.cooperative, "proxy_2").rounds
    assert rounds[0].said["entered"] == [0, 1, 2, 3]
    for one in rounds[1:]:
        assert one.said["offered"] == one.said["entered"] == []
        (refusal,) = one.said["refused"]
        assert refusal["lot"] is None
        assert reason in refusal["reason"]
        assert one.credit == 0.0
    for result in federation.engine.history:
        assert result.admitted[0, [0, 1, 3, 4, 5]].all()


@pytest.mark.parametrize(
    ("value", "reason"), [(float("nan"), "its update is not finite"), (1e9, "its update has norm 2.55e+10, above 1e+06")]
)
@pytest.mark.parametrize("governance", ["none", "unanimous"])
def test_updates_that_are_not_finite_or_far_too_long_never_enter(value, reason, governance, tmp_path):
    cooperative = made(**{"screening.governance": governance})
    federation = Federation(cooperative, "loo", seed=1, folder=tmp_path, ledger=tmp_path / "ledger.db")
    fault = broken(Offer, updates(lambda update: torch.full_like(update, value)))
    federation.run(FaultyGrid(sites_of(cooperative, "all"), fault))
    for result in federation.engine.history[1:]:
        assert result.contributed[0, 2].all()  # it offered them, and bears the cost
        assert not result.admitted[0, 2].any()
        assert result.credit[0, 2] == 0
    assert federation.engine.theta.isfinite().all()
    with Ledger(tmp_path / "ledger.db") as ledger:
        refused = ledger.statement(federation.books.cooperative, "proxy_2").rounds[1].said["refused"]
    assert [one["lot"] for one in refused] == [0, 1, 2, 3]
    assert all(reason in one["reason"] for one in refused)


def test_an_answer_that_comes_twice_counts_once(tmp_path):
    cooperative = made(horizon=3)
    once = Federation(cooperative, "loo", seed=4, folder=tmp_path / "once").run(FaultyGrid(sites_of(cooperative, "all")))
    federation = Federation(cooperative, "loo", seed=4, folder=tmp_path / "twice", ledger=tmp_path / "ledger.db")
    federation.run(FaultyGrid(sites_of(cooperative, "all"), broken(Offer, lambda message: [to_records(message)] * 2)))
    assert federation.engine.theta.equal(once.theta)
    with Ledger(tmp_path / "ledger.db") as ledger:
        refused = ledger.statement(federation.books.cooperative, "proxy_2").rounds[1].said["refused"]
    assert refused == [{"lot": None, "reason": "answered more than once: the first answer counts"}]


def test_a_site_that_comes_back_under_another_node_id_takes_its_place_again(tmp_path):
    cooperative = made(horizon=4)
    grid = FaultyGrid(sites_of(cooperative, "all"))

    def moves(result):
        if len(federation.engine.history) == 1:
            away.append(grid.contexts.pop(102))
        if len(federation.engine.history) == 2:
            grid.contexts[777] = away[0]

    away = []
    federation = Federation(cooperative, "loo", seed=4, folder=tmp_path)
    federation.run(grid, moves)
    assert [result.contributed[0, 2].all().item() for result in federation.engine.history] == [True, False, True, True]
    assert federation.nodes[2] == 777


def test_another_node_cannot_take_the_place_of_a_site_that_is_there(tmp_path, caplog):
    cooperative = made(horizon=3)
    grid = FaultyGrid(sites_of(cooperative, "all"))
    federation = Federation(cooperative, "loo", seed=4, folder=tmp_path)

    def intrudes(result):
        grid.contexts.pop(105, None)  # or the server would not look for new nodes
        grid.contexts[778] = grid.contexts[102]

    federation.run(grid, intrudes)
    assert federation.nodes[2] == 102
    assert "node 778 is not taken as proxy_2, whose site is node 102" in caplog.text


# the server is stopped


class StoppedError(Exception):
    """The server's process ends here."""


def stopped_at(federation, where, t, monkeypatch):
    """Stop the server in round t: before its file, after it, before the ledger's transaction, between round and settlement, after."""

    def stop(*args, **kwargs):
        raise StoppedError

    if where == "while asking":
        whole = federation._ask
        monkeypatch.setattr(federation, "_ask", lambda grid, at: stop() if at == t else whole(grid, at))
    elif where == "after the file":
        whole = federation.archive.read
        monkeypatch.setattr(federation.archive, "read", lambda at: stop() if at == t else whole(at))
    elif where == "before the ledger":
        whole = federation.books.write
        monkeypatch.setattr(federation.books, "write", lambda: stop() if federation.engine.t == t + 1 else whole())
    elif where == "before the settlement":
        whole = federation.books.ledger.settle
        monkeypatch.setattr(federation.books.ledger, "settle", lambda *a, **k: stop() if k["key"] == f"round-{t}" else whole(*a, **k))


@pytest.mark.parametrize("where", ["while asking", "after the file", "before the ledger", "before the settlement"])
@pytest.mark.parametrize("t", [1, 3])
def test_a_server_that_is_stopped_goes_on_as_if_it_had_not_been(where, t, tmp_path, monkeypatch):
    cooperative = made()
    whole = Federation(cooperative, "fedsv", seed=4, folder=tmp_path / "whole", ledger=tmp_path / "whole.db")
    whole.run(FaultyGrid(sites_of(cooperative, "all")))
    given = {"seed": 4, "folder": tmp_path / "rounds", "ledger": tmp_path / "ledger.db"}
    first = Federation(cooperative, "fedsv", **given)
    stopped_at(first, where, t, monkeypatch)
    with pytest.raises(StoppedError):
        first.run(FaultyGrid(sites_of(cooperative, "all")))
    monkeypatch.undo()
    second = Federation(cooperative, "fedsv", **given)
    second.run(FaultyGrid(sites_of(cooperative, "all")))
    assert second.engine.theta.equal(whole.engine.theta)
    assert second.engine.credit_so_far.equal(whole.engine.credit_so_far)
    statements = []
    for path in (tmp_path / "whole.db", tmp_path / "ledger.db"):
        with Ledger(path) as ledger:
            assert ledger.verify().ok
            lines = ledger.statement(whole.books.cooperative, "proxy_1").lines
            statements.append([(one.number, one.n_rounds, one.credit, one.revenue, one.payout, one.paid) for one in lines])
    assert statements[0] == statements[1]
    third = Federation(cooperative, "fedsv", **given)  # an episode that is over stays as it is
    third.run(FaultyGrid([]))
    assert third.engine.theta.equal(whole.engine.theta)


def test_a_server_that_starts_anew_waits_for_sites_before_it_asks(tmp_path):
    cooperative = made(horizon=4)
    whole = Federation(cooperative, "loo", seed=4, folder=tmp_path / "whole").run(FaultyGrid(sites_of(cooperative, "all")))
    first = Federation(cooperative, "loo", seed=4, folder=tmp_path / "rounds")

    def stop(result):
        if len(first.engine.history) == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        first.run(FaultyGrid(sites_of(cooperative, "all")), stop)
    grid = FaultyGrid(sites_of(cooperative, "all"))
    sites = dict(grid.contexts)
    grid.contexts.clear()
    threading.Timer(0.5, lambda: grid.contexts.update(sites)).start()
    again = Federation(cooperative, "loo", seed=4, folder=tmp_path / "rounds", wait=30.0).run(grid)
    assert again.theta.equal(whole.theta)


def test_rounds_that_the_ledger_has_and_the_folder_has_not_are_an_error(tmp_path):
    cooperative = made()
    given = {"seed": 4, "folder": tmp_path / "rounds", "ledger": tmp_path / "ledger.db"}
    Federation(cooperative, "loo", **given).run(FaultyGrid(sites_of(cooperative, "all")))
    file = tmp_path / "rounds" / "round-0004.pt"
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(ValueError, match=r"the ledger has round 4 of 'digits/loo/seed-4/episode-0', and folder .* has 4 rounds: put the"):
        Federation(cooperative, "loo", **given).run(FaultyGrid(sites_of(cooperative, "all")))
    file.write_bytes((tmp_path / "rounds" / "round-0003.pt").read_bytes())
    with pytest.raises(ValueError, match=r"the file of round 4 in .* is not the one that the ledger names"):
        Federation(cooperative, "loo", **given).run(FaultyGrid([]))
    file.write_bytes(kept)
    Federation(cooperative, "loo", **given).run(FaultyGrid([]))


def test_two_servers_do_not_play_one_episode(tmp_path):
    cooperative = made()
    federation = Federation(cooperative, "loo", seed=4, folder=tmp_path)
    other = Federation(cooperative, "loo", seed=4, folder=tmp_path)
    with federation.archive.held(), pytest.raises(ValueError, match="is in use by another server"):
        other.run(FaultyGrid(sites_of(cooperative)))


def test_a_full_disk_stops_the_server_in_one_line_and_it_goes_on_later(tmp_path, monkeypatch):
    cooperative = made()
    given = {"seed": 4, "folder": tmp_path / "rounds", "ledger": tmp_path / "ledger.db"}
    federation = Federation(cooperative, "loo", **given)

    def full(path, data, what):
        raise OSError(28, "No space left on device", str(path))

    def after_two(result):
        if len(federation.engine.history) == 2:
            monkeypatch.setattr("proxycoop.agents.saved.write", full)

    with pytest.raises(ValueError, match=r"round 2 cannot be written to .*: No space left on device$"):
        federation.run(FaultyGrid(sites_of(cooperative, "all")), after_two)
    monkeypatch.undo()
    whole = Federation(cooperative, "loo", seed=4, folder=tmp_path / "whole").run(FaultyGrid(sites_of(cooperative, "all")))
    again = Federation(cooperative, "loo", **given).run(FaultyGrid(sites_of(cooperative, "all")))
    assert again.theta.equal(whole.theta)


def test_a_ledger_that_is_busy_is_waited_for(tmp_path):
    cooperative = made(horizon=3)
    federation = Federation(cooperative, "loo", seed=4, folder=tmp_path, ledger=tmp_path / "ledger.db")
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False)

    def hold(result):
        if len(federation.engine.history) == 1:
            holder.execute("BEGIN IMMEDIATE")
            threading.Timer(0.3, lambda: holder.execute("ROLLBACK")).start()

    federation.run(FaultyGrid(sites_of(cooperative, "all")), hold)
    holder.close()
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.verify().ok
        assert len(ledger.statement(federation.books.cooperative, "proxy_0").rounds) == 3


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("probability", [0.0, 0.1])
def test_servers_that_are_killed_and_sites_that_die_lose_and_double_nothing(probability, tmp_path):
    found = kills.survive(tmp_path, rounds=4, kills=3, probability=probability, seed=1)
    assert found.problems == []
    assert found.rounds == 4
    assert found.kills >= 1


# wrong inputs


def test_a_policy_of_another_scenario_is_refused_at_its_site(tmp_path):
    other = policy(tmp_path / "policy.pt", made("breast_cancer"))
    with pytest.raises(ValueError, match="the policy was trained on other lot features than this scenario has: it reads harm/"):
        Site(made(), other, 0)
    with pytest.raises(ValueError, match=r"agent Oracle looks into the simulator: no site can play it|looks into the simulator"):
        Site(made(), "oracle", 0)
    with pytest.raises(ValueError, match="partition-id=6: the scenario's principals go from 0 to 5"):
        Site(made(), "honest", 6)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"substrate": {"kind": "traversal"}}, "substrate traversal: only fedavg"),
        ({"observations.marginal_gains": True}, "no real proxy could know them"),
        ({"screening.governance": "negotiate", "screening.guard": False}, "governance negotiate"),
        ({"screening.harm": "measured"}, "must be first_order"),
    ],
)
def test_scenarios_that_need_what_server_and_sites_do_not_know_are_refused_by_both(settings, reason, tmp_path):
    cooperative = made(**settings)
    for make in (lambda: Site(cooperative, "honest", 0), lambda: Federation(cooperative, "loo", seed=0, folder=tmp_path)):
        with pytest.raises(ValueError, match=f"scenario 'digits' cannot be played in a federation: it has .*{reason}"):
            make()


def test_rules_that_ask_peers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="credit rule 'peer_ranking' cannot serve a federation: it asks members to try each other's"):
        Federation(made(), "peer_ranking", seed=0, folder=tmp_path)


@pytest.mark.parametrize("rule", ["aristocrat", "expected_difference", "normalised(rule='aristocrat')"])
def test_rules_that_ask_for_lots_that_were_withheld_are_refused(rule, tmp_path):
    with pytest.raises(ValueError, match=r"cannot serve a federation: it asks what lots would have gained that were not contributed"):
        Federation(made(), rule, seed=0, folder=tmp_path)


def test_an_unknown_profile_value_is_refused_where_the_scenario_is_read():
    with pytest.raises(ValueError, match="sevens"):
        made(profiles=[{"tolerances": {"sevens": 0.1}}])


def started(tmp_path, sites, fault=lambda reply, request: [reply], **more):
    return Federation(made(), "loo", seed=1, folder=tmp_path, wait=0.0, **more).run(FaultyGrid(sites, fault))


def test_sites_that_do_not_fit_are_told_at_the_start_in_one_line(tmp_path, caplog):
    good = sites_of(made())
    with pytest.raises(ValueError, match=r"no SuperNode has partition-id 4, 5: the cooperative has 6 principals, and 4 of them answered"):
        started(tmp_path, good[:4])
    with pytest.raises(ValueError, match=r"nodes 101 and 102 both have partition-id 1: each needs its own, 0 to 5"):
        started(tmp_path, [good[0], good[1], good[1], *good[3:]])
    other = Site(made(horizon=7), "honest", 2)
    with pytest.raises(ValueError, match=r"the site of proxy_2 \(node 102\) refuses: the server plays another scenario than this site's"):
        started(tmp_path, [*good[:2], other, *good[3:]])
    assert "the server plays another scenario than this site's 'digits'" in caplog.text  # at the site too


def test_a_server_or_a_site_of_another_version_is_told(tmp_path):
    hello = Hello(2, "9.9", "", 0, 0, 64, 10)
    assert (
        sites_of(made())[0]
        .answer(hello)
        .reason.startswith("the server is of another version: it has proxycoop 9.9 (protocol 2), this site ")
    )

    def older(reply, request):
        message = from_records(reply.content)
        if isinstance(message, Introduction) and message.place == 3:
            return [Message(to_records(replace(message, protocol=0, version="0.0")), reply_to=request)]
        return [reply]

    with pytest.raises(ValueError, match=r"node 103: it is of another version: it has proxycoop 0.0 \(protocol 0\), this server"):
        started(tmp_path, sites_of(made()), older)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"tags": [5, 0, 0, 0]}, r"tags of the lots of proxy_2 are \[5, 0, 0, 0\]: must be whole numbers from 0 to 0"),
        ({"samples": [20, -1, 20, 20]}, "samples of the lots of proxy_2 are .*: must be whole numbers from 0 to 1099511627776"),
        ({"samples": [1.5, 2.0, 2.0, 2.0]}, "samples of the lots of proxy_2 are"),
        ({"samples": ["a", "b", "c", "d"]}, "samples of the lots of proxy_2 are"),
    ],
)
def test_a_site_whose_lots_cannot_be_is_told_and_the_folder_can_be_used_when_it_is_put_right(said, reason, tmp_path):
    def wrong(reply, request):
        message = from_records(reply.content)
        if isinstance(message, Introduction) and message.place == 2:
            return [Message(to_records(replace(message, **said)), reply_to=request)]
        return [reply]

    with pytest.raises(ValueError, match=f"node 102: {reason}"):
        started(tmp_path, sites_of(made()), wrong)
    assert len(started(tmp_path, sites_of(made())).history) == 5


def test_a_cooperative_without_rows_leaves_its_folder_as_it_was(tmp_path):
    def empty(reply, request):
        message = from_records(reply.content)
        if isinstance(message, Introduction):
            return [Message(to_records(replace(message, samples=[0] * 4)), reply_to=request)]
        return [reply]

    with pytest.raises(ValueError, match="no site has a row"):
        started(tmp_path, sites_of(made()), empty)
    assert len(started(tmp_path, sites_of(made())).history) == 5


def test_a_node_without_an_id_is_told(tmp_path):
    grid = FaultyGrid(sites_of(made()))
    grid.contexts[103].node_config.pop("partition-id")
    with pytest.raises(ValueError, match=r"node 103 refuses: this node has no partition-id: start its SuperNode with --node-config"):
        Federation(made(), "loo", seed=1, folder=tmp_path, wait=0.0).run(grid)


def test_a_model_of_another_size_is_told_to_the_server(tmp_path):
    site = sites_of(made())[0]
    refusal = site.answer(Look(1, 0, 0, torch.zeros(1, 10)))
    assert refusal.reason == (
        "the server's model has 10 parameters (torch.float32), and this site's softmax has 650 (torch.float32): use the same scenario and "
        "version"
    )


def test_a_folder_of_another_episode_is_refused(tmp_path):
    cooperative = made()
    Federation(cooperative, "loo", seed=4, folder=tmp_path).run(FaultyGrid(sites_of(cooperative)))
    with pytest.raises(ValueError, match="holds an episode with seed 4, not 5: use another"):
        Federation(cooperative, "loo", seed=5, folder=tmp_path).run(FaultyGrid(sites_of(cooperative)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.full((8,), 10)}, "y must be whole numbers from 0 to 9"),
        ({"lot": torch.full((8,), 4)}, "lot must be whole numbers from 0 to 3"),
        ({"x": torch.full((8, 64), float("nan"))}, "x holds numbers that are not finite"),
        ({"y": torch.zeros(7, dtype=torch.int64)}, r"must be \(R, D\), \(R,\) and \(R,\)"),
        ({"tags": ("a",)}, "tags are a: must be 4 of"),
    ],
)
def test_rows_of_a_site_that_do_not_fit_are_refused(change, message):
    zeros = torch.zeros(8, dtype=torch.int64)
    rows = OwnRows(**{"x": torch.zeros(8, 64), "y": zeros, "lot": zeros, "n_classes": 10, **change})
    with pytest.raises(ValueError, match=message):
        rows.as_lots(made())


def test_messages_that_cannot_be_read_are_told_in_one_line():
    ask = Offer(0, 0, {"1": torch.zeros(3)})
    assert from_records(to_records(ask)).updates["1"].equal(torch.zeros(3))
    records = to_records(ask)
    del records["message"]["t"]
    with pytest.raises(ValueError, match="its Offer lacks, or has too many of: t"):
        from_records(records)
    records = to_records(ask)
    records["message"]["t"] = "0"
    with pytest.raises(ValueError, match="t of its Offer is a str: must be int"):
        from_records(records)
    assert Ask.__doc__


HELD = {"x": np.zeros((8, 64)), "y": np.zeros(8, dtype=int), "lot": np.arange(8) % 4, "n_classes": 10}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"y": None}, "no array y: must have x, y, lot and n_classes"),
        ({"y": np.array(["a"] * 8)}, r"y is of type <U1, shape \(8,\): must be an array of numbers"),
        ({"y": np.array([{}] * 8)}, "no .npz file of numbers: must have arrays x, y, lot and n_classes"),
        ({"n_classes": np.arange(3)}, r"n_classes is of type int64, shape \(3,\): must be one whole number"),
    ],
)
def test_a_file_of_rows_that_lacks_something_is_told(change, reason, tmp_path):
    held = {name: array for name, array in (HELD | change).items() if array is not None}
    np.savez(tmp_path / "rows.npz", **held)
    with pytest.raises(ValueError, match=f"rows '.*rows.npz': {reason}"):
        OwnRows.read(tmp_path / "rows.npz")


@pytest.mark.parametrize("content", [b"x,y\n1,2\n", b"", b"PK\x03\x04 cut off"])
def test_a_file_that_is_none_of_rows_is_told(content, tmp_path):
    (tmp_path / "rows.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"rows '.*rows.npz': no .npz file of numbers"):
        OwnRows.read(tmp_path / "rows.npz")
    with pytest.raises(ValueError, match=r"rows '.*gone.npz' cannot be read: No such file or directory"):
        OwnRows.read(tmp_path / "gone.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"rows '.*one.npy': no .npz file of numbers"):
        OwnRows.read(tmp_path / "one.npy")


def test_rows_are_read_as_they_were_written(tmp_path):
    np.savez(tmp_path / "rows.npz", **HELD)
    rows = OwnRows.read(tmp_path / "rows.npz")
    assert (rows.x.shape, rows.y.sum(), rows.lot.tolist(), rows.n_classes) == ((8, 64), 0, [0, 1, 2, 3] * 2, 10)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": torch.zeros(8, 63)}, "rows: there are 63 features, and the cooperative's model takes 64"),
        ({"n_classes": 2}, "rows: there are 2 classes, and the cooperative's model takes 10"),
        ({"x": torch.zeros(0, 64), "y": torch.zeros(0).long(), "lot": torch.zeros(0).long()}, "rows: there are none"),
    ],
)
def test_rows_that_the_model_does_not_take_are_refused_before_the_first_round(change, reason, tmp_path):
    lot = torch.arange(8) % 4
    rows = OwnRows(**{"x": torch.zeros(8, 64), "y": torch.zeros(8).long(), "lot": lot, "n_classes": 10, **change})
    cooperative = made(**{"reward.scale": 1.0})
    sites = sites_of(cooperative)
    sites[2] = Site(cooperative, "honest", 2, rows)
    with pytest.raises(ValueError, match=rf"the site of proxy_2 \(node 102\) refuses: {reason}"):
        Federation(cooperative, "loo", seed=1, folder=tmp_path, wait=0.0).run(FaultyGrid(sites))


def test_a_ledger_that_was_lost_is_not_written_anew(tmp_path):
    where = {"folder": tmp_path / "rounds", "ledger": tmp_path / "ledger.db"}
    Federation(made(), "loo", seed=1, **where).run(FaultyGrid(sites_of(made())))
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"has 5 rounds that were recorded, and the ledger has 0 of 'digits/loo/seed-1/episode-0': put the"
    ):
        Federation(made(), "loo", seed=1, **where).run(FaultyGrid([]))


def test_a_message_of_another_protocol_whose_fields_differ_is_told(tmp_path):
    content = to_records(Hello(2, "9.9", "", 0, 0, 64, 10))
    del content["message"]["n_classes"]
    with pytest.raises(ValueError, match="its Hello is of protocol 2, and this side has 1: install the same version of proxycoop"):
        from_records(content)


def test_no_time_to_answer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="timeout=0: no site could answer; must be a positive number of seconds"):
        Federation(made(), "loo", seed=1, folder=tmp_path, timeout=0.0)
