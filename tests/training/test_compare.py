"""Comparisons: cells, resuming, and what is refused."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shutil

import pytest

from proxycoop import __version__
from proxycoop.envs import scenario
from proxycoop.training import compare as module
from proxycoop.training.compare import BASELINES, CLASSIC_RULES, RULE_BOUND, cells, compare, left_out, results, rules_named, training_splits
from proxycoop.training.own_modules import modules_of

# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

QUICK = {"total_steps": 300, "num_cooperatives": 2, "splits": 2, "episodes": 2, "evaluation_splits": 2}
RULES = ("equal", "normalised(rule='loo', max_scale=5.0)")


@pytest.fixture(scope="module")
def finished(small, forking, tmp_path_factory):
    """Two rules, one of them with arguments, two seeds, run in two processes."""
    out = tmp_path_factory.mktemp("comparison")
    todo = cells([small], RULES, [0, 1], **QUICK)
    with forking():
        compare(todo, out, jobs=2, quiet=True)
    return todo, out


def rows_of(out, name="results.csv"):
    return list(csv.DictReader((out / name).read_text().splitlines()))


def test_every_rule_has_a_row_for_every_seed_and_every_agent_one(finished):
    todo, out = finished
    rows = rows_of(out)
    assert len(rows) == len(todo) == 2 * len(RULES) + len(BASELINES) + len(RULE_BOUND) * len(RULES)
    found = {(row["agent"], row["credit"], row["seed"]) for row in rows}
    assert {("learned", rule, seed) for rule in RULES for seed in "01"} <= found
    assert {(agent, "shapley", "") for agent in BASELINES} <= found
    assert {(agent, rule, "") for agent in RULE_BOUND for rule in RULES} <= found


def test_the_csv_holds_what_the_results_hold(finished):
    _, out = finished
    rows = {(row["agent"], row["credit"], row["seed"]): row for row in rows_of(out)}
    there = {(row["agent"], row["credit"], row["seed"], row["evaluation_split"]): row for row in rows_of(out, "results-splits.csv")}
    assert len(there) == 2 * len(rows)
    for result in results(out):
        cell = result["cell"]
        who = cell["agent"], cell["credit"], str(cell.get("seed", ""))
        for name, (mean, _) in result["measures"].items():
            assert rows[who][name] == "" if mean is None else float(rows[who][name]) == mean
            by_split = [there[(*who, str(split))][name] for split in (1_000_000, 1_000_001)]
            assert by_split == ["" if one is None else str(one) for one in result["by_split"][name]]


def test_the_mean_over_splits_is_that_of_the_splits_and_only_policies_have_a_home(finished):
    _, out = finished
    for result in results(out):
        for name, means in result["by_split"].items():
            known = [mean for mean in means if mean is not None]
            assert result["measures"][name][0] == (pytest.approx(sum(known) / len(known)) if known else None)
        learned = result["cell"]["agent"] == "learned"
        assert {name in result["measures"] for name in ("home_gap", "home_welfare", "overlap")} == {learned}
        if learned:
            assert 0.5 < result["measures"]["overlap"][0] <= 1  # of 569 rows two splits use most


def test_each_seed_trains_on_splits_of_its_own_unless_told_otherwise(small):
    def home(seeds, **how):
        return [list(training_splits(cell.settings)) for cell in cells([small], ["equal"], seeds, **how) if cell.agent == "learned"]

    assert home([3, 4]) == [list(range(24, 32)), list(range(32, 40))]
    assert home([3, 4], splits=1) == [[3], [4]]
    assert home([3, 4], splits=2, resplit=False) == [[0, 1], [0, 1]]


def test_all_are_evaluated_on_the_same_splits_and_nobody_trains_there(small):
    assert {cell.evaluation_splits for cell in cells([small], ["equal"], [0, 1])} == {tuple(range(1_000_000, 1_000_010))}
    assert {cell.evaluation_splits for cell in cells([small], ["equal"], [0], evaluation_splits=[70, 50])} == {(70, 50)}
    with pytest.raises(ValueError, match="seed 6 trains on split 50 of the data, which the evaluation holds out"):
        cells([small], ["equal"], [6], evaluation_splits=[70, 50])
    with pytest.raises(ValueError, match=r"evaluation_splits=\[5, 5\]: give at least one seed of a data split, and each once"):
        cells([small], ["equal"], [6], evaluation_splits=[5, 5])
    with pytest.raises(ValueError, match="evaluation_splits=0: must be a whole number from 1 to 1000"):
        cells([small], ["equal"], [6], evaluation_splits=0)


def test_a_finished_cell_is_not_run_again(finished, monkeypatch):
    todo, out = finished
    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/*/*/result.json")}
    monkeypatch.setattr(module, "_run", None)  # running anything would fail
    compare(todo, out, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_cell_that_was_lost_is_run_again_and_comes_out_the_same(finished, forking):
    todo, out = finished
    path = out / "cells" / todo[1].name / "result.json"
    assert todo[1].settings.credit == RULES[1]
    before = json.loads(path.read_text())
    path.unlink()
    with forking():
        compare(todo, out, jobs=1, quiet=True)
    after = json.loads(path.read_text())
    for result in (before, after):
        del result["measures"]["credit_microseconds"], result["by_split"]["credit_microseconds"]
    assert after == before


def test_results_of_other_settings_are_refused(finished, small):
    _, out = finished
    other = cells([small], ["equal"], [0], **{**QUICK, "total_steps": 400})
    with pytest.raises(ValueError, match="result of another total_steps"):
        compare(other, out, quiet=True)


@pytest.mark.parametrize(
    ("rule", "changes", "said"),
    [
        ("loo", {"total_steps": 400}, r"another total_steps \(total_steps: 300 and 400\)"),
        ("loo", {"episodes": 3}, r"another episodes \(episodes: 2 and 3\)"),
        ("loo", {"library": "ippo"}, r"another library, .*\(library: 'sb3' and 'ippo'; .*device: None and 'cpu'"),
        ("loo", {"algo": "a2c"}, r"another algo, .*algo: 'ppo' and 'a2c'"),
        ("loo", {"gamma": 0.9}, r"another gamma \(gamma: 0\.5 and 0\.9\)"),
        ("loo", {"scenario": {"horizon": 9}}, r"another scenario\.horizon \(scenario\.horizon: 6 and 9\)"),
        ("loo", {"scenario": {"values": {}, "profiles": ()}}, r"another scenario\.values.*scenario\.profiles"),
        ("loo", {"resplit": False}, "every seed of scenario 'breast_cancer' trains on splits of its own in some cells, all on the same in"),
        ("loo", {"splits": 1}, r"another splits \(splits: 2 and None\)"),
        (
            "loo",
            {"evaluation_splits": 3},
            r"another evaluation_splits \(evaluation_splits: \[1000000, 1000001\] and \[1000000, 1000001, 10",
        ),
    ],
)
def test_other_settings_in_one_folder_are_refused_with_both_also_for_another_rule(finished, small, rule, changes, said):
    _, out = finished
    changes = dict(changes)
    other = small.model_copy(update=changes.pop("scenario", {}))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=rf"{said}.*: a folder holds one set of settings, so choose another --out"):
        compare(cells([other], [rule], [0, 1], **{**QUICK, **changes}), out, quiet=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_rules_seeds_and_scenarios_of_the_same_settings_may_join(finished, small, monkeypatch):
    todo, out = finished
    other = small.model_copy(update={"name": "other", "horizon": 3})
    monkeypatch.setattr(module, "_work_off", lambda waiting, *_: joined.extend(waiting) or {})
    joined: list[module.Cell] = []
    compare(cells([small, other], ["loo"], [0, 7], **QUICK), out, quiet=True)
    assert {(cell.settings.scenario.name, cell.settings.seed) for cell in joined if cell.agent == "learned"} == {
        ("breast_cancer", 0), ("breast_cancer", 7), ("other", 0), ("other", 7)
    }  # fmt: skip
    assert not {cell.name for cell in todo} & {cell.name for cell in joined}


def test_results_of_different_settings_make_no_table(finished, tmp_path):
    """Folders of versions that mixed them."""
    todo, out = finished
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "cells" / todo[1].name / "result.json"
    result = json.loads(path.read_text())
    result["cell"]["total_steps"] = 400
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError, match=r"result\.json' and '.*result\.json' are results of another total_steps \(total_steps: \d+ and"):
        results(tmp_path)


def test_an_unfinished_training_by_other_settings_is_refused_before_anything_runs(finished, small, tmp_path):
    (cell, *_) = cells([small], ["equal"], [0], **QUICK)
    place = tmp_path / "cells" / cell.name
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps({"finished": False, "settings": cell.settings.plain()}))
    for changes, said in (
        ({"gamma": 0.9}, "result of another gamma"),
        ({"checkpoint_every": 3}, "a training with another checkpoint_every"),
    ):
        with pytest.raises(ValueError, match=said):
            compare(cells([small], ["equal"], [0], **QUICK, **changes), tmp_path, quiet=True)


def test_the_csv_holds_everything_that_a_number_depends_on(finished, small):
    todo, out = finished
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    plain = {cell.name: cell.description() for cell in todo}
    assert len({row["scenario_digest"] for row in rows}) == 1
    assert {row["version"] for row in rows} == {__version__}
    for row in rows:
        assert row["split_seed"] == (str(2 * int(row["seed"])) if row["agent"] == "learned" else "")
        assert (row["episodes"], row["evaluation_splits"]) == ("2", "1000000 1000001")
    learned = next(row for row in rows if row["agent"] == "learned")
    settings = next(cell for cell in plain.values() if cell["agent"] == "learned")
    for name in settings.keys() - {"format", "agent", "seed", "scenario", "credit", "episodes", "evaluation_splits"}:
        assert learned[name] == str(settings[name])
        assert next(row for row in rows if row["agent"] == "none")[name] == ""
    other = small.model_copy(update={"horizon": 9})
    assert module.scenario_digest(other.to_dict()) != module.scenario_digest(small.to_dict()) == learned["scenario_digest"]


def test_where_no_terminal_is_every_finished_cell_is_a_line(small, forking, tmp_path, capsys):
    todo = [cell for cell in cells([small], ["equal"], [0], **QUICK) if cell.agent in ("none", "all")]
    with forking():
        compare(todo, tmp_path / "out", jobs=1)
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 2: " in line]
    assert sorted(line.split(":")[1].strip() for line in lines) == sorted(cell.name for cell in todo)
    assert all(re.fullmatch(r"[12] of 2: \S+: \d+ s, welfare -?\d+\.\d", line) for line in lines), lines


def test_a_result_of_another_format_is_refused(small, tmp_path):
    path = tmp_path / "cells" / small.name / "agent-none" / "seed-0" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"cell": {"format": 1}, "measures": {}, "series": {}, "curve": []}')
    with pytest.raises(ValueError, match="has format 1, this version reads 5: delete it"):
        results(tmp_path)


def test_a_half_written_result_is_named(small, tmp_path):
    todo = cells([small], ["equal"], [0], **QUICK)
    path = tmp_path / "cells" / todo[0].name / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"cell": {"form')
    with pytest.raises(ValueError, match=r"result\.json' is damaged or half-written"):
        compare(todo, tmp_path, quiet=True)
    path.write_text('{"cell": {"format": 2}}')
    with pytest.raises(ValueError, match="has format 2, this version reads 5: delete it"):
        results(tmp_path)
    path.write_text('{"cell": {"format": 5}, "splits": [1]}')
    with pytest.raises(ValueError, match="lacks measures, by_split, series, curve: delete it"):
        results(tmp_path)


def test_a_failing_cell_is_named_and_the_others_are_finished(small, forking, tmp_path):
    todo = cells([small], ["equal"], [0], **QUICK)
    (tmp_path / "cells" / small.name).mkdir(parents=True)
    (tmp_path / "cells" / todo[0].name.rsplit("/", 1)[0]).write_text("a file where a folder must go")
    with forking(), pytest.raises(ValueError, match=rf"1 of {len(todo)} cells failed.*breast_cancer/equal/seed-0: output folder"):
        compare(todo, tmp_path, jobs=1, quiet=True, overwrite=True)  # the folder was made by hand
    assert len(results(tmp_path)) == len(todo) - 1


def test_wrong_inputs_are_refused_before_anything_runs(small, tmp_path):
    with pytest.raises(ValueError, match="unknown credit rule 'nope'"):
        cells([small], ["nope"], [0])
    many = small.model_copy(update={"principals": 21})
    with pytest.raises(ValueError, match="at most 20 agents, got 21"):
        cells([many], ["shapley"], [0])
    with pytest.raises(ValueError, match=r"budget=3 is too small.*21 players"):
        cells([many], ["normalised(rule='shapley(budget=3)')"], [0])
    with pytest.raises(ValueError, match="unknown credit rule 'nope'"):
        cells([small], ["normalised(rule='nope')"], [0])
    with pytest.raises(ValueError, match="each must have a name of its own"):
        cells([small, small], ["equal"], [0])
    with pytest.raises(ValueError, match="holds no finished results"):
        results(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, and must be a folder"):
        compare(cells([small], ["equal"], [0], **QUICK), tmp_path / "file", quiet=True)


def test_the_planner_is_left_out_where_it_cannot_play(small):
    rough = small.model_copy(update={"utility": "accuracy", "reward": small.reward.model_copy(update={"scale": 100.0})})
    assert {cell.agent for cell in cells([rough], ["equal"], [0])} == {"learned", *BASELINES, *RULE_BOUND} - {"planner"}


RULES_MODULE = """
from proxycoop import credit

@credit.RULES.register("by_hand")
class ByHand(credit.GameRule):
    def divide(self, game):
        return credit.make("loo").values(game)
"""


def test_best_replies_are_left_out_where_they_would_take_too_long(small):
    many = small.model_copy(update={"name": "many", "principals": 14})
    todo = cells([small, many], ["equal", "shapley"], [0], **QUICK)
    agents = [(cell.settings.scenario.name, cell.settings.credit) for cell in todo if cell.agent == "best_reply"]
    assert agents == [("breast_cancer", "equal"), ("breast_cancer", "shapley"), ("many", "equal")]
    (reason,) = left_out([small, many], ["equal", "shapley"])
    n_tried = 14 * 2**many.lots.per_principal * 2**14
    assert f"under shapley in many: in one round, to try the sets of lots once takes {n_tried:,} coalition evaluations" in reason


def test_a_rule_registered_by_hand_is_found_by_the_other_processes(small, tmp_path, monkeypatch):
    (tmp_path / "rules_by_hand.py").write_text(RULES_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(module.credit.RULES, "_factories", dict(module.credit.RULES._factories))
    importlib.import_module("rules_by_hand")
    wrapped = "clipped(rule='normalised(rule=\"by_hand\")')"
    (cell,) = [cell for cell in cells([small], [wrapped], [0], **QUICK) if cell.agent == "learned"]
    assert modules_of("by_hand") == {"rules_by_hand"}
    assert modules_of(wrapped) == {"proxycoop.credit.wrappers", "rules_by_hand"}
    compare([cell], tmp_path / "out", jobs=1, quiet=True)  # in an interpreter of its own
    assert [result["cell"]["credit"] for result in results(tmp_path / "out")] == [wrapped]


def test_without_names_the_five_classic_rules_are_compared_and_all_are_every_registered_one():
    assert rules_named(None) == rules_named([]) == list(CLASSIC_RULES) == ["equal", "data_size", "standalone", "loo", "shapley"]
    assert rules_named(["loo", "shapley(budget=6)", "loo"]) == ["loo", "shapley(budget=6)"]
    assert rules_named(["all"]) == list(module.credit.RULES)
    assert rules_named(["shapley(budget=6)", "all"]) == ["shapley(budget=6)", *module.credit.RULES]


def test_all_are_the_rules_that_can_serve_every_scenario(small):
    horizontal, vertical = rules_named(["all"], [small]), rules_named(["all"], [scenario.load("breast_cancer-vertical")])
    assert set(vertical) == set(module.credit.RULES)
    assert set(vertical) - set(horizontal) == {"verfedsv"}
    many = scenario.load("digits", principals=14)
    assert not {"fael", "nucleolus", "veto_own", "verfedsv"} & set(rules_named(["all"], [small, many]))
    with pytest.raises(ValueError, match=r"'verfedsv' cannot serve scenario .*substrate vertical"):
        cells([small], ["loo", "verfedsv"], [0])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rules": "loo"}, r"rules='loo': give a list of rules, such as \['loo'\]"),
        ({"seeds": "01"}, "seeds='01': give a list of seeds"),
        ({"seeds": 3}, "seeds=3: give a list of seeds"),
        ({"scenarios": "digits"}, "scenarios='digits': give a list of scenarios"),
        ({"scenarios": ["digits"]}, r"scenarios holds 'digits': give scenarios, such as scenario.load\('digits'\)"),
    ],
)
def test_text_is_no_list_of_its_letters(small, wrong, said):
    with pytest.raises(ValueError, match=said):
        cells(**{"scenarios": [small], "rules": ["loo"], "seeds": [0]} | wrong)
    with pytest.raises(ValueError, match="names='loo': give a list of rules"):
        rules_named("loo")


def test_seeds_may_be_gone_through_only_once(small):
    other = small.model_copy(update={"name": "other"})
    assert cells([small, other], ["loo"], iter([0, 1])) == cells([small, other], ["loo"], [0, 1])


def test_cells_of_rules_with_arguments_have_folders_of_their_own_that_any_file_system_takes(small):
    plain = rules_named(["all"], [small])
    texts = [*plain, "shapley(budget=6)", "shapley(budget=6, seed=1)", "normalised(rule='loo')", 'normalised(rule="loo")']
    texts += [
        "owen(unions=[[0, 1], [2]])",
        "owen(unions=[[0], [1, 2]])",
        f"clipped(rule='loo', high={10**90})",
        f"clipped(rule='loo', high={10**91})",
    ]
    folders = [cell.name.split("/") for cell in cells([small], texts, [0]) if cell.agent == "learned"]
    assert [name for _, name, _ in folders][: len(plain)] == plain, "plain names are their folders'"
    assert all(len(parts) == 3 for parts in folders)
    assert len({name.lower() for _, name, _ in folders}) == len(texts)
    for _, name, _ in folders:
        assert re.fullmatch(r"[\w.=,()-]{1,100}", name), name
    assert folders[len(plain)][1] == "shapley(budget=6)"


def test_a_third_party_s_name_cannot_leave_the_folder(small, monkeypatch):
    monkeypatch.setattr(module.credit.RULES, "_factories", {**module.credit.RULES._factories, "../x/y": module.credit.Equal})
    (cell, *_) = cells([small], ["../x/y"], [0])
    assert cell.name.count("/") == 2
    assert ".." not in cell.name.split("/")


def test_where_all_cells_fail_no_other_is_called_finished(small, tmp_path, monkeypatch):
    todo = cells([small], ["equal"], [0], **QUICK)
    monkeypatch.setattr(module, "_work_off", lambda waiting, *_: {cell.name: OSError("No space left") for cell in waiting})
    with pytest.raises(ValueError, match=f"{len(todo)} of {len(todo)} cells failed: "):
        compare(todo, tmp_path, quiet=True)
