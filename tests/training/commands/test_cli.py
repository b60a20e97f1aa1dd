"""The command line, run in this process as a shell would run it."""

from __future__ import annotations

import json
import re

import pytest

from proxycoop import __version__
from proxycoop.credit import RULES, Equal
from proxycoop.envs import Scenario, scenario
from proxycoop.envs.values import VALUES
from proxycoop.settings import describe
from proxycoop.training.commands import cli


def test_help_lists_every_command_and_every_command_has_examples(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("scenarios", "rules", "agents", "play", "train", "evaluate", "audit", "compare", "report"):
        assert command in out
        code, own, _ = run(command, "--help")
        assert code == 0
        assert "Example" in own


def test_settings_that_a_command_itself_made_and_that_are_refused_give_one_line(run, monkeypatch):
    monkeypatch.setattr(cli, "app", lambda: Scenario.model_validate(scenario.load("digits").to_dict() | {"horizon": 0, "weights": "none"}))
    code, out, err = run("play")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: horizon: Input should be greater than or equal to 1 (got 0); weights: Input should be 'fixed' or")


def test_lists_name_everything(run):
    scenarios, rules, agents = (run(what)[1] for what in ("scenarios", "rules", "agents"))
    assert all(name in scenarios for name in ("digits", "breast_cancer", "digits-mean", "digits-provenance"))
    assert all(f" {name} " in rules for name in RULES)
    assert all(name in agents for name in ("all", "none", "random", "honest", "oracle", "planner", "learned"))
    assert run("--version")[1] == f"proxycoop {__version__}\n"


def test_a_scenario_is_printed_in_full_and_can_be_read_back(run, tmp_path):
    code, out, _ = run("scenarios", "digits", "--set", "lots.rows=7")
    assert code == 0
    assert "# A proxy observes" in out
    assert all(f"\n  {line}\n" in out for line in ("splits: 1", "holders: 1", "relative_limits: {}", "marginal_gains: false"))
    (tmp_path / "mine.yaml").write_text(out)
    assert scenario.load(tmp_path / "mine.yaml") == scenario.load("digits", **{"lots.rows": 7})
    assert run("play", "-s", tmp_path / "mine.yaml", "--last", "-a", "none")[0] == 0


def test_every_setting_is_listed_with_its_default_and_meaning(run):
    rows = list(describe(Scenario))
    assert all(meaning for _, _, meaning in rows)
    assert len({path for path, _, _ in rows}) == len(rows)
    defaults = {path: default for path, default, _ in rows}
    assert defaults["data.test.rows"] == "400"
    assert defaults["data.validation.rows"] == "150"
    assert defaults["substrate[traversal].batch"] == "none"
    assert defaults["model[module].factory"] == "required"
    _, out, _ = run("scenarios", "--settings")
    assert all(path in out for path in defaults)
    assert "values.<…>[disparity]" in out
    of_value = {path: default for path, default, _ in describe(VALUES["miss_rate"], "values.<…>[miss_rate].")}
    assert of_value["values.<…>[miss_rate].label"] == "required"
    assert all(path in out for path in of_value)


def test_play_shows_no_negative_zero(run):
    code, out, _ = run("play", "-s", "breast_cancer", "-a", "none", "--last", "--set", "horizon=2")
    assert code == 0
    assert "returns 0.00, 0.00" in out
    assert "-0.00" not in out


def test_play_without_options_shows_the_idea(run):
    """Updates pass, others are screened out, and credit differs."""
    code, out, _ = run("play", "--last")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("proxy_")]
    symbols = " ".join(rows).split()
    assert symbols.count("A") >= 3
    assert symbols.count("X") >= 1
    totals = sorted(float(re.findall(r"[+-]\d+\.\d\d", row)[1]) for row in rows)
    assert totals[0] >= -1
    assert totals[-1] > 40
    assert float(re.search(r"welfare (-?[\d.]+)", out)[1]) > 50
    assert "nothing passed" not in out


def test_where_nothing_passes_play_and_evaluate_say_so_and_what_helps(run):
    _, out, _ = run("play", "-s", "digits", "--last", "--set", "horizon=2")
    assert "nothing passed: all 12 updates contributed were screened out, 12 of them because of eights" in out
    assert "planner or oracle" in out
    _, out, _ = run("evaluate", "-s", "digits", "--home", "--episodes", 2, "--seed", 0, "--set", "horizon=2")
    assert "nothing passed in 1 of 2 episodes: all 12 updates contributed there were screened out" in out
    _, out, _ = run("evaluate", "-s", "digits", "--home", "--agent", "oracle", "--episodes", 2, "--seed", 0, "--set", "horizon=2")
    assert "nothing passed" not in out


def test_evaluate_plays_where_nobody_trained_and_at_home_if_asked(run, tmp_path):
    folder = tmp_path / "run"
    small = ("--set", "principals=2", "--set", "horizon=2", "--set", "profiles=[]")
    quick = ("--library", "ippo", "--steps", 48, "--hyper", "num_cooperatives=2", "--hyper", "splits=3")
    assert run("train", "-s", "breast_cancer", *small, *quick, "--seed", 1, "--out", folder)[0] == 0
    words = ("evaluate", folder, "--episodes", 2, "--overwrite", "--json", tmp_path / "a.json")
    assert "2 episodes on each of 4 held-out data splits" in run(*words, "--evaluation-splits", 4)[1]
    away = json.loads((tmp_path / "a.json").read_text())
    assert away["splits"] == [1_000_000, 1_000_001, 1_000_002, 1_000_003]
    assert len(away["by_split"]["welfare"]) == 4
    assert "2 episodes on each of the training's 3 data splits" in run(*words, "--home")[1]
    home = json.loads((tmp_path / "a.json").read_text())
    assert home["splits"] == [0, 1, 2]
    assert home["measures"]["welfare"][0] == pytest.approx(away["measures"]["home_welfare"][0])
    assert "home_gap" not in home["measures"]
    code, _, err = run(*words, "--home", "--evaluation-splits", 2)
    assert (code, "--evaluation-splits 2 has no effect" in err) == (2, True)


def test_play_shows_every_round_and_its_sum(run, tmp_path):
    code, out, _ = run(
        "play", "-s", "breast_cancer", "-a", "all", "--seat", "0=none", "--picture", tmp_path / "new" / "round.png", "--set", "horizon=3"
    )
    assert code == 0
    assert all(f"round {t}/3" in out for t in (1, 2, 3))
    assert "welfare" in out
    assert (tmp_path / "new" / "round.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["round.svg", "round.PDF", "round.jpg"])
def test_a_picture_is_not_written_under_the_name_of_another_format(run, tmp_path, name):
    code, _, err = run("play", "-s", "breast_cancer", "--set", "horizon=1", "--picture", tmp_path / name)
    assert code == 2
    assert f"{name}': pictures are PNG files, so let the name end in .png" in err
    assert not (tmp_path / name).exists()


def test_features_that_the_screen_leaves_out_are_looked_for_where_they_are(run, tmp_path, monkeypatch):
    monkeypatch.setattr("proxycoop.training.pages.explain_page.MOST_ROWS", 1)
    tiny = (
        "explain",
        "-s",
        "breast_cancer",
        "--agent",
        "honest",
        "--episodes",
        2,
        "--draws",
        1,
        "--set",
        "horizon=2",
        "--set",
        "principals=4",
    )
    _, out, err = run(*tiny)
    assert "1 features that add less welfare on average are left out: --out FILE has all" in out, err
    _, out, _ = run(*tiny, "--json", tmp_path / "all.json")
    assert "are in the JSON file" in out


def test_a_rule_s_manual_and_what_it_costs_are_printed(run):
    code, out, _ = run("rules", "shapley", "--agents", 64)
    assert code == 0
    assert "average marginal contribution over all orders" in out
    assert "budget=None, seed=0" in out
    assert "64 agents    cannot: Shapley takes at most 20 agents, got 64" in out
    _, out, _ = run("rules", "shapley(budget=60)", "--agents", 10)
    assert "estimated by stacked, 60 coalition evaluations a round" in out
    code, out, _ = run("rules", "--agents", 64)
    assert code == 0
    assert "cannot" in out
    assert "Rules take arguments" in out
    assert run("rules", "shapley", "--agents", 0)[0] == 2


def test_a_rule_can_be_put_through_the_suite(run, monkeypatch):
    monkeypatch.setattr(RULES, "_factories", dict(RULES._factories))
    code, out, _ = run("rules", "loo", "--check")
    assert code == 0
    assert "efficient: not declared, broken" in out

    @RULES.register("liar")
    class Liar(Equal):
        null_player = True

    code, out, _ = run("rules", "liar", "--check")
    assert code == 1
    assert "liar does not pass" in out
    assert "null_player" in out
    assert run("rules", "--check")[0] == 2


@pytest.mark.parametrize("rule", ["shapley(budget=30)", "normalised(rule='shapley(budget=30)')"])
def test_rules_with_arguments_work_in_every_command(run, tmp_path, rule):
    tiny = ["-s", "breast_cancer", "--set", "horizon=2", "--set", "principals=6", "-c", rule]
    how = f"credit: {rule}, estimated by stacked, 30 coalition evaluations a round"
    code, out, err = run("play", *tiny, "--last", "--picture", tmp_path / "round.png")
    assert code == 0, err
    assert out.startswith(how)
    assert f"credit rule: {rule}" in out
    words = ("train", *tiny, "-o", tmp_path / "run", "--steps", 100, "--hyper", "num_cooperatives=2")
    code, out, err = run(*words)
    assert code == 0, err
    assert out.startswith(how)
    assert run(*words, "--resume")[0] == 0
    code, out, err = run("evaluate", tmp_path / "run", "--episodes", 2)
    assert code == 0, err
    assert out.startswith(how), "the run's own rule, from its run.json"


# Python from 3.12 on warns where other threads might hold locks: those of libraries here hold none that a child needs.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_comparison_of_a_rule_with_arguments_is_reported(run, forking, tmp_path):
    rule, out = "normalised(rule='loo', max_scale=5.0)", tmp_path / "out"
    small = ["-s", "breast_cancer", "--set", "horizon=2", "--set", "principals=3", "--set", "profiles=[]"]
    with forking():
        code, text, err = run("compare", *small, "-r", rule, "-o", out, "--seeds", 1, "--steps", 50, "--episodes", 2, "-j", 1)
    assert code == 0, err
    assert "max_scale=5.0)" in text
    assert f'"{rule}"' in (out / "results.csv").read_text()
    assert run("report", out, "--parts", tmp_path / "parts")[0] == 0
    assert "normalised(rule=&#39;loo&#39;, max_scale=5.0)" in (out / "report.html").read_text(encoding="utf-8")
    assert rule in (tmp_path / "parts" / "breast_cancer.md").read_text(encoding="utf-8")


def test_train_evaluate_and_play_a_policy(run, tmp_path):
    tiny = ["--set", "horizon=3", "--set", "principals=3", "--set", "profiles=[]"]
    code, out, err = run(
        "train", "-s", "breast_cancer", "-c", "loo", "-o", tmp_path / "run", "--steps", 200, "--hyper", "num_cooperatives=2", *tiny
    )
    assert code == 0, err
    assert "policy.pt" in out
    code, out, err = run("evaluate", tmp_path / "run", "--episodes", 2, "--json", tmp_path / "measures.json")
    assert code == 0, err
    assert "welfare" in out
    assert "welfare" in json.loads((tmp_path / "measures.json").read_text())["measures"]
    assert run("play", "-s", tmp_path / "run" / "scenario.yaml", "--policy", tmp_path / "run", "--last")[0] == 0
    code, _, err = run("train", "-s", "breast_cancer", "-c", "loo", "-o", tmp_path / "run", "--steps", 200, *tiny)
    assert code == 2
    assert "holds a run already" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("play", "-s", "nope"), "known ones are adult, adult-mean, adult-steep, breast_cancer, breast_cancer-hospitals"),
        (("play", "-c", "nope"), f"known ones are {', '.join(RULES)}"),
        (("play", "-c", "shapley(budget=3)"), "budget=3 is too small for Shapley with 6 players: pass at least 6"),
        (("play", "-c", "shapley(60)"), "credit rule 'shapley(60)': write a name, or a name with arguments such as shapley(budget=60)"),
        (("play", "-c", "shapley(budget=60"), "credit rule 'shapley(budget=60': write a name, or a name with arguments"),
        (("play", "-c", "shapley(budgte=60)"), "'shapley' does not take these arguments"),
        (("play", "-c", "normalised(rule='nope')"), "unknown credit rule 'nope': the known ones are"),
        (("play", "-a", "nope"), "known ones are all, best_reply, blocker, booster, colluder"),
        (("play", "-a", "learned"), "needs a policy"),
        (("play", "--seat", "x"), "--seat 'x': write a seat's number"),
        (("play", "--seat", "9=none"), "seats go from 0 to 5"),
        (("play", "--set", "lots.rowz=3"), "unknown key 'lots.rowz'; did you mean 'rows'"),
        (("play", "--set", "horizon"), "write KEY=VALUE"),
        (("play", "--set", "horizon=yes"), "error: --set 'horizon=yes': horizon: Input should be a valid integer"),
        (("play", "--set", "horizon=true"), "error: --set 'horizon=true': horizon: must be a number, not true or false (got True)"),
        (
            ("play", "--set", "lots={rows: 2, rows: 3}"),
            "error: --set 'lots={rows: 2, rows: 3}': not valid YAML: the key 'rows' is given twice",
        ),
        (("play", "--set", "horizon=4", "--set", "horizon=5"), "error: --set 'horizon=5': 'horizon' is set twice: leave one"),
        (("play", "-s", "digits", "--set", "principals=2"), "error: digits.yaml with --set 'principals=2': profiles have 4 holders in all"),
        (("play", "--set", "horizon=!!python/name:os.system"), "the tag '!!python/name:os.system' is not allowed here"),
        (("play", "--set", "name=\x1b[31m"), "the character U+001B is not allowed"),
        (
            ("train", "-o", "/dev/null/run", "--hyper", "gamma=no"),
            "gamma: Input should be a valid number, unable to parse string as a number (got 'no'",
        ),
        (("train", "-o", "/dev/null/run", "--hyper", "gamma=true"), "gamma: must be a number, not true or false (got True)"),
        (("play", "--set", "horizon=[1"), "--set 'horizon=[1': not valid YAML: while parsing a flow sequence"),
        (
            ("play", "--set", "principals=21", "--set", "lots.rows=5", "--set", "reward.scale=1"),
            "Shapley takes at most 20 agents, got 21 (2,097,152 coalitions a round): use an estimator with a budget of coalition "
            "evaluations, such as --credit 'shapley(budget=420)' or --credit 'svarm(budget=420)'",
        ),
        (("rules", "nope"), f"known ones are {', '.join(RULES)}"),
        (("rules", "shapley(60)"), "write a name, or a name with arguments"),
        (("train", "-o", "/dev/null/run"), "output folder '/dev/null/run' cannot be written"),
        (("train", "-o", "/dev/null/run", "--hyper", "gama=1"), "unknown setting of sb3 ppo 'gama' (did you mean 'gamma'?)"),
        (("train", "-o", "/dev/null/run", "--hyper", "gamma=3"), "error: --hyper gamma: Input should be less than or equal to 1"),
        (("compare", "-o", "/dev/null/out", "--hyper", "splits=0"), "error: --hyper splits: Input should be greater than or equal to 1"),
        (("sweep", "-o", "/dev/null/out", "--vary", "horizon=1"), "error: --vary horizon: a sweep needs at least two values"),
        (("sweep", "-o", "/dev/null/out", "--vary", "horizon=8,9", "--hyper", "n_epochs=0"), "n_epochs: Input should be greater than"),
        (("play", "--set", "screening.guard=on"), "screening.guard: must be true or false (got 'on', which is text in YAML 1.2)"),
        (("play", "-s", "digits", "--set", "profiles.0.limits={tens: 1}"), "profiles.0.limits.tens: unknown value 'tens': the known ones"),
        (
            ("compare", "-o", "/dev/null/out", "--same-split", "--set", "data.split_seed=1000000"),
            "seed 0 trains on split 1000000 of the data, which the evaluation holds out: set data.split_seed lower, which is 1000000",
        ),
        (("train", "-o", "/dev/null/run", "-c", "nope"), f"credit: unknown credit rule 'nope': the known ones are {', '.join(RULES)}"),
        (("train", "-o", "/dev/null/run", "-c", "shapley(60)"), "credit: credit rule 'shapley(60)': write a name"),
        (("train", "-o", "/dev/null/run", "--set", "principals=21", "--set", "reward.scale=1"), "credit: Shapley takes at most 20 agents"),
        (("evaluate", "-c", "shapley(budget=3)", "--episodes", "2"), "budget=3 is too small for Shapley with 6 players"),
        (("evaluate", "/nonexistent/run"), "does not exist"),
        (("evaluate", "-a", "nope", "--episodes", "2"), "unknown agent 'nope'"),
        (("evaluate", "/nonexistent/run", "-a", "honest"), "a training run or an --agent, not both"),
        (("--import", "no_such_module", "rules"), "--import 'no_such_module' failed"),
        (("compare", "-o", "/dev/null/out", "-r", "nope"), "unknown credit rule 'nope'"),
        (("compare", "-o", "/dev/null/out", "-r", "all", "-r", "normalised(rule='nope')"), "unknown credit rule 'nope'"),
        (("compare", "-o", "/dev/null/out", "-r", "shapley(budget=3)"), "budget=3 is too small"),
        (
            ("compare", "-o", "/dev/null/out", "--set", "data.split_seed=5"),
            "--set data.split_seed: each seed trains on data splits of its own",
        ),
        (("compare", "-o", "/dev/null/out", "-s", "nope"), "unknown scenario 'nope'"),
        (("compare", "-o", "/dev/null/out", "--seeds", "1"), "output folder '/dev/null/out' cannot be written"),
        (("report", "/nonexistent/out"), "holds no finished results"),
    ],
)
def test_a_wrong_input_is_one_clear_error_without_a_traceback(run, words, said):
    code, _, err = run(*words)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert err.count("error:") == 1


def test_a_misspelt_key_in_a_file_is_named_with_its_line(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: digits\nname: mine\nlots:\n  rowz: 3\n")
    code, _, err = run("play", "-s", tmp_path / "mine.yaml")
    assert code == 2
    assert "mine.yaml:4: unknown key 'lots.rowz'; did you mean 'rows'?" in err


def test_a_half_written_results_file_is_named(run, tmp_path):
    path = tmp_path / "cells" / "digits" / "equal" / "seed-0" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"cell":')
    code, _, err = run("report", tmp_path)
    assert code == 2
    assert "result.json' is damaged or half-written" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("play", "--seed", 1, "--seed", 2), "--seed is given 2 times: leave one"),
        (("play", "-c", "loo", "--credit=shapley"), "--credit / -c is given 2 times: leave one"),
        (("evaluate", "-s", "digits", "-sgerman", "--episodes", 2), "--scenario / -s is given 2 times: leave one"),
        (("ledger", "settle", "no.db", "--revenue", 5, "--revenue", 7), "--revenue is given 2 times: leave one"),
        (("profiles", "fit", "no.csv", "--direction", "--no-direction"), "--direction / --no-direction is given 2 times: leave one"),
        (("train", "-o", "/dev/null/run", "--steps", "1e3"), "(got '1e3')"),
        (("play", "--seed", "٣"), "(got '٣')"),
        (("train", "-o", "/dev/null/run", "--steps", "-5"), "(got '-5')"),
        (("compare", "-o", "/dev/null/out", "--evaluation-splits", 2000), "Invalid value for '--evaluation-splits'"),
        (("rules", "--agents", 10**8), "(got '100000000')"),
        (("profiles", "fit", "no.csv", "--confidence", "95%"), "(got '95%')"),
        (("scenarios", "--settings", "digits"), "leave the scenario's name and --set out"),
        (("scenarios", "--set", "horizon=3"), "--set changes one scenario: name it"),
        (("scenarios", "--settings", "--interaction"), "leave one of the two out"),
        (("scenarios", "digits", "--episodes", 4), "--episodes is an option of --interaction"),
        (("scenarios", "--csv", "made.csv"), "--csv is an option of --interaction"),
        (("scenarios", "digits", "adult"), "2 scenarios are named, and one is printed at a time"),
        (("scenarios", "digits", "--set", "principals=13", "--interaction"), "for at most 12"),
        (("rules", "loo", "--check", "--agents", 3), "--agents 3: --check plays games"),
        (("train", "-o", "/dev/null/run", "--hyper", "seats=[0=none]"), "seats has an option of its own: --seat"),
        (("train", "-o", "/dev/null/run", "--hyper", "num_cooperatives=99999999999999"), "less than or equal to 1048576"),
        (("train", "-o", "/dev/null/run", "--hyper", "hidden=10000000000"), "less than or equal to 16384"),
        (("play", "--set", "horizon=1000000000000"), "horizon: Input should be less than or equal to 1048576"),
        (("play", "--set", "profiles.5.holders=1"), "'5' must be a place in the list profiles, from 0 to 1; or set all of it"),
        (("--import", ".", "rules"), "--import '.': write a module's name"),
        (("--import", "../mine", "rules"), "--import '../mine': write a module's name"),
        (("--import", "mine.py", "rules"), "--import 'mine.py': write a module's name"),
    ],
)
def test_nothing_that_was_typed_is_dropped_or_read_in_another_way(run, monkeypatch, words, said):
    monkeypatch.setenv("COLUMNS", "150")
    code, out, err = run(*words)
    assert code == 2
    assert said in err
    assert out == ""
    assert "Traceback" not in err


def test_options_that_may_be_repeated_and_switches_still_can_be(run):
    assert run("play", "-s", "breast_cancer", "--last", "--last", "--set", "horizon=1", "--set", "lots.rows=9", "--seat", "0=all")[0] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1/0", "line 1: ZeroDivisionError: division by zero"),
        ("x = 1\ndef (", "line 2: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(7)", "line 2: SystemExit: 7"),
    ],
)
def test_a_module_that_fails_when_it_is_imported_is_named_with_its_line(run, tmp_path, monkeypatch, text, said):
    (tmp_path / "fails_at_import.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = run("--import", "fails_at_import", "rules")
    assert code == 2
    assert f"--import 'fails_at_import' failed in {tmp_path / 'fails_at_import.py'}, {said}" in err
    assert err.count("\n") == 1


def test_libraries_list_no_setting_that_hyper_refuses(run):
    _, out, _ = run("libraries", "sb3")
    assert " gamma " in out
    assert " seats " not in out
