"""``Engine(…, compile=True)``: the numbers are those of the plain engine, and what cannot be compiled is refused.

Compiling takes a minute, so most tests run the traced functions as they are: what is compiled is then all but the compiler.
"""

from __future__ import annotations

import pickle
import shutil
import warnings
from collections.abc import Mapping
from copy import copy
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from proxycoop.envs import Engine, cooperative_v0, scenario
from proxycoop.envs.compiled import compilers, functions
from proxycoop.envs.compiled.assumptions import assuming, usually
from proxycoop.envs.compiled.functions import CompiledFunction
from proxycoop.envs.gymnasium_vector import CooperativeVectorEnv
from proxycoop.envs.records import RoundResult
from proxycoop.envs.rounds import compiled
from proxycoop.envs.vector import CooperativeVecEnv

HAS_COMPILER = shutil.which("g++") is not None
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "exact, limits and guard": ("digits", {}, "shapley"),
    "few coalitions": ("digits", {}, "loo"),
    "gradients": ("digits-mean", {}, "in_run"),
    "a rule that remembers": ("breast_cancer", {}, "aristocrat"),
    "estimated": ("breast_cancer", {}, "shapley(budget=20)"),
    "lots credited": ("breast_cancer", {}, "data_shapley"),
    "columns": ("breast_cancer-vertical", {}, "shapley"),
    "tags": ("digits-provenance", {}, "shapley"),
    "a module": ("breast_cancer", {"model": {"kind": "mlp", "hidden": [4]}}, "shapley"),
    "measured harm": ("digits", {"screening.harm": "measured", "screening.guard": True}, "loo"),
    "second-order harm": ("digits", {"screening.harm": "second_order", "screening.guard": True}, "loo"),
    "Adam": ("digits-mean", {"server.kind": "adam", "server.lr": 0.02}, "shapley"),
    "money": ("breast_cancer", {"settlement.period": 2, "settlement.reward": "settlement"}, "shapley"),
    "participants' weights": ("breast_cancer", {"weights": "participants"}, "shapley"),
    "accuracy": ("breast_cancer", {"utility": "accuracy"}, "shapley"),
    "marginal gains": ("digits", {"observations.marginal_gains": True}, "shapley"),
    "several splits": ("breast_cancer", {"data.splits": 2}, "shapley"),
}


@pytest.fixture
def untranslated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced functions run as they are, without a compiler."""
    monkeypatch.setattr(functions, "_compiled", lambda traced, on_cuda: traced.forward)
    monkeypatch.setattr(compiled, "require_compiler", lambda device: None)
    monkeypatch.setattr(compiled, "_made", {})


def made(name: str, settings: Mapping[str, Any]) -> scenario.Scenario:
    return scenario.load(name, **{"horizon": 3, "reward.scale": 30.0, **settings})


def same(plain: RoundResult, other: RoundResult) -> None:
    """Whether two rounds are the same to rounding, money to a minor unit, and what was chosen and admitted exactly."""
    for field in fields(plain):
        one, two = getattr(plain, field.name), getattr(other, field.name)
        if not isinstance(one, Tensor):
            assert one == two, field.name
        elif one.is_floating_point():
            assert one.dtype == two.dtype, field.name
            torch.testing.assert_close(two, one, rtol=1e-3, atol=3e-4, equal_nan=True, msg=lambda told, name=field.name: f"{name}: {told}")
        elif field.name in ("revenue", "payouts"):  # of utilities that differ by rounding, rounded to whole units
            torch.testing.assert_close(two, one, rtol=0, atol=1)
        else:
            assert torch.equal(one, two), field.name


def play_both(cooperative: scenario.Scenario, rule: str, num_envs: int, n_episodes: int = 2) -> Engine:
    """Play the same episodes plainly and compiled, comparing every round; the compiled engine."""
    plain, other = Engine(cooperative, rule, num_envs), Engine(cooperative, rule, num_envs, compile=True)
    coins = torch.Generator().manual_seed(0)
    for episode in range(n_episodes):
        seeds = None if episode else range(num_envs)
        torch.testing.assert_close(other.reset(seeds), plain.reset(seeds), rtol=1e-3, atol=3e-4)
        while plain.t < plain.horizon:
            choices = torch.rand(num_envs, plain.num_agents, plain.num_lots, generator=coins) < 0.6
            same(plain.step(choices), other.step(choices))
            torch.testing.assert_close(other.theta, plain.theta, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(other.state(), plain.state(), rtol=1e-3, atol=3e-4)
    return other


@pytest.mark.usefixtures("untranslated")
@pytest.mark.parametrize("case", CASES)
def test_traced_rounds_have_the_numbers_of_plain_ones(case: str) -> None:
    name, settings, rule = CASES[case]
    play_both(made(name, settings), rule, 2)


@pytest.mark.usefixtures("untranslated")
def test_a_limit_that_binds_is_held_by_the_cautious_form() -> None:
    other = play_both(scenario.load("complement"), "loo", 3)
    assert {name for name, cautious, *_ in other._compiled._functions if cautious} == {"advance"}


@pytest.mark.usefixtures("untranslated")
def test_an_update_that_is_not_finite_is_refused_by_the_cautious_form() -> None:
    engines = [Engine(made("breast_cancer", {}), None, compile=yes) for yes in (False, True)]
    for engine in engines:
        engine.reset([0])
        engine.lots.inputs[0, 0, 0] = torch.inf
        engine.step(torch.zeros(1, 6, 4))
    plain, other = engines
    assert not other.prospect.finite[0, 0, 0]
    assert torch.equal(other.prospect.finite, plain.prospect.finite)
    torch.testing.assert_close(other.observations, plain.observations, rtol=1e-3, atol=3e-4)


@pytest.mark.usefixtures("untranslated")
def test_engines_of_a_kind_share_what_is_compiled_and_rounds_compile_nothing() -> None:
    cooperative = made("breast_cancer", {"data.splits": 2})
    for _ in range(2):
        engine = Engine(cooperative, "shapley", 2, compile=True)
        engine.reset([0, 1])
        for _ in range(2):
            while engine.t < engine.horizon:
                engine.step(torch.ones(2, 6, 4))
            engine.reset()
    assert len(compiled._made) == 3  # opening, advancing, closing: for both splits
    Engine(cooperative, "shapley", 1, compile=True).reset([0])
    assert len(compiled._made) == 4


@pytest.mark.usefixtures("untranslated")
def test_copies_forks_and_pickles_go_on_alike() -> None:
    engine = Engine(made("digits", {}), "shapley", 2, compile=True)
    engine.reset([0, 1])
    choices = torch.ones(2, 6, 4)
    engine.step(choices)
    others = [copy(engine), pickle.loads(pickle.dumps(engine)), engine.fork()]
    result = engine.step(choices)
    for other in others:
        assert torch.equal(other.step(choices).utility, result.utility)


@pytest.mark.usefixtures("untranslated")
def test_faces_hand_the_keyword_on() -> None:
    face = cooperative_v0.parallel_env(made("digits", {}), "loo", compile=True)
    rows = CooperativeVecEnv(made("digits", {}), "loo", 2, compile=True)
    vector = CooperativeVectorEnv(made("digits", {}), "loo", 2, compile=True)
    assert all(one.engine._compiled is not None for one in (face, rows, vector))
    cooperative_v0.env(made("digits", {}), "loo", compile=True).reset(seed=0)
    assert len(compiled._made) == 1


@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
def test_compiled_rounds_have_the_numbers_of_plain_ones_and_say_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play_both(made("complement", {}), "loo", 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize("case", ["exact, limits and guard", "a module", "second-order harm", "money"])
def test_compiled_rounds_of_many_kinds_have_the_numbers_of_plain_ones(case: str) -> None:
    name, settings, rule = CASES[case]
    play_both(made(name, settings), rule, 2)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"screening.governance": "negotiate"}, "principals bargain in as many moves as it takes"),
        ({"screening.filter": "project"}, "screening.filter: project mends updates in as many passes as it takes"),
        ({"substrate": {"kind": "traversal"}}, "substrate traversal draws a batch of its own in every round"),
    ],
)
def test_what_takes_its_course_by_the_data_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"compile=True cannot serve scenario 'digits': .*{told}; leave compile out"):
        Engine(made("digits", settings), "loo", compile=True)


def test_a_machine_without_a_compiler_is_refused_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="compile=True needs a C\\+\\+ compiler, and there is no no-such-compiler on the path"):
        Engine("digits", "loo", compile=True)


def test_cuda_without_triton_and_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs Triton for device cuda, and there is no package triton"):
        compilers.require_compiler(torch.device("cuda", 0))
    with pytest.raises(ValueError, match="needs device cpu or cuda, and device is 'mps'"):
        compilers.require_compiler(torch.device("mps"))


def test_compile_must_be_true_or_false() -> None:
    with pytest.raises(ValueError, match="compile='yes': must be True or False"):
        Engine("digits", "loo", compile="yes")  # type: ignore[arg-type]


# The functions


@pytest.mark.usefixtures("untranslated")
def test_a_function_tells_when_its_shortcut_was_wrong() -> None:
    def halved(tensors: list[Tensor]) -> Tensor:
        (x,) = tensors
        return x / 2 if usually(x > 0) else torch.where(x > 0, x / 2, 0.0)

    example, other = [torch.ones(3)], [torch.tensor([1.0, -1.0, 2.0])]
    function, cautious = CompiledFunction(halved, example), CompiledFunction(halved, example, cautious=True)
    assert torch.equal(function(example), torch.full((3,), 0.5))
    assert function(other) is None
    assert torch.equal(cautious(other), torch.tensor([0.5, 0.0, 1.0]))


@pytest.mark.usefixtures("untranslated")
def test_a_function_that_branches_on_its_data_is_refused() -> None:
    with pytest.raises(ValueError, match="its course depends on the data"):
        CompiledFunction(lambda tensors: tensors[0] if tensors[0].sum() > 0 else -tensors[0], [torch.ones(2)])


def test_outside_a_trace_a_shortcut_is_taken_where_it_is_right() -> None:
    assert usually(torch.tensor([True, True]))
    assert not usually(torch.tensor([True, False]))
    with assuming() as assumed:
        assert usually(torch.tensor([True, False]))
    assert [bool(one) for one in assumed] == [False]
