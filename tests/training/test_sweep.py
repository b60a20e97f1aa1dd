"""Sweeps: every point is a comparison of its own, nothing is run twice or overwritten, and the gathered numbers are the points' own."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace

import pytest

from proxycoop.envs import scenario
from proxycoop.envs.values import VALUES
from proxycoop.training import compare as compare_module
from proxycoop.training.analysis.curves import SHARE_OF_REFERENCE, findings, markdown, rows, scenario_sweeps
from proxycoop.training.analysis.summary import interval, reference, summarise
from proxycoop.training.compare import cells, compare, results
from proxycoop.training.pages.sweep_figures import sweep_figures
from proxycoop.training.pages.sweep_page import names_of_sweep_parts, sweep_page, sweep_parts
from proxycoop.training.sweep import planned, sweep, swept

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

QUICK = {"total_steps": 200, "num_cooperatives": 2, "episodes": 2, "evaluation_splits": 2, "splits": 1}
COST = "scenario.reward.contribution_cost"
VARY = {"reward.contribution_cost": "0:.3:2"}


@pytest.fixture(scope="module")
def finished(small, forking, tmp_path_factory):
    """Two costs, one rule, one seed, and an agent beside it."""
    out = tmp_path_factory.mktemp("sweep")
    plan = planned([small], ["equal"], [0], VARY, agents=["honest"], **QUICK)
    with forking():
        sweep(plan, out, jobs=1, quiet=True)
    return plan, out


def table_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_every_point_has_its_rules_agents_and_references(finished):
    plan, out = finished
    assert [point.name for point in plan.points] == ["reward.contribution_cost=0", "reward.contribution_cost=0.3"]
    for point in plan.points:
        assert {cell.agent for cell in point.cells} == {"learned", "honest", "planner", "measuring_planner"}
        assert len(results(out / "points" / point.name)) == len(point.cells)
    assert plan.n_trainings == 2


def test_without_agents_a_point_plays_what_a_comparison_plays(small):
    plan = planned([small], ["equal", "loo"], [0, 1], VARY, **QUICK)
    for point in plan.points:
        (one,) = {cell.settings.scenario.reward.contribution_cost for cell in point.cells}
        there = scenario.Scenario.model_validate(small.to_dict() | {"reward": small.to_dict()["reward"] | {"contribution_cost": one}})
        assert list(point.cells) == cells([there], ["equal", "loo"], [0, 1], **QUICK)


def test_agents_that_a_comparison_does_not_play_are_played_too(small, monkeypatch):
    from proxycoop.agents import AGENTS

    monkeypatch.setitem(AGENTS._factories, "mine", AGENTS["honest"])
    plan = planned([small], ["equal"], [0], VARY, agents=["mine"], **QUICK)
    assert {cell.agent for cell in plan.points[0].cells} == {"learned", "mine", "planner", "measuring_planner"}


def test_the_csv_holds_what_a_comparison_by_the_same_settings_finds(finished, small, forking, tmp_path):
    _, out = finished
    there = small.model_copy(update={"reward": small.reward.model_copy(update={"contribution_cost": 0.3})})
    todo = [cell for cell in cells([there], ["equal"], [0], **QUICK) if cell.agent in ("learned", "honest", "planner", "measuring_planner")]
    with forking():
        compare(todo, tmp_path / "alone", jobs=1, quiet=True)
    alone = table_of(tmp_path / "alone" / "results.csv")
    gathered = [row for row in table_of(out / "sweep.csv") if float(row[COST]) == 0.3]
    assert len(alone) == len(gathered) == 4
    for ours, theirs in zip(gathered, alone, strict=True):
        assert {name: ours[name] for name in theirs if name != "credit_microseconds"} == {
            name: value for name, value in theirs.items() if name != "credit_microseconds"
        }
    assert next(iter(gathered[0])) == COST


def test_the_dictionary_explains_every_column(finished):
    _, out = finished
    explained = {row["column"]: row for row in table_of(out / "sweep-columns.csv")}
    assert set(table_of(out / "sweep.csv")[0]) <= set(explained)
    assert explained[COST]["meaning"] == "Cost of contributing one lot for one round, in reward units."


def test_curves_and_bands_are_the_summarys_estimates(finished):
    plan, out = finished
    (found,) = scenario_sweeps(swept(out))
    (panel,) = found.panels(found.settings[0])
    summaries = [summarise(results(out / "points" / point.name))[0] for point in plan.points]
    by_name = {curve.name: curve for curve in panel.curves}
    assert [curve.kind for curve in panel.curves] == ["learned", "scripted", "reference"]
    for i, table in enumerate(summaries):
        assert by_name["equal"].estimates[i] == table.learned[0].measure(SHARE_OF_REFERENCE)
        assert by_name["honest"].estimates[i] == table.agent("honest").measure(SHARE_OF_REFERENCE)
        assert reference(table).name == "measuring_planner"
        assert by_name["measuring_planner"].estimates[i].mean == pytest.approx(1)
    (drawn,) = sweep_figures(found, {"equal": next(iter(_looks(summaries).values()))})
    ax = drawn.figure.axes[0]
    band = ax.collections[0].get_paths()[0].vertices
    for i, value in enumerate(found.settings[0].values):
        low, high = interval(by_name["equal"].estimates[i])
        heights = band[abs(band[:, 0] - value) < 1e-9][:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((low, high))


def _looks(tables):
    from proxycoop.training.pages.figures import looks

    return looks(tables)


def test_a_finished_sweep_is_not_run_again(finished, monkeypatch):
    plan, out = finished
    before = {path: path.stat().st_mtime_ns for path in out.glob("points/*/cells/*/*/*/result.json")}
    monkeypatch.setattr(compare_module, "_run", None)  # running anything would fail
    sweep(plan, out, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_sweep_that_was_stopped_goes_on(finished, forking):
    plan, out = finished
    (lost,) = (out / "points" / plan.points[1].name).glob("cells/*/equal/seed-0/result.json")
    before, table = json.loads(lost.read_text()), (out / "sweep.csv").read_text()
    lost.unlink()
    with forking():
        sweep(plan, out, jobs=1, quiet=True)
    after = json.loads(lost.read_text())
    assert after["measures"]["welfare"] == before["measures"]["welfare"]
    assert [row["welfare"] for row in table_of(out / "sweep.csv")] == [row["welfare"] for row in csv.DictReader(table.splitlines())]


def test_values_may_be_added_and_other_settings_are_refused(finished, small, monkeypatch):
    _, out = finished
    record = (out / "sweep.json").read_text()
    for how, said in (
        ({"total_steps": 300}, r"holds a sweep with another total_steps \(200 and 300\)"),
        ({"episodes": 3}, r"holds a sweep with another episodes \(2 and 3\)"),
        ({"gamma": 0.9}, "holds a sweep with another gamma"),
    ):
        with pytest.raises(ValueError, match=said):
            sweep(planned([small], ["equal"], [0], {"reward.contribution_cost": [0.1, 0.2]}, **{**QUICK, **how}), out, quiet=True)
    other = small.model_copy(update={"horizon": 5})
    with pytest.raises(ValueError, match=r"another breast_cancer: scenario\.horizon \(6 and 5\)"):
        sweep(planned([other], ["equal"], [0], VARY, **QUICK), out, quiet=True)
    with pytest.raises(ValueError, match=r"holds a sweep of scenario\.reward\.contribution_cost, and this one is of training\.gamma"):
        sweep(planned([small], ["equal"], [0], {"gamma": [0, 1]}, **QUICK), out, quiet=True)
    assert (out / "sweep.json").read_text() == record
    ran = []
    monkeypatch.setattr(
        compare_module, "_work_off", lambda waiting, *_: ran.extend(waiting) or {cell.name: OSError("no") for cell in waiting}
    )
    with pytest.raises(ValueError, match=r"1 of 2 points failed, the others are finished: reward\.contribution_cost=0\.2: .*failed"):
        sweep(planned([small], ["equal"], [0], {"reward.contribution_cost": [0.2, 0.3]}, agents=["honest"], **QUICK), out, quiet=True)
    assert {cell.settings.scenario.reward.contribution_cost for cell in ran} == {0.2}
    assert json.loads((out / "sweep.json").read_text())["settings"][0]["values"] == [0.0, 0.2, 0.3]
    assert [point.values[COST] for point in swept(out).points] == [0.0, 0.3]  # what is finished


def test_what_is_not_ours_is_not_written_over(finished, small, tmp_path):
    plan, _ = finished
    (tmp_path / "sweep.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"sweep\.csv' is there already: choose"):
        sweep(plan, tmp_path, quiet=True)
    assert (tmp_path / "sweep.csv").read_text() == "mine"
    assert not (tmp_path / "points").exists()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"agents": ["nobody"]}, "unknown agent 'nobody'"),
        ({"agents": ["learned"]}, "proxies that learn are shown for every rule"),
        ({"vary": {"gamma": [0, 1]}, "gamma": 0.5}, "gamma=0.5 is set, and gamma is varied: leave one"),
        ({"vary": {"gamma": [0.5, 2]}}, r"point gamma=2: gamma: Input should be less than or equal to 1 \(got 2"),
        ({"vary": {"principals": [3, 30]}, "rules": ["shapley"]}, r"point principals=30: "),
    ],
)
def test_every_point_is_checked_before_anything_runs(small, how, said):
    arguments = {"scenarios": [small], "rules": ["equal"], "seeds": [0], "vary": VARY, **QUICK, **how}
    with pytest.raises(ValueError, match=said):
        planned(**arguments)


def test_data_and_values_of_every_point_are_fitted_together_before_anything_runs(small, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules[planned.__module__], "compare", lambda *_, **__: pytest.fail("a point ran"))
    unknown = small.model_copy(update={"values": {**small.values, "missed": VALUES["miss_rate"](label=7)}})
    plan = planned([unknown], ["equal"], [0], {"reward.contribution_cost": [0, 0.1]}, **QUICK)
    with pytest.raises(ValueError, match=r"point reward\.contribution_cost=0: .*missed.*7"):
        sweep(plan, tmp_path, quiet=True)


def test_a_folder_without_a_sweep_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"sweep\.json' does not exist"):
        swept(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format": 1, "settings": []}')
    with pytest.raises(ValueError, match="is damaged"):
        swept(tmp_path)


def test_an_agent_that_plays_what_a_rule_pays_for_has_a_curve_for_every_rule(finished):
    _, out = finished
    (found,) = scenario_sweeps(swept(out))
    tables = {
        values: replace(table, rows=tuple(replace(row, name="best_reply, equal") if row.name == "honest" else row for row in table.rows))
        for values, table in found.tables.items()
    }
    (panel,) = replace(found, tables=tables, agents=("best_reply",)).panels(found.settings[0])
    assert [curve.name for curve in panel.curves] == ["equal", "best_reply, equal", "measuring_planner"]
    styles = _looks(list(tables.values()))
    (drawn,) = sweep_figures(replace(found, tables=tables, agents=("best_reply",)), styles)
    learned, reply, _ = drawn.figure.axes[0].get_lines()[:3]
    assert learned.get_color() == reply.get_color() == styles["equal"].colour
    assert learned.get_linestyle() != reply.get_linestyle()


def test_the_page_is_self_contained_and_readable_anywhere(finished, tmp_path, shown_whole):
    _, out = finished
    page = sweep_page(out, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<figure>") == 1
    assert "By reward.contribution_cost." in page
    shown_whole(page)


@pytest.mark.parametrize("form", ["web", "paper", "slides"])
def test_parts_have_the_names_that_were_told(finished, tmp_path, form):
    _, out = finished
    written = sweep_parts(out, tmp_path, form)
    assert sorted(path.name for path in written) == sorted(names_of_sweep_parts(out, form))
    assert all(path.stat().st_size > 100 for path in written)


def test_tables_have_a_row_for_every_point(finished):
    _, out = finished
    (found,) = scenario_sweeps(swept(out))
    headings, cells_ = rows(found)
    assert headings == ["reward.contribution_cost", "equal, %", "honest, %", "measuring_planner, reward units"]
    assert [row[0] for row in cells_] == ["0", "0.3"]
    assert markdown(found).startswith("| reward.contribution_cost | equal, % |")
    assert findings(found)[0][0] == "By reward.contribution_cost"
    with pytest.raises(ValueError, match=r"unknown measure 'wellfare'.*did you mean 'welfare'"):
        rows(found, "wellfare")


@pytest.fixture
def sweeps(benchmark_script):
    return benchmark_script("training/sweeps")


def test_all_five_sweeps_are_allowed_at_every_point(sweeps):
    plans = sweeps.plans(sweeps.parsed(["--seeds", "1"]))
    assert list(plans) == ["cost", "gamma", "principals", "corruption", "public"]
    for key, plan in plans.items():
        assert [setting.path for setting in plan.settings] == [sweeps.QUESTIONS[key].setting]
        assert {cell.agent for cell in plan.points[0].cells} == {"learned", "honest", "best_reply", "planner", "measuring_planner"}
        assert plan.n_trainings == len(sweeps.RULES) * len(plan.points)


def test_one_can_be_asked_for_alone(sweeps):
    (plan,) = sweeps.plans(
        sweeps.parsed(["--seeds", "2", "--only", "corruption", "-s", "digits", "-r", "loo", "-a", "best_reply"])
    ).values()
    shares = [next(iter(point.values.values())) for point in plan.points]
    assert shares == [0.0, 0.25, 0.5, 0.75]
    assert plan.n_trainings == 8
