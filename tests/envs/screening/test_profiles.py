"""Profiles: what they refuse, relative tolerances as losses move, directions, and what scenarios check of them."""

import math

import pytest
import torch
from torch import Tensor

from proxycoop.envs import Engine, scenario
from proxycoop.envs.screening.profiles import DIRECTION_SLACK, Profile, Profiles, ProfileTable


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerances": {"a": -0.1}}, r"tolerances\.a: must be finite and at least 0 \(got -0\.1\)"),
        ({"tolerances": {"a": math.inf}}, "finite"),
        ({"tolerances": {"a": math.nan}}, "finite"),
        ({"relative_tolerances": {"a": -0.1}}, r"relative_tolerances\.a: must be finite and at least 0 \(got -0\.1\)"),
        ({"relative_tolerances": {"a": math.inf}}, "finite"),
        ({"relative_tolerances": {"a": math.nan}}, "finite"),
        (
            {"tolerances": {"a": 0.1, "b": 0.1}, "relative_tolerances": {"b": 0.1}},
            r"relative_tolerances\.b: there is an absolute one under tolerances too: give one",
        ),
        ({"direction": {"a": 0.0, "b": 0.0}}, r"direction=\{'a': 0.0, 'b': 0.0\}: at least one weight must differ from 0"),
        ({"direction": {"a": math.nan}}, "finite"),
        ({"direction": {"a": math.inf}}, "finite"),
        ({"stake": 0.0}, "stake\n.*greater than 0"),
        ({"stake": -1.0}, "stake\n.*greater than 0"),
        ({"stake": math.inf}, "finite"),
        ({"max_norm": 0.0}, "max_norm\n.*greater than 0"),
        ({"max_norm": -2.0}, "max_norm\n.*greater than 0"),
        ({"max_norm": math.nan}, "finite"),
        ({"holders": 0}, "holders\n.*greater than or equal to 1"),
        ({"tolerance": {"a": 1.0}}, "tolerance\n.*Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        Profile(**settings)


def test_a_profile_is_about_the_values_it_names_in_any_way_each_once() -> None:
    profile = Profile(tolerances={"a": 1.0, "b": 0.0}, relative_tolerances={"c": 0.1}, direction={"b": 1.0, "d": -1.0})
    assert profile.values == ("a", "b", "c", "d")
    assert Profile().values == ()


DIGITS = {"reward.scale": 1.0, "profiles_drawn": False}


@pytest.mark.parametrize(
    ("profile", "more", "message"),
    [
        (
            {"relative_tolerances": {"sevens": 0.1}},
            {},
            "profiles\\.0\\.relative_tolerances\\.sevens: unknown value 'sevens'.*eights, n",
        ),
        ({"direction": {"nine": 1.0}}, {}, "profiles\\.0\\.direction\\.nine: unknown value 'nine'.*did you mean 'nines'.*eights, nines"),
        (
            {"forbidden_tags": ["bed"]},
            {"lots.tags": {"good": 0.5, "bad": 0.5}},
            "profiles\\.0\\.forbidden_tags\\.0: unknown tag 'bed'",
        ),
        ({"forbidden_tags": ["bad"]}, {}, "unknown tag 'bad'.*none: define one under lots.tags"),
        (
            {"forbidden_tags": ["good", "bad"]},
            {"lots.tags": {"good": 0.5, "bad": 0.5}},
            r"a profile forbids every tag that lots carry \(bad, good\), so that no update could ever be admissible",
        ),
        ({"forbidden_tags": ["bad"]}, {"lots.tags": {"good": 0.0, "bad": 1.0}}, r"forbids every tag that lots carry \(bad\)"),
        ({"holders": 7}, {}, "7 holders in all, but there are only 6 principals"),
    ],
)
def test_scenarios_refuse_profiles_that_do_not_fit_them(profile: dict[str, object], more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        scenario.load("digits", **DIGITS, profiles=[profile], **more)


def engine_of(profiles: list[dict[str, object]], num_envs: int = 4, dtype: torch.dtype = torch.float64, **overrides: object) -> Engine:
    engine = Engine(scenario.load("digits", **DIGITS, profiles=profiles, **overrides), None, num_envs=num_envs, dtype=dtype)
    engine.reset(range(num_envs))
    return engine


def everything(engine: Engine) -> Tensor:
    return torch.ones(engine.num_envs, engine.num_agents, engine.num_lots)


def test_forbidding_a_tag_that_nobody_carries_has_no_effect() -> None:
    tags = {"good": 1.0, "bad": 0.0}
    strict, free = (engine_of([{"forbidden_tags": tag}], **{"lots.tags": tags}) for tag in (["bad"], []))
    for _ in range(3):
        one, two = strict.step(everything(strict)), free.step(everything(free))
        assert torch.equal(one.admitted, two.admitted)
        assert one.admitted.all()
        assert not one.forbidden_used.any()
    assert torch.equal(strict.theta, free.theta)


# relative tolerances


def test_a_relative_tolerance_is_that_share_of_the_loss_at_each_round_s_start() -> None:
    engine = engine_of([{"relative_tolerances": {"eights": 0.1}}, {"tolerances": {"eights": 0.15, "nines": 0.3}}])
    seen = []
    for _ in range(5):
        losses = engine.prospect.value_losses.clone()
        share = 0.1 * losses[:, 0]
        limits = engine.prospect.verdicts.profiles.tolerance
        torch.testing.assert_close(limits[:, 0, 0], share)
        assert (limits[:, 0, 1] == math.inf).all()
        assert (limits[:, 2:] == math.inf).all()
        harmful = engine.prospect.harm[..., 0] > share[:, None, None]
        assert torch.equal(engine.prospect.blocked_by[..., 0], harmful)
        result = engine.step(everything(engine))
        torch.testing.assert_close(result.tolerance[:, 0], share.clamp(max=0.15))
        torch.testing.assert_close(result.tolerance[:, 1], torch.full_like(share, 0.3))
        seen.append(share)
    assert ((seen[-1] - seen[0]).abs() > 1e-4).all()  # it follows the loss
    assert engine.profiles.holds[:, 0].tolist() == [[True, False]] * 4


def test_a_relative_tolerance_of_a_loss_of_zero_is_zero_and_nobody_s_is_no_number() -> None:
    table = ProfileTable(
        [Profile(relative_tolerances={"a": 0.5}), Profile(tolerances={"a": 0.2}, relative_tolerances={"b": 0.0})],
        3,
        ["a", "b"],
        [],
        False,
        torch.float32,
    )
    dealt = table.deal(torch.arange(2))
    at = dealt.at(losses := torch.tensor([[0.0, 3.0], [-1e-9, 0.0]]), losses)
    assert at.tolerance[:, 0].tolist() == [[0.0, math.inf]] * 2
    assert at.tolerance[:, 1].tolist() == [[pytest.approx(0.2), 0.0]] * 2
    assert at.tolerance[:, 2].tolist() == [[math.inf, math.inf]] * 2
    assert at.relative is None
    assert torch.equal(at.holds, dealt.holds)
    assert dealt.holds[0].tolist() == [[True, False], [True, True], [False, False]]


@pytest.mark.parametrize(
    "changes",
    [
        {"values": {"still": {"kind": "drift"}}},
        {
            "values": {"still": {"kind": "disparity", "group": "dark", "label": 8}},
            "data.groups": {"dark": {"column": "pixel_3_3", "above": 0.5}},
            "start": {"steps": 0},  # a model that says nothing treats everybody alike
        },
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_share_of_a_loss_that_is_zero_where_episodes_start_is_refused(changes: dict[str, object], dtype: torch.dtype) -> None:
    def start(profile: dict[str, object]) -> Engine:
        return engine_of([profile], dtype=dtype, **{"lots.mixture.protected": [], **changes})

    with pytest.raises(ValueError, match="profiles\\.0\\.relative_tolerances\\.still is a share of the value's loss, which is 0"):
        start({"relative_tolerances": {"still": 0.5}})
    start({"tolerances": {"still": 0.5}})  # an absolute one is not


def test_without_relative_tolerances_profiles_are_the_same_whatever_the_losses() -> None:
    dealt = ProfileTable([Profile(tolerances={"a": 0.2})], 2, ["a"], [], True, torch.float64).deal(torch.arange(3))
    assert dealt.at(torch.full((3, 1), math.nan), torch.zeros(3, 1)) is dealt


# directions


@pytest.mark.parametrize("weights", [{"a": 3.0, "b": -4.0}, {"a": 3e-200, "b": -4e-200}, {"a": 3e200, "b": -4e200}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direction_has_length_one_whatever_its_weights_unit(weights: dict[str, float], dtype: torch.dtype) -> None:
    table = ProfileTable([Profile(), Profile(direction=weights)], 3, ["a", "c", "b"], [], False, dtype)
    dealt = table.deal(torch.arange(1))
    torch.testing.assert_close(dealt.directions, torch.tensor([[0.6, 0.0, -0.8]], dtype=dtype))
    torch.testing.assert_close(dealt.direction_of_each[0], torch.tensor([[0.0] * 3, [0.6, 0.0, -0.8], [0.0] * 3], dtype=dtype))
    assert dealt.limit[0, 1].tolist() == [math.inf] * 3 + [pytest.approx(DIRECTION_SLACK)]
    assert dealt.limit[0, 0].tolist() == [math.inf] * 4


def test_effects_are_harms_and_how_far_they_go_against_directions_and_normals_their_gradients() -> None:
    table = ProfileTable([Profile(direction={"a": 3.0, "b": 4.0}), Profile(direction={"b": -1.0})], 2, ["a", "b"], [], False, torch.float64)
    dealt = table.deal(torch.arange(1))
    harm = torch.tensor([[[[1.0, 2.0]], [[-1.0, 0.5]]]], dtype=torch.float64)
    torch.testing.assert_close(
        dealt.effects(harm)[0, :, 0], torch.tensor([[1.0, 2.0, 2.2, -2.0], [-1.0, 0.5, -0.2, -0.5]], dtype=torch.float64)
    )
    gradients = torch.randn(1, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    updates = torch.randn(1, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(updates @ dealt.normals(gradients).mT, dealt.effects(updates @ gradients.mT))


def test_an_update_against_a_direction_is_blocked_by_its_holder_and_one_along_it_passes() -> None:
    engine = engine_of([{}, {"direction": {"eights": 1.0, "nines": 2.0}}])
    for _ in range(3):
        against = engine.prospect.harm @ torch.tensor([1.0, 2.0], dtype=torch.float64) / math.sqrt(5) > DIRECTION_SLACK
        assert against.any()
        assert not against.all()
        assert torch.equal(engine.prospect.blocked_by[..., 1], against)
        assert not engine.prospect.blocked_by[..., [0, 2, 3, 4, 5]].any()
        result = engine.step(everything(engine))
        assert torch.equal(result.admitted, ~against)
        assert (result.step_harm @ torch.tensor([1.0, 2.0], dtype=torch.float64) <= 1e-9).all()


OPPOSITE = [{"direction": {"eights": 1.0, "nines": 1.0}}, {"direction": {"eights": -1.0, "nines": -1.0}}]


def test_opposite_directions_under_unanimity_let_in_only_what_is_orthogonal_to_them() -> None:
    engine = engine_of(OPPOSITE)
    look = engine.prospect
    orthogonal = look.harm.sum(dim=-1).abs() / math.sqrt(2) <= DIRECTION_SLACK
    assert torch.equal(look.passes, orthogonal)
    assert not orthogonal.any()  # no lot happens to be: the two cannot both be served, and nothing is learned
    start = engine.theta
    engine.step(everything(engine))
    assert torch.equal(engine.theta, start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_serves_opposite_directions_with_what_is_orthogonal_to_both(dtype: torch.dtype) -> None:
    engine = engine_of(OPPOSITE, dtype=dtype, **{"screening.filter": "project"})
    start = engine.theta
    while engine.t < engine.horizon:
        assert engine.prospect.passes.all()
        result = engine.step(everything(engine))
        assert (result.kept > 0.5).all()
        assert (result.step_harm.sum(dim=-1).abs() <= 1e-5).all()
        assert not result.violated.any()
    assert ((engine.theta - start).norm(dim=-1) > 0.5).all()
    assert (engine.prospect.utility > engine.initial_utility).all()


def test_a_direction_is_dealt_to_its_holder_and_moves_with_it() -> None:
    made = [Profile(direction={"a": 1.0}, stake=2.0), Profile(holders=2, direction={"a": -1.0})]
    dealt = ProfileTable(made, 4, ["a"], [], True, torch.float64).deal(torch.arange(50))
    sign = dealt.direction_of_each[..., 0]
    assert torch.equal(sign.sort(dim=1).values, torch.tensor([-1.0, -1.0, 0.0, 1.0]).double().expand(50, 4))
    assert torch.equal(dealt.kind, torch.where(sign == 1, 0, torch.where(sign == -1, 1, 2)))
    assert torch.equal(dealt.stake.argmax(dim=1), sign.argmax(dim=1))
    assert sign.argmax(dim=1).unique().numel() == 4


def test_where_nobody_has_a_direction_there_is_none() -> None:
    plain = Profiles(torch.ones(1, 2, 3), torch.zeros(1, 2, 0, dtype=torch.bool), torch.ones(1, 2))
    assert torch.equal(plain.direction_of_each, torch.zeros(1, 2, 3))
    harm = torch.ones(1, 2, 1, 3)
    assert plain.effects(harm) is harm
    assert plain.limit is plain.tolerance


def test_tightening_multiplies_tolerances_of_both_kinds_and_nothing_else() -> None:
    made = Profile(holders=2, tolerances={"a": 0.5}, relative_tolerances={"b": 0.2}, max_norm=3.0, forbidden_tags=("x",), stake=2.0)
    expected = Profile(holders=2, tolerances={"a": 0.25}, relative_tolerances={"b": 0.1}, max_norm=3.0, forbidden_tags=("x",), stake=2.0)
    assert made.tightened(0.5) == expected
    with pytest.raises(ValueError, match=r"tolerances\.a: must be finite and at least 0 \(got -0\.5\)"):
        made.tightened(-1)
