"""Tables for papers: the numbers of the summary, and names that LaTeX takes literally."""

import re
import shutil
import subprocess

import pytest

from proxycoop.training.analysis.latex import escaped, latex
from proxycoop.training.analysis.summary import cells, columns, summarise

NAMES = [
    "[x]*{y}",
    "a_b & c % d $e$ #f ~g ^h \\i \"j\" 'k' `l` <m> |n| --o-- …",
    "*star",
    "\\end{tabular}",
    "x" * 60,
    f"coopetition(interdependence={[[0.1] * 6] * 6})",
    "a\x1b[31m\nb",
]


def table(names=NAMES, name="s\n\\bad%{"):
    def result(agent, credit, seed):
        lots = {"per_principal": 4, "corruption": {"share": 0.5}}
        scenario = {"name": name, "utility": "neg_log_loss", "principals": 4, "values": {}, "lots": lots}
        cell = {"format": 4, "agent": agent, "credit": credit, "seed": seed, "episodes": 8, "scenario": scenario}
        measures = {"welfare": [-1.5 - seed, 0.2], "test_utility": [-0.5, 0.01], "clean_share": [0.5, 0.1], "corrupt_share": [0.2, 0.1]}
        return {"cell": cell, "measures": measures, "series": {}, "curve": []}

    return summarise([result("none", "equal", 0), *(result("learned", rule, seed) for rule in names for seed in (0, 1))])[0]


def body(text):
    """The lines of the table, without those of nested tables, which have no column of their own."""
    text = re.sub(r"\\begin\{tabular\}\[\w\]\{@\{\}\w@\{\}\}(.*?)\\end\{tabular\}", lambda found: found[1].replace(r"\\", ""), text)
    return [line for line in text.splitlines() if line.endswith(r"\\") and not line.startswith(r"\multicolumn")]


def test_a_table_is_one_of_booktabs_with_the_numbers_of_the_summary():
    made = table(["loo", "data_size"])
    text = latex(made)
    for part in (r"\toprule", r"\bottomrule", r"\begin{tabular}{lrrrrrrrr}", r"\usepackage{booktabs}"):
        assert part in text
    header, *rows = body(text)
    assert header.count("&") == len(columns(made))
    for row, line, texts in zip(made.rows, rows, cells(made, decimals=0), strict=True):
        name, *numbers = line.removesuffix(r" \\").split(" & ")
        assert name == f"{{{escaped(row.name)}}}"
        assert [number.strip("$").replace("--", "–").replace("-", "−").split(r" \pm ") for number in numbers] == [
            [part for part in text if part] for text in texts
        ]


def test_every_name_is_taken_literally():
    assert escaped("a_b & 50 % of $1 #2 {x}") == r"a\_b \& 50 \% of \$1 \#2 \{x\}"
    assert escaped("\\~^<>|") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"
    assert "--" not in escaped("a--b")
    text = latex(table())
    assert not [line for line in text.splitlines() if line.startswith("%") and "\\bad%{" not in line and "bad" in line]
    assert len(body(text)) == 2 + len(NAMES), "a line break in a name does not break the table"
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(columns(table())) for line in body(text))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
    assert not re.search(r"\\\\\s*[\[*]", text), "a bracket after a row's end would be its argument"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdfLaTeX with booktabs")
def test_latex_prints_it(tmp_path):
    text = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{latex(table())}\end{{document}}"
    (tmp_path / "page.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
