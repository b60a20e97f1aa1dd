from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from proxycoop import credit
from proxycoop.agents import make, play
from proxycoop.envs import Engine, scenario
from proxycoop.envs.outcome import deadlock, rises
from proxycoop.envs.rendering import profile_in_short, render_picture, render_text
from proxycoop.envs.screening.profiles import Profile


def tolerant(name: str, **overrides: Any) -> scenario.Scenario:
    """A scenario with tolerances alone, unless overridden, and rewards of a size that is easily read."""
    made = scenario.load(name, **{"reward.scale": 50.0, "screening.guard": False, **overrides})
    return made if "profiles" in overrides else made.model_copy(update={"profiles": made.unlimited().profiles})


def engine_of(
    name: str = "digits", rule: credit.CreditRule | str | None = "loo", rounds: int = 0, num_envs: int = 1, **overrides: Any
) -> Engine:
    engine = Engine(tolerant(name, **overrides), rule, num_envs)
    engine.reset(list(range(3, 3 + num_envs)))
    return played(engine, rounds)


def played(engine: Engine, rounds: int) -> Engine:
    generator = torch.Generator().manual_seed(1)
    for _ in range(rounds):
        engine.step(torch.rand(engine.num_envs, engine.num_agents, engine.num_lots, generator=generator) < 0.5)
    return engine


def rows_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("proxy_")]


def spelled_out(ranges: str) -> set[int]:
    bounds = [list(map(int, part.split("-"))) for part in ranges.split(",")]
    return {j for bound in bounds for j in range(bound[0], bound[-1] + 1)}


def test_before_the_first_reset_both_say_to_call_reset() -> None:
    engine = Engine(tolerant("digits"))
    for render in (render_text, render_picture):
        with pytest.raises(RuntimeError, match="render was called before the first reset: call reset first"):
            render(engine)


def test_an_environment_that_does_not_exist_is_refused() -> None:
    engine = engine_of(num_envs=2)
    for render in (render_text, render_picture):
        for environment in (-1, 2):
            with pytest.raises(ValueError, match=f"environment={environment}: must be from 0 to 1"):
                render(engine, environment)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("digits", {}),
        ("digits-provenance", {}),
        ("digits", {"principals": 13, "profiles": [{"holders": 13, "tolerances": {"eights": 0.1}}]}),
        ("digits", {"profiles": [{"holders": 4, "max_norm": 0.05}], "screening.governance": "quorum"}),
    ],
)
def test_text_names_every_lot_and_every_blocker_of_a_screened_out_lot(name: str, overrides: dict[str, Any]) -> None:
    engine = engine_of(name, rounds=3, **overrides)
    last, rows, n_screened = engine.history[-1], rows_of(render_text(engine)), 0
    assert len(rows) == engine.num_agents
    for i, row in enumerate(rows):
        match = re.search(r"  ((?:[·AX] ){3}[·AX])  ", row)
        assert match is not None
        named = {int(k): spelled_out(ranges) for k, ranges in re.findall(r" (\d+):([\d,-]+)", row)}
        for k, letter in enumerate(match[1].split()):
            contributed, admitted = bool(last.contributed[0, i, k]), bool(last.admitted[0, i, k])
            assert letter == ("A" if admitted else "X" if contributed else "·")
            assert (k in named) == (letter == "X")
            if k in named:
                assert named[k] == set(last.blocked_by[0, i, k].nonzero()[:, 0].tolist())
                n_screened += 1
    assert n_screened


def test_text_reports_credit_total_and_cost_in_reward_units() -> None:
    engine = engine_of("breast_cancer", rounds=4)
    last = engine.history[-1]
    for i, row in enumerate(rows_of(render_text(engine))):
        paid, total, cost = map(float, re.findall(r"  +([+-]?\d+\.\d\d)(?=  |$)", row))
        assert paid == pytest.approx(engine.reward_scale * last.credit[0, i].item(), abs=0.0051)
        assert total == pytest.approx(engine.reward_scale * engine.credit_so_far[0, i].item(), abs=0.0051)
        assert cost == pytest.approx(last.cost[0, i].item(), abs=0.0051)


def test_text_shows_each_principals_profile() -> None:
    engine = engine_of("digits-provenance", profiles_drawn=False)
    protects = [row.split("?")[0].split(maxsplit=1)[1].strip() for row in rows_of(render_text(engine))]
    assert protects == ["no scraped", "no scraped", "eights≤0.36", "nines≤0.36", "-", "-"]
    engine = engine_of(profiles=[{"holders": 6, "max_norm": 0.25}])
    assert all("norm≤0.25" in row for row in rows_of(render_text(engine)))


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({}, "-"),
        ({"tolerances": {"eights": 0.25}, "relative_tolerances": {"nines": 0.1}}, "eights≤0.25, nines≤10 %"),
        ({"direction": {"eights": 4, "nines": -3}, "max_norm": 0.5}, "0.8·eights−0.6·nines≤0, norm≤0.5"),
        ({"direction": {"eights": -2, "nines": 0}, "forbidden_tags": ["web"]}, "−1·eights≤0, no web"),
    ],
)
def test_a_profile_in_short_names_every_limit(profile: dict[str, Any], said: str) -> None:
    assert profile_in_short(Profile(**profile)) == said


def test_relative_tolerances_and_directions_stand_beside_who_holds_them() -> None:
    profiles = [{"holders": 5, "relative_tolerances": {"eights": 0.1}}, {"holders": 1, "direction": {"eights": 1.0, "nines": 0.5}}]
    rows = rows_of(render_text(engine_of(profiles=profiles, profiles_drawn=False)))
    assert all(" eights≤10 %" in row for row in rows[:5])
    assert " 0.89·eights+0.45·nines≤0" in rows[5]


def test_a_mended_update_is_shown_with_how_much_of_it_entered_and_to_whom_it_was_inadmissible() -> None:
    engine = engine_of(rounds=1, **{"screening.filter": "scale"})
    last, text, n_mended = engine.history[-1], render_text(engine), 0
    for i, row in enumerate(rows_of(text)):
        letters = re.search(r"  ((?:(?:[·AX]|M\d+%) ){3}(?:[·AX]|M\d+%))  ", row)
        assert letters is not None
        for k, letter in enumerate(letters[1].split()):
            mended = bool(last.admitted[0, i, k] and last.kept[0, i, k] < 1)
            assert letter.startswith("M") == mended
            if mended:
                assert letter == f"M{last.kept[0, i, k].item():.0%}"
                named = dict(re.findall(r" (\d+):([\d,-]+)", row))
                assert spelled_out(named[str(k)]) == set(last.blocked_by[0, i, k].nonzero()[:, 0].tolist())
                n_mended += 1
    assert n_mended
    assert "screened out or mended, lot:inadmissible to" in text
    assert max(map(len, text.splitlines())) <= 110
    assert "M mended: that share of its length is admitted" in text
    assert not np.array_equal(render_picture(engine), render_picture(engine_of(rounds=1)))
    assert "mended" not in render_text(engine_of(rounds=1))


def test_under_negotiation_it_says_how_the_bargain_went() -> None:
    engine = engine_of(rounds=1, **{"screening.governance": "negotiate"})
    last, text = engine.history[-1], render_text(engine)
    begins, *moves, ends = [line for line in text.splitlines() if line.startswith("the bargain ")]
    n_moves = int((last.bargain.moves[0] >= 0).sum())
    assert n_moves > 0
    assert len(moves) == min(n_moves, 6) + (n_moves > 6)
    assert all("Nash welfare" in move for move in moves[:6])
    assert begins.startswith("the bargain begins with ")
    assert ends.startswith(f"the bargain ends with {int(last.admitted.sum())} of ")
    assert "bargain" not in render_text(engine_of(rounds=1))
    left_out = last.contributed & ~last.admitted & ~last.blocked_by.any(dim=-1)
    assert text.count(":nobody") == int(left_out.sum())


def test_text_shows_utility_and_value_losses_before_and_after_the_round() -> None:
    engine = engine_of(rounds=1)
    last, text = engine.history[-1], render_text(engine)
    assert f"{engine.initial_utility.item():.4f} →  {last.utility.item():.4f}" in text
    assert f"{engine.initial_value_losses[0, 1].item():.4f} →   {last.value_losses[0, 1].item():.4f}" in text
    assert f"{last.gain.item():+.4f} (nats)" in text
    assert "applied step: within every profile\n" in text


def test_the_rise_of_watched_losses_since_the_start_stands_beside_the_verdict() -> None:
    engine = Engine(tolerant("digits"), "equal")
    engine.reset([0])
    assert "since the start" not in render_text(engine)
    while engine.t < engine.horizon:
        engine.step(torch.ones(1, 6, 4, dtype=torch.bool))
    eights, nines = (engine.history[-1].value_losses - engine.initial_value_losses)[0].tolist()
    assert eights > 1.2  # although every step was within every profile
    assert not any(result.violated.any() for result in engine.history)
    text = render_text(engine)
    assert f"applied step: within every profile\nwatched losses since the start: eights {eights:+.4f}, nines {nines:+.4f}\n" in text
    assert rises(engine) == {"eights": pytest.approx(eights), "nines": pytest.approx(nines)}


def test_only_losses_that_a_profile_watches_are_told() -> None:
    one = engine_of(rounds=1, profiles=[{"holders": 1, "tolerances": {"nines": 0.4}}])
    assert list(rises(one)) == ["nines"]
    assert "since the start: nines" in render_text(one)
    assert "since the start" not in render_text(engine_of(rounds=1, profiles=[]))
    weighed = {"profiles": [{"holders": 2, "direction": {"eights": 1.0}}]}
    assert list(rises(engine_of(rounds=1, **weighed))) == ["eights"]


def honest_episode(**overrides: Any) -> Engine:
    engine = Engine(tolerant("digits", horizon=3, **overrides), "shapley")
    play(engine, make("honest"), [0])
    return engine


def test_an_episode_in_which_nothing_passes_says_so_and_what_helps() -> None:
    engine = honest_episode()
    said = deadlock(engine)
    n_contributed = sum(int(result.contributed.sum()) for result in engine.history)
    assert said.startswith(
        f"nothing passed: all {n_contributed} updates contributed were screened out, {n_contributed} of them because of ei"
    )
    assert said in render_text(engine).replace("\n", " ")
    assert max(map(len, render_text(engine).splitlines())) <= 110
    assert not np.array_equal(render_picture(engine)[50:70], render_picture(honest_episode(**{"screening.filter": "project"}))[50:70])
    for helps in ({"screening.filter": "project"}, {"screening.governance": "negotiate"}):
        assert next(f"{name}: {value}" for name, value in helps.items()) in said
        assert deadlock(honest_episode(**helps)) == ""
    for agent in ("planner", "oracle"):
        assert agent in said
        play(engine, make(agent), [0])
        assert deadlock(engine) == ""
    assert "nothing passed" not in render_text(engine)


def test_nothing_contributed_is_no_deadlock_and_other_limits_are_named() -> None:
    engine = Engine(
        scenario.load("digits", **{"reward.scale": 50.0, "horizon": 1, "profiles": [{"holders": 1, "max_norm": 1e-9}]}), "equal", 2
    )
    engine.reset([0, 1])
    nothing = torch.zeros(2, 6, 4, dtype=torch.bool)
    engine.step(nothing)
    assert deadlock(engine) == ""
    engine.reset([0, 1])
    engine.step(nothing.index_fill(0, torch.tensor([1]), True))
    assert "nothing passed in 1 of 2 episodes: all 24 updates contributed there were screened out, 24 of them because of other" in deadlock(
        engine
    )
    assert deadlock(engine, 0) == ""
    assert deadlock(engine, 1).startswith("nothing passed: all 24")


def test_rounding_errors_are_not_drawn_as_curves() -> None:
    """Shapley credit of rounds in which nothing passed is 1e-8 or so: the picture is that of credit 0."""
    flat, noisy = honest_episode(), honest_episode()
    for result in flat.history:
        result.credit.zero_()
    noisy.history[0].credit[0, 0] += 1e-9
    difference = render_picture(flat).astype(int) - render_picture(noisy)
    assert np.abs(difference).max() <= 8  # of 255: less than a pixel


def test_violation_and_guard_are_reported() -> None:
    settings: dict[str, Any] = {"screening.governance": "none", "profiles": [{"holders": 1, "max_norm": 1e-3}]}
    assert "applied step: VIOLATES a profile\n" in render_text(engine_of(rounds=1, **settings))
    forbids: dict[str, Any] = {"lots.tags": {"web": 0.5, "own": 0.5}, "screening.governance": "none"}
    forbids["profiles"] = [{"holders": 1, "forbidden_tags": ["web"]}]
    assert "applied step: uses FORBIDDEN data\n" in render_text(engine_of(rounds=1, **forbids))
    guarded = engine_of(rounds=1, **(settings | {"screening.guard": True}))
    assert f"within every profile · guard γ = {guarded.history[-1].gamma.item():.3f}\n" in render_text(guarded)


def test_table_for_six_proxies_of_four_lots_stays_within_110_columns_and_is_plain() -> None:
    profiles = [{"holders": 3, "tolerances": {"missed_cancer": 0.01, "false_alarm": 0.01}, "max_norm": 0.001}]
    for engine in (engine_of(rounds=5), engine_of("breast_cancer", rounds=5, profiles=profiles)):
        text = render_text(engine)
        assert max(map(len, text.splitlines())) <= 110
        assert "\x1b" not in text


class Unregistered(credit.Equal):
    pass


@pytest.mark.parametrize(
    ("rule", "name"), [("shapley", "shapley"), (None, "none"), (credit.Equal(), "equal"), (Unregistered(), "Unregistered")]
)
def test_title_says_which_scenario_credit_rule_and_round(rule: credit.CreditRule | str | None, name: str) -> None:
    assert render_text(engine_of(rule=rule, rounds=2)).splitlines()[0] == f"digits · credit rule: {name} · round 2/16"


def test_start_of_the_episode_shows_lots_not_chosen_yet_also_after_another_episode() -> None:
    engine = engine_of(horizon=2, rounds=2)
    engine.reset()
    text = render_text(engine)
    assert "round 0/2 (start of the episode)" in text
    assert all("? ? ? ?" in row and "+0.00" in row for row in rows_of(text))
    assert "→" not in text


def test_an_environment_of_a_batch_is_shown_as_it_is_alone() -> None:
    batch, single = engine_of(num_envs=2), engine_of()
    single.reset([4])
    for _ in range(2):
        batch.step(torch.ones(2, 6, 4, dtype=torch.bool))
        single.step(torch.ones(1, 6, 4, dtype=torch.bool))
    assert render_text(batch, 1).replace(" · environment 1 of 2", "") == render_text(single)


@pytest.mark.parametrize(("width", "height"), [(960, 640), (240, 160), (333, 517), (1601, 901)])
def test_picture_has_the_size_asked_for(width: int, height: int) -> None:
    picture = render_picture(engine_of(rounds=2), width=width, height=height)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture @ np.array([1, 2**8, 2**16]))) > 10  # colours


def test_picture_too_small_to_hold_anything_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 240 and 160 pixels"):
        render_picture(engine_of(), width=100)


@pytest.mark.parametrize(
    ("overrides", "rounds"),
    [
        ({"principals": 1, "lots.per_principal": 1, "profiles": []}, 0),
        ({"principals": 1, "lots.per_principal": 1, "profiles": []}, 16),
        ({"principals": 12, "lots.per_principal": 10}, 16),
        ({"principals": 64}, 0),
        ({"utility": "accuracy", "profiles": [{"holders": 6, "tolerances": {"eights": 0.0, "nines": 0.0}}]}, 16),
        ({"values": {f"digit_{digit}": {"kind": "class_loss", "label": digit} for digit in range(3)}}, 16),
    ],
)
def test_every_size_of_cooperative_can_be_shown(overrides: dict[str, Any], rounds: int) -> None:
    engine = engine_of(rule="data_size", rounds=rounds, **overrides)
    assert render_picture(engine).shape == (640, 960, 3)
    assert len(rows_of(render_text(engine))) == engine.num_agents


def test_without_values_there_is_no_panel_and_no_line_for_them() -> None:
    plain = tolerant("digits", profiles=[]).model_copy(update={"values": {}})
    engine = Engine(plain, "loo")
    engine.reset([1])
    played(engine, 2)
    assert "loss of" not in render_text(engine)
    assert render_picture(engine).shape == (640, 960, 3)


def test_hostile_names_are_shown_as_they_are_and_break_nothing() -> None:
    values = {"_hidden": {"kind": "class_loss", "label": 8}, "a" * 40: {"kind": "class_loss", "label": 9}}
    tags = {r"$\frac{": 0.4, "two\nlines": 0.4, "plain": 0.2}
    hostile = scenario.load(
        "digits",
        **{
            "name": "a" * 64,
            "description": r"costs $5 \frac{ and $x_",
            "reward.scale": 50.0,
            "lots.tags": tags,
            "profiles": [{"holders": 2, "tolerances": {"_hidden": 0.1}}, *({"forbidden_tags": [tag]} for tag in list(tags)[:2])],
            "values": values,
        },
    )
    engine = Engine(hostile, "loo")
    engine.reset([1])
    played(engine, 2)
    text = render_text(engine)
    assert "loss of _hidden" in text
    assert r"no $\frac{" in text
    assert len(rows_of(text)) == 6
    assert render_picture(engine).shape == (640, 960, 3)


def test_a_model_that_has_diverged_can_still_be_shown() -> None:
    engine = engine_of(rounds=1)
    engine.rule = None  # a rule would be told that the model diverged
    engine.theta = torch.full_like(engine.theta, torch.nan)
    engine.prospect = engine._look()
    played(engine, 1)
    assert "nan" in render_text(engine)
    assert render_picture(engine).shape == (640, 960, 3)


def test_same_state_gives_the_same_picture_and_another_state_another() -> None:
    first, second = engine_of(rounds=3), engine_of(rounds=3)
    picture = render_picture(first)
    assert np.array_equal(picture, render_picture(first))
    assert np.array_equal(picture, render_picture(second))
    assert not np.array_equal(picture, render_picture(played(second, 1)))


def test_rendering_changes_neither_the_next_step_nor_any_global_randomness() -> None:
    watched, unwatched = engine_of(rounds=2), engine_of(rounds=2)
    random_state = torch.get_rng_state()
    render_text(watched)
    render_picture(watched)
    assert torch.equal(torch.get_rng_state(), random_state)
    actions = torch.ones(1, 6, 4, dtype=torch.bool)
    a, b = watched.step(actions), unwatched.step(actions)
    for name in ("observations", "rewards", "credit", "admitted", "utility", "value_losses"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_what_lots_earned_stands_beside_them_under_rules_that_can_tell():
    for rule in ("data_shapley", "shapley"):
        engine = Engine("digits", rule)
        engine.reset([1])
        last = engine.step(~engine.lots.corrupt)
        text = render_text(engine)
        earned = [] if last.lot_credit is None else (engine.reward_scale * last.lot_credit[last.admitted]).tolist()
        assert re.findall(r"A([+-]\d+\.\d\d)", text) == [f"{amount:+z.2f}" for amount in earned]
        assert ("what the lot earned" in text) == (rule == "data_shapley")
        assert bool(earned) == (rule == "data_shapley")
