"""The seeded mutations of benchmarks/mutations.py fit the code as it is. None of them is run here: that takes minutes each."""

import ast
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


def test_nearest_tests_come_first_and_none_is_left_out(script):
    copy = script.Copy(ROOT, ROOT)
    near, others = copy.tests(ROOT / "credit" / "ledger" / "chain.py")
    assert near[0] == "tests/credit/ledger/test_chain.py"
    everything = {str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py")}
    assert sorted(near + others) == sorted(everything - {"tests/root/test_mutations.py"})
    assert all(name.startswith("tests/credit/") for name in others[: len(near)])
