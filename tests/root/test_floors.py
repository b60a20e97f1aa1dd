"""The floors of the house: which folder, and which part of it, may import which others.

From the top floor down; code may import only from its own part and from what stands below it. A line of several names is one floor:
they do not import each other.
"""

import ast
import itertools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_FILES = 16

HOUSE = ["flower", "traversal", "training", "agents", "envs", "credit"]
AT = {name: f"src/proxycoop/{name}" for name in ("flower", "traversal")}
"""Where a folder of the house is, if not at the root."""
FLOORS = {
    "flower": """
        client federation
        archive decided site
        remote
        messages strategy
    """,
    "traversal": """
        flower_secure
        flower
        secure_orchestrator
        orchestrator sealed secure
        node secure_wire
        batches ring
        split wire
    """,
    "training": """
        commands
        tuning
        pages
        drafting temptations
        analysis
        sweep
        compare
        evaluate grid measures train
        blocks executors false_names libraries
        outputs own_modules run
        intervals settings terminal
    """,
    "agents": """
        seat_env
        seats
        adversaries
        best_reply learned privileged scripted
        agent equilibrium network
        trial
        saved
    """,
    "envs": """
        cooperative_v0 gymnasium_vector vector
        bookkeeping rendering rows
        outcome
        metrics
        engine
        rounds
        observations played_round shared
        records
        scenario
        files
        people
        screening
        privacy values
        conduct model
        admission aggregation data money
        participation
        compiled devices randomness
    """,
    "credit": """
        resistant
        wrappers
        rounds
        solutions
        estimators suite
        rule
        games
        arguments ledger
        money
    """,
}


def modules(folder: str) -> dict[str, Path]:
    """Every module of a folder by its dotted path within the folder."""
    at = ROOT / AT.get(folder, folder)
    return {".".join(path.relative_to(at).with_suffix("").parts): path for path in at.rglob("*.py")}


def imported(path: Path, package: list[str]) -> set[str]:
    """Dotted paths, from ``proxycoop`` on, that a file imports anywhere, also for its annotations or within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            found |= {".".join([*base, *([node.module] if node.module else []), alias.name]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "proxycoop"}


def arrows(folder: str) -> list[tuple[str, str, str]]:
    """What imports what: module, its target's folder, and the target's part (or the module at the folder's root)."""
    found = []
    for name, path in modules(folder).items():
        package = ["proxycoop", folder, *name.split(".")[:-1]]
        for target in imported(path, package):
            of = target.split(".")
            if len(of) > 1 and of[1] in HOUSE:
                found.append((name, of[1], of[2] if len(of) > 2 else "__init__"))
    return found


def floors_of(folder: str) -> dict[str, int]:
    """Each part's floor, the ground being the largest number."""
    return {part: floor for floor, parts in enumerate(FLOORS[folder].strip().splitlines()) for part in parts.split()}


@pytest.mark.parametrize("folder", HOUSE)
def test_folders_import_only_downwards(folder):
    upwards = {(name, target) for name, target, _ in arrows(folder) if HOUSE.index(target) < HOUSE.index(folder)}
    assert not upwards


@pytest.mark.parametrize("folder", HOUSE)
def test_parts_import_only_from_floors_below_them(folder):
    floors = floors_of(folder)
    wrong = []
    for name, target, part in arrows(folder):
        own = name.split(".")[0]
        if target != folder or own in {part, "__init__"}:  # the face is the roof: it may import everything
            continue
        if part not in floors:
            wrong.append(f"{folder}/{name} imports {part} through the face")
        elif floors[part] <= floors[own]:
            wrong.append(f"{folder}/{name} imports {part}")
    assert not wrong


@pytest.mark.parametrize("folder", HOUSE)
def test_every_part_has_a_floor(folder):
    assert {name.split(".")[0] for name in modules(folder)} == {*floors_of(folder), "__init__"}


@pytest.mark.parametrize("folder", HOUSE)
def test_modules_of_a_part_import_each_other_in_no_circle(folder):
    within: dict[str, set[str]] = {}
    for name, path in modules(folder).items():
        package = ["proxycoop", folder, *name.split(".")[:-1]]
        targets = {target.removeprefix(f"proxycoop.{folder}.") for target in imported(path, package)}
        within[name] = {known for target in targets for known in modules(folder) if target == known or target.rpartition(".")[0] == known}
    while within:
        leaves = {name for name, targets in within.items() if not (targets & within.keys()) - {name}}
        assert leaves, f"a circle among {sorted(within)}"
        within = {name: targets for name, targets in within.items() if name not in leaves}


def test_no_folder_holds_more_files_than_one_can_look_over():
    tracked = (path for top in [*(set(HOUSE) - set(AT)), "src", "tests", "benchmarks", "examples"] for path in (ROOT / top).rglob("*.py"))
    by_folder = itertools.groupby(sorted(path.parent for path in tracked))
    assert {str(folder.relative_to(ROOT)): n for folder, files in by_folder if (n := len(list(files))) > MOST_FILES} == {}
