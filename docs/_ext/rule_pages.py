"""Pages that the registry of credit rules writes: the table of all rules, and a page for each of them.

:func:`table` stands where a page says ``<!-- generated: rules -->``. The pages of the rules are Markdown in ``docs/credit/rules``, written
when a build begins, and ignored by git. What a rule promises, costs and fails at comes from its class, what it lacks from
:func:`~proxycoop.credit.suite.witness.witnesses`, and what it taught from the tables that commands write into ``docs/results``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from sphinx.application import Sphinx

from proxycoop import credit
from proxycoop.credit.games.round import REMEDIES
from proxycoop.credit.rule import Family
from proxycoop.credit.suite.axioms import AXIOMS
from proxycoop.credit.suite.witness import Witness, witnesses

SIZES = (6, 16, 64)
"""Numbers of agents for which a page says what a round costs."""
SHOWN_PLAYERS = 3
"""A witness of at most so many agents is shown with the worth of every coalition."""
TRAININGS = {
    "digits.md": ("rules", "digits", "make table"),
    "breast_cancer.md": ("rules", "breast_cancer", "make table"),
    "digits-mean.md": ("rules", "digits-mean", "make table"),
    "adult.md": ("rules", "adult", "make table"),
    "lessons/digits.md": ("learning-cooperatives", "digits", "make lessons"),
}
"""Tables of what was learned: the page of results that shows it, the scenario, and the command that writes it."""
COLUMNS = ("of planner's welfare, %", "clean, %", "corrupt, %", "test cross-entropy, nats", "Pearson with Shapley")

_AXIOM = {"efficient": "efficient", "symmetric": "symmetric", "null_player": "null player"}


def rules() -> dict[str, credit.CreditRule]:
    """The rules of this package by name, families in their order; what third parties have registered is not ours to document."""
    order = get_args(Family)
    made = {name: credit.make(name) for name in credit.RULES if credit.RULES[name].__module__.startswith("proxycoop.")}
    return dict(sorted(made.items(), key=lambda item: (order.index(item[1].family), item[0])))


def rows_of(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Rows of the Markdown tables in a file, each with the names of its columns."""
    header: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
        elif not set(line) <= set("|-: "):
            yield header, cells


# the table


def table() -> str:
    """All rules as a Markdown table, which a script on the page makes sortable and filters."""
    lines = [
        "{.rules}",
        "| rule | pays | evaluations | largest n | efficient | symmetric | null player | known failure | family |",
        "|---" * 9 + "|",
    ]
    for name, rule in rules().items():
        marks = ("yes" if getattr(rule, axiom) else "no" for axiom in AXIOMS)
        most = rule.max_players or "any"
        cells = (f"[`{name}`](rules/{name}.md)", rule.pays, rule.evaluations, most, *marks, rule.known_failure, rule.family)
        lines.append("| " + " | ".join(_cell(str(cell)) for cell in cells) + " |")
    return "\n".join(lines)


# the pages


def contents(known: dict[str, credit.CreditRule]) -> str:
    """The page above the rules' pages: a list by family."""
    parts = ["# Every rule", "A page for each rule, by family; [the table](../index.md#all-rules) compares them."]
    for family in dict.fromkeys(rule.family for rule in known.values()):
        names = [name for name, rule in known.items() if rule.family == family]
        listed = "\n".join(f"- [`{name}`]({name}.md): {known[name].pays}" for name in names)
        parts += [f"## {family.capitalize()}", listed, "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])]
    return "\n\n".join(parts) + "\n"


def page(name: str, rule: credit.CreditRule, lacking: dict[str, Witness], results: Path) -> str:
    """A rule's page, as Markdown."""
    factory = credit.RULES[name]
    parts = [
        f"# `{name}`",
        _facts(name, rule, factory),
        _autodoc(factory),
        "## What a round costs",
        _costs(rule),
        "## Axioms",
        _axioms(rule, lacking),
        "## What proxies learned under it",
        _taught(name, results),
        "## How close it is to the Shapley value",
        _fidelity(name, results),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(name: str, rule: credit.CreditRule, factory: Callable[..., credit.CreditRule]) -> str:
    parameters = inspect.signature(factory).parameters.values()
    call = f"{name}({', '.join(str(one.replace(annotation=inspect.Parameter.empty)) for one in parameters)})" if parameters else name
    rows = {
        "Pays": rule.pays,
        "Known failure": rule.known_failure,
        "Name": f"`{call}`" + (", with the defaults" if parameters else ""),
        "Family": rule.family,
        "Source": rule.source,
        "Evaluations a round": f"{rule.evaluations}, for at most {rule.max_players} agents" if rule.max_players else rule.evaluations,
    }
    if rule.needs:
        rows["Needs"] = "; ".join(REMEDIES[need] for need in rule.needs)
    lines = "\n".join(f"| {what} | {_cell(fact)} |" for what, fact in rows.items())
    return f"{{.facts}}\n| | |\n|---|---|\n{lines}"


def _autodoc(factory: Callable[..., credit.CreditRule]) -> str:
    """The class, with the methods that are its own."""
    assert isinstance(factory, type)
    face = [name for name in credit.__all__ if getattr(credit, name) is factory]
    assert face, f"{factory} is not in proxycoop.credit"
    known = {name for base in factory.__mro__[1:] for name in vars(base)} | {"pays", "known_failure"}
    own = [name for name, member in vars(factory).items() if callable(member) and not name.startswith("_") and name not in known]
    members = f"\n   :members: {', '.join(own)}" if own else ""
    return f"```{{eval-rst}}\n.. autoclass:: proxycoop.credit.{face[0]}{members}\n```"


def _costs(rule: credit.CreditRule) -> str:
    rows = []
    for n in SIZES:
        try:
            rule.check(n)
        except ValueError as error:
            rows.append((f"{n}", "–", _cell(str(error).partition(":")[0])))
        else:
            how = re.sub(r"(^|, )[\d,]+ coalition evaluations? a round", "", rule.method(n))
            rows.append((f"{n}", f"{rule.cost(n):,}", _cell(how)))
    told = any(row[2] for row in rows)  # some rules have but one way
    lines = [("agents", "coalition evaluations", "how"), ("---:", "---:", "---"), *rows]
    return "\n".join(f"| {' | '.join(line[: 2 + told])} |" for line in lines)


def _axioms(rule: credit.CreditRule, lacking: dict[str, Witness]) -> str:
    lines = ["| axiom | kept | the smallest round of the test-suite that shows it |", "|---|---|---|"]
    for axiom in AXIOMS:
        if getattr(rule, axiom):
            lines.append(f"| {_AXIOM[axiom]} | yes | in every round of the suite |")
        else:
            lines.append(f"| {_AXIOM[axiom]} | no | {_cell(_shown(lacking[axiom]))} |")
    return (
        "\n".join(lines) + "\n\nThe axioms are those of the rule with its default arguments. "
        "{py:func}`~proxycoop.credit.check_rule` holds it to what it declares."
    )


def _shown(witness: Witness) -> str:
    n = len(witness.paid)
    where = f"Round {witness.t + 1} of {witness.case}" if witness.n_rounds > 1 else witness.case[0].upper() + witness.case[1:]
    text = f"{where}: {witness.words}."
    if n > SHOWN_PLAYERS:
        return text
    coalitions = [",".join(str(i) for i in range(n) if code >> i & 1) for code in range(1, 2**n)]
    worths = [f"v({{{who}}}) = {_number(worth)}" for who, worth in zip(coalitions, witness.worths[1:].tolist(), strict=True)]
    return f"{text} There {', '.join(worths)}. It pays {', '.join(map(_number, witness.paid.tolist()))}."


def _taught(name: str, results: Path) -> str:
    header = ["scenario", "rule", *COLUMNS, "command"]
    lines = ["| " + " | ".join(header) + " |", "|---|---|" + "---:|" * len(COLUMNS) + "---|"]
    for file, (shown_by, scenario, command) in TRAININGS.items():
        for columns, cells in rows_of(results / file):
            row = dict(zip(columns, cells, strict=True))
            if learned := re.fullmatch(rf"learned, ({name}(\(.*\))?)", row["agents"]):
                where = f"[`{scenario}`](../../results/{shown_by}.md)"
                shown = (where, f"`{learned[1]}`", *(row[column] for column in COLUMNS), f"`{command}`")
                lines.append("| " + " | ".join(shown) + " |")
    if len(lines) == 2:
        return (
            "The tables of results have no training under this rule. `proxycoop compare -s digits -r "
            f"{name} --seeds 5` makes one; `make slow` trains a small cooperative under every rule."
        )
    return "\n".join(lines) + (
        "\n\n± is a 95 % interval over seeds. [How to read a table](../../results/index.md#how-to-read-a-table) says what the columns are."
    )


def _fidelity(name: str, results: Path) -> str:
    for columns, cells in rows_of(results / "fidelity.md"):
        if cells[0] == f"`{name}`":
            lines = ["", *columns[1:]], ["---:"] * len(columns), ["", *cells[1:]]
            rows = "\n".join(f"| {' | '.join(line[1:])} |" for line in lines)
            what = "The first three columns are of single rounds, the next three of episodes."
            return f"{rows}\n\n{what} [Fidelity](../fidelity.md) says how this was measured."
    return "[Fidelity](../fidelity.md) compares rules on real rounds."


def _number(number: float) -> str:
    """Four digits, with a true minus."""
    return f"{number + 0.0:.4g}".replace("-", "−")


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table; powers as superscripts."""
    for raised, plain in (("2^n", "2ⁿ"), ("2^(n−1)", "2ⁿ⁻¹"), ("2^(m-1+b)", "2ᵐ⁻¹⁺ᵇ")):
        text = text.replace(raised, plain)
    return text.replace("|", "\\|").replace("*", "\\*").replace("docs/credit/vetoes.md", "[vetoes](../vetoes.md)")


def write(app: Sphinx) -> None:
    """Write the pages of all rules, if what they say may have changed; a page that is the same is left alone, and not built again."""
    source = Path(app.srcdir)
    folder, results = source / "credit" / "rules", source / "results"
    folder.mkdir(parents=True, exist_ok=True)
    known, old = rules(), {path.stem: path for path in folder.glob("*.md")}
    stamp = folder / ".written"
    inputs = [Path(__file__), *Path(str(inspect.getsourcefile(credit))).parent.rglob("*.py"), *results.rglob("*.md")]
    if stamp.exists() and old.keys() == {"index", *known} and max(path.stat().st_mtime for path in inputs) < stamp.stat().st_mtime:
        return
    pages = {name: page(name, rule, witnesses(name), results) for name, rule in known.items()} | {"index": contents(known)}
    for name in old.keys() - pages.keys():
        old[name].unlink()
    for name, text in pages.items():
        if name not in old or old[name].read_text(encoding="utf-8") != text:
            (folder / f"{name}.md").write_text(text, encoding="utf-8")
    stamp.touch()


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before a build reads its sources."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
