"""What the README shows works as it stands, and what pages link to is there; tests/root/test_docs.py runs what pages show."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
import yaml

import proxycoop
from proxycoop import credit
from proxycoop.envs import Engine, scenario
from proxycoop.envs.values import VALUES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *(page for page in DOCS.rglob("*.md") if page.parent != DOCS / "credit" / "rules")]  # these are generated


def blocks(language: str, path: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def rows(path: Path, heading: str = "") -> dict[str, list[str]]:
    """The rows of a Markdown table by their first cell, of the whole page or under a heading."""
    text = path.read_text(encoding="utf-8")
    text = text.partition(f"## {heading}\n")[2].partition("\n## ")[0] if heading else text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}


@pytest.fixture
def clean_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credit.RULES, "_factories", dict(credit.RULES._factories))


# the README


def test_it_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert [number for number, line in enumerate(lines, start=1) if len(line) > 140] == []


def test_every_python_block_runs_one_after_another(clean_rules):
    shown = blocks("python")
    assert len(shown) >= 3
    names: dict[str, object] = {"__name__": "readme"}
    for block in shown:
        exec(compile(block, str(README), "exec"), names)
    assert "gain_or_nothing" in credit.RULES
    assert set(names["infos"]) >= {"action_mask", "credit"}  # the VectorEnv's


def test_its_table_of_results_is_in_those_that_the_command_wrote():
    table = rows(README)
    for column, name in enumerate(("complement", "redundant", "digits-graded", "digits-steep")):
        found = rows(DOCS / "results" / f"{name}.md")
        welfare = [cell.split(", ")[0] for cell in found["agents"]].index("welfare")

        def mean(agent: str, found: dict[str, list[str]] = found, welfare: int = welfare) -> str:
            return found[agent][welfare].partition(" ±")[0]

        for rule in ("equal", "data_size", "standalone", "loo", "shapley"):
            theirs = f"{found[f'learned, {rule}'][welfare]} ({mean(f'best_reply, {rule}')})"
            assert table[f"`{rule}`"][column] == theirs
        assert table["(planner)"][column] == mean("measuring_planner")


def test_its_table_of_a_sweep_is_in_those_that_the_command_wrote():
    shown, found = rows(README), rows(DOCS / "results" / "sweeps.md", "What contributing costs")
    for column, cost in enumerate(("0", "0.05", "0.15", "0.6")):
        for rule, learned, reply in (("equal", 0, 3), ("shapley", 1, 4)):
            theirs = f"{found[cost][learned]} ({found[cost][reply].partition(' ±')[0]})"
            assert shown[f"`{rule}`, learned (best replies), %"][column] == theirs


# pages


def test_every_file_that_a_page_links_to_or_includes_is_there():
    missing = []
    generated = {DOCS / "credit" / "rules" / f"{name}.md" for name in credit.RULES}  # by `make docs`, from the registry
    for page in PAGES:
        text = re.sub(r"```(?!\{).*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text) + re.findall(r"^```\{include\} (\S+)$", text, flags=re.MULTILINE)
        paths = [(target, (page.parent / unquote(target)).resolve()) for target in targets if "://" not in target]
        missing += [(page.name, target) for target, path in paths if not path.exists() and path not in generated]
    assert missing == []


def test_every_picture_has_a_text_for_those_who_do_not_see_it():
    bare = [(page.name, target) for page in PAGES for alt, target in pictures(page) if len(alt) < 20]
    assert bare == []


def pictures(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))


def test_every_table_that_a_command_wrote_is_on_some_page():
    included = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"^```\{include\} (\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    written = {path for path in (DOCS / "results").rglob("*.md") if not path.read_text(encoding="utf-8").startswith("#")}
    assert {path.relative_to(DOCS) for path in written - included} == set()


@pytest.mark.fairness
@pytest.mark.parametrize(("page", "n"), [("values", 1), ("settlement", None)])
def test_every_scenario_that_a_page_shows_loads_and_plays(page, n, tmp_path):
    shown = blocks("yaml", DOCS / f"{page}.md")[:n]
    assert shown
    for block in shown:
        (tmp_path / "shown.yaml").write_text(block, encoding="utf-8")
        engine = Engine(scenario.load(tmp_path / "shown.yaml", **{"reward.scale": 1.0}), None)
        engine.reset([3])
        assert not engine.step(torch.ones(1, engine.num_agents, engine.num_lots)).violated.any()


def test_the_page_on_values_has_every_kind_with_its_settings():
    table = rows(DOCS / "values.md")
    kinds = {kind: VALUES[kind] for kind in VALUES if VALUES[kind].__module__.startswith("proxycoop.")}
    assert {cell.strip("`") for cell in table if cell.strip("`") in kinds} == set(kinds)
    for kind, value in kinds.items():
        assert set(re.findall(r"`(\w+)`", table[f"`{kind}`"][-1])) == set(value.model_fields), kind


# how to cite


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (proxycoop.__version__, project["license"])
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert f"version = {{{proxycoop.__version__}}}" in README.read_text(encoding="utf-8")
