import copy

import pytest
import torch
from torch import Tensor, nn

from proxycoop import credit
from proxycoop.envs import Engine, scenario
from proxycoop.envs.screening.verdicts import let_through

LINE = {"weight": torch.tensor([[1.0]]), "bias": torch.tensor([0.0])}
BOTH = {"weight": torch.tensor([[1.0]]), "bias": torch.tensor([1.0])}


def line() -> nn.Linear:
    """y = w x + b at w = b = 0, in double precision."""
    model = nn.Linear(1, 1).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def fit(model: nn.Module) -> Tensor:
    """−½ Σ (w x + b − y)² on the rows (1, 2) and (−1, 0), which is −(w − 1)² − (b − 1)²."""
    x, y = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[2.0], [0.0]]).double()
    return -0.5 * (model(x) - y).square().sum()


def double(update: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: change.double() for name, change in update.items()}


def of_line(**kwargs) -> credit.Round:
    """Client 0 moves w by 1, client 1 moves w and b by 1, both with weight ½ unless told."""
    return credit.from_updates(line(), [double(LINE), double(BOTH)], **{"utility": fit, **kwargs})


# by hand: v(w, b) = 2(w + b) − (w² + b²)


def test_two_clients_who_fit_a_line_by_hand():
    # steps (½, 0), (½, ½), (1, ½): v = 1 − ¼, 2 − ½, 3 − 1¼
    the_round = of_line()
    assert the_round.game.values().tolist() == [[0.0, 0.75, 1.5, 1.75]]
    assert the_round.gain.tolist() == [1.75]
    # ½ (0.75 + 0.25) and ½ (1.5 + 1)
    assert credit.make("shapley").assign(the_round).tolist() == [[0.5, 1.25]]
    assert the_round.updates.tolist() == [[[0.5, 0.0], [0.5, 0.5]]]
    assert the_round.utility_gradient().tolist() == [[2.0, 2.0]]
    assert the_round.utility_curvature(torch.tensor([[1.0, -3.0]])).tolist() == [[-2.0, 6.0]]
    assert the_round.class_head.tolist() == [0, 0]
    assert the_round.samples.tolist() == [[1], [1]]
    assert (the_round.num_envs, the_round.num_agents, the_round.t, the_round.episode) == (1, 2, 0, 0)


def test_weights_are_taken_as_they_are():
    # steps (1, 0), (2, 2), (3, 2): v = 1, 8 − 8, 10 − 13
    assert of_line(weights=[1.0, 2.0]).game.values().tolist() == [[0.0, 1.0, 0.0, -3.0]]


def test_renormalised_weights_sum_to_one_over_whoever_is_there_and_the_factor_comes_on_top():
    # steps (½, 0), (½, ½), and a third and two thirds of them: ½·(1/3 + 2/3, 2/3)
    the_round = of_line(weights=[1.0, 2.0], renormalise=True, factor=0.5)
    expected = [0.75, 1.5, 2 * (1 / 2 + 1 / 3) - (1 / 4 + 1 / 9)]
    assert the_round.game.values()[0, 1:].tolist() == pytest.approx(expected, abs=1e-15)
    assert the_round.updates.sum(dim=1)[0].tolist() == pytest.approx([1 / 2, 1 / 3], abs=1e-15)


def test_what_is_not_admitted_is_zero_in_the_game_but_not_among_the_lots():
    the_round = of_line(admitted=[True, False])
    assert the_round.game.values().tolist() == [[0.0, 0.75, 0.0, 0.75]]
    assert the_round.updates.tolist() == [[[0.5, 0.0], [0.0, 0.0]]]
    assert the_round.blocked_by[0, :, 0].tolist() == [[False, False], [True, True]]  # by everybody, if nothing else is said
    sets = torch.tensor([[[[False], [True]], [[True], [True]]]])
    assert the_round.lots.value(sets).tolist() == [[1.5, 1.75]]
    assert the_round.lots.candidates.tolist() == [[[True], [False]]]


def test_who_contributed_nothing_is_not_admitted_and_would_have_been():
    the_round = of_line(contributed=[False, True])
    assert the_round.took_part.tolist() == [[False, True]]
    assert the_round.admitted.tolist() == [[[False], [True]]]
    assert the_round.game.values().tolist() == [[0.0, 0.0, 1.5, 1.5]]
    assert the_round.lots.candidates.all()


def test_blocked_updates_are_not_admitted_unless_the_caller_says_so():
    blocked_by = [[False, True], [False, False]]  # client 1 objects to client 0's
    assert of_line(blocked_by=blocked_by).admitted.tolist() == [[[False], [True]]]
    alone = of_line(blocked_by=blocked_by)
    assert alone.let_through(torch.tensor([[True, False], [True, True]]))[0, :, :, 0].tolist() == [[True, False], [False, True]]

    def nobody_screens(coalitions: torch.Tensor) -> torch.Tensor:
        return torch.ones(1, len(coalitions), 2, 1, dtype=torch.bool)

    everything = of_line(blocked_by=blocked_by, admitted=[True, True], screening=nobody_screens)
    assert everything.admitted.all()
    assert everything.lots.candidates.all()


def test_what_is_admitted_must_be_what_the_screening_lets_through():
    blocked_by = [[False, True], [False, False]]
    with pytest.raises(ValueError, match="admitted: client 0 is admitted, but somebody blocks it"):
        of_line(blocked_by=blocked_by, admitted=[True, True])
    with pytest.raises(ValueError, match="admitted: client 1 is not admitted, but it contributed, and nobody blocks it"):
        of_line(blocked_by=blocked_by, admitted=[False, False])
    with pytest.raises(ValueError, match=r"screening answered with shape \(1, 2\) for everybody, must be \(1, C, 2, 1\)"):
        of_line(screening=lambda coalitions: torch.ones(len(coalitions), 2, dtype=torch.bool))


def test_the_utility_may_be_given_by_position_and_must_be_given() -> None:
    by_position = credit.from_updates(line(), [double(LINE), double(BOTH)], [0.5, 0.5], fit)
    assert by_position.game.values().tolist() == of_line().game.values().tolist()
    with pytest.raises(ValueError, match="utility=None: must be a function from a module to a number, higher is better"):
        credit.from_updates(line(), [double(LINE), double(BOTH)])


def test_peers_try_each_part_of_the_step_on_their_own_data():
    # losses w² and (b − 1)² at 0; the parts are (½, 0) and (½, ½)
    the_round = of_line(peers=[lambda model: model.weight.square().sum(), lambda model: float((model.bias - 1) ** 2)])
    assert the_round.peer_gains.tolist() == [[[-0.25, -0.25], [0.0, 0.75]]]


def test_nobody_admitted_gains_exactly_nothing():
    the_round = of_line(admitted=[False, False])
    for rule in ("shapley", "loo", "cgsv", "fedsv", "in_run"):
        assert not credit.make(rule).assign(the_round).any()


# the same as other rounds


def rules_without(*lacking: str) -> list[str]:
    return [name for name in credit.RULES if not set(credit.make(name).needs) & {"columns", "audits", *lacking}]


def pay_alike(rounds: list[credit.Round], others: list[credit.Round], names: list[str]) -> None:
    """Over an episode, every rule pays the same in both, to 1e-9."""
    for name in names:
        rule, other = credit.make(name), credit.make(name)
        for one in (rule, other):
            one.reset(1, rounds[0].num_agents)
        for a, b in zip(rounds, others, strict=True):
            torch.testing.assert_close(rule.assign(a), other.assign(b), rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_a_quadratic_utility_makes_the_round_that_the_battery_knows(learning_round):
    rounds, others = [], []
    generator = torch.Generator().manual_seed(0)
    for t in range(3):
        updates = torch.randn(5, 3, dtype=torch.float64, generator=generator) / 5
        own = torch.randn(5, 3, dtype=torch.float64, generator=generator)
        contributed = torch.rand(5, generator=generator) < 0.8
        blocked_by = torch.rand(5, 5, generator=generator) < 0.1
        admitted = contributed & ~blocked_by.any(dim=1)
        samples = torch.randint(1, 9, (5,), generator=generator)
        weights = torch.rand(5, dtype=torch.float64, generator=generator) + 0.5
        target = own.mean(dim=0)
        model = nn.Linear(1, 3, bias=False).double()
        nn.init.zeros_(model.weight)
        rounds.append(
            credit.from_updates(
                model,
                [{"weight": update[:, None]} for update in updates],
                weights,
                utility=lambda model, target=target: -0.5 * (model.weight[:, 0] - target).square().sum(),
                contributed=contributed,
                blocked_by=blocked_by,
                samples=samples,
                peers=[lambda model, mine=mine: 0.5 * (model.weight[:, 0] - mine).square().sum() for mine in own],
                t=t,
            )
        )
        of_lots = weights[:, None] * updates
        others.append(
            learning_round(
                (admitted[:, None] * of_lots)[None],
                target[None],
                admitted=admitted[None, :, None],
                contributed=contributed[None, :, None],
                samples=samples[:, None],
                blocked_by=blocked_by[None, :, None],
                lot_updates=of_lots[None, :, None],
                own_targets=own[None],
                t=t,
            )
        )
        torch.testing.assert_close(rounds[-1].peer_gains, others[-1].peer_gains)
    assert not all(the_round.admitted.all() for the_round in rounds)
    pay_alike(rounds, others, rules_without())


def engine_s_order(engine: Engine, model: nn.Module) -> Tensor:
    """Where the module's flat parameters are in the engine's: softmax regression has classes last and the bias as a last row."""
    places = torch.arange(engine.model.n_parameters)
    if engine.scenario.model.kind == "softmax":
        w = places.reshape(-1, model.out_features)  # (D + 1, C)
        return torch.cat([w[:-1].T.flatten(), w[-1]])
    return places


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("softmax", {}),
        ("mlp", {"model.hidden": [5]}),
        ("softmax", {"weights": "participants", "server.lr": 0.7}),
        ("softmax", {"screening.governance": "quorum", "screening.guard": True}),
    ],
)
def test_an_engine_s_round_is_rebuilt_from_its_updates_as_state_dicts(kind, overrides):
    settings = {"lots.per_principal": 1, "model.kind": kind, "lots.rows": 60, **overrides}
    engine = Engine(scenario.load("digits", **settings), None, dtype=torch.float64)
    engine.reset([3])
    splits = engine.splits
    if kind == "softmax":
        model = nn.Linear(splits.n_features, splits.n_classes).double()
    else:
        model = copy.deepcopy(engine.model.module).double()
    place = engine_s_order(engine, model)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}

    def state(theta: Tensor) -> dict[str, Tensor]:
        parts = theta[place].split([shape.numel() for shape in shapes.values()])
        return {name: part.reshape(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}

    def loss(x: Tensor, y: Tensor):
        return lambda model: nn.functional.cross_entropy(model(x), y)

    utility = loss(splits.validation.x, splits.validation.y)
    peers = [loss(x[0], y[0]) for x, y in zip(engine.lots.x[0], engine.lots.y[0], strict=True)]
    contributions = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1]])[:, None, :, None]
    rounds, others = [], []
    for t in range(2):
        look, theta = engine.prospect, engine.theta[0]
        result = engine.step(contributions[t])
        model.load_state_dict(state(theta))
        the_round = credit.from_updates(
            model,
            [state(update) for update in look.proposals.updates[0, :, 0]],
            look.proposals.share[0, :, 0],
            utility=lambda model: -utility(model),
            contributed=result.contributed[0, :, 0],
            admitted=result.admitted[0, :, 0],
            blocked_by=result.blocked_by[0, :, 0],
            screening=lambda coalitions, look=look: let_through(coalitions, look.verdicts, engine.scenario.screening),
            renormalise=engine.scenario.weights == "participants",
            factor=float(result.gamma) * engine.scenario.server.lr,
            samples=engine.lots.samples[:, 0],
            peers=peers,
            t=t,
        )
        known = engine.round
        torch.testing.assert_close(the_round.game.values(), known.game.values(), rtol=0, atol=1e-12)
        torch.testing.assert_close(the_round.updates, known.updates[..., place], rtol=0, atol=1e-12)
        torch.testing.assert_close(the_round.utility_gradient(), known.utility_gradient()[:, place], rtol=0, atol=1e-12)
        direction = torch.randn(1, len(place), dtype=torch.float64, generator=torch.Generator().manual_seed(t))
        expected = known.utility_curvature(direction)[:, place]
        torch.testing.assert_close(the_round.utility_curvature(direction[:, place]), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(the_round.peer_gains, known.peer_gains, rtol=0, atol=1e-12)
        assert the_round.class_head.equal(known.class_head[place])
        assert the_round.lots.candidates.equal(known.lots.candidates)
        sets = torch.rand(1, 9, 6, 1, generator=torch.Generator().manual_seed(t)) < 0.5
        torch.testing.assert_close(the_round.lots.value(sets), known.lots.value(sets), rtol=0, atol=1e-12)
        assert the_round.gain.abs() > 1e-4
        rounds.append(the_round)
        others.append(known)
    pay_alike(rounds, others, rules_without())


# the module


def test_the_caller_s_module_is_never_changed_and_may_be_changed_at_once():
    model = line().eval()
    model.bias.requires_grad_(False)
    updates = [double(LINE), double(BOTH)]
    modes = []
    the_round = credit.from_updates(model, updates, utility=lambda copy: modes.append(copy.training) or fit(copy))
    nn.init.ones_(model.weight)
    updates[0]["weight"] += 5
    assert the_round.game.values().tolist() == [[0.0, 0.75, 1.5, 1.75]]
    assert the_round.utility_gradient().tolist() == [[2.0, 2.0]]
    assert not any(modes)
    assert (model.weight.item(), model.bias.item(), model.bias.requires_grad, model.weight.grad) == (1.0, 0.0, False, None)


def test_every_set_of_clients_is_tried_once_and_those_that_differ_by_what_is_not_admitted_are_one():
    calls = []
    model, third = line(), double(BOTH)
    the_round = credit.from_updates(
        model, [double(LINE), double(BOTH), third], utility=lambda copy: calls.append(None) or fit(copy), admitted=[True, True, False]
    )
    assert not calls
    the_round.game.values()
    credit.make("fedsv").assign(the_round)
    the_round.lots.value(torch.tensor([[[[True], [False], [False]]]]))
    assert len(calls) == 4
    assert the_round.game.evaluations == 8


def test_games_are_played_without_gradients_and_gradients_are_there_even_where_they_are_switched_off():
    seen = []
    the_round = of_line(utility=lambda model: seen.append(torch.is_grad_enabled()) or fit(model))
    with torch.no_grad():
        _ = the_round.gain, the_round.utility_gradient()
    assert seen == [False, False, True]


def test_a_module_in_single_precision_gives_a_round_in_double_precision():
    updates = [LINE, BOTH]
    the_round = credit.from_updates(line().float(), updates, utility=lambda model: fit(model.double().float().double()).float())
    assert (the_round.gain.dtype, the_round.updates.dtype, the_round.utility_gradient().dtype) == (torch.float64,) * 3
    assert credit.make("shapley").assign(the_round).tolist() == [[0.5, 1.25]]


def test_a_utility_that_is_linear_has_no_curvature_and_one_that_ignores_a_parameter_no_gradient_for_it():
    the_round = of_line(utility=lambda model: 3.0 * model.weight.sum())
    assert the_round.utility_gradient().tolist() == [[3.0, 0.0]]
    assert the_round.utility_curvature(torch.ones(1, 2)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("utility", [lambda model: fit(model).item(), lambda model: fit(model).detach(), lambda model: 1])
def test_a_utility_that_answers_with_a_number_has_games_but_no_gradient(utility):
    the_round = of_line(utility=utility)
    credit.make("shapley").assign(the_round)
    with pytest.raises(ValueError, match="this cooperative has no utility_gradient: the utility must be differentiable"):
        the_round.utility_gradient()
    with pytest.raises(ValueError, match="this cooperative has no utility_curvature"):
        the_round.utility_curvature(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="this cooperative has no peer_gains"):
        _ = the_round.peer_gains


def test_floating_buffers_are_shared_and_counters_are_not():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    moved = {name: torch.zeros_like(entry) for name, entry in model.state_dict().items()}
    moved["1.running_mean"] += 1.0
    moved["1.num_batches_tracked"] += 7  # ignored
    still = {name: torch.zeros_like(entry) for name, entry in model.state_dict().items() if entry.is_floating_point()}
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()

    def utility(model: nn.Module) -> Tensor:
        assert int(model[1].num_batches_tracked) == 0
        model(x)  # in training mode this moves the statistics, which must not be seen by the next coalition
        return model[1].running_mean.sum() - 3.0 + 0.0 * model[0].weight.sum()

    seen = credit.from_updates(model.eval(), [moved, still], [0.5, 0.5], utility=utility)
    assert seen.game.values()[0].tolist() == pytest.approx([0.0, 1.0, 0.0, 1.0])
    assert seen.updates.shape == (1, 2, 4 + 2 + 2 + 2 + 2 + 2)
    assert seen.updates[0, 0].tolist() == [0.0] * 10 + [0.5, 0.5] + [0.0] * 2
    assert seen.utility_gradient().shape == (1, 14)
    training = credit.from_updates(model.train(), [moved, still], [0.5, 0.5], utility=utility)
    assert training.game.values()[0].tolist() == pytest.approx([0.0, 0.9, 0.0, 0.9])  # momentum 0.1 forgets a tenth of it
    assert int(model[1].num_batches_tracked) == 0


def test_the_class_head_stops_before_the_buffers():
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2)).double()
    still = {name: torch.zeros_like(entry) for name, entry in model.state_dict().items()}
    the_round = credit.from_updates(model, [still], utility=lambda model: 0.0)
    assert the_round.class_head.tolist() == [-1, -1, 0, 1, 0, 1, -1, -1]
    assert the_round.updates.shape[-1] == 8
    headless = nn.PReLU().double()
    with pytest.raises(ValueError, match="no class_head"):
        _ = credit.from_updates(headless, [{"weight": torch.zeros(1).double()}], utility=lambda model: 0.0).class_head


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(1, 1, bias=False).double()
        self.b = nn.Linear(1, 1, bias=False).double()
        self.b.weight = self.a.weight


def test_a_tensor_of_two_names_counts_once():
    one = torch.ones(1, 1).double()
    for update in ({"a.weight": one}, {"a.weight": one, "b.weight": one}):
        the_round = credit.from_updates(Tied(), [update], utility=lambda model: (model.a.weight + model.b.weight).sum())
        assert the_round.gain.tolist() == pytest.approx([2.0])
        assert the_round.updates.shape == (1, 1, 1)
    with pytest.raises(ValueError, match=r"updates\[0\]\['b.weight'\] differs from 'a.weight'"):
        credit.from_updates(Tied(), [{"a.weight": one, "b.weight": 2 * one}], utility=fit)


# what a caller can get wrong

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1.0]}, r"weights has shape \(1,\) for 2 clients"),
        ({"weights": [1.0, -0.5]}, r"weights\[1\]=-0.5: must be a finite number, at least 0"),
        ({"weights": [NAN, 1.0]}, r"weights\[0\]=nan"),
        ({"weights": [INF, 1.0]}, r"weights\[0\]=inf"),
        ({"contributed": [True]}, r"contributed must be bool of shape \(2,\), got torch.bool \(1,\)"),
        ({"contributed": [1, 0]}, r"contributed must be bool of shape \(2,\), got torch.int64"),
        ({"admitted": [True]}, "admitted must be bool"),
        ({"contributed": [True, False], "admitted": [True, True]}, "admitted: client 1 contributed nothing"),
        ({"blocked_by": [[True, False]]}, r"blocked_by must be bool of shape \(2, 2\), got torch.bool \(1, 2\)"),
        ({"samples": [3]}, r"samples=\[3\]: must be one whole number a client, at least 0, for 2 clients"),
        ({"samples": [3.5, 1.0]}, "samples="),
        ({"samples": [3, -1]}, "samples="),
        ({"peers": [fit]}, "peers has 1 entries for 2 clients"),
        ({"factor": -1.0}, "factor=-1.0: must be a finite number, at least 0"),
        ({"factor": NAN}, "factor=nan"),
        ({"t": -1}, "t=-1: must be a whole number, at least 0"),
        ({"episode": -1}, "episode=-1: must be a whole number, at least 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        of_line(**arguments)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (
            {**LINE, "wieght": torch.ones(1)},
            r"updates\[1\]: unknown entry 'wieght' \(did you mean 'weight'\?\): the known ones are bias, weight",
        ),
        ({"weight": torch.ones(1, 1)}, r"updates\[1\] lacks 'bias': an entry is needed for all of weight, bias"),
        ({**LINE, "bias": torch.ones(2)}, r"updates\[1\]\['bias'\] has shape \(2,\), must be \(1,\)"),
        ({**LINE, "bias": [1.0]}, r"updates\[1\]\['bias'\] is a list, must be a tensor"),
        ({**LINE, "bias": torch.tensor([NAN])}, r"updates\[1\]\['bias'\] holds NaN or infinity"),
        ({**LINE, "weight": torch.tensor([[-INF]])}, r"updates\[1\]\['weight'\] holds NaN or infinity"),
        (torch.ones(2), r"updates\[1\] is a Tensor, must be a state dict of differences"),
    ],
)
def test_updates_that_do_not_fit_the_module_are_refused_by_client_and_entry(update, message):
    with pytest.raises(ValueError, match=message):
        credit.from_updates(line(), [LINE, update], utility=fit)


def test_no_updates_and_modules_with_nothing_to_share_are_refused():
    with pytest.raises(ValueError, match="updates is empty"):
        credit.from_updates(line(), [], utility=fit)
    with pytest.raises(ValueError, match="model has no parameters to share"):
        credit.from_updates(nn.ReLU(), [{}], utility=fit)
    counter = nn.Module()
    counter.register_parameter("n", nn.Parameter(torch.tensor([1]), requires_grad=False))
    with pytest.raises(ValueError, match=r"parameter 'n' is torch.int64, must be floating point"):
        credit.from_updates(counter, [{"n": torch.tensor([1])}], utility=fit)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, r"the utility of clients \[\] is NoneType: must be a number, or a tensor of no dimensions"),
        ("1.0", "must be a number"),
        (torch.ones(1), r"is a tensor of shape \(1,\): must be a number"),
        (NAN, r"the utility of clients \[\] is nan: must be finite"),
        (torch.tensor(-INF), "is -inf: must be finite"),
    ],
)
def test_a_utility_that_answers_with_no_finite_number_is_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        _ = of_line(utility=lambda model: answer).gain
    with pytest.raises(ValueError, match=message):
        of_line(utility=lambda model: answer).utility_gradient()


def test_the_message_names_the_clients_whose_updates_broke_the_utility_and_the_peer_who_does_not_answer():
    with pytest.raises(ValueError, match=r"the utility of clients \[0, 1\] is nan"):
        _ = of_line(utility=lambda model: NAN if model.weight > 0.9 else 0.0).game.values()
    with pytest.raises(ValueError, match=r"peers\[1\] is nan"):
        _ = of_line(peers=[fit, lambda model: NAN]).peer_gains


def test_directions_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"direction has shape \(1, 3\), must be \(1, 2\)"):
        of_line().utility_curvature(torch.ones(1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": None}, "model=None: must be a torch.nn.Module"),
        ({"model": LINE}, "model=.*must be a torch.nn.Module, not its state dict"),
        ({"updates": None}, "updates=None: give a list"),
        ({"updates": BOTH}, "updates=.*give a list"),
        ({"contributed": [True, None]}, "contributed="),
        ({"admitted": ["a", "b"]}, "admitted="),
        ({"blocked_by": [[False, True], [False]]}, "blocked_by="),
        ({"samples": ["1", "2"]}, "samples="),
        ({"samples": [2**70, 1]}, "samples="),
        ({"peers": fit}, "peers=.*give a list"),
        ({"peers": [fit, 2]}, r"peers\[1\]=2: must be a function"),
        ({"renormalise": "no"}, "renormalise='no': must be True or False"),
        ({"screening": 5}, "screening=5: must be a function"),
        ({"screening": lambda s: None}, "screening answered with NoneType"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        credit.from_updates(**{"model": line(), "updates": [BOTH, BOTH], "weights": [0.5, 0.5], "utility": fit, **arguments})


def test_updates_may_come_from_a_generator():
    assert credit.from_updates(line(), (BOTH for _ in range(2)), [0.5, 0.5], fit).num_agents == 2
