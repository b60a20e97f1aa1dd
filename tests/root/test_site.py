"""What the documentation site needs of the code, without building it: `make docs` does that."""

import importlib
import json
import re
from pathlib import Path

import pytest

from proxycoop import credit
from proxycoop.training.commands.listings.rules import manual

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", list(credit.RULES))
def test_every_rule_has_the_texts_of_the_table_of_rules(name):
    rule = credit.make(name)
    for text in (rule.pays, rule.known_failure, rule.source, rule.evaluations):
        assert text
        assert text == text.strip().rstrip(".")
        assert "\n" not in text
        assert len(text) <= 90, "a cell of a table"
    assert rule.pays in manual(name)
    assert rule.known_failure in manual(name)
    assert "known failure" in (credit.RULES[name].__doc__ or "").lower(), "the docstring says more"


@pytest.mark.parametrize("face", ["credit", "envs", "agents"])
def test_every_public_name_of_a_face_is_in_the_reference(face):
    package = importlib.import_module(f"proxycoop.{face}")
    page = (DOCS / "api" / f"{face}.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\.\. (?:auto(?:class|function|exception)|py:data):: (\w+)$", page, flags=re.MULTILINE))
    modules = {name.rpartition(".")[2] for name in re.findall(r"^```\{public\} ([\w.]+)$", page, flags=re.MULTILINE)}
    of_rules = {name for name in package.__all__ if getattr(package, name) in [credit.RULES[rule] for rule in credit.RULES]}
    assert set(package.__all__) - of_rules - modules - {"games"} <= shown
    assert shown <= set(package.__all__)


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
