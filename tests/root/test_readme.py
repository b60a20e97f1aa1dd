"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from proxycoop import credit
from proxycoop.envs import Engine, scenario

README = Path(__file__).parents[2] / "README.md"
SETTLEMENT = README.parent / "docs" / "settlement.md"


def blocks(language, path=README):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def clean_rules(monkeypatch):
    monkeypatch.setattr(credit.RULES, "_factories", dict(credit.RULES._factories))


def test_every_python_block_runs_one_after_another(clean_rules):
    shown = blocks("python")
    assert len(shown) >= 3
    names: dict[str, object] = {"__name__": "readme"}
    for block in shown:
        exec(compile(block, str(README), "exec"), names)
    assert credit.make("gain_or_nothing").values(names["glove"], 3).tolist() == [[1.0, 0.0, 0.0]]


def test_what_the_page_on_settlement_shows_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    shown = blocks("python", SETTLEMENT)
    assert shown
    for block in shown:
        exec(compile(block, str(SETTLEMENT), "exec"), {"__name__": "page"})
        assert capsys.readouterr().out.splitlines() == re.findall(r"print\(.*\)  # (.*)", block)


@pytest.mark.fairness
def test_every_scenario_that_it_shows_loads_and_plays(tmp_path):
    shown = blocks("yaml") + blocks("yaml", SETTLEMENT)
    assert shown
    for block in shown:
        (tmp_path / "shown.yaml").write_text(block, encoding="utf-8")
        engine = Engine(scenario.load(tmp_path / "shown.yaml", **{"reward.scale": 1.0}), None)
        engine.reset([3])
        assert not engine.step(torch.ones(1, engine.num_agents, engine.num_lots)).violated.any()


def test_rules_in_the_table_are_the_registered_ones_with_their_axioms():
    rows = re.findall(r"^\| `(\w+)` \| .*\| (yes|no) \| (yes|no) \| (yes|no) \|", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {row[0] for row in rows} == set(credit.RULES)
    for name, *axioms in rows:
        rule = credit.make(name)
        assert [axiom == "yes" for axiom in axioms] == [rule.efficient, rule.symmetric, rule.null_player]


def test_every_file_that_it_links_to_is_there():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (README.parent / target).exists(), target


def test_the_tables_of_results_are_those_that_the_command_wrote():
    text = README.read_text(encoding="utf-8")
    for name in (
        "digits",
        "breast_cancer",
        "estimators",
        "fidelity",
        "fidelity-facts",
        "lessons/digits",
        "harm-counts",
        "preferences",
        "fairness",
        "libraries",
        "decompositions",
        "ippo",
    ):
        assert (README.parent / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8").strip() in text
    text = SETTLEMENT.read_text(encoding="utf-8")
    for name in ("ledger-crash", "ledger-writers", "ledger-tamper"):
        assert (README.parent / "docs" / "results" / f"{name}.md").read_text(encoding="utf-8").strip() in text
