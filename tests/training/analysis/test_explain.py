"""Explanations of what was learned: worth recomputed coalition by coalition, null features, and page, words and command."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from functools import partial
from itertools import pairwise, permutations

import pytest
import torch

from proxycoop import agents
from proxycoop.agents import Agent, LotNetwork, Nothing, Seats, make, network
from proxycoop.envs import Engine, scenario
from proxycoop.envs.money.settlement import SettlementTerms
from proxycoop.envs.observations.layout import ObservationLayout
from proxycoop.envs.randomness import fold
from proxycoop.training.analysis.coalition_play import TARGETS, Background, Blinkered, FeatureGame, ProxyGame, features
from proxycoop.training.analysis.explain import explain, explain_features
from proxycoop.training.analysis.masked_features import MaskedFeatures
from proxycoop.training.evaluate import Estimate
from proxycoop.training.pages.drawing import house_style
from proxycoop.training.pages.explain_figures import behaviour, outcomes
from proxycoop.training.pages.explain_page import _pay_in_words, feature_rows, proxy_rows, sentences, to_csv, to_dict, write_explanation

EPISODES, SEED = 3, 7
SEEDS = range(SEED, SEED + EPISODES)
PROFILES = [{"holders": 1, "tolerances": {"missed_cancer": 0.1}}]


def cooperative(**changes):
    return scenario.load("breast_cancer", **{"principals": 3, "horizon": 4, "profiles": PROFILES, "reward.scale": 100.0, **changes})


def nobody_counts(n):
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def small_scenario():
    return cooperative()


@pytest.fixture(scope="module")
def layout(small_scenario):
    return ObservationLayout.of(small_scenario)


@pytest.fixture(scope="module")
def honest(small_scenario):
    return explain(small_scenario, partial(make, "honest"), credit="shapley", episodes=EPISODES, seed=SEED)


def reading(layout, path, names, seed=0):
    """A policy that reads the named features alone, with weights large enough to matter."""
    torch.manual_seed(seed)
    n_lot, every = len(layout.lot_features), features(layout)
    net = LotNetwork(n_lot, len(layout.agent_features), hidden=16)
    kept = torch.tensor([name in names for name in every])
    with torch.no_grad():
        net.actor[0].weight *= torch.cat([kept[:n_lot], kept])  # a lot's features, then their means and the agent's
        net.decide.weight.normal_(0, 1.5)
    n_features = len(every)
    network.save(path, net, torch.zeros(n_features), torch.ones(n_features), layout)
    return partial(make, "learned", path=path)


def observed(engine, agent, seeds):
    rows = []
    agents.play(engine, agent, seeds, before_round=lambda engine: rows.append(engine.observations))
    return torch.stack(rows)


def background_of(coop, layout, agent):
    return Background(observed(Engine(coop, "shapley", 4), agent(), range(50, 54)), layout)


# proxies


def test_worth_of_a_coalition_is_the_welfare_when_the_others_contribute_nothing(small_scenario):
    order = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]])
    game = ProxyGame(small_scenario, "loo", SEEDS, nobody_counts, agent=partial(make, "random"), order=order)
    coalitions = torch.tensor([[True, False, True], [False, False, False], [True, True, True], [False, True, False]])
    worth = game(coalitions)
    assert worth.shape == (len(TARGETS), EPISODES, 4)
    for c, members in enumerate(coalitions):
        for e in range(EPISODES):
            absent = {int(order[e, r]): Nothing() for r in range(3) if not members[r]}
            engine = Engine(small_scenario, "loo", 1)
            metrics = agents.play(engine, Seats(make("random"), absent), [SEED + e])
            expected = (metrics["welfare"], metrics["gain"], engine.test()["utility"])
            assert worth[:, e, c].tolist() == pytest.approx([float(one) for one in expected], abs=1e-4)


def test_worth_is_the_mean_marginal_contribution_over_all_orders_of_joining(honest):
    part = honest.proxies
    game = ProxyGame(honest.scenario, "shapley", SEEDS, nobody_counts, agent=partial(make, "honest"), order=part.seats)
    expected = torch.zeros(EPISODES, 3, dtype=torch.float64)
    for order in permutations(range(3)):
        joined = torch.zeros(3, dtype=torch.bool)
        before = game(joined[None])[0, :, 0]
        for player in order:
            joined = joined.clone()
            joined[player] = True
            after = game(joined[None])[0, :, 0]
            expected[:, player] += (after - before) / 6
            before = after
    assert torch.allclose(part.welfare, expected, atol=1e-4)
    assert part.worth.method == "exact"


def test_worths_sum_to_what_all_are_worth_beyond_nobody_in_every_episode(honest):
    for part in (honest.proxies.worth, honest.features.outcomes, honest.features.discrimination):
        assert torch.allclose(part.values.sum(dim=-1), part.everybody - part.nobody, atol=1e-9)
    engine = Engine(honest.scenario, "shapley", EPISODES)
    metrics = agents.play(engine, make("honest"), SEEDS)
    for part in (honest.proxies.worth, honest.features.outcomes):
        assert torch.allclose(part.everybody[0], metrics["welfare"].double(), atol=1e-4)
        assert torch.allclose(part.everybody[2], engine.test()["utility"].double(), atol=1e-6)
    assert torch.equal(honest.proxies.worth.nobody[0], torch.zeros(EPISODES, dtype=torch.float64))


def test_ranks_are_by_clean_lots_and_carry_pay_and_profile_of_their_seat(honest):
    part = honest.proxies
    engine = Engine(honest.scenario, "shapley", EPISODES)
    returns = agents.play(engine, make("honest"), SEEDS)["return"]
    assert (part.clean.diff(dim=1) <= 0).all()
    for e in range(EPISODES):
        assert sorted(part.seats[e].tolist()) == [0, 1, 2]
        for r, seat in enumerate(part.seats[e].tolist()):
            assert part.clean[e, r] == (~engine.lots.corrupt[e, seat]).sum()
            assert part.kind[e, r] == engine.profiles.kind[e, seat]
            assert part.returns[e, r].item() == pytest.approx(returns[e, seat].item(), abs=1e-5)


def test_with_a_budget_worth_is_estimated_and_still_sums(small_scenario):
    coop = cooperative(principals=5, horizon=2)
    found = explain(coop, partial(make, "all"), credit="equal", episodes=2, seed=SEED, proxy_budget=9)
    assert found.proxies.worth.method.startswith("Gaussian process, ")
    assert torch.allclose(found.proxies.welfare.sum(dim=1), found.proxies.worth.everybody[0] - found.proxies.worth.nobody[0], atol=1e-6)


def test_pearson_and_slope_compare_pay_with_worth_within_episodes(honest):
    part = honest.proxies
    worth = torch.tensor([[1.0, 2.0, 4.0], [3.0, -1.0, 0.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    level = torch.tensor([[10.0], [-20.0], [0.0]], dtype=torch.float64)
    linear = replace(part, worth=replace(part.worth, values=worth[None]), returns=2 * worth + level)
    assert linear.pearson.mean == pytest.approx(1)  # of the two episodes in which worth varies
    assert (linear.slope.mean, linear.slope.half_width) == pytest.approx((2, 0))
    flat = replace(linear, returns=torch.zeros(3, 3, dtype=torch.float64))
    assert flat.pearson.mean is None
    assert flat.slope.mean == 0
    equal = replace(linear, worth=replace(part.worth, values=torch.ones(1, 3, 3, dtype=torch.float64)))
    assert equal.slope == Estimate(None, None)


def test_the_slope_s_interval_is_the_jackknife_s(honest):
    part = honest.proxies
    generator = torch.Generator().manual_seed(3)
    worth, pay = torch.randn(2, 12, 3, generator=generator, dtype=torch.float64)
    pay = pay + 0.5 * worth
    found = replace(part, worth=replace(part.worth, values=worth[None]), returns=pay).slope

    def slope(rows):
        x, y = (one[rows] - one[rows].mean(dim=1, keepdim=True) for one in (worth, pay))
        return float((x * y).sum() / (x * x).sum())

    spared = torch.tensor([slope([e for e in range(12) if e != out]) for out in range(12)], dtype=torch.float64)
    error = (11 / 12 * (spared - spared.mean()).square().sum()).sqrt()
    assert found.mean == pytest.approx(slope(list(range(12))))
    assert found.half_width == pytest.approx(2.2009852 * error.item())  # Student's t, 11 degrees of freedom


def test_means_by_profile_leave_out_episodes_without_holders(honest):
    part = honest.proxies
    kind = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1]])
    numbers = torch.tensor([[1.0, 5.0, 7.0], [2.0, 2.0, 2.0], [3.0, 5.0, 9.0]], dtype=torch.float64)
    assert replace(part, kind=kind).of_profile(0, numbers).mean == pytest.approx((1 + 4) / 2)
    assert replace(part, kind=kind).of_profile(1, numbers).mean == pytest.approx((6 + 2 + 9) / 3)


# features


def test_honest_proxies_read_two_features_and_nothing_else(honest):
    part = honest.features
    read = [name for name, is_read in zip(part.outcomes.players, part.is_read, strict=True) if is_read]
    assert read == ["lot/excess_loss", "lot/own_admissible"]
    for i, name in enumerate(part.outcomes.players):
        if name not in read:
            assert (part.outcomes.values[..., i] == 0).all()
            assert (part.discrimination.values[..., i] == 0).all()
            assert part.influence[i] == Estimate(0.0, 0.0)
            assert part.direction[i] is None
    loss, admissible = (part.outcomes.players.index(name) for name in read)
    assert part.direction[loss] < -0.2 < 0.2 < part.direction[admissible]
    assert part.discrimination.means[0][loss].mean > 0.1
    assert part.noise == 0


def test_worth_of_two_features_is_the_mean_of_joining_first_and_second(honest, small_scenario, layout):
    make_honest = partial(make, "honest")
    others = range(SEEDS.stop, SEEDS.stop + 64)
    background = Background(observed(Engine(small_scenario, "shapley", 64), make_honest(), others), layout)
    game = FeatureGame(small_scenario, "shapley", SEEDS, nobody_counts, agent=make_honest, background=background, draws=4)
    names = features(layout)
    seen = torch.tensor([[name in some for name in names] for some in ((), ("lot/excess_loss",), ("lot/own_admissible",))])
    nothing, loss, admissible, both = game(torch.cat([seen, torch.ones_like(seen[:1])]))[0].unbind(dim=1)
    found = honest.features.outcomes.values[0, :, names.index("lot/excess_loss")]
    assert torch.allclose(found, (loss - nothing + both - admissible) / 2, atol=1e-4)
    assert (found != 0).any()


def test_seeing_everything_is_playing_the_policy_itself(small_scenario, layout, tmp_path):
    agent = reading(layout, tmp_path / "policy.pt", features(layout))
    background = background_of(small_scenario, layout, agent)
    game = FeatureGame(small_scenario, "shapley", SEEDS, nobody_counts, agent=agent, background=background, draws=3)
    worth = game(torch.ones(1, len(features(layout)), dtype=torch.bool))[0, :, 0]
    expected = agents.play(Engine(small_scenario, "shapley", EPISODES), agent(), SEEDS)["welfare"]
    assert torch.allclose(worth, expected.double(), atol=1e-4)


def test_a_hidden_feature_is_averaged_over_what_others_observed_in_the_same_round(small_scenario, layout, tmp_path):
    agent = reading(layout, tmp_path / "policy.pt", features(layout))
    reference = observed(Engine(small_scenario, "shapley", 4), agent(), range(50, 54))  # (T, B, N, size)
    background, names, t, draws = Background(reference, layout), features(layout), 2, 5
    keys = fold(torch.tensor(list(SEEDS)), 0)
    hidden = ("lot/loss", "agent/utility", "agent/time")
    seen = torch.tensor([[name not in hidden for name in names]]).repeat(EPISODES, 1)
    policy = Blinkered(agent(), seen, background, draws)
    policy.begin(layout, keys)
    policy.t = t
    observations = observed(Engine(small_scenario, "shapley", EPISODES), agent(), SEEDS)[t]
    asked = agent()
    asked.begin(layout, keys)
    expected = torch.zeros(EPISODES, 3, layout.n_lots)
    rows = reference[t].flatten(0, 1)
    times = set()
    for number in range(draws):
        drawn = background.draw(keys, 3, t, number)
        mixed = observations.clone()
        for name in hidden:
            kind, _, which = name.partition("/")
            places = [f"lot_{k}/{which}" for k in range(layout.n_lots)] if kind == "lot" else [name]
            for place in places:
                mixed[..., layout.slices[place]] = drawn[..., layout.slices[place]]
        expected += asked.probabilities(mixed) / draws
        times |= set(drawn[..., layout.slices["agent/time"]].flatten().tolist())
        for row in drawn.flatten(0, 1):
            same = rows.clone()
            same[:, layout.slices["agent/time"]] = row[layout.slices["agent/time"]]
            assert (same == row).all(dim=1).any(), "all but the time comes from one proxy of the same round"
    assert torch.allclose(policy.probabilities(observations), expected, atol=1e-6)
    assert len(times) > 1


def test_stand_ins_do_not_depend_on_the_batch_or_on_what_is_hidden(small_scenario, layout):
    background = background_of(small_scenario, layout, partial(make, "honest"))
    keys = fold(torch.tensor(list(SEEDS)), 0)
    whole = background.draw(keys, 3, 1, 0)
    assert torch.equal(background.draw(keys[1:2], 3, 1, 0)[0], whole[1])
    assert not torch.equal(background.draw(keys, 3, 1, 1), whole)
    assert not torch.equal(background.draw(keys, 3, 2, 0), whole)


def test_a_feature_that_the_policy_ignores_changes_nothing_in_play(small_scenario, layout, tmp_path):
    names = features(layout)
    ignored = ("lot/loss", "agent/utility")
    agent = reading(layout, tmp_path / "policy.pt", [name for name in names if name not in ignored])
    background = background_of(small_scenario, layout, agent)
    game = FeatureGame(small_scenario, "shapley", SEEDS, nobody_counts, agent=agent, background=background, draws=2)
    with_it = torch.arange(len(names)) % 2 == 0
    without_it = with_it.clone()
    for name in ignored:
        with_it[names.index(name)], without_it[names.index(name)] = True, False
    half, the_same, blind = game(torch.stack([with_it, without_it, torch.zeros_like(with_it)]))[0].unbind(dim=1)
    assert torch.allclose(half, the_same, atol=1e-5)
    assert not torch.allclose(half, blind, atol=1e-2), "those that it reads do change something"


def situations_of(coop, layout, agent, draws=4):
    engine = Engine(coop, "shapley", EPISODES)
    observations = observed(engine, agent(), SEEDS)
    keys = fold(engine.seeds, engine.episode)
    background = background_of(coop, layout, agent)
    return MaskedFeatures(agent(), observations, keys, layout, background, draws, nobody_counts), engine.lots.corrupt


def test_what_a_policy_reads_is_found_out_by_asking_it(small_scenario, layout, tmp_path):
    names = features(layout)
    read = ("lot/loss", "lot/credit", "agent/time")
    situations, _ = situations_of(small_scenario, layout, reading(layout, tmp_path / "policy.pt", read))
    assert [name for name, is_read in zip(names, situations.is_read().tolist(), strict=True) if is_read] == list(read)


def test_influence_and_direction_are_those_of_exact_local_attributions(small_scenario, layout, tmp_path):
    names, read = features(layout), ("lot/loss", "agent/time")
    situations, corrupt = situations_of(small_scenario, layout, reading(layout, tmp_path / "policy.pt", read))
    found = explain_features(situations, lambda coalitions: coalitions.double().sum(dim=1).expand(3, EPISODES, -1), corrupt, 45)
    seen = torch.tensor([[name in some for name in names] for some in ((), read[:1], read[1:], read)])
    nothing, loss, time, both = situations(seen).double()  # (T, E, N, K) each
    move = (loss - nothing + both - time) / 2
    i = names.index("lot/loss")
    assert found.influence[i].mean == pytest.approx(move.abs().mean().item(), abs=1e-7)
    value = situations.feature_values()[..., i].double()
    assert found.direction[i] == pytest.approx(torch.corrcoef(torch.stack([value.flatten(), move.flatten()]))[0, 1].item(), abs=1e-6)
    clean_minus_corrupt = [
        move[:, e][(~corrupt[e]).expand(len(move), -1, -1)].mean() - move[:, e][corrupt[e].expand(len(move), -1, -1)].mean()
        for e in range(EPISODES)
    ]
    assert found.discrimination.values[0, :, i].tolist() == pytest.approx(torch.stack(clean_minus_corrupt).tolist(), abs=1e-6)
    assert found.outcomes.values[0, 0, i] == 1, "in a game that counts what is seen, everything seen is worth 1"
    assert found.n_lots == move.numel()


def test_estimated_worth_of_features_is_near_the_exact_one(small_scenario, layout, tmp_path):
    names = features(layout)
    agent = reading(layout, tmp_path / "policy.pt", names[:6])
    situations, corrupt = situations_of(small_scenario, layout, agent)
    background = background_of(small_scenario, layout, agent)
    game = FeatureGame(small_scenario, "shapley", SEEDS, nobody_counts, agent=agent, background=background, draws=4)
    exact, estimated = (explain_features(situations, game, corrupt, budget) for budget in (63, 31))
    assert exact.outcomes.method == "exact"
    assert estimated.outcomes.method == "paired KernelSHAP, 15 pairs"
    assert exact.noise == 0 < estimated.noise
    scale = exact.discrimination.values.abs().max()
    assert (exact.discrimination.values - estimated.discrimination.values).abs().max() < 0.25 * scale
    assert torch.allclose(estimated.outcomes.values.sum(dim=-1), exact.outcomes.values.sum(dim=-1), atol=1e-4)


def test_situations_of_many_lots_are_those_of_evenly_chosen_rounds(layout):
    observations = torch.randn(9, 2, 3, layout.size)

    def chosen(most, monkey):
        monkey.setattr("proxycoop.training.analysis.masked_features.MOST_LOTS", most)
        keys, background = torch.tensor([1, 2]), Background(observations, layout)
        return MaskedFeatures(make("honest"), observations, keys, layout, background, 1, nobody_counts)

    with pytest.MonkeyPatch.context() as monkey:
        assert chosen(10_000, monkey).rounds == list(range(9))
        assert chosen(3 * 2 * 3 * layout.n_lots, monkey).rounds == [0, 4, 8]
        assert chosen(1, monkey).rounds == [0]


def test_without_corrupt_lots_there_is_nothing_to_tell_apart(tmp_path):
    coop = cooperative(**{"lots.corruption.share": 0.0}, horizon=2)
    found = explain(coop, partial(make, "honest"), episodes=2, seed=SEED)
    assert {estimate.mean for estimate in found.features.discrimination.means[0]} == {None}
    assert all(estimate.mean is not None for estimate in found.features.outcomes.means[0])
    text = write_explanation(found, tmp_path / "explain.html", agents="a").read_text(encoding="utf-8")
    assert len(images(text)) == 4
    assert "Tells clean" not in images(text)[-1][1]


# errors, words, page, command


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 1}, "episodes=1: must be at least 2"),
        ({"draws": 0}, "draws=0: must be at least 1"),
        ({"budget": 10}, "budget=10: must be at least 45 for 23 features"),
        ({"proxy_budget": 1}, "budget=1 is too small"),
        ({"agent": partial(make, "oracle")}, "Oracle sees what no proxy could"),
        ({"agent": partial(make, "planner")}, "Planner sees what no proxy could"),
    ],
)
def test_wrong_arguments_are_refused_at_the_door(small_scenario, changes, message):
    with pytest.raises(ValueError, match=message):
        explain(small_scenario, **{"agent": partial(make, "honest"), **changes})


def test_progress_is_told_by_stage(small_scenario):
    told = []
    explain(small_scenario, partial(make, "all"), episodes=2, progress=lambda *what: told.append(what))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["coalitions of proxies", "what the policy looks at", "coalitions of features"]
    assert all(0 < done <= total for _, done, total in told)
    assert [done for stage, done, _ in told if stage == stages[0]][-1] == 9  # v(∅), and then all of 2³


@pytest.mark.parametrize("name", ["all", "none"])
def test_policies_that_look_at_nothing_have_a_page_that_says_so(small_scenario, name, tmp_path):
    found = explain(small_scenario, partial(make, name), credit="equal", episodes=2, seed=SEED)
    assert sentences(found)[-1] == "none of the features that it observes changes what it does"
    assert feature_rows(found) == []
    text = write_explanation(found, tmp_path / "explain.html", agents="somebody").read_text(encoding="utf-8")
    assert len(images(text)) == 2
    assert "choices depend on none of the features" in text


def test_where_nobody_contributes_pay_and_worth_cannot_be_compared(small_scenario):
    found = explain(small_scenario, partial(make, "none"), episodes=2, seed=SEED)
    assert (found.proxies.welfare == 0).all()
    assert sentences(found)[1].startswith("it is unknown whether pay follows worth")


def test_the_words_say_what_the_numbers_say(honest):
    together, pay, apart, blind, read = sentences(honest)
    mean = honest.proxies.welfare.sum(dim=1).mean().item()
    assert f"are worth {mean:.2f}" in together.replace("−", "-")
    assert f"{honest.proxies.pearson.mean:.2f}" in pay.replace("−", "-")
    assert f"{honest.features.outcomes.nobody[0].mean().item():.2f}" in blind.replace("−", "-")
    assert "of the clean lots" in apart
    assert read == "of 23 features it reads only lot/excess_loss, lot/own_admissible"


def images(text):
    return re.findall(r'<img src="(data:image/svg\+xml;base64,[^"]+)" alt="([^"]+)">', text)


def test_the_page_is_self_contained_and_shows_tables_words_and_four_figures(honest, tmp_path):
    text = write_explanation(honest, tmp_path / "explain.html", agents="the agent honest").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "url(" not in text
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]+)"', text))
    assert len(images(text)) == text.count("<figcaption>") == 4
    for row in [*proxy_rows(honest), *feature_rows(honest)]:
        assert all(cell in text for cell in row)
    assert write_explanation(honest, tmp_path / "again.html", agents="the agent honest").read_text(encoding="utf-8") == text


def test_hostile_names_are_escaped_on_the_page(tmp_path):
    tags = {"<script>alert(1)</script> $x_": 0.5, "b\nc": 0.5}
    profiles = [{"holders": 1, "forbidden_tags": [next(iter(tags))]}]
    coop = cooperative(**{"lots.tags": tags, "profiles": profiles, "description": "<img src=x onerror=alert(1)>"}, horizon=2)
    found = explain(coop, partial(make, "honest"), episodes=2)
    text = write_explanation(found, tmp_path / "explain.html", agents="<b>me</b>").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "<b>" not in text


def test_json_and_csv_hold_what_was_found(honest):
    plain = json.loads(json.dumps(to_dict(honest), allow_nan=False))
    rows = list(csv.DictReader(to_csv(honest).splitlines()))
    assert len(rows) == len(plain["proxies"]["episodes"]) == EPISODES * 3
    for row, record in zip(rows, plain["proxies"]["episodes"], strict=True):
        e, r = int(row["seed"]) - SEED, int(row["rank"]) - 1
        assert int(row["proxy"]) == honest.proxies.seats[e, r] == record["proxy"]
        assert float(row["worth_welfare"]) == pytest.approx(honest.proxies.welfare[e, r].item())
        assert float(row["pay"]) == pytest.approx(honest.proxies.returns[e, r].item())
    each = plain["features"]["each"]
    assert each["lot/loss"] == {
        "read": False,
        **{key: [0.0, 0.0] for key in (*TARGETS, "influence", "discrimination")},
        "direction": None,
    }
    assert each["lot/excess_loss"]["welfare"][0] == pytest.approx(honest.features.outcomes.values[0, :, 1].mean().item())


class Forgetful(Agent):
    """Third parties' agents need no probabilities."""

    made_for = "any"

    def choose(self, observations):
        return self.layout.lot(observations, "loss") < 0.7


def test_an_agent_without_probabilities_is_asked_for_its_choices(small_scenario):
    found = explain(small_scenario, Forgetful, credit="loo", episodes=2, seed=SEED)
    read = [name for name, is_read in zip(found.features.outcomes.players, found.features.is_read, strict=True) if is_read]
    assert read == ["lot/loss"]
    assert found.features.outcomes.method == "exact"


class OnPayday(Agent):
    """Contributes only in the round before a settlement."""

    made_for = "any"

    def choose(self, observations):
        near = self.layout.agent(observations, "until_settlement") < 0.6
        return near[..., None].expand(*near.shape, self.layout.n_lots)


def test_the_rounds_until_settlement_are_a_clock_like_the_time(small_scenario):
    paid = small_scenario.model_copy(update={"settlement": SettlementTerms(period=2, reward="settlement")})
    found = explain(paid, OnPayday, credit="loo", episodes=2, budget=60).features
    read = [name for name, is_read in zip(found.outcomes.players, found.is_read, strict=True) if is_read]
    assert read == ["agent/until_settlement"]


# what is largest


def with_features(found, read):
    """An explanation in which the policy reads these features, each with the mean and the half-width of its worth and of the others."""
    part = found.features
    names = part.outcomes.players
    estimates = tuple(Estimate(*read.get(name, (0.0, 0.0))) for name in names)
    return replace(
        found,
        features=replace(
            part,
            outcomes=replace(part.outcomes, means=(estimates,) * 3),
            discrimination=replace(part.discrimination, means=(estimates,)),
            influence=estimates,
            is_read=tuple(name in read for name in names),
        ),
    )


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (
            {"lot/own_admissible": (4.83, 1.44), "lot/excess_loss": (21.42, 21.55)},
            "it rises most on average by seeing lot/excess_loss (21.42 ±\u00a021.55), then lot/own_admissible (4.83 ±\u00a01.44). This is "
            "not certain: the interval of lot/excess_loss covers 0 and overlaps that of lot/own_admissible",
        ),
        (
            {"lot/own_admissible": (4.83, 1.44), "lot/excess_loss": (21.42, 2.0), "lot/loss": (0.1, 0.5)},
            "it rises most by seeing lot/excess_loss (21.42 ±\u00a02.00), then lot/own_admissible (4.83 ±\u00a01.44)",
        ),
        (
            {"lot/excess_loss": (3.0, 4.0)},
            "it rises most on average by seeing lot/excess_loss (3.00 ±\u00a04.00). This is not certain: the "
            "interval of lot/excess_loss covers 0",
        ),
        (
            {"lot/excess_loss": (3.0, None)},
            "it rises most on average by seeing lot/excess_loss (3.00). This is not certain: the interval of lot/excess_loss is unknown",
        ),
        ({"lot/excess_loss": (-3.0, 1.0)}, "no feature adds to that on average"),
    ],
)
def test_the_words_name_what_the_table_has_on_top_and_whether_it_is_certain(honest, read, told):
    found = with_features(honest, read)
    blind = sentences(found)[3]
    assert blind.endswith(f"; {told}")
    assert [row[0] for row in feature_rows(found)] == sorted(read, key=lambda name: -read[name][0])
    if "most" in told:
        assert f" {feature_rows(found)[0][0]} ({feature_rows(found)[0][1]})" in blind, "the numbers are those of the table's first row"
        assert " pp)" in sentences(found)[2]


def test_pay_whose_correlation_has_no_interval_is_not_said_to_follow_worth(honest):
    part = honest.proxies
    flat = part.returns.clone()
    flat[1:] = 1.0  # only in the first episode are proxies paid differently
    found = replace(honest, proxies=replace(part, returns=flat))
    assert found.proxies.pearson.half_width is None
    assert sentences(found)[1].startswith("it is not certain that pay follows worth")


@pytest.mark.parametrize(
    ("mean", "half_width", "told"),
    [
        (0.92, 0.1, "pay follows worth: "),
        (0.92, 0.86, "pay follows worth, but how closely is not certain: "),
        (0.3, 0.1, "pay follows worth loosely: "),
        (0.9, 1.0, "it is not certain that pay follows worth: "),
        (-0.9, 0.1, "pay goes against worth: "),
    ],
)
def test_how_closely_pay_follows_worth_is_said_where_it_is_certain(mean, half_width, told):
    assert _pay_in_words(Estimate(mean, half_width), Estimate(1.0, 0.1)).startswith(told)


def test_nothing_is_said_of_differences_that_there_are_not():
    clean = cooperative(**{"lots.corruption.share": 0.0})
    together, _, shares, *_ = sentences(explain(clean, partial(make, "honest"), episodes=2, seed=SEED, draws=1))
    assert together.endswith("; in each of them, all have the same number of clean lots")
    assert "of the clean lots" in shares
    assert "corrupt" not in shares.partition(";")[0]
    alone = cooperative(principals=1, profiles=[])
    together, shares, *_ = sentences(explain(alone, partial(make, "honest"), episodes=2, seed=SEED, draws=1))
    assert together.startswith("the only proxy is worth ")
    assert shares.startswith("the policy contributes "), "of one proxy, pay cannot be compared"


@pytest.mark.parametrize("n", [1, 2, 60])
@pytest.mark.parametrize("draw", [outcomes, behaviour])
def test_a_figure_of_few_or_many_features_has_room_for_each(honest, n, draw):
    estimates = tuple(Estimate(float(i), 1.0) for i in range(n))
    worth = replace(honest.features.outcomes, players=tuple(f"lot/feature_{i}" for i in range(n)), means=(estimates,) * 3)
    with house_style():
        figure = draw(replace(honest.features, outcomes=worth, discrimination=worth, influence=estimates, is_read=(True,) * n)).figure
        figure.draw_without_rendering()
    ax = figure.axes[0]
    boxes = sorted((label.get_window_extent() for label in ax.get_yticklabels()), key=lambda box: box.y0)
    assert len(boxes) == n
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes)), "names do not overlap"
    bars = [patch.get_window_extent().height / figure.dpi for patch in ax.patches]
    assert min(bars) > 0.1
    assert ax.get_window_extent().height / figure.dpi > 0.15 * n


@pytest.mark.slow
def test_on_a_telephone_and_on_paper_nothing_is_cut_or_folded_away(honest, shown_whole, tmp_path):
    shown_whole(write_explanation(honest, tmp_path / "explain.html", agents="the agent honest").read_text(encoding="utf-8"))
