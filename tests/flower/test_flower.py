"""These tests need flwr, which lives in a virtual environment of its own: ``make compat-flower`` runs them."""

import importlib.util
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # before flwr is imported
pytest.importorskip("flwr.serverapp", reason="flwr is an extra: make compat-flower")
pytest.importorskip("flwr.clientapp", reason="flwr is an extra: make compat-flower")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result

from proxycoop import credit
from proxycoop.envs import Engine, scenario
from proxycoop.envs.screening.profiles import Profile
from proxycoop.flower import ValueConstrainedStrategy

ROOT = Path(__file__).parents[2]
NAN = float("nan")


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flower_digits", ROOT / "examples" / "flower_digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load_example()


def line() -> nn.Linear:
    """y = w x + b at w = b = 0."""
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def fit(model: nn.Module) -> Tensor:
    """−(w − 1)² − (b − 1)², so that v(w, b) = 2(w + b) − (w² + b²) on the first round."""
    return -(model.weight - 1).square().sum() - (model.bias - 1).square().sum()


def moves(w: float, b: float, rows: int = 10, partition: object = None, **more: object) -> Callable[[Message, Context], Message]:
    """A client that adds (w, b) to what it is sent."""

    def train(message: Message, context: Context) -> Message:
        state = message.content["arrays"].to_torch_state_dict()
        state = {"weight": state["weight"] + w, "bias": state["bias"] + b}
        return reply(message, context, state, rows, partition, **more)

    return train


def reply(message, context, state, rows=10, partition=None, config=None, metrics=None) -> Message:
    who = context.node_config["partition-id"] if partition is None else partition
    content = RecordDict({"arrays": ArrayRecord(state)})
    content["metrics"] = MetricRecord({"num-examples": rows, **({"partition-id": who} if isinstance(who, int) else {}), **(metrics or {})})
    if config:
        content["config"] = ConfigRecord(config)
    return Message(content, reply_to=message)


def broken(message: Message, context: Context, data: bytes | None) -> Message:
    """A reply whose first array is made of these bytes; or with an array record too many."""
    answer = moves(0.1, 0.1)(message, context)
    if data is None:
        answer.content["more"] = ArrayRecord()
    else:
        answer.content["arrays"]["weight"] = Array("float32", (1, 1), "numpy.ndarray", data)
    return answer


def failing(message: Message, context: Context) -> Message:
    raise RuntimeError("out of memory")


def run(parts: list[Callable], n_rounds: int = 1, model: Callable = line, **kwargs) -> tuple[ValueConstrainedStrategy, Result]:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return parts[context.node_config["partition-id"]](message, context)

    settings = {"model": model, "utility": fit, "clients": len(parts), "fraction_evaluate": 0.0, **kwargs}
    strategy = ValueConstrainedStrategy(**settings)
    grid = example.InProcessGrid(app, len(parts))
    return strategy, strategy.start(grid=grid, initial_arrays=ArrayRecord(model().state_dict()), num_rounds=n_rounds)


def end(result: Result) -> list[float]:
    state = result.arrays.to_torch_state_dict()
    return [state["weight"].item(), state["bias"].item()]


# the same as the package's own substrate

STRICT = [{"holders": 2, "tolerances": {"eights": 0.05}}, {"holders": 2, "tolerances": {"nines": 0.05}}]
SPREAD = [{"tolerances": {"eights": 0.02}}, {"holders": 2, "tolerances": {"eights": 0.35}}, {"tolerances": {"nines": 0.35}}]
MIXED = [
    {"holders": 2, "relative_tolerances": {"eights": 0.2}, "stake": 2.0},
    {"tolerances": {"eights": 0.2}, "relative_tolerances": {"nines": 0.1}},
    {"direction": {"eights": 1.0, "nines": -2.0}, "max_norm": 0.8},
]


@pytest.mark.parametrize(
    ("rule", "overrides"),
    [
        ("shapley", {}),
        ("cgsv", {}),
        ("in_run", {}),
        ("fedsv", {"weights": "participants"}),
        ("veto_shapley", {"screening": {"governance": "quorum", "quorum": 0.7, "guard": True}}),
        ("shapley", {"screening.governance": "own"}),
        ("shapley", {"screening": {"filter": "scale"}, "profiles": STRICT}),
        ("in_run", {"screening": {"filter": "project"}, "profiles": STRICT}),
        ("shapley", {"screening": {"governance": "own", "filter": "project", "guard": True}, "weights": "participants"}),
        ("shapley", {"screening": {"governance": "weighted", "quorum": 0.8, "filter": "project"}, "profiles": STRICT}),
        ("veto_shapley", {"screening": {"governance": "weighted", "weigh_by": "stake", "quorum": 0.6}, "profiles": MIXED}),
        ("shapley", {"screening": {"governance": "stakeholders", "quorum": 0.6}, "profiles": SPREAD}),
        ("shapley", {"screening": {"governance": "stakeholders", "filter": "scale"}, "profiles": MIXED}),
        ("shapley", {"screening": {"filter": "project"}, "profiles": MIXED}),
    ],
)
def test_the_same_clients_give_the_model_and_the_credit_of_the_package_s_own_federated_averaging(rule, overrides):
    settings = {"lots.per_principal": 1, "lots.rows": (20, 60, 40, 80, 50, 30), "reward.scale": 1.0, **overrides}
    made = scenario.load("digits", **{"screening.guard": False, **settings})
    # limits are measured, and what is kept back of them for rounding differs between the strategy's precision and the engine's
    engine = Engine(made.model_copy(update={"profiles": made.unlimited().profiles}), rule)
    engine.reset([5])
    held_out, probe = engine.splits.validation, engine.splits.probe
    profiles = [*engine.scenario.profiles, Profile()]
    lots, names = engine.lots, list(engine.values)

    def client(i: int):
        rows = int(lots.samples[i, 0])
        x, y = lots.x[0, i, 0, :rows], lots.y[0, i, 0, :rows]

        def train(message: Message, context: Context) -> Message:
            model = nn.Linear(64, 10)
            model.load_state_dict(message.content["arrays"].to_torch_state_dict())
            nn.functional.cross_entropy(model(x), y).backward()
            state = {name: p.detach() - engine.scenario.substrate.local_lr * p.grad for name, p in model.named_parameters()}
            return reply(message, context, state, rows)

        return train

    def loss(rows):
        return lambda model: nn.functional.cross_entropy(model(rows.x), rows.y)

    def start() -> nn.Linear:
        model, w = nn.Linear(64, 10), engine._ground.theta.reshape(65, 10)
        model.load_state_dict({"weight": w[:-1].T, "bias": w[-1]})
        return model

    strategy, result = run(
        [client(i) for i in range(6)],
        n_rounds=4,
        model=start,
        utility=lambda model: -loss(held_out)(model),
        credit=rule,
        values={name: loss(probe[name]) for name in names},
        profiles=[profiles[kind].model_copy(update={"holders": 1}) for kind in engine.profiles.kind[0].tolist()],
        screening=engine.scenario.screening,
        weights=engine.scenario.weights,
    )
    for t, record in enumerate(strategy.history):
        here = engine.prospect
        ours = engine.step(torch.ones(1, 6, 1))
        assert record.admitted.equal(ours.admitted[0, :, 0])
        assert record.blocked_by.equal(ours.blocked_by[0, :, 0])
        torch.testing.assert_close(record.kept.float(), ours.kept[0, :, 0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(record.harm.float(), here.harm[0, :, 0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(record.credit.float(), ours.credit[0], rtol=1e-3, atol=2e-6)
        torch.testing.assert_close(torch.tensor(record.utility), ours.utility[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.tensor(record.gamma), ours.gamma[0], rtol=1e-4, atol=0)
        torch.testing.assert_close(torch.tensor(list(record.value_losses.values())), ours.value_losses[0], rtol=1e-5, atol=1e-5)
        assert result.train_metrics_clientapp[t + 1]["credit/3"] == record.credit[3].item()
    assert any(record.admitted.any() for record in strategy.history)
    assert not all((record.kept == 1).all() for record in strategy.history)
    state = result.arrays.to_torch_state_dict()
    w = torch.cat([state["weight"].T, state["bias"][None]])
    torch.testing.assert_close(w.flatten(), engine.theta[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(strategy.credits.float(), engine.credit_so_far[0], rtol=1e-3, atol=5e-6)


def test_the_same_seed_gives_the_same_bits_whatever_order_nodes_are_sampled_in():
    clients = [moves(0.1, 0.2, 10), moves(0.3, 0.0, 30), moves(-0.1, 0.7, 20)]
    outcomes = []
    for seed in (0, 1):
        random.seed(seed)
        strategy, result = run(clients, n_rounds=3, credit="svarm(budget=7, seed=3)")
        outcomes.append((end(result), strategy.credits.tolist()))
    assert outcomes[0] == outcomes[1]


# by hand


def test_two_clients_who_fit_a_line_by_hand():
    # shares ¼ and ¾: steps (½, 0), (½, ½) and (1, ½); v = ¾, 1½, 1¾, and so ½ (0.75 + 0.25) and ½ (1.5 + 1)
    strategy, result = run([moves(2.0, 0.0, 10, metrics={"loss": 4.0}), moves(2 / 3, 2 / 3, 30, metrics={"loss": 8.0})])
    metrics = result.train_metrics_clientapp[1]
    assert end(result) == pytest.approx([1.0, 0.5])
    assert dict(metrics) == pytest.approx(
        {
            "loss": 7.0,
            "credit/0": 0.5,
            "credit/1": 1.25,
            "contributed/0": 1,
            "contributed/1": 1,
            "admitted/0": 1,
            "admitted/1": 1,
            "utility": -0.25,
            "gain": 1.75,
        },
        abs=1e-6,
    )
    assert strategy.history[0].weights.tolist() == [0.25, 0.75]
    assert strategy.history[0].evaluations == 4


def test_without_profiles_it_does_what_fedavg_does():
    clients = [moves(0.5, -1.0, 10, metrics={"loss": 1.0}), moves(0.1, 0.3, 30, metrics={"loss": 3.0}), moves(1.0, 1.0, 5)]
    clients[2] = moves(1.0, 1.0, 5, metrics={"loss": 0.5})
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return clients[context.node_config["partition-id"]](message, context)

    plain = FedAvg(fraction_evaluate=0.0).start(example.InProcessGrid(app, 3), ArrayRecord(line().state_dict()), num_rounds=3)
    for weights in ("fixed", "participants"):  # as long as everybody takes part
        _, ours = run(clients, n_rounds=3, weights=weights)
        assert end(ours) == pytest.approx(end(plain), abs=1e-6)
        assert ours.train_metrics_clientapp[3]["loss"] == pytest.approx(plain.train_metrics_clientapp[3]["loss"])


def test_an_update_that_harms_a_value_beyond_a_tolerance_is_screened_out():
    values = {"small": lambda model: model.weight.sum() ** 2 + model.weight.sum()}  # gradient 1 at w = 0
    profiles = {1: {"tolerances": {"small": 0.6}}}
    strategy, result = run([moves(1.0, 0.0), moves(0.5, 0.5), moves(0.0, 0.2)], values=values, profiles=profiles)
    record = strategy.history[0]
    assert record.harm[:, 0].tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert record.admitted.tolist() == [False, True, True]
    assert record.blocked_by.tolist() == [[False, True, False], [False] * 3, [False] * 3]
    assert record.reasons == {0: "sent an update that is inadmissible to 1"}
    assert record.credit[0].abs() < 1e-12
    assert end(result) == pytest.approx([0.5 / 3, 0.7 / 3])  # fixed weights: the rest does not get more
    assert result.train_metrics_clientapp[1]["value/small"] == pytest.approx((0.5 / 3) ** 2 + 0.5 / 3)
    assert result.train_metrics_clientapp[1]["admitted/0"] == 0
    _, renormalised = run([moves(1.0, 0.0), moves(0.5, 0.5), moves(0.0, 0.2)], values=values, profiles=profiles, weights="participants")
    assert end(renormalised) == pytest.approx([0.25, 0.35])


def test_filters_let_in_the_largest_part_or_the_nearest_update_and_say_how_much_is_left():
    values, profiles = {"w": lambda model: model.weight.sum()}, {1: {"tolerances": {"w": 0.25}}}  # gradient (1, 0)
    clients = [moves(1.0, 0.5), moves(0.0, 0.5)]
    scaled, after_scaling = run(clients, values=values, profiles=profiles, screening={"filter": "scale"})
    assert scaled.history[0].kept.tolist() == pytest.approx([0.25, 1.0], abs=1e-5)
    assert end(after_scaling) == pytest.approx([0.125, 0.0625 + 0.25], abs=1e-5)
    projected, after_projection = run(clients, values=values, profiles=profiles, screening={"filter": "project"})
    assert projected.history[0].kept.tolist() == pytest.approx([(0.25**2 + 0.5**2) ** 0.5 / 1.25**0.5, 1.0], abs=1e-5)
    assert end(after_projection) == pytest.approx([0.125, 0.5], abs=1e-5)
    for strategy in (scaled, projected):
        record = strategy.history[0]
        assert record.admitted.all()
        assert record.blocked_by.tolist() == [[False, True], [False, False]]  # as it was sent
        assert record.reasons == {}
        assert record.credit.sum().item() == pytest.approx(record.gain)


def test_the_guard_holds_what_a_value_may_lose_over_all_rounds_by_measurement():
    values, profiles = {"w²": lambda model: model.weight.sum().square()}, [{}, {"limits": {"w²": 0.25}}]  # to first order it begins flat
    strategy, result = run(
        [moves(1.0, 0.0), moves(1.0, 0.5)],
        n_rounds=3,
        values=values,
        profiles=profiles,
        screening={"governance": "none", "guard": True},
    )
    assert [record.gamma for record in strategy.history] == pytest.approx([0.5, 0.0, 0.0], abs=1e-4)
    assert end(result) == pytest.approx([0.5, 0.125], abs=1e-4)
    _, unguarded = run([moves(1.0, 0.0), moves(1.0, 0.5)], values=values, profiles=profiles, screening={"governance": "none"})
    assert end(unguarded) == pytest.approx([1.0, 0.25])


def test_the_guard_shrinks_the_step_of_own_governance_to_everybody_s_limits():
    strategy, result = run(
        [moves(1.0, 0.0), moves(1.0, 0.0)], profiles=[{}, {"max_norm": 2.0}, {}][:2], screening={"governance": "own", "guard": True}
    )
    assert strategy.history[0].gamma == 1.0
    values, profiles = {"w": lambda model: model.weight.sum()}, [{}, {"tolerances": {"w": 0.5}}]
    strategy, result = run(
        [moves(2.0, 0.0), moves(0.0, 1.0)], values=values, profiles=profiles, screening={"governance": "own", "guard": True}
    )
    assert strategy.history[0].admitted.all()
    assert result.train_metrics_clientapp[1]["gamma"] == pytest.approx(0.5, abs=1e-5)  # a step of (1, ½) harms by 1
    assert end(result) == pytest.approx([0.5, 0.25], abs=1e-5)
    assert strategy.history[0].gain == pytest.approx(2 * 0.75 - (0.25 + 0.0625), abs=1e-5)


def test_forbidden_tags_are_screened_out_by_what_clients_say_of_their_data():
    clients = [moves(0.1, 0, config={"tag": "scraped"}), moves(0.2, 0, config={"tag": "licensed"}), moves(0.3, 0)]
    strategy, _ = run(clients, profiles=[{"forbidden_tags": ["scraped"]}])
    assert strategy.history[0].admitted.tolist() == [False, True, True]


def test_a_rule_with_a_memory_remembers_over_the_rounds_and_not_over_two_starts():
    clients = [moves(0.2, 0.0), moves(0.1, 0.1), moves(0.0, 0.3)]
    strategy, _ = run(clients, n_rounds=3, credit="cgsv")
    rule, expected, model = credit.make("cgsv"), [], line()
    rule.reset(1, 3)
    for t in range(3):
        updates = [{"weight": torch.tensor([[w]]), "bias": torch.tensor([b])} for w, b in ((0.2, 0.0), (0.1, 0.1), (0.0, 0.3))]
        expected.append(rule.assign(credit.from_updates(model, updates, utility=fit, t=t))[0])
        for parameter, name in ((model.weight, "weight"), (model.bias, "bias")):
            parameter.data += sum(update[name] for update in updates) / 3
    torch.testing.assert_close(torch.stack([record.credit for record in strategy.history]), torch.stack(expected), rtol=1e-4, atol=1e-6)
    first = strategy.credits
    strategy.reset()
    assert strategy.credits.tolist() == [0.0] * 3
    again, _ = run(clients, n_rounds=3, credit=strategy.rule)
    assert again.credits.equal(first)


# clients that go wrong


@pytest.mark.parametrize("governance", ["none", "own", "unanimous", "quorum"])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (moves(NAN, 0.0), "sent an update that is not finite"),
        (moves(0.0, float("inf")), "sent an update that is not finite"),
        (lambda m, c: reply(m, c, {"weight": torch.ones(1, 2), "bias": torch.ones(1)}), "has shape (1, 2), must be (1, 1)"),
        (lambda m, c: reply(m, c, {"weight": torch.ones(1, 1)}), "lacks 'bias'"),
        (lambda m, c: reply(m, c, {"weight": torch.ones(1, 1), "bais": torch.ones(1)}), "unknown entry 'bais' (did you mean 'bias'?)"),
        (
            lambda m, c: reply(m, c, {"weight": torch.ones(1, 1), "bias": torch.ones(1).int()}),
            "'bias' is torch.int32, must be floating point",
        ),
        (lambda m, c: broken(m, c, b"no numpy"), "sent arrays that cannot be read"),
        (lambda m, c: broken(m, c, b""), "sent arrays that cannot be read"),
        (lambda m, c: broken(m, c, b"PK\x03\x04 no zip"), "sent arrays that cannot be read"),
        (lambda m, c: broken(m, c, None), "sent 2 array records, must be 1"),
        (moves(0.1, 0.1, rows=0), "did not report one positive number as 'num-examples'"),
        (moves(0.1, 0.1, rows=NAN), "did not report one positive number as 'num-examples'"),
    ],
)
def test_a_client_whose_update_cannot_be_used_is_screened_out_and_the_others_go_on(bad, reason, governance, caplog):
    with caplog.at_level(logging.WARNING, logger="flwr"):
        strategy, result = run([moves(1.0, 0.0), bad, moves(0.0, 1.0)], n_rounds=2, screening={"governance": governance})
    for record in strategy.history:
        assert record.contributed.all()
        assert record.admitted.tolist() == [True, False, True]
        assert record.blocked_by[1].all()
        assert reason in record.reasons[1]
        assert record.credit[1].abs() < 1e-12
        assert record.credit.isfinite().all()
        assert record.credit[0] > 0
    share = 1 / 3 if strategy.history[0].weights[1] else 1 / 2  # a client that says nothing of its data has no weight yet
    assert end(result) == pytest.approx([2 * share, 2 * share])
    metrics = result.train_metrics_clientapp[2]
    assert (metrics["contributed/1"], metrics["admitted/1"]) == (1, 0)


def test_a_client_that_fails_takes_no_part_and_keeps_its_weight_once_it_is_known():
    calls = []

    def fails_later(message: Message, context: Context) -> Message:
        calls.append(None)
        return moves(0.3, 0.0, 20)(message, context) if len(calls) == 1 else failing(message, context)

    strategy, result = run([moves(0.3, 0.0, 10), fails_later, failing], n_rounds=2)
    first, second = strategy.history
    assert first.weights.tolist() == pytest.approx([1 / 3, 2 / 3, 0.0])
    assert second.weights.tolist() == first.weights.tolist()
    assert second.contributed.tolist() == [True, False, False]
    assert second.reasons == {1: "was not asked, failed, or did not answer", 2: "was not asked, failed, or did not answer"}
    assert second.credit[1:].abs().max() < 1e-12
    assert end(result) == pytest.approx([0.4, 0.0])  # 0.3 and then a third of it
    told, result = run([moves(0.3, 0.0, 99), failing], clients={0: 10, 1: 30})  # what is told beforehand is what counts
    assert told.history[0].weights.tolist() == [0.25, 0.75]
    assert end(result) == pytest.approx([0.075, 0.0])


@pytest.mark.parametrize("clients", [[failing, failing], [moves(NAN, 0.0), failing]])
def test_if_nobody_is_admitted_the_model_stays_as_it_is_and_nobody_is_paid(clients):
    for rule in ("shapley", "cgsv", "in_run", "fedsv"):
        strategy, result = run(clients, n_rounds=2, credit=rule)
        assert end(result) == [0.0, 0.0]
        assert not strategy.credits.any()
        assert (result.train_metrics_clientapp[2]["credit/0"], result.train_metrics_clientapp[2]["gain"]) == (0.0, 0.0)


def test_two_replies_of_one_client_or_of_nobody_or_of_a_stranger_are_errors():
    with pytest.raises(ValueError, match=r"two replies have the 'partition-id' 0: every client must have its own"):
        run([moves(0.1, 0.0), moves(0.1, 0.0, partition=0)])
    with pytest.raises(ValueError, match=r"the reply of node 101 holds no 'partition-id'"):
        run([moves(0.1, 0.0), moves(0.1, 0.0, partition="not in the metrics")])
    with pytest.raises(ValueError, match=r"node 101: unknown partition-id 7: the known ones are 0, 1"):
        run([moves(0.1, 0.0), moves(0.1, 0.0, partition=7)])


def test_clients_may_have_names_that_they_report_in_a_config_record():
    clients = [moves(0.3, 0.0, partition="x", config={"office": "north"}), moves(0.0, 0.6, partition="x", config={"office": "south"})]
    strategy, result = run(clients, clients=["south", "north"], id_key="office")
    assert strategy.clients == ("south", "north")
    assert result.train_metrics_clientapp[1]["credit/south"] == pytest.approx(2 * 0.3 - 0.09)
    assert result.train_metrics_clientapp[1]["credit/north"] == pytest.approx(2 * 0.15 - 0.0225)


def test_metrics_that_cannot_be_averaged_are_left_out():
    _, result = run([moves(0.1, 0.0, metrics={"loss": 1.0}), moves(0.1, 0.0, metrics={"accuracy": 1.0})])
    assert {"loss", "accuracy"}.isdisjoint(result.train_metrics_clientapp[1])
    assert "credit/0" in result.train_metrics_clientapp[1]


def test_counters_keep_the_server_s_values_and_statistics_are_shared():
    def model() -> nn.Module:
        made = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
        nn.init.zeros_(made[0].weight)
        return made.eval()

    def train(message: Message, context: Context) -> Message:
        state = message.content["arrays"].to_torch_state_dict()
        state["1.running_mean"] += 1.0
        state["1.num_batches_tracked"] += 5
        return reply(message, context, state)

    _, result = run([train, train], n_rounds=2, model=model, utility=lambda m: m[1].running_mean.sum())
    state = result.arrays.to_torch_state_dict()
    assert state["1.running_mean"].item() == 2.0
    assert (state["1.num_batches_tracked"].item(), state["1.num_batches_tracked"].dtype) == (0, torch.int64)
    assert result.train_metrics_clientapp[2]["credit/0"] == pytest.approx(0.5)


# what whoever sets it up can get wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clients": 0}, "clients=0: must be a positive number"),
        ({"clients": [1, 1]}, "distinct ids"),
        ({"clients": {0: 10, 1: 0}}, "numbers of data rows must be positive"),
        ({"credit": "shaply"}, "unknown credit rule 'shaply'"),
        ({"credit": "peer_ranking"}, "needs peer_gains"),
        ({"clients": 30, "credit": "shapley"}, "at most 20 agents, got 30"),
        ({"weights": "equal"}, "weights='equal': must be one of fixed, participants"),
        ({"profiles": [{}, {}, {}]}, "3 holders in all, but there are only 2 clients"),
        ({"profiles": {5: {}}}, "unknown client in profiles 5: the known ones are 0, 1"),
        ({"profiles": {1: {"holders": 2}}}, "leave out 'holders'"),
        ({"profiles": [{"tolerances": {"x": 1.0}}]}, "unknown value in a profile 'x'"),
        ({"profiles": [{"tolerance": {}}]}, "tolerance"),
        ({"screening": {"governance": "majority"}}, "governance"),
        (
            {"screening": {"governance": "negotiate"}},
            "governance negotiate .*: the strategy supports only harm first_order, and every governance except negotiate",
        ),
        ({"screening": {"harm": "measured"}}, "harm measured: the strategy supports only harm first_order"),
        ({"screening": {"harm": "second_order"}}, "harm second_order: the strategy supports only harm first_order"),
        ({"screening": {"filter": "project"}, "credit": "veto_own"}, "'veto_own' needs vetoes: .*screening with filter reject"),
        ({"profiles": [{"direction": {"x": 1.0}}]}, "unknown value in a profile 'x'"),
        ({"profiles": [{"relative_tolerances": {"x": 1.0}}]}, "unknown value in a profile 'x'"),
        ({"model": nn.ReLU()}, "model has no parameters to share"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        ValueConstrainedStrategy(**{"model": line, "utility": fit, "clients": 2, **arguments})


def test_what_only_a_round_can_show_is_refused_in_the_first():
    one = [moves(0.1, 0.1)]
    with pytest.raises(ValueError, match="value 'x' has no gradient"):
        run(one, values={"x": lambda model: 1.0})
    with pytest.raises(ValueError, match="the utility of clients"):
        run(one, utility=lambda model: NAN)
    with pytest.raises(ValueError, match="this cooperative has no utility_gradient"):
        run(one, utility=lambda model: fit(model).item(), credit="in_run")
    strategy = ValueConstrainedStrategy(model=line, utility=fit, clients=1)
    with pytest.raises(ValueError, match=r"initial_arrays\['weight'\] has shape \(2, 1\), must be \(1, 1\)"):
        strategy.start(example.InProcessGrid(ClientApp(), 1), ArrayRecord(nn.Linear(1, 2).state_dict()))
    with pytest.raises(RuntimeError, match="before configure_train"):
        ValueConstrainedStrategy(model=line, utility=fit, clients=1).aggregate_train(1, [])


def test_rules_that_answer_with_something_else_are_refused():
    class Odd(credit.CreditRule):
        def assign(self, round):
            return torch.zeros(2)

    with pytest.raises(ValueError, match=r"credit rule Odd answered with .* must be finite numbers of shape \(1, 1\)"):
        run([moves(0.1, 0.1)], credit=Odd())


def test_the_example_prints_who_earned_what(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["flower_digits.py", "--credit", "loo"])
    example.main()
    printed = capsys.readouterr().out
    assert "credit by loo" in printed
    assert "screened out" in printed
    assert printed.count("\n") == 2 + example.N_ROUNDS + 2 + 1
    assert "before, 8" in printed


def test_the_guard_keeps_relative_tolerances_too():
    values = {"w": lambda model: model.weight.sum() + 1.0}  # loss 1, gradient 1
    profiles = [{}, {"relative_tolerances": {"w": 0.5}}]
    strategy, _ = run([moves(2.0, 0.0), moves(0.0, 1.0)], values=values, profiles=profiles, screening={"governance": "own", "guard": True})
    assert strategy.history[0].gamma == pytest.approx(0.5, abs=1e-5)  # a step of (1, ½) harms by 1
