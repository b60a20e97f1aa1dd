"""The engine on another device: every tensor lives there, nothing mixes devices, and the numbers are the CPU's.

Where there is no accelerator, one is simulated. Its tensors report another device and keep their numbers on the CPU; an operation between
one of them and a tensor of the CPU is refused, as CUDA refuses it, and so is what CUDA allows at the price of a hidden copy (writing a
CPU tensor into one of the device, indexing by a CPU tensor). As on CUDA, single numbers may come from the CPU. What the simulation cannot
say is whether an accelerator's kernels exist and round alike; the last test asks real ones, where there are some.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from proxycoop import agents, credit
from proxycoop.envs import Engine, episode_metrics, scenario
from proxycoop.envs.admission.settings import MECHANISMS
from proxycoop.envs.devices import checked_device, devices
from proxycoop.envs.gymnasium_vector import CooperativeVectorEnv
from proxycoop.envs.observations.layout import ObservationLayout
from proxycoop.envs.records import RoundResult
from proxycoop.envs.rendering import render_text
from proxycoop.envs.scenario import Scenario

SIMULATED = torch.device("lazy", 0)  # a device of torch's of which no build has kernels

OURS = [name for name in credit.RULES if credit.RULES[name].__module__.startswith("proxycoop.")]
ESTIMATORS = [name for name in OURS if isinstance(credit.make(name), credit.Estimator)]
WITH_ARGUMENTS = [
    *[f"{name}(budget=40)" for name in ESTIMATORS],  # fewer than the 63 coalitions of six agents, so that something is drawn
    "owen(unions=[[0, 3], [1, 2, 5], [4]])",
    "myerson(graph='star')",
    "normalised(rule='banzhaf', max_scale=2.0)",
    "coopetition(rule='shapley(budget=20)', interdependence=0.5)",
    "clipped(rule='shapley', low=None, high=0.001)",
    "smoothed(rule='svarm(budget=30)', decay=0.5)",
    "comfedsv(budget=20, rank=2)",
    "fael(window=8, level=0.0)",  # with six agents: seven rounds of exploring, then it exploits
    "gtg(between=0.0, within=0.0)",
    "gtg(between=10.0)",
    "kernelshap(budget=30, by_size=True)",
]
SCENARIOS = ["digits", "breast_cancer", "digits-mean", "digits-provenance", "breast_cancer-vertical", "breast_cancer-hospitals"]
SETTINGS: dict[str, dict[str, Any]] = {
    "quorum, project, guard": {"screening": {"governance": "quorum", "quorum": 0.5, "filter": "project", "guard": True}},
    "own": {"screening.governance": "own"},
    "none": {"screening.governance": "none"},
    "scale": {"screening.filter": "scale"},
    "weighted": {"screening": {"governance": "weighted", "quorum": 0.5, "filter": "scale"}},
    "stakeholders": {"screening": {"governance": "stakeholders", "quorum": 0.5, "filter": "project"}},
    "negotiate": {"screening.governance": "negotiate"},
    "measured harm": {"screening": {"harm": "measured", "filter": "project", "guard": True}},
    "second-order harm": {"screening": {"harm": "second_order", "filter": "scale", "guard": True}},
    "local steps": {"substrate": {"kind": "fedavg", "local_steps": 3}},
    "traversal": {"substrate": {"kind": "traversal"}},
    "traversal of a batch": {"substrate": {"kind": "traversal", "batch": 64}},
    "momentum": {"server": {"kind": "sgd", "momentum": 0.5}},
    "adam": {"server": {"kind": "adam"}},
    "participants' weights": {"weights": "participants"},
    "multilayer perceptron": {"model": {"kind": "mlp", "hidden": [8]}, "screening.harm": "second_order"},
    "accuracy": {"utility": "accuracy"},
    "profiles drawn, sites shifted": {"profiles_drawn": True, "lots.site_shift": 0.1},
    "lots of unequal size": {"lots.rows": [4, 9, 6, 8, 5, 7]},
    "several names": {
        "conduct": {"identities": [{"principal": 1, "split": 3}, {"principal": 4, "lots": "copied"}]},
        "screening": {"governance": "weighted", "weigh_by": "stake"},
    },
    "named principals corrupt": {"lots.corruption.principals": [2, 3], "lots.corruption.share": 0.25},
    "trimmed mean of mixed updates": {"aggregator": {"kind": "trimmed_mean", "f": 3, "before": [{"kind": "nnm", "f": 3}]}},
    "krum in buckets": {
        "aggregator": {"kind": "krum", "f": 1, "before": [{"kind": "bucketing", "size": 2}, {"kind": "clip", "max_norm": 0.5}]}
    },
    "geometric median of agents": {
        "aggregator": {"kind": "geometric_median", "over": "agents", "weighted": True},
        "weights": "participants",
    },
    "minimum diameter": {"aggregator": {"kind": "minimum_diameter", "f": 2}},
    **{f"admission by {choose}": {"admission": {"capacity": 6, "choose": choose}} for choose in MECHANISMS if choose != "auction"},
    "admission by auction": {
        "admission": {"capacity": 6, "choose": "auction"},
        "conduct": {"levers": [{"kind": "bid", "amount": 1.0}], "forgeries": [{"kind": "little_is_enough"}, {"kind": "inner_product"}]},
    },
    "noised updates": {"privacy": {"clip": 0.5, "noise_multiplier": 0.1}},
    "noised steps": {"privacy": {"clip": 0.5, "noise_multiplier": 0.5, "noise": "step"}},
}


class OnDevice(Tensor):
    """A tensor of the simulated device."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]  # how torch makes tensors that hold others
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=SIMULATED
        )
        made.raw = raw
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on the simulated device, outside of the simulation")

    def __repr__(self, **_: object) -> str:
        return f"OnDevice({self.raw})"

    def __format__(self, form: str) -> str:
        return format(self.raw, form)


class Kernels(TorchDispatchMode):
    """Every operation of the simulated device, and those that make tensors there or move them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        here = {id(one.raw): one for one in given if isinstance(one, OnDevice)}
        elsewhere = [tuple(one.shape) for one in given if not isinstance(one, OnDevice) and one.dim()]
        if here and elsewhere:
            raise AssertionError(f"{func} mixes tensors of the device with tensors of the CPU, of shape {elsewhere}")
        stays = bool(here)
        if kwargs.get("device") is not None:
            stays = kwargs["device"].type == SIMULATED.type
            kwargs["device"] = torch.device("cpu")
        found = func(*tree_map(raw, args), **tree_map(raw, kwargs))
        if not stays:
            return found
        # what an operation writes into and returns is the same tensor as before
        held = {key: OnDevice(one) for one in tree_leaves(found) if isinstance(one, Tensor) for key in {id(one)} - here.keys()} | here
        return tree_map(lambda one: held.get(id(one), one), found)


class Literals(TorchFunctionMode):
    """What torch does by itself, beyond the reach of :class:`Kernels`, with numbers and lists in the place of tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if args and isinstance(args[0], OnDevice):
            if func is Tensor.tolist:
                return args[0].raw.tolist()
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                index = args[1] if isinstance(args[1], tuple) else (args[1],)
                index = tuple(torch.tensor(one).to(SIMULATED) if isinstance(one, list) else one for one in index)
                return func(args[0], index, *args[2:])
        return func(*args, **kwargs)


def raw(one: Any) -> Any:
    """A tensor of the simulated device as one of the CPU; anything else as it is."""
    return one.raw if isinstance(one, OnDevice) else one


@contextlib.contextmanager
def simulated_device() -> Iterator[None]:
    with Kernels(), Literals():
        yield


def tensors_of(thing: object, path: str, seen: dict[int, object]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that something of ours holds, however deep, and where."""
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    parts: Sequence[tuple[object, object]] = ()
    if isinstance(thing, Tensor):
        yield path, thing
    elif isinstance(thing, torch.nn.Module):
        parts = list(thing.named_parameters())
    elif isinstance(thing, dict):
        parts = list(thing.items())
    elif isinstance(thing, (list, tuple)):
        parts = list(enumerate(thing))
    elif type(thing).__module__.startswith("proxycoop"):
        parts = list(getattr(thing, "__dict__", {}).items())
    for name, part in parts:
        yield from tensors_of(part, f"{path}.{name}", seen)


def left_behind(engine: Engine, device: torch.device) -> list[str]:
    """Where an engine holds tensors that are not on its device.

    Which coalitions a rule asks for, games look up on the CPU; Myerson's rule lists them once.
    """
    found = [path for path, tensor in tensors_of(engine, "engine", {}) if tensor.dim() and tensor.device != device]
    return [path for path in found if "._connected." not in path]


def played(made: Scenario | str, rule: str | None, device: torch.device | str, rounds: int = 2) -> Engine:
    """An engine of two cooperatives after some rounds of the same choices, which come from the CPU."""
    engine = Engine(made, rule, 2, device=device)
    engine.reset([3, 2**63 - 1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(rounds):
        engine.step(torch.rand(2, engine.num_agents, engine.num_items, generator=generator) < 0.7)
    return engine


def measured(engine: Engine) -> dict[str, object]:
    """All that an engine says."""
    found: dict[str, object] = {f"test/{name}": number for name, number in engine.test().items()}
    found |= {f"metrics/{name}": number for name, number in episode_metrics(engine).items()}
    found |= {"theta": engine.theta, "state": engine.state(), "credit_so_far": engine.credit_so_far}
    if engine.scenario.utility == "neg_log_loss":
        found["predicted_gain"] = engine.predicted_gain()
    for t, result in enumerate(engine.history):
        for field in dataclasses.fields(RoundResult):
            found[f"{t}/{field.name}"] = getattr(result, field.name)
    return found


def differences(here: dict[str, object], there: dict[str, object]) -> list[str]:
    """Which numbers are not the same to the bit."""
    assert here.keys() == there.keys()

    def differ(a: object, b: object) -> bool:
        if dataclasses.is_dataclass(a):
            return any(differ(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
        return not torch.equal(a, raw(b)) if isinstance(a, Tensor) else a != b

    return [name for name, number in here.items() if differ(number, there[name])]


def refuse_to_differ(made: Scenario | str, rule: str | None, rounds: int = 2) -> None:
    """Fail unless the simulated device holds everything and gives the CPU's numbers to the bit."""
    expected = measured(played(made, rule, "cpu", rounds))
    with simulated_device():
        engine = played(made, rule, "lazy", rounds)
        found = measured(engine)
        assert engine.device == SIMULATED
        assert left_behind(engine, SIMULATED) == []
        assert [name for name, number in found.items() if isinstance(number, Tensor) and not isinstance(number, OnDevice)] == []
    assert differences(expected, found) == []


def cooperative(name: str, **settings: Any) -> Scenario:
    """A scenario with a reward scale that takes no episodes to find."""
    return scenario.load(name, **({"reward.scale": 100.0} | settings))


def fitting(rule: str) -> Scenario:
    """A cooperative of six that the rule can serve."""
    if "columns" in credit.make(rule).needs:
        return cooperative("breast_cancer-vertical", principals=6, **{"lots.per_principal": 4})
    return cooperative("breast_cancer")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_plays_on_the_device_as_on_the_cpu(name: str) -> None:
    refuse_to_differ(cooperative(name), "shapley")


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("name", ["breast_cancer", pytest.param("digits", marks=pytest.mark.slow)])
def test_governances_filters_substrates_servers_and_models_play_on_the_device_as_on_the_cpu(name: str, settings: dict[str, Any]) -> None:
    refuse_to_differ(cooperative(name, **settings), "shapley")


def test_values_and_limits_of_every_kind_are_judged_on_the_device_as_on_the_cpu() -> None:
    values = {
        "missed_cancer": {"kind": "class_loss", "label": "malignant"},
        "false_alarm": {"kind": "class_loss", "label": "benign"},
        "rough": {"kind": "group_loss", "group": "rough"},
        "worst": {"kind": "worst_group_loss", "groups": ["rough", "smooth"]},
        "missed": {"kind": "miss_rate", "label": "malignant", "group": "rough"},
        "private": {"kind": "confidence"},
        "change": {"kind": "drift"},
        "gap": {"kind": "disparity", "group": "rough", "label": "malignant", "criterion": "equalised_odds"},
    }
    profiles = [
        {"holders": 2, "relative_tolerances": {"rough": 0.1}, "max_norm": 3.0},
        {"holders": 2, "direction": {"missed_cancer": 1.0, "worst": 1.0}, "tolerances": {"missed": 0.1}},
        {"holders": 1, "tolerances": {"change": 0.05, "gap": 0.05, "private": 0.1}, "stake": 2.0},
    ]
    data = {
        "data.groups": {
            "rough": {"column": "mean fractal dimension", "above": 0.5},
            "smooth": {"column": "mean fractal dimension", "below": 0.5},
        },
        "data.probe_rows": 5,
    }
    screening = {"governance": "weighted", "quorum": 0.5, "filter": "project", "guard": True}
    for harm in ("first_order", "second_order"):
        made = cooperative("breast_cancer", values=values, profiles=profiles, screening=screening | {"harm": harm}, **data)
        refuse_to_differ(made, "shapley", rounds=1)


@pytest.mark.parametrize(
    "rule", [*(pytest.param(rule, marks=pytest.mark.slow if rule in ESTIMATORS else ()) for rule in OURS), *WITH_ARGUMENTS]
)
def test_a_credit_rule_pays_on_the_device_as_on_the_cpu(rule: str) -> None:
    rounds = 9 if rule.startswith("fael(") else 1 if isinstance(credit.make(rule), credit.GameRule) else 2  # game rules keep nothing
    refuse_to_differ(fitting(rule), rule, rounds)


@pytest.mark.parametrize("rule", ["shapley", "banzhaf", "shapley(budget=60)", "comfedsv"])
def test_games_too_large_to_be_kept_whole_are_played_on_the_device_as_on_the_cpu(rule: str) -> None:
    refuse_to_differ(cooperative("breast_cancer", principals=15, **{"lots.per_principal": 1}), rule)


def test_nobody_is_paid_on_the_device_as_on_the_cpu_and_the_reward_scale_is_found_on_the_cpu() -> None:
    refuse_to_differ("breast_cancer", None)  # reward.scale: auto


def test_a_round_s_game_takes_coalitions_of_either_device() -> None:
    def answers(device: str, coalitions: Tensor) -> list[Tensor]:
        lazy, whole = (played(cooperative("breast_cancer"), None, device).round.game for _ in range(2))
        whole.values()
        normalised = credit.as_game(lambda rows: lazy.value(rows) + 1.0, 6)
        return [game.value(coalitions) for game in (lazy, whole, normalised)]

    coalitions = torch.rand(9, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = answers("cpu", coalitions)
    with simulated_device():
        for asked in (coalitions, coalitions.to(SIMULATED)):
            found = answers("lazy", asked)
            assert all(torch.equal(a, raw(b)) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("rule", ESTIMATORS)
def test_an_estimator_s_standard_errors_are_the_cpu_s(rule: str) -> None:
    made = credit.make(f"{rule}(budget=40)")
    assert isinstance(made, credit.Estimator)

    def answer(device: str) -> list[Tensor]:
        game = played(fitting(rule), "equal", device).round.game
        found = made.estimate(game)
        return [found.values, found.standard_error, found.degrees_of_freedom, *found.interval()]

    expected = answer("cpu")
    with simulated_device():
        found = answer("lazy")
        assert all(isinstance(one, OnDevice) for one in found)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a.numpy(), raw(b).numpy())  # where NaN is the same as NaN


@pytest.mark.parametrize("name", ["all", "none", "honest", "random", "oracle", "planner", "measuring_planner"])
def test_agents_play_a_whole_episode_on_the_device_as_on_the_cpu(name: str) -> None:
    made = cooperative("breast_cancer", horizon=4)
    expected = agents.play(Engine(made, "shapley", 4), agents.make(name), range(4))
    with simulated_device():
        found = agents.play(Engine(made, "shapley", 4, device="lazy"), agents.make(name), range(4))
    assert differences(dict(expected), dict(found)) == []


def test_copied_seats_and_later_episodes_are_on_the_device_as_on_the_cpu() -> None:
    def observations(device: str) -> list[Tensor]:
        engine = Engine(cooperative("digits"), "shapley", 2, device=device)
        return [engine.reset([5, 6], copies={1: 0}), engine.reset(), engine.reset([5, 6], episode=3)]

    expected = observations("cpu")
    with simulated_device():
        found = observations("lazy")
    assert all(torch.equal(a, raw(b)) for a, b in zip(expected, found, strict=True))


def test_a_round_on_the_device_is_told_in_the_same_words() -> None:
    made = cooperative("breast_cancer", **{"screening.governance": "negotiate"})
    expected = render_text(played(made, "shapley", "cpu"), 1)
    with simulated_device():
        assert render_text(played(made, "shapley", "lazy"), 1) == expected


def test_the_rows_of_the_gymnasium_face_come_to_the_cpu() -> None:
    def told(device: str) -> list[Any]:
        envs = CooperativeVectorEnv(cooperative("breast_cancer", horizon=2), "in_run", 2, autoreset_mode="SameStep", device=device)
        return [envs.reset(seed=5), *(envs.step(np.ones((12, 4))) for _ in range(2))]

    expected = told("cpu")
    with simulated_device():
        found = told("lazy")
    assert all(data_equivalence(one, other, exact=True) for one, other in zip(expected, found, strict=True))


def forgetful_join(self: ObservationLayout, lots: Sequence[Tensor], agent: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    del lots, agent
    return torch.zeros(*shape, self.size)


def writing_join(self: ObservationLayout, lots: Sequence[Tensor], agent: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    del agent
    joined = torch.zeros(*shape, self.size)
    self.split(joined)[0][..., 0] = lots[0][..., 0]
    return joined


@pytest.mark.parametrize(
    ("join", "complaint"), [(forgetful_join, "observations"), (writing_join, "mixes tensors")], ids=["made", "written to"]
)
def test_a_tensor_that_is_forgotten_on_the_cpu_is_found_out(
    monkeypatch: pytest.MonkeyPatch, join: Callable[..., Tensor], complaint: str
) -> None:
    monkeypatch.setattr(ObservationLayout, "join", join)
    with pytest.raises(AssertionError, match=complaint):
        refuse_to_differ(cooperative("breast_cancer"), "shapley")


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there: there + torch.zeros(2),
        lambda there: there[torch.tensor([0, 1])],
        lambda there: there.copy_(torch.zeros(2, 2)),
        lambda there: torch.where(there > 0, there, torch.zeros(2, 2)),
        lambda there: torch.stack([there, torch.zeros(2, 2)]),
        lambda there: there.sum() * torch.zeros(2),
    ],
)
def test_the_simulated_device_refuses_tensors_of_the_cpu(mixed: Callable[[Tensor], Tensor]) -> None:
    with simulated_device(), pytest.raises(AssertionError, match="mixes tensors"):
        mixed(torch.ones(2, 2, device="lazy"))


def test_the_simulated_device_computes_writes_and_moves() -> None:
    with simulated_device():
        there = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).to("lazy")
        there[:, 0] *= torch.tensor(2.0)  # a single number may come from the CPU
        back = there.cpu()
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
    assert type(back) is Tensor
    assert back.tolist() == [[2.0, 2.0], [6.0, 4.0]]


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda", "cuda:99", "mps"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device: str) -> None:
    if device in {name.partition(":")[0] for name in devices()}:
        pytest.skip("it is there")
    with pytest.raises(ValueError, match=rf"device='{device}' cannot be used \(.+\): the devices here are cpu"):
        Engine("breast_cancer", device=device)


def test_the_cpu_is_the_device_unless_another_is_asked_for() -> None:
    engine = Engine(cooperative("breast_cancer"))
    assert engine.device == checked_device("cpu") == torch.device("cpu")
    engine.reset([0])
    assert left_behind(engine, torch.device("cpu")) == []
    assert pickle.loads(pickle.dumps(engine)).device == torch.device("cpu")


@pytest.mark.parametrize("device", devices()[1:])
def test_an_accelerator_plays_as_the_cpu_does_up_to_rounding(device: str) -> None:
    for rule in OURS:
        expected, engine = (played(fitting(rule), rule, where) for where in ("cpu", device))
        assert left_behind(engine, torch.device(device)) == []
        torch.testing.assert_close(engine.theta.cpu(), expected.theta, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(engine.observations.cpu(), expected.observations, rtol=1e-3, atol=1e-3)
