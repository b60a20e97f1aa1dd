"""Audits of screening: recomputed update by update, and their table, words, page and command."""

from __future__ import annotations

import csv
import json
import re
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from proxycoop import agents
from proxycoop.agents import make
from proxycoop.envs import Engine, scenario
from proxycoop.envs.outcome import deadlock
from proxycoop.training.analysis.audit import audit
from proxycoop.training.analysis.objections import Findings
from proxycoop.training.blocks import by_profile, by_seat, by_value
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.pages import screening_figures
from proxycoop.training.pages.audit_page import cells, totals_in_words, write_audit
from proxycoop.training.train import train

EVERYBODY = [
    {"holders": 2, "tolerances": {"missed_cancer": 0.02}, "stake": 2.0},
    {"holders": 1, "relative_tolerances": {"false_alarm": 0.1}, "max_norm": 0.3},
    {"holders": 1, "direction": {"missed_cancer": 1.0, "false_alarm": 0.5}, "forbidden_tags": ["web"]},
]
SETTINGS = {
    "principals": 5,
    "horizon": 3,
    "profiles": EVERYBODY,
    "lots.tags": {"web": 0.3, "clinic": 0.7},
    "reward.scale": 100.0,
}
EPISODES, SEED = 3, 7


def audited(episodes=EPISODES, agent="all", name="breast_cancer", **changes):
    return Findings(audit(scenario.load(name, **{**SETTINGS, **changes}), partial(make, agent), credit="loo", episodes=episodes, seed=SEED))


@pytest.fixture(scope="module")
def found():
    return audited()


def rounds_of(**changes):
    """The same episodes played by hand: before every round its prospect and parameters, and after it the engine."""
    engine = Engine(scenario.load("breast_cancer", **{**SETTINGS, **changes}), "loo", EPISODES)
    engine.reset(range(SEED, SEED + EPISODES))
    while engine.t < engine.horizon:
        prospect, theta = engine.prospect, engine.theta
        engine.step(torch.ones(EPISODES, 5, engine.num_lots))
        yield engine, prospect, theta


def test_an_update_is_objected_to_by_exactly_those_to_whom_it_is_inadmissible(found):
    objected = {(record.round, record.episode, record.proxy, record.lot, record.objector) for record in found.records()}
    expected = set()
    for engine, prospect, _ in rounds_of():
        for e, i, k, j in prospect.blocked_by.nonzero().tolist():
            expected.add((engine.t, SEED + e, i, k, j))
    assert objected == expected
    assert len({record.account for record in found.records()}) == 5, "two values, a direction, a norm and a tag"


def test_realised_harm_is_the_change_of_the_value_s_loss_on_data_that_no_screening_sees(found):
    records = {(r.round, r.episode, r.proxy, r.lot, r.account): r for r in found.records()}
    n_checked = 0
    for engine, prospect, theta in rounds_of():
        for (t, episode, i, k, account), record in records.items():
            if t != engine.t or account not in engine.values:
                continue
            e = episode - SEED
            value, update = engine.values[account], prospect.proposals.updates[e, i, k]
            for probe, told in ((engine.splits.probe_test[account], record.realised), (engine.splits.probe[account], record.on_probe)):
                before, after = (
                    value.loss(engine.model.logits(at[None], probe.x), probe, engine.splits.dataset).item()
                    for at in (theta[e], theta[e] + update)
                )
                assert told == pytest.approx(after - before, abs=2e-6)
            m = list(engine.values).index(account)
            assert record.predicted == pytest.approx(prospect.harm[e, i, k, m].item(), abs=1e-7)
            assert record.predicted > record.tolerance
            n_checked += 1
    assert n_checked > 20


def test_tolerances_are_those_of_who_objects_in_that_round(found):
    losses = {engine.t: prospect.value_losses for engine, prospect, _ in rounds_of()}
    for record in found.records():
        if record.account == "false_alarm":
            expected = 0.1 * losses[record.round][record.episode - SEED, 1].item()
            assert record.profile == "false_alarm≤10 %, norm≤0.3"
        else:
            expected = {"missed_cancer": 0.02, "norm": 0.3, "tag web": None}.get(record.account, 0.0)
        assert record.tolerance == (None if expected is None else pytest.approx(expected, rel=1e-5))


def test_directions_norms_and_tags_have_accounts_of_their_own(found):
    by_account = {record.account: record for record in found.records()}
    against = by_account["direction 0.89·missed_cancer+0.45·false_alarm"]
    assert against.profile == "0.89·missed_cancer+0.45·false_alarm≤0, no web"
    assert against.predicted > 0
    assert against.realised is not None
    assert by_account["norm"].predicted > 0.3
    assert by_account["norm"].realised is None
    assert (by_account["tag web"].predicted, by_account["tag web"].realised) == (None, None)


def test_a_direction_tolerates_nothing_and_the_words_say_so(found):
    against = [record for record in found.records() if record.account.startswith("direction")]
    assert against
    assert {record.tolerance for record in against} == {0.0}
    (account,) = [one for one in found.accounts if one.account.startswith("direction")]
    assert account.tolerance == 0
    assert any("gone against direction" in text and "allowed 0)" in text for text in found.worst(1000))


def test_an_update_that_is_not_finite_is_blocked_by_everybody_on_that_account_alone():
    findings = audited(
        **{"substrate.local_lr": 1e30, "substrate.local_steps": 3, "weights": "fixed", "lots.tags": {}, "profiles": []}, horizon=1
    )
    records = findings.records()
    assert {record.account for record in records} == {"not finite"}
    assert len(records) == 5 * findings.totals.objected[0]
    assert {record.outcome for record in records} == {"rejected"}
    assert findings.totals.blocked == findings.totals.objected
    assert findings.totals.blocked[0] > 0


def test_totals_count_updates_not_objections(found):
    contributed = admitted = objected = corrupt = 0
    for engine, prospect, _ in rounds_of():
        result = engine.history[-1]
        contributed += int(result.contributed.sum())
        admitted += int(result.admitted.sum())
        objected += int(prospect.blocked_by.any(dim=-1).sum())
        corrupt += int((prospect.blocked_by.any(dim=-1) & engine.lots.corrupt).sum())
    totals = found.totals
    assert totals.contributed[0] == contributed == EPISODES * 3 * 5 * 4
    assert totals.blocked == totals.objected == (objected, corrupt)
    assert totals.blocked[0] == contributed - admitted
    assert totals.mended == totals.let_in == totals.left_out == (0, 0)
    assert len(found.records()) > objected
    assert totals_in_words(totals)[0] == f"contributed: {contributed} updates, {totals.contributed[1]} of them corrupt"


def test_the_table_is_what_the_records_say_with_every_update_counted_once(found):
    records = found.records()
    assert {(record.account, record.profile) for record in records} == {
        (one.account, one.profile) for one in found.accounts if one.objected
    }
    for one in found.accounts:
        mine = {(r.round, r.episode, r.proxy, r.lot): r for r in records if (r.account, r.profile) == (one.account, one.profile)}.values()
        assert (one.objected, one.blocked, one.mended) == (len(mine), len(mine), 0)
        if not mine:
            continue
        assert one.corrupt == pytest.approx(sum(r.corrupt for r in mine) / len(mine))
        if one.account.startswith("tag"):
            assert (one.predicted, one.realised, one.tolerance, one.rightly, one.missed) == (None,) * 5
            continue
        assert one.predicted == pytest.approx(sum(r.predicted for r in mine) / len(mine), rel=1e-5)
        assert one.tolerance == pytest.approx(sum(r.tolerance for r in mine) / len(mine), rel=1e-5)
        if one.account != "norm":
            assert one.realised == pytest.approx(sum(r.realised for r in mine) / len(mine), rel=1e-4)
            assert one.rightly == pytest.approx(sum(r.realised > r.tolerance + 1e-6 for r in mine) / len(mine))


def test_missed_are_the_admitted_updates_that_harm_beyond_the_tolerance_after_all():
    own = {"screening.governance": "own"}
    (one,) = [one for one in audited(**own).accounts if one.account == "missed_cancer"]
    beyond = admitted = 0
    for engine, prospect, theta in rounds_of(**own):
        probe, value = engine.splits.probe_test["missed_cancer"], engine.values["missed_cancer"]
        for e, i, k in engine.history[-1].admitted.nonzero().tolist():
            before, after = (
                value.loss(engine.model.logits(at[None], probe.x), probe, engine.splits.dataset).item()
                for at in (theta[e], theta[e] + prospect.proposals.updates[e, i, k])
            )
            beyond += after - before > 0.02 + 1e-6
            admitted += 1
    assert one.missed == pytest.approx(beyond / admitted)
    assert 0 < one.missed < 1


@pytest.mark.parametrize("mending", ["scale", "project"])
def test_what_a_filter_mends_is_judged_missed_as_it_entered(mending):
    profiles = [{"holders": 5, "tolerances": {"missed_cancer": 0.02, "false_alarm": 0.02}}]
    settings = {"profiles": profiles, "lots.tags": {}, "screening.filter": mending, "screening.harm": "measured"}
    findings, mended = audited(**settings), {"scale": "scaled", "project": "projected"}[mending]
    records = findings.records()
    assert {record.outcome for record in records} <= {mended, "rejected"}
    assert all(0 < record.kept < 1 for record in records if record.outcome == mended)
    assert findings.totals.mended[0] == len({(r.episode, r.round, r.proxy, r.lot) for r in records if r.outcome == mended}) > 0
    probes = findings.audit
    beyond_as_proposed = (probes.realised > 0.021) & probes.admitted[..., None]
    beyond_as_entered = (probes.entered > 0.021) & probes.admitted[..., None]
    assert beyond_as_entered.sum() < beyond_as_proposed.sum()
    assert f"{'shrunk' if mending == 'scale' else 'projected'} to " in findings.worst(1)[0]


def test_governance_that_gives_objectors_no_say_lets_updates_in_all_the_same():
    findings = audited(**{"screening.governance": "own"})
    for record in findings.records():
        if record.objector == record.proxy:
            assert record.outcome == "rejected"
    assert (
        findings.totals.let_in[0] == len({(r.episode, r.round, r.proxy, r.lot) for r in findings.records() if r.outcome == "admitted"}) > 0
    )
    for text in findings.worst(100):
        owner = re.search(r"proxy_\d's", text)[0][:-2]
        assert text.split("blocked by ")[1].split(";")[0] == owner, "who has no say blocks nothing"


def test_under_negotiation_it_is_told_what_was_bargained_and_why():
    findings = audited(**{"screening.governance": "negotiate"})
    assert {record.outcome for record in findings.records()} == {"bargained in", "rejected"}
    first, *_ = findings.audit.bargains
    assert first.startswith("round 1:\nbegins with ")
    assert "\nadmits proxy_" in first
    assert first.splitlines()[-1].startswith("ends with ")
    totals = findings.totals
    admitted = int(findings.audit.admitted.sum())
    assert totals.blocked[0] == totals.contributed[0] - admitted
    assert totals.objected[0] - totals.let_in[0] + totals.left_out[0] == totals.blocked[0]


def test_how_far_watched_losses_rose_over_the_episodes_stands_beside_the_totals(found, tmp_path):
    risen = (found.audit.value_losses[-1] - found.audit.value_losses[0]).double()
    expected = {name: (risen[:, m].mean().item(), risen[:, m].max().item()) for m, name in enumerate(("missed_cancer", "false_alarm"))}
    assert found.rises == {name: pytest.approx(pair) for name, pair in expected.items()}
    (mean, worst), (said,) = expected["missed_cancer"], found.notes()
    assert f"changed by: missed_cancer {mean:+z.3g} (worst episode {worst:+z.3g}), false_alarm " in said
    assert said[1:] in write_audit(found, tmp_path / "audit.html", agents="all").read_text()
    assert found.to_dict(0)["rises"]["missed_cancer"] == {"mean": pytest.approx(mean), "worst": pytest.approx(worst)}
    one = audited(profiles=[{"holders": 2, "tolerances": {"false_alarm": 0.1}}], **{"lots.tags": {}})
    assert list(one.rises) == ["false_alarm"]
    assert audited(profiles=[], **{"lots.tags": {}}).notes() == []


def test_how_much_of_a_limit_an_episode_used_is_told_in_per_cent():
    limited = {"profiles": [{"holders": 2, "limits": {"false_alarm": 0.1}}, {"limits": {"missed_cancer": 0.0}}], "lots.tags": {}}
    one = audited(**limited)
    worst = max(one.rises["false_alarm"][1], 0.0)
    (said,) = one.notes()
    assert f", {10 * worst / 0.01:.0f} % of the limit 0.1)" in said
    assert ", limit 0)" in said


def test_episodes_in_which_nothing_passes_are_told_with_the_reason_and_what_helps():
    """As the engine tells it: in digits all updates that honest proxies contribute in episode 0 are beyond the tolerance of eights."""
    made = scenario.load("digits", **{"reward.scale": 50.0, "horizon": 2})
    findings = Findings(audit(made, partial(make, "honest"), episodes=3, seed=0))
    engine = Engine(made, "shapley", 3)
    agents.play(engine, make("honest"), range(3))
    assert deadlock(engine).startswith(
        "nothing passed in 1 of 3 episodes: all 12 updates contributed there were screened out, 12 of them bec"
    )
    assert findings.notes()[1] == deadlock(engine)
    assert len(found := Findings(audit(made, partial(make, "oracle"), episodes=3, seed=0)).notes()) == 1, found


def test_the_worst_are_told_in_words_each_lot_once_and_only_the_list_is_capped(found):
    told = found.worst(3)
    assert len(told) == 3
    assert len(found.to_csv().splitlines()) == len(found.records()) + 1
    pattern = (
        r"seed (\d+), round (\d+): proxy_(\d)'s lot (\d) \((corrupt|clean)\) would have (?:raised|lowered) (\w+) by ([\d.e-]+) "
        r"\(predicted ([\d.e-]+), allowed ([\d.e-]+)\): blocked by (proxy_\d(?:(?:, | and )proxy_\d)*)"
        r"(; the same lot in \d+ more rounds?)?"
    )
    everything = [re.fullmatch(pattern, text) for text in found.worst(1000) if "direction" not in text]
    assert all(everything)
    keys = [match.group(1, 3, 4, 6) for match in everything]
    assert len(keys) == len(set(keys))
    records = [r for r in found.records() if r.account in ("missed_cancer", "false_alarm")]
    for match in everything:
        same = [r for r in records if (str(r.episode), str(r.proxy), str(r.lot), r.account) == match.group(1, 3, 4, 6)]
        worst = max(same, key=lambda r: r.realised)
        assert float(match[7]) == pytest.approx(abs(worst.realised), rel=6e-3)
        mine = [r for r in same if r.round == int(match[2])]
        assert set(re.findall(r"proxy_\d", match[10])) == {f"proxy_{r.objector}" for r in mine}
        others = len({r.round for r in same}) - 1
        assert (match[11] or "") == (f"; the same lot in {others} more round{'s' * (others > 1)}" if others else "")


def test_csv_and_json_hold_what_the_records_hold(found):
    rows = list(csv.DictReader(found.to_csv().splitlines()))
    for row, record in zip(rows, found.records(), strict=True):
        assert (int(row["episode"]), int(row["round"]), int(row["objector"]), row["account"]) == (
            record.episode,
            record.round,
            record.objector,
            record.account,
        )
        assert row["realised"] == ("" if record.realised is None else f"{record.realised:.6g}")
    plain = json.loads(json.dumps(found.to_dict(2), allow_nan=False))
    assert plain["totals"]["blocked"]["all"] == found.totals.blocked[0]
    assert len(plain["worst"]) == 2


def test_value_losses_without_screening_are_those_of_the_same_play_unscreened(found):
    engine = Engine(found.audit.scenario.unscreened(100.0), "loo", EPISODES)
    agents.play(engine, make("all"), range(SEED, SEED + EPISODES))
    assert torch.allclose(found.audit.unscreened_value_losses[-1], engine.prospect.value_losses)
    assert torch.equal(found.audit.unscreened_value_losses[0], found.audit.value_losses[0])


def test_an_episode_is_audited_as_it_is_alone(found):
    alone = Findings(audit(found.audit.scenario, partial(make, "all"), credit="loo", episodes=1, seed=SEED + 1))
    among = [record for record in found.records() if record.episode == SEED + 1]
    assert len(alone.records()) == len(among)
    for one, other in zip(alone.records(), among, strict=True):
        assert (one.round, one.proxy, one.lot, one.objector, one.account) == (
            other.round,
            other.proxy,
            other.lot,
            other.objector,
            other.account,
        )
        if one.realised is not None:
            assert one.realised == pytest.approx(other.realised, abs=1e-5)


def test_who_blocks_whom_counts_an_update_once_a_profile_and_once_a_seat(found):
    audit_, n_kinds = found.audit, len(EVERYBODY)
    contributed = {}
    against, seats = {}, {}
    for engine, prospect, _ in rounds_of():
        kind = engine.profiles.kind
        for e, i, k in engine.history[-1].contributed.nonzero().tolist():
            whose = int(kind[e, i])
            contributed[whose] = contributed.get(whose, 0) + 1
            blockers = prospect.blocked_by[e, i, k].nonzero()[:, 0].tolist()
            for who in {int(kind[e, j]) for j in blockers} - {n_kinds}:
                against[whose, who] = against.get((whose, who), 0) + 1
            for j in blockers:
                seats[i, j] = seats.get((i, j), 0) + 1
    for whose in range(n_kinds + 1):
        for who in range(n_kinds):
            assert audit_.blocks_by_profile[whose, who] == pytest.approx(against.get((whose, who), 0) / contributed[whose])
    for i in range(5):
        for j in range(5):
            assert audit_.blocks_by_seat[i, j] == pytest.approx(seats.get((i, j), 0) / (EPISODES * 3 * 4))


@pytest.mark.parametrize("n_profiles", [1, 3, 4, 5, 8])
def test_names_above_the_matrix_do_not_touch(n_profiles, monkeypatch):
    monkeypatch.setattr(screening_figures, "drawing", lambda key, figure, said: figure)
    names = ["odds≤0.05, drifted≤0.1, missed≤0.1", "0.45·women+0.89·odds≤0", "gap≤0.024", "women≤20 %"] * 2
    figure = screening_figures.blocks("blocks", np.full((2, n_profiles), 0.5), names[:2], names[:n_profiles], "the agents")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert all(box.y1 <= figure.bbox.y1 for box in boxes)


def test_shares_of_nothing_are_undefined():
    engine = Engine(scenario.load("breast_cancer", **SETTINGS), "loo", 2)
    agents.play(engine, make("none"), [1, 2])
    assert by_profile(engine.history, engine.profiles.kind, 3).isnan().all()
    assert by_seat(engine.history).isnan().all()
    assert by_value(engine.history).isnan().all()


def images(text):
    return re.findall(r'<img src="(data:image/svg\+xml;base64,[^"]+)" alt="([^"]+)">', text)


def test_the_page_is_self_contained_and_shows_table_words_and_four_figures(found, tmp_path):
    text = write_audit(found, tmp_path / "audit.html", agents="the agent all", top=2).read_text(encoding="utf-8")
    assert "<script" not in text
    assert "url(" not in text
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]+)"', text))
    assert len(images(text)) == text.count("<figcaption>") == 4
    for one in found.accounts:
        assert all(cell in text for cell in cells(one))
    assert text.count("would have") >= 2
    assert write_audit(found, tmp_path / "again.html", agents="the agent all", top=2).read_text(encoding="utf-8") == text


def test_hostile_names_are_escaped_on_the_page(tmp_path):
    tags = {"<script>alert(1)</script> $x_": 0.5, "b\nc": 0.5}
    profiles = [{"holders": 1, "forbidden_tags": [next(iter(tags))]}]
    findings = audited(1, **{"lots.tags": tags, "profiles": profiles, "description": "<img src=x onerror=alert(1)>"})
    text = write_audit(findings, tmp_path / "audit.html", agents="<b>me</b>").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "<b>" not in text


@pytest.mark.parametrize(
    ("changes", "agent", "n_figures"),
    [
        ({"profiles": []}, "all", 2),
        ({}, "none", 1),
        ({"profiles": [{"holders": 5, "max_norm": 1e-6}]}, "all", 4),
        ({"screening.governance": "none"}, "all", 4),
    ],
)
def test_pages_leave_out_what_there_is_nothing_of(changes, agent, n_figures, tmp_path):
    findings = audited(2, agent, **changes)
    text = write_audit(findings, tmp_path / "audit.html", agents="somebody").read_text(encoding="utf-8")
    assert len(images(text)) == n_figures


def test_without_values_there_are_still_norms_to_object_to(tmp_path):
    plain = scenario.load("breast_cancer", **{**SETTINGS, "profiles": [{"holders": 2, "max_norm": 0.3}]}).model_copy(update={"values": {}})
    findings = Findings(audit(plain, partial(make, "all"), credit="loo", episodes=2))
    assert {record.account for record in findings.records()} == {"norm"}
    assert findings.worst(5) == []
    assert len(images(write_audit(findings, tmp_path / "audit.html", agents="a").read_text(encoding="utf-8"))) == 2


def test_no_episodes_are_refused():
    with pytest.raises(ValueError, match="episodes=0: must be at least 1"):
        audited(0)


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """A training run in a comparison's folder."""
    comparison = tmp_path_factory.mktemp("comparison")
    train(settings_for(scenario=small, credit="loo", total_steps=100, num_cooperatives=2), comparison / "cells" / "a" / "loo" / "seed-0")
    other = comparison / "cells" / "a" / "agent-none" / "seed-0"
    other.mkdir(parents=True)
    (other / "result.json").write_text("{}")
    return comparison


def test_the_command_audits_a_run_and_writes_its_page_beside_it(run, folder, tmp_path):
    place = folder / "cells" / "a" / "loo" / "seed-0"
    code, out, err = run("audit", place, "--episodes", 2, "--csv", tmp_path / "new" / "a.csv", "--json", tmp_path / "a.json", "--top", 1)
    assert (code, err) == (0, "")
    assert "contributed: " in out
    assert (place / "audit.html").exists()
    rows = list(csv.DictReader((tmp_path / "new" / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert (
        len({(r["episode"], r["round"], r["proxy"], r["lot"]) for r in rows})
        == json.loads((tmp_path / "a.json").read_text())["totals"]["objected"]["all"]
    )


def test_the_command_audits_an_agent_and_writes_a_page_only_where_it_is_told_to(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("audit", "--agent", "all", "-s", "breast_cancer", "--episodes", 1, "--set", "horizon=2", "-c", "equal")
    code, out, _ = run(*words)
    assert code == 0
    assert "missed_cancer" in out
    assert not list(tmp_path.iterdir())
    assert run(*words, "--out", tmp_path / "page.html")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_wrong_inputs_say_what_to_do(run, folder, tmp_path):
    comparison, scripted = folder, folder / "cells" / "a" / "agent-none" / "seed-0"
    for words, message in (
        ((tmp_path,), "is not the folder of a training run: it has no run.json"),
        ((tmp_path / "missing",), "does not exist: give the folder of a training run"),
        ((comparison,), f"is a comparison: name one of its runs, a folder such as {comparison}/cells/SCENARIO/RULE/seed-0"),
        ((scripted,), "holds a scripted agent's result and no policy: name the agent instead, as in --agent honest"),
        (("--agent", "nope"), "unknown agent 'nope'"),
        (("--agent", "all", "--csv", tmp_path), "is a folder: name a file in it"),
        (("--agent", "learned"), "needs a policy"),
        ((comparison / "cells" / "a" / "loo" / "seed-0", "--agent", "all"), "a training run or an --agent, not both"),
    ):
        code, _, err = run("audit", *words)
        assert code == 2
        assert message in err


@pytest.mark.slow
def test_on_a_telephone_and_on_paper_nothing_is_cut_or_folded_away(found, shown_whole, tmp_path):
    shown_whole(write_audit(found, tmp_path / "audit.html", agents="the agent all").read_text(encoding="utf-8"))
