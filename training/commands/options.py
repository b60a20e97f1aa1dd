"""Options that several commands share, and the functions that read them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # the commands import what they need: `--help` must not wait for torch
    from ...agents import Agent
    from ...envs.scenario import Scenario
    from ..outputs import Outputs

ScenarioOption = Annotated[str, typer.Option("--scenario", "-s", help="Name of a scenario, or path of its YAML file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting of the scenario: `--set lots.rows=40`. May be repeated.")
]
PlayedRunArgument = Annotated[
    Path | None, typer.Argument(help="Folder of a training run, whose policy plays. Without one, `--agent` plays.")
]
PlayedScenarioOption = Annotated[str | None, typer.Option("--scenario", "-s", help="Scenario. [default: the run's own, or digits]")]
MeanwhileCreditOption = Annotated[
    str | None, typer.Option("--credit", "-c", help="Credit rule that pays the proxies. [default: the run's own, or shapley]")
]
FirstSeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the first episode's cooperative.")]
CreditOption = Annotated[
    str,
    typer.Option(
        "--credit", "-c", help="Credit rule, with arguments if it takes any: `'shapley(budget=60)'`; `proxycoop rules` lists them."
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed.")]
LibraryOption = Annotated[str, typer.Option("--library", "-l", help="RL library that trains; `proxycoop libraries` lists them.")]
AlgoOption = Annotated[str | None, typer.Option("--algo", help="Algorithm of the library. [default: its first]")]
HyperOption = Annotated[
    list[str] | None,
    typer.Option(
        "--hyper", help="A setting of the training: `--hyper gamma=0.9`. May be repeated; `proxycoop libraries NAME ALGO` lists them."
    ),
]
EvaluationSplitsOption = Annotated[
    int,
    typer.Option("--evaluation-splits", min=1, max=1000, help="Data splits of each evaluation: the same for all; nobody trains on them."),
]
JobsOption = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes that run at once. [default: one per core]")]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Work on a Ray cluster instead of processes here: `auto` for the one that runs on this machine, `HOST:6379` or "
        "`ray://HOST:10001` for another, `local` to start one. It needs the extra `ray`: `pip install 'proxycoop[ray]'`.",
    ),
]
SeatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--seat",
        help="Let another agent play this seat: `--seat 0=none`. Also several: `0,2=none`, `all_but:0=none`, `count:2=none`, "
        "`share:0.5=none`. A seat so taken does not learn. May be repeated.",
    ),
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace files of these names, whoever wrote them. Without it, this command replaces only its own unchanged work.",
    ),
]
OPTIONS_OF_THEIR_OWN = {
    "scenario": "--scenario",
    "credit": "--credit, or --rule in compare",
    "seed": "--seed, or --seeds and --first-seed in compare",
    "library": "--library",
    "algo": "--algo",
    "total_steps": "--steps",
    "seats": "--seat",
}
"""Settings of a training that are no hyperparameters on the command line, each with the option that sets it."""
PLAYED_FIRST = "breast_cancer"
"""The scenario that ``play`` plays if none is named. Honest proxies get most of their updates through, some are screened out, and credit
differs. In ``digits`` nothing passes among honest proxies in one episode of six, the one of seed 0 included."""
AgentOption = Annotated[
    str | None, typer.Option("--agent", "-a", help="Agent; `proxycoop agents` lists them. [default: honest, or learned with a policy]")
]


def load_scenario(name: str, overrides: list[str] | None) -> Scenario:
    """A scenario with the overrides of the command line."""
    from ...envs import scenario

    values, origins = assigned("--set", overrides), origins_of("--set", overrides)
    return scenario.load_overridden(name, {key: (value, origins[key]) for key, value in values.items()})


def assigned(option: str, assignments: list[str] | None) -> dict[str, Any]:
    """``key=value`` pairs, values read as YAML.

    Raises:
        ValueError: If one is written otherwise, its value is no YAML, or two have the same key. The message names the option and its text.
    """
    from ...strict_yaml import read_value

    settings: dict[str, Any] = {}
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if not key or not equals:
            raise ValueError(f"{_named(option, assignment)}: write KEY=VALUE")
        if key in settings:
            raise ValueError(f"{_named(option, assignment)}: {key!r} is set twice: leave one")
        settings[key] = read_value(value, _named(option, assignment))
    return settings


def origins_of(option: str, assignments: list[str] | None) -> dict[str, str]:
    """The option and its text, for messages about each key that :func:`assigned` reads."""
    return {assignment.partition("=")[0]: _named(option, assignment) for assignment in assignments or []}


def _named(option: str, assignment: str) -> str:
    return f"{option} {assignment[:80]!r}{'…' * (len(assignment) > 80)}"


def hyperparameters(library: str, algo: str | None, hyper: list[str] | None) -> dict[str, Any]:
    """Settings of a training from ``--hyper``. Settings with a command-line option of their own are refused.

    Raises:
        ValueError: If the algorithm has no such setting.
    """
    from ...registry import unknown_name
    from ..libraries.registry import find

    algo, algorithm = find(library, algo)
    known = sorted(set(algorithm.settings.model_fields) - set(OPTIONS_OF_THEIR_OWN))
    chosen = assigned("--hyper", hyper)
    for name in chosen:
        if name in OPTIONS_OF_THEIR_OWN:
            raise ValueError(f"--hyper {name}=…: {name} has an option of its own: {OPTIONS_OF_THEIR_OWN[name]}")
        if name not in known:
            raise unknown_name(f"setting of {library} {algo}", name, known)
    return chosen


@contextmanager
def named_as_options(hyper: Iterable[str] = ()) -> Iterator[None]:
    """Let errors name arguments as the command line does, such as ``vary`` as ``--vary``.

    Args:
        hyper: Settings that came from ``--hyper``.
    """
    try:
        yield
    except ValueError as error:
        said = str(error)
        name = re.split(r"[ :=]", said, maxsplit=1)[0]
        if name != "vary" and name not in hyper:
            raise
        raise ValueError(f"--{said}" if name == "vary" else f"--hyper {said}") from None


@contextmanager
def rule_as_option() -> Iterator[None]:
    """Let errors that propose another rule write it as ``--credit 'loo'``, as the command line takes it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace("credit='", "--credit '")) from None


def settings_of_run(run: Path) -> dict[str, Any]:
    """Settings of a training run.

    Raises:
        ValueError: If this is not the folder of a training run; the message says what to give instead.
    """
    from ...files import read_json

    if not os.path.exists(run):
        raise ValueError(f"{str(run)!r} does not exist: give the folder of a training run")
    if not (run / "run.json").exists():
        what = "is not the folder of a training run: it has no run.json"
        if (run / "cells").is_dir():
            what = f"is a comparison: name one of its runs, a folder such as {run}/cells/SCENARIO/RULE/seed-0"
        elif (run / "result.json").exists():
            what = "holds a scripted agent's result and no policy: name the agent instead, as in --agent honest -s digits"
        raise ValueError(f"{str(run)!r} {what}")
    record = read_json(run / "run.json")
    if not isinstance(settings := record.get("settings"), dict):
        raise ValueError(f"{str(run / 'run.json')!r} holds no settings, so it is not the record of a training run: give another folder")
    seats = settings.get("seats", [])
    wrong = [name for name, kind in (("credit", str), ("scenario", dict)) if not isinstance(settings.get(name), kind)]
    wrong += ["seats"] * (not isinstance(seats, list) or not all(isinstance(seat, str) for seat in seats))
    if wrong:
        raise ValueError(f"{str(run / 'run.json')!r} is damaged: its settings hold no usable {', '.join(wrong)}: train again")
    return settings


def splits_of_run(run: Path) -> range:
    """Seeds of the data splits on which a run was trained: one in runs of versions that had no others.

    Raises:
        ValueError: As :func:`settings_of_run` does, or if its numbers of splits are damaged.
    """
    settings = settings_of_run(run)
    first, count = settings["scenario"].get("data", {}).get("split_seed"), settings.get("splits", 1)
    if not isinstance(first, int) or not isinstance(count, int):
        raise ValueError(f"{str(run / 'run.json')!r} is damaged: it holds no usable splits: train again")
    return range(first, first + count)


def scenario_of_run(run: Path) -> str:
    """The file of a training run's scenario, for commands that were given no other.

    Raises:
        ValueError: If the file is not the scenario of the training any more, with what differs.
    """
    from ...envs import scenario

    path = run / "scenario.yaml"
    trained = settings_of_run(run)["scenario"] if (run / "run.json").is_file() else None
    if trained is not None and path.is_file() and (changed := scenario.differences(scenario.load(path).to_dict(), trained)):
        raise ValueError(
            f"{str(path)!r} is not the scenario of the training any more ({'; '.join(changed)}): put it back, or, if you mean it, "
            f"say so with --scenario {path}"
        )
    return str(path)


def player(
    command: str, run: Path | None, agent: str | None, scenario: str | None, credit: str | None
) -> tuple[Callable[[], Agent], str, str, str]:
    """Who plays, in which scenario and under which rule. A training run's policy plays in the run's scenario, under the run's rule, unless
    others are given.

    Returns:
        A function that makes the agent, the agent's name in words, the scenario's name or path, and the credit rule.

    Raises:
        ValueError: If a run and an agent are given, the folder is not that of a training run, the agent is unknown, or there is no policy.
    """
    from ..evaluate import agent_maker

    if run is not None and agent not in (None, "learned"):
        raise ValueError(f"{command} takes a training run or an --agent, not both: got {str(run)!r} and {agent!r}")
    if run is None and agent == "learned":
        raise ValueError("agent 'learned' needs a policy: give the folder of a training run as the first argument")
    if run is None:
        maker, who = agent_maker(agent or "honest"), f"the agent {agent or 'honest'}"
        scenario, credit = scenario or "digits", credit or "shapley"
    else:
        settings = settings_of_run(run)
        maker, who = agent_maker("learned", path=run), f"the policy of {run}"
        scenario, credit = scenario or scenario_of_run(run), credit or settings["credit"]
    maker()  # refuses an unknown name or a damaged policy before anything is played
    return maker, who, scenario, credit


def seats_of(assignments: list[str] | None, scenario: Scenario, run: Path | None = None) -> dict[int, str]:
    """Agents that play some of the seats, by name. A training run's policy keeps the company that it was trained in, unless ``--seat`` says
    otherwise, seat by seat: ``--seat 0=learned`` gives seat 0 to the policy.

    Args:
        assignments: What ``--seat`` was given.
        scenario: The cooperative.
        run: Folder of the training run whose policy plays all other seats; ``None`` if a scripted agent does.

    Raises:
        ValueError: If an assignment is written otherwise, a seat does not exist or is named twice, or there is no such agent or no policy.
    """
    from ...envs.conduct.population import merged

    given = seats_given(assignments, scenario)
    if run is None:
        for seat, name in given.items():
            if name == "learned":
                raise ValueError(f"--seat {seat}=learned: there is no policy; give the folder of a training run")
        return playable(merged(scenario.company, given), scenario)
    own = {seat: name for seat, name in _own_seats(run).items() if seat < scenario.n_agents}
    trained_there = settings_of_run(run)["scenario"].get("population") if (run / "run.json").exists() else None
    whole = scenario.to_dict().get("population") == trained_there and trained_there is not None  # then its seats are all in ``own``
    return playable(merged(own if whole else scenario.company | own, given), scenario)


def playable(seats: dict[int, str], scenario: Scenario) -> dict[int, str]:
    """The same seats, once it is known that their agents can play the scenario.

    Raises:
        ValueError: If one cannot. The message says what the scenario lacks, if the agent knows.
    """
    from ...agents.seats import require_playable

    for seat, name in seats.items():
        require_playable(name, scenario, f"--seat {seat}={name}")
    return seats


def seats_given(assignments: list[str] | None, scenario: Scenario) -> dict[int, str]:
    """What ``--seat`` was given, as names by seat.

    Raises:
        ValueError: If an assignment is written otherwise, a seat does not exist or is named twice, or there is no such agent.
    """
    from ...agents.seats import seats_named

    try:
        return seats_named(assignments or [], scenario.n_agents)
    except ValueError as error:
        raise ValueError(f"--{error}" if str(error).startswith("seat ") else f"--seat: {error}") from None


def _own_seats(run: Path) -> dict[int, str]:
    """The seats that did not learn in a training run."""
    from ...agents.seats import seats_named
    from ...envs.scenario import n_agents_of

    settings = settings_of_run(run) if (run / "run.json").exists() else {}
    return seats_named(settings.get("seats", []), n_agents_of(settings.get("scenario", {})))


def in_words(who: str, seats: Mapping[int, str]) -> str:
    """Who plays: ``the agent honest, with none in seat 0``."""
    return who + (", with " + " and ".join(f"{name} in seat {seat}" for seat, name in seats.items()) if seats else "")


def outputs_of(
    command: str,
    overwrite: bool,
    *files: Path | None,
    scenarios: Sequence[str] = (),
    run: Path | None = None,
    others: Mapping[Path, str] | None = None,
) -> Outputs:
    """Claim a command's files before its work begins, apart from all that it reads. Use it as a context around the writing.

    Args:
        command: The command's name.
        overwrite: Its option ``--overwrite``.
        files: The files that it will write; ``None`` stands for one that is not wanted.
        scenarios: Names or paths of the scenarios that it reads.
        run: Folder of the training that it reads.
        others: Other files that it reads, each with what it is, in words.

    Raises:
        ValueError: If a file is not to be written; see :mod:`~proxycoop.training.outputs`.
    """
    from ..outputs import Outputs

    outputs = Outputs(command, overwrite=overwrite, inputs=inputs_of(scenarios, run, others))
    for path in files:
        outputs.file(path)
    return outputs.prepare()


def inputs_of(scenarios: Sequence[str] = (), run: Path | None = None, others: Mapping[Path, str] | None = None) -> dict[Path, str]:
    """All files that a command reads, each with what it is, in words: scenarios with those they extend, a training, modules, and others."""
    from ...envs import scenario
    from ..own_modules import imported_files
    from ..train import ENTRIES

    found = {path: "a scenario file that is read" for name in scenarios for path in scenario.files_of(name)}
    if run is not None:
        found |= {run / name: "part of the training that is read" for name in ENTRIES}
    found |= dict.fromkeys(imported_files(), "a module that is imported")
    return found | dict(others or {})


def ledger_files(where: str) -> list[Path]:
    """The files of a ledger, from its path or URL; none if it is in a database elsewhere."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(where)
    except ArgumentError:  # a path
        database: str | None = where
    else:
        database = url.database if url.get_backend_name() == "sqlite" else None
    return [] if database is None else [Path(f"{database}{end}") for end in ("", "-wal", "-shm", "-journal")]


def agent_named(name: str, policy: Path | None) -> Agent:
    """The agent of that name. The agent ``learned`` plays the policy."""
    from ... import agents as proxies

    if name == "learned" and policy is None:
        raise ValueError("agent 'learned' needs a policy: give the folder of a training run with --policy")
    return proxies.make(name, path=policy) if name == "learned" else proxies.make(name)
