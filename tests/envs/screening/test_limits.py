"""Limits: how far a value's loss may rise over a whole episode."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from proxycoop.envs import Engine, episode_metrics
from proxycoop.envs.metrics import limits_used, metric_names
from proxycoop.envs.model.utility import least_divisor
from proxycoop.envs.outcome import used_up
from proxycoop.envs.scenario import load
from proxycoop.envs.screening.profiles import Profile, Profiles, ProfileTable

LIMITED: list[dict[str, Any]] = [
    {"holders": 2, "tolerances": {"eights": 0.36}, "limits": {"eights": 0.1}},
    {"holders": 2, "tolerances": {"nines": 0.36}, "relative_limits": {"nines": 0.05}},
]
PROMISED = {"screening.guard": True}


def play(engine: Engine, seeds: range = range(4), *, all_lots: bool = True) -> Engine:
    engine.reset(seeds)
    generator = torch.Generator().manual_seed(seeds[0])
    while engine.t < engine.horizon:
        shape = (engine.num_envs, engine.num_agents, engine.num_lots)
        engine.step(torch.ones(shape) if all_lots else (torch.rand(shape, generator=generator) < 0.6).float())
    return engine


def rises(engine: Engine) -> Tensor:
    """By how much each value's loss stands above its start after each round, ``(T, E, M)``."""
    return torch.stack([result.value_losses for result in engine.history]) - engine.initial_value_losses


# what is left


def dealt(*profiles: Profile, dtype: torch.dtype = torch.float64) -> Profiles:
    return ProfileTable(profiles, len(profiles) + 1, ["a", "b"], [], False, dtype).deal(torch.zeros(2, dtype=torch.int64))


def test_the_tolerance_of_a_round_is_the_smaller_of_tolerance_and_what_is_left() -> None:
    profiles = dealt(Profile(tolerances={"a": 0.08}, limits={"a": 0.1}), Profile(limits={"b": 0.3}), Profile(relative_limits={"a": 0.25}))
    start = torch.tensor([[1.0, 2.0], [0.8, 1.0]], dtype=torch.float64)
    now = torch.tensor([[1.04, 1.9], [0.81, 1.4]], dtype=torch.float64)
    at = profiles.at(now, start)
    inf = math.inf
    expected = [[[0.06, inf], [inf, 0.4], [0.21, inf], [inf, inf]], [[0.08, inf], [inf, 0.0], [0.19, inf], [inf, inf]]]
    torch.testing.assert_close(at.tolerance, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    left = [[[0.06, inf], [inf, 0.4], [0.21, inf], [inf, inf]], [[0.09, inf], [inf, -0.1], [0.19, inf], [inf, inf]]]
    torch.testing.assert_close(at.left(now, start), torch.tensor(left, dtype=torch.float64), rtol=0, atol=1e-12)


def test_what_is_left_in_shares_is_of_the_own_limit_or_else_of_the_strictest() -> None:
    profiles = dealt(Profile(limits={"a": 0.2}), Profile(limits={"a": 0.1}))
    start = torch.ones(2, 2, dtype=torch.float64)
    at = profiles.at(now := start + torch.tensor([[0.05, 1.0], [0.5, 0.0]], dtype=torch.float64), start)
    expected = [[[0.75, 1.0], [0.5, 1.0], [0.5, 1.0]], [[-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]]
    torch.testing.assert_close(at.left_in_shares(now, start), torch.tensor(expected, dtype=torch.float64))


def test_profiles_that_know_where_the_episode_began_are_those_that_are_told_in_every_round() -> None:
    profiles = dealt(Profile(tolerances={"a": 0.08}, limits={"a": 0.1}), Profile(relative_limits={"a": 0.25}), Profile(limits={"b": 0.3}))
    start = torch.tensor([[1.0, 2.0], [0.8, 1.0]], dtype=torch.float64)
    begun = profiles.begun(start)
    for rise in (0.0, 0.05, 0.2):
        now = start + rise
        told, known = profiles.at(now, start), begun.at(now)
        for name in ("tolerance", "may_rise", "remaining", "remaining_share", "yardstick", "holds"):
            assert torch.equal(getattr(known, name), getattr(told, name)), name
        assert torch.equal(known.left(now, start), known.remaining)
        assert torch.equal(known.left_in_shares(now, start), known.remaining_share)


def test_a_little_is_kept_back_for_rounding() -> None:
    at = dealt(Profile(limits={"a": 0.1}), dtype=torch.float32).at(torch.full((2, 2), 3.0), torch.full((2, 2), 3.0))
    kept_back = 0.1 - at.tolerance[:, 0, 0]
    torch.testing.assert_close(kept_back, least_divisor(torch.full((2,), 3.0)), rtol=1e-3, atol=0)


def test_seats_keep_their_limits() -> None:
    profiles = dealt(Profile(limits={"a": 0.2}), Profile(relative_limits={"b": 0.1})).seated([1, 0, 2])
    assert profiles.max_rise is not None
    assert profiles.relative_rise is not None
    assert profiles.max_rise[0, :, 0].tolist() == [math.inf, 0.2, math.inf]
    assert profiles.relative_rise[0, :, 1].tolist() == [0.1, math.inf, math.inf]
    assert profiles.holds[0].tolist() == [[False, True], [True, False], [False, False]]


def test_a_tightened_profile_has_tightened_limits() -> None:
    tight = Profile(limits={"a": 0.2}, relative_limits={"b": 0.1}, tolerances={"a": 1.0}).tightened(0.5)
    assert (tight.limits, tight.relative_limits, tight.tolerances) == ({"a": 0.1}, {"b": 0.05}, {"a": 0.5})


# the promise


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"screening.harm": "measured"},
        {"screening.harm": "second_order", "screening.governance": "quorum"},
        {"screening.governance": "own"},
        {"screening.governance": "none"},
        {"screening.governance": "quorum", "screening.filter": "project"},
        {"screening.governance": "weighted", "screening.filter": "scale"},
        {"screening.governance": "stakeholders"},
        {"screening.governance": "negotiate"},
        {"server": {"kind": "sgd", "lr": 3.0, "momentum": 0.9}},
        {"server": {"kind": "adam", "lr": 0.1}, "screening.governance": "none"},
        {"substrate": {"kind": "traversal", "batch": 64}, "screening.governance": "own"},
        {"weights": "participants", "substrate.local_lr": 4.0, "screening.governance": "none"},
    ],
    ids=str,
)
def test_with_a_guard_no_round_is_beyond_a_limit(settings: dict[str, Any]) -> None:
    engine = play(Engine(load("digits", **{**PROMISED, "profiles": LIMITED, **settings}), None, 4), all_lots="none" in settings.values())
    limit = torch.stack([torch.full((4,), 0.1), 0.05 * engine.initial_value_losses[:, 1]], dim=1)
    assert (rises(engine) <= limit).all()
    assert not episode_metrics(engine)["beyond_limits"].any()


def test_the_promise_binds_and_costs_utility() -> None:
    free, bound = (play(Engine(load("digits", **PROMISED, **{"screening.governance": "none"}, profiles=p), None, 4)) for p in ([], LIMITED))
    assert (rises(free)[..., 0].amax(dim=0) > 0.1).any()
    assert (bound.prospect.left[..., 0].amin(dim=1) >= 0).all()
    assert (limits_used(bound).amax(dim=(0, 2)) > 0.9).any()


def test_never_worse_than_at_the_start() -> None:
    never: list[dict[str, Any]] = [{"holders": 1, "limits": {"eights": 0.0, "nines": 0.0}}]
    engine = play(Engine(load("digits", **PROMISED, profiles=never), None, 4, dtype=torch.float64))
    assert (rises(engine) <= 1e-12).all()
    assert (torch.stack([result.gamma for result in engine.history]) > 0).any()


def test_first_order_screening_spends_what_is_left_as_predicted() -> None:
    engine = Engine(load("digits", profiles=LIMITED, **{"screening.governance": "unanimous"}), None, 4, dtype=torch.float64)
    engine.reset(range(4))
    limit = torch.stack([torch.full((4,), 0.1), 0.05 * engine.initial_value_losses[:, 1]], dim=1).double()
    for _ in range(engine.horizon):
        look = engine.prospect
        left = (limit - (look.value_losses - engine.initial_value_losses)).clamp(min=0)
        allowed = torch.minimum(left, torch.full_like(left, 0.36))
        unclear = ((look.harm - allowed[:, None, None]).abs() < 1e-9).any(dim=-1)
        passes = (look.harm <= allowed[:, None, None]).all(dim=-1)
        assert torch.equal(look.passes | unclear, passes | unclear)
        engine.step(torch.ones(4, 6, 4))


def test_limits_that_are_never_reached_change_nothing() -> None:
    profiles: list[dict[str, Any]] = [{"holders": 2, "tolerances": {"eights": 0.36}}, {"holders": 2, "tolerances": {"nines": 0.36}}]
    wide = [{**profile, "limits": dict.fromkeys(profile["tolerances"], 100.0)} for profile in profiles]
    one, other = (play(Engine(load("digits", profiles=p), "loo", 2), range(2), all_lots=False) for p in (profiles, wide))
    for mine, theirs in zip(one.history, other.history, strict=True):
        assert torch.equal(mine.utility, theirs.utility)
        assert torch.equal(mine.credit, theirs.credit)
        assert torch.equal(mine.admitted, theirs.admitted)
        assert mine.left.isinf().all()


# what is seen and told


def test_proxies_observe_what_is_left() -> None:
    engine = play(Engine(load("digits", profiles=LIMITED, horizon=5), "equal", 4), all_lots=False)
    layout = engine.layout
    assert layout.limited == ("eights", "nines")
    assert layout.agent_features[-2:] == ("left/eights", "left/nines")
    assert "limit on eights" in layout.describe()["left/eights"]
    share = 1 - rises(engine)[-1, :, 0] / 0.1
    seen = layout.agent(engine.observations, "left/eights")
    torch.testing.assert_close(seen, share.clamp(-1, 1)[:, None].expand(4, 6), rtol=0, atol=1e-4)
    assert "left/eights" not in Engine(load("digits", profiles=[]), None).layout.agent_features


def test_metrics_say_how_much_was_used_up() -> None:
    scenario = load("digits", profiles=LIMITED, **{"screening.governance": "none", "screening.guard": False})
    engine = play(Engine(scenario, "equal", 4))
    metrics = episode_metrics(engine)
    assert list(metrics) == metric_names(scenario)
    used = rises(engine)[..., 0].clamp(min=0).amax(dim=0) / 0.1
    torch.testing.assert_close(metrics["limit_used/eights"], used, rtol=0, atol=1e-4)
    beyond = (rises(engine)[..., 0] > 0.1) | (rises(engine)[..., 1] > 0.05 * engine.initial_value_losses[:, 1])
    torch.testing.assert_close(metrics["beyond_limits"], beyond.float().mean(dim=0))
    assert metrics["beyond_limits"].any()


def test_text_and_picture_show_limits_being_used_up() -> None:
    engine = play(Engine(load("digits", profiles=LIMITED, horizon=4), "equal", 1), range(1))
    from proxycoop.envs.rendering import profile_in_short, render_picture, render_text

    assert "% of its limit)" in render_text(engine)
    assert profile_in_short(engine.scenario.profiles[1]) == "nines≤0.36 (≤5 % in all)"
    assert render_picture(engine).shape == (640, 960, 3)


def test_of_a_limit_of_0_nothing_is_used_up_while_the_loss_does_not_rise() -> None:
    engine = Engine(load("digits", profiles=[{"holders": 2, "limits": {"eights": 0.0}}]), "equal", 2)
    engine.reset(range(2))
    assert used_up(engine) == {"eights": 0.0}
    engine.step(torch.zeros(2, 6, 4))
    assert used_up(engine) == {"eights": 0.0}
    assert episode_metrics(engine)["limit_used/eights"].tolist() == [0.0, 0.0]


# wrong input


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"limits": {"eights": -0.1}}, r"profiles\.0\.limits\.eights: must be finite and at least 0 \(got -0\.1\)"),
        ({"relative_limits": {"eights": -0.1}}, r"profiles\.0\.relative_limits\.eights: must be finite"),
        (
            {"limits": {"eights": 0.1}, "relative_limits": {"eights": 0.1}},
            "there is an absolute one under limits too: give one of the two",
        ),
        ({"limits": {"sevens": 0.1}}, "profiles.0.limits.sevens: unknown value 'sevens'.*eights"),
        ({"limits": {"eights": "much"}}, "limits"),
        ({"limit": {"eights": 0.1}}, "did you mean 'limits'"),
        ({"limits": {"eights": True}}, "limits"),
    ],
)
def test_wrong_limits_are_refused(profile: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load("digits", profiles=[profile])


def test_a_share_of_a_loss_of_zero_is_refused() -> None:
    values = {"drift": {"kind": "drift"}}
    with pytest.raises(ValueError, match="profiles\\.0\\.relative_limits\\.drift is a share of the value's loss, which is 0"):
        Engine(load("digits", values=values, profiles=[{"relative_limits": {"drift": 0.1}}]))


def test_limits_are_read_back_and_left_out_where_there_are_none() -> None:
    scenario = load("digits", profiles=LIMITED)
    assert scenario.to_dict()["profiles"][0]["limits"] == {"eights": 0.1}
    assert "relative_limits" not in scenario.to_dict()["profiles"][0]
    assert all("limits" not in profile for profile in load("digits-mean", profiles=[{}]).to_dict()["profiles"])
