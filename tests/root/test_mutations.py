"""The seeded mutations of benchmarks/mutations.py fit the code as it is, and its judgement is right on a small tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script(benchmark_script):
    return benchmark_script("mutations")


def test_every_mutation_finds_its_text_once_and_leaves_valid_python(script):
    for mutation in script.pool():
        path, text = script.mutated(ROOT, mutation)
        assert path == ROOT / mutation.file
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(path.read_text(encoding="utf-8"))), mutation.name


def test_a_text_that_is_missing_or_there_twice_is_refused(script, tmp_path):
    mutation = script.Mutation("sign", "envs/a.py", "x - y", "x + y")
    (tmp_path / "envs").mkdir()
    for text, n in (("x * y", 0), ("x - y, x - y", 2)):
        (tmp_path / "envs" / "a.py").write_text(text)
        with pytest.raises(ValueError, match=f"sign: envs/a.py holds the old text {n} times"):
            script.mutated(tmp_path, mutation)


def test_a_file_that_was_moved_is_found_by_its_text(script, tmp_path):
    mutation = script.Mutation("sign", "envs/parts/a.py", "x - y", "x + y")
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "old_a.py").write_text("z = x - y")
    assert script.mutated(tmp_path, mutation) == (tmp_path / "envs" / "old_a.py", "z = x + y")
    (tmp_path / "envs" / "copied_a.py").write_text("z = x - y")
    with pytest.raises(ValueError, match=r"envs/parts/a.py does not exist, and 2 other files hold the old text"):
        script.mutated(tmp_path, mutation)


def test_mutations_have_names_of_their_own_and_cover_every_area(script):
    names = [mutation.name for mutation in script.pool()]
    assert len(set(names)) == len(names) >= 24
    assert all(len(mutations) >= 4 for mutations in script.areas().values())


def test_a_seed_chooses_twenty_and_a_name_one(script):
    assert len(script.chosen(seed=1)) == 20
    assert script.chosen(seed=1) == script.chosen(seed=1) != script.chosen(seed=2)
    name = script.pool()[3].name
    assert [mutation.name for mutation in script.chosen([name])] == [name]
    with pytest.raises(ValueError, match="there is no such mutation"):
        script.chosen(["no-such"])


def test_nearest_are_the_tests_of_the_module_s_name_and_three_others(script):
    near = script.Copy(ROOT, ROOT).nearest(ROOT / "credit" / "ledger" / "chain.py")
    assert near[0] == "tests/credit/ledger/test_chain.py"
    assert len(near) == 4
    assert all(name.startswith("tests/credit/") for name in near)


@pytest.fixture
def small_tree(tmp_path):
    """A tree with one module and five test files: one is near, one is far, and three only name what is tested."""
    tree = tmp_path / "small"
    for folder in ("envs", "agents", "credit", "training", "src/proxycoop", "tests/envs", "tests/credit"):
        (tree / folder).mkdir(parents=True)
        if not folder.startswith(("tests", "src")):
            (tree / folder / "__init__.py").touch()
    (tree / "src" / "proxycoop" / "__init__.py").touch()
    (tree / "envs" / "signs.py").write_text("def sign(x):\n    return -1 if x < 0 else 1\n\n\ndef half(x):\n    return x / 2\n")
    tests = {
        "envs/test_signs.py": "from proxycoop.envs.signs import sign\n\n\ndef test_it():\n    assert sign(-2) == -1\n",
        "credit/test_far.py": "from proxycoop.envs import signs\n\n\ndef test_it():\n    assert signs.half(1) == 0.5\n",
        **{f"envs/test_near_{n}.py": "sign = half = signs = 0\n\n\ndef test_it():\n    pass\n" for n in range(3)},
    }
    for name, text in tests.items():
        (tree / "tests" / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    return tree


@pytest.mark.slow
def test_the_far_tests_judge_together_what_the_nearest_let_pass(script, small_tree, tmp_path, monkeypatch, capsys):
    mutations = [
        script.Mutation("sign", "envs/signs.py", "-1 if", "+1 if"),
        script.Mutation("half", "envs/signs.py", "x / 2", "x * 2"),
        script.Mutation("zero", "envs/signs.py", "x < 0", "x < -1"),
    ]
    monkeypatch.setattr(script, "areas", lambda: {"signs": mutations})
    page = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["mutations.py", "--tree", str(small_tree), "--markdown", str(page)])
    script.main()
    outcomes = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "envs/signs.py" in line}
    assert outcomes["sign"].endswith("killed tests/envs/test_signs.py::test_it")
    assert outcomes["half"].endswith("killed tests/credit/test_far.py::test_it")
    assert outcomes["zero"].endswith("survived")
    assert "**2 of 3 killed, 1 survived.**" in page.read_text()
