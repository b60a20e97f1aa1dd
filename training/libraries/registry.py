"""The RL libraries that can train proxies, what each needs, and which algorithms it brings.

No library is imported here. A library's adapter, a module of this folder, is imported only when the library trains.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, get_args

from pydantic import ValidationError

from ... import __version__
from ...envs.observations.spaces import ActionForm
from ...registry import unknown_name
from ...settings import problems
from ..run import Run, Trained
from ..settings import (
    A2CSettings,
    EngineSettings,
    GroupSettings,
    MADDPGSettings,
    PPOSettings,
    QSettings,
    RayPPOSettings,
    TeamQSettings,
    TrainSettings,
)

BOTH: tuple[ActionForm, ...] = get_args(ActionForm)
CODES: tuple[ActionForm, ...] = ("discrete",)


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of a library.

    Attributes:
        settings: The class of its settings.
        actions: Forms of actions that it takes.
        masks: Whether it respects action masks. If it does not, a proxy may choose a lot that has nothing to contribute; then that lot
            contributes nothing.
        participation: Whether it leaves those who are absent out of what it learns from, where only some are present in a round.
    """

    settings: type[TrainSettings]
    actions: tuple[ActionForm, ...] = BOTH
    masks: bool = False
    participation: bool = False


@dataclass(frozen=True)
class Library:
    """An RL library.

    Attributes:
        what: Description of the library, in words.
        algorithms: Its algorithms by name. The first is the default.
        extra: Extra of this package that installs the library; ``None`` if it is always installed.
        packages: Packages that must be importable.
        seats: Whether it can train around agents that play some of the seats.
        core: Packages of its own that are always installed.
    """

    what: str
    algorithms: Mapping[str, Algorithm]
    extra: str | None = None
    packages: tuple[str, ...] = field(default=())
    seats: bool = False
    core: tuple[str, ...] = field(default=())


LIBRARIES: Mapping[str, Library] = {
    "sb3": Library(
        "Stable-Baselines3 on the vectorised face, with a row for every proxy",
        {
            "ppo": Algorithm(PPOSettings, participation=True),
            "a2c": Algorithm(A2CSettings, participation=True),
            "dqn": Algorithm(QSettings, CODES),
        },
        seats=True,
        core=("stable_baselines3",),
    ),
    "sb3-contrib": Library(
        "Stable-Baselines3 contrib, on the same face",
        {"maskable_ppo": Algorithm(PPOSettings, masks=True, participation=True)},
        "sb3-contrib",
        ("sb3_contrib",),
        seats=True,
        core=("stable_baselines3",),
    ),
    "supersuit": Library(
        "Stable-Baselines3 on the PettingZoo face, vectorised by SuperSuit",
        {"ppo": Algorithm(PPOSettings), "a2c": Algorithm(A2CSettings), "dqn": Algorithm(QSettings, CODES)},
        "supersuit",
        ("supersuit",),
        core=("stable_baselines3",),
    ),
    "rllib": Library("Ray's RLlib, for more than one machine", {"ppo": Algorithm(RayPPOSettings, masks=True)}, "rllib", ("ray",)),
    "benchmarl": Library(
        "BenchMARL on TorchRL",
        {
            "ippo": Algorithm(PPOSettings, CODES, masks=True),
            "mappo": Algorithm(PPOSettings, CODES, masks=True),
            "iql": Algorithm(QSettings, CODES, masks=True),
            "vdn": Algorithm(TeamQSettings, CODES, masks=True),
            "qmix": Algorithm(TeamQSettings, CODES, masks=True),
        },
        "benchmarl",
        ("benchmarl", "torchrl"),
    ),
    "agilerl": Library(
        "AgileRL",
        {
            "ippo": Algorithm(PPOSettings, masks=True),
            "maddpg": Algorithm(MADDPGSettings, CODES, masks=True),
            "matd3": Algorithm(MADDPGSettings, CODES, masks=True),
        },
        "agilerl",
        ("agilerl", "peft"),
    ),
    "ippo": Library(
        "our own single file on the engine's tensors: the fastest",
        {
            "ppo": Algorithm(EngineSettings, ("multi_discrete",), masks=True, participation=True),
            "grpo": Algorithm(GroupSettings, ("multi_discrete",), masks=True, participation=True),
            "ospo": Algorithm(GroupSettings, ("multi_discrete",), masks=True, participation=True),
        },
        seats=True,
    ),
}


def find(library: str, algo: str | None = None) -> tuple[str, Algorithm]:
    """Find an algorithm of a library. Returns its name and its entry.

    Args:
        library: The library's name.
        algo: The algorithm's name; the library's first algorithm if not given.

    Raises:
        ValueError: If the library is unknown, or has no such algorithm. The message says which libraries have it.
    """
    if library not in LIBRARIES:
        raise unknown_name("library", library, list(LIBRARIES))
    algorithms = LIBRARIES[library].algorithms
    if algo is None:
        algo = next(iter(algorithms))
    if algo not in algorithms:
        elsewhere = [f"--library {name}" for name, other in LIBRARIES.items() if algo in other.algorithms]
        hint = f"; {algo} is in {', '.join(elsewhere)}" if elsewhere else ""
        every = "; ".join(f"{name}: {', '.join(other.algorithms)}" for name, other in LIBRARIES.items())
        raise ValueError(f"library {library!r} has no algorithm {algo!r}{hint}. Choose one of: {every}")
    return algo, algorithms[algo]


def settings_for(library: str = "sb3", algo: str | None = None, **fields: Any) -> TrainSettings:
    """Settings of a run.

    Args:
        library: Library that trains.
        algo: Algorithm; the library's first if not given.
        **fields: Fields of the algorithm's settings.

    Raises:
        ValueError: If the library does not have the algorithm, a field is wrong, or the algorithm cannot train what the scenario asks for.
    """
    algo, algorithm = find(library, algo)
    if fields.get("seats"):
        _require_seats(library)
    try:
        settings = algorithm.settings(library=library, algo=algo, **{"actions": algorithm.actions[0], **fields})
    except ValidationError as error:
        raise ValueError("; ".join(map(str, problems(error)))) from None
    _require_participation(settings)
    return settings


def _require_seats(library: str) -> None:
    if not LIBRARIES[library].seats:
        able = ", ".join(name for name, one in LIBRARIES.items() if one.seats)
        raise ValueError(
            f"library {library!r} cannot train around agents in fixed seats: leave out the seats and the scenario's population, or use one "
            f"of {able}"
        )


def _require_participation(settings: TrainSettings) -> None:
    scenario = settings.scenario
    if scenario.samples_some and not LIBRARIES[settings.library].algorithms[settings.algo].participation:
        able = {name: [algo for algo, one in library.algorithms.items() if one.participation] for name, library in LIBRARIES.items()}
        listed = "; ".join(f"{name}: {', '.join(algos)}" for name, algos in able.items() if algos)
        raise ValueError(
            f"scenario {scenario.name!r} has participation, and {settings.library} {settings.algo} would learn from those who are absent, "
            f"too: use one of {listed}"
        )


def missing_packages(library: Library) -> list[str]:
    """The packages that a library needs and that are not installed."""
    return [package for package in library.packages if find_spec(package) is None]


def versions(library: str) -> dict[str, str]:
    """Versions of what a checkpoint of a library depends on, by the name of the package: ours, torch's and the library's."""
    packages = ("torch", *LIBRARIES[library].core, *LIBRARIES[library].packages)
    return {"proxycoop": __version__, **{package.replace("_", "-"): version(package) for package in packages}}


def learner(settings: TrainSettings) -> Callable[[Run], Trained]:
    """The function that trains with these settings. The library is imported only now.

    Raises:
        ValueError: If the library does not have the algorithm, the settings are of another class, the algorithm does not take this form of
            actions or this scenario, or the library is not installed. The message then has the command that installs it.
    """
    algo, algorithm = find(settings.library, settings.algo)
    if type(settings) is not algorithm.settings:
        raise ValueError(
            f"{settings.library} {algo} takes {algorithm.settings.__name__}, got {type(settings).__name__}: use libraries.settings_for"
        )
    if settings.actions not in algorithm.actions:
        raise ValueError(f"actions={settings.actions!r}: {settings.library} {algo} takes {' or '.join(algorithm.actions)}")
    if settings.seats:
        _require_seats(settings.library)
    _require_participation(settings)
    library = LIBRARIES[settings.library]
    if missing := missing_packages(library):
        raise ValueError(
            f"library {settings.library!r} needs {', '.join(missing)}, which is not installed: pip install 'proxycoop[{library.extra}]'"
        )
    try:
        adapter = importlib.import_module(f".{settings.library.replace('-', '_')}", __package__)
    except ImportError as error:  # a part of the library is missing
        raise ValueError(f"library {settings.library!r} cannot be imported ({error}): pip install 'proxycoop[{library.extra}]'") from error
    learn: Callable[[Run], Trained] = adapter.learn
    return learn
