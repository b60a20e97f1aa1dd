"""Options that several commands share, and the functions that read them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console

if TYPE_CHECKING:  # the commands import what they need: `--help` must not wait for torch
    from ...agents import Agent
    from ...envs.scenario import Scenario

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
AgentOption = Annotated[
    str | None, typer.Option("--agent", "-a", help="Agent; `proxycoop agents` lists them. [default: honest, or learned with a policy]")
]


def console() -> Console:
    """Standard output. Where it is not a terminal, it is wide enough for every table."""
    return Console() if sys.stdout.isatty() else Console(width=150)


def load_scenario(name: str, overrides: list[str] | None) -> Scenario:
    """A scenario with the overrides of the command line."""
    from ...envs import scenario

    return scenario.load(name, **assigned("--set", overrides))


def assigned(option: str, assignments: list[str] | None) -> dict[str, Any]:
    """``key=value`` pairs, values read as YAML."""
    settings = {}
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if not key or not equals:
            raise ValueError(f"{option} {assignment!r}: write KEY=VALUE")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{option} {assignment!r}: {value!r} is not a valid YAML value") from error
        except ValueError as error:  # a number with thousands of digits, or a date that does not exist
            raise ValueError(f"{option} {assignment[:60]!r}: the value cannot be read: {error}") from error
    return settings


def hyperparameters(library: str, algo: str | None, hyper: list[str] | None) -> dict[str, Any]:
    """Settings of a training from ``--hyper``. Settings with a command-line option of their own are refused.

    Raises:
        ValueError: If the algorithm has no such setting.
    """
    from ...registry import unknown_name
    from ..libraries.registry import find

    algo, algorithm = find(library, algo)
    known = sorted(set(algorithm.settings.model_fields) - {"scenario", "credit", "seed", "library", "algo", "total_steps"})
    chosen = assigned("--hyper", hyper)
    for name in chosen:
        if name not in known:
            raise unknown_name(f"setting of {library} {algo}", name, known)
    return chosen


def settings_of_run(run: Path) -> dict[str, Any]:
    """Settings of a training run.

    Raises:
        ValueError: If this is not the folder of a training run; the message says what to give instead.
    """
    from ...files import read_json

    if not run.exists():
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
    return settings


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
        scenario, credit = scenario or str(run / "scenario.yaml"), credit or settings["credit"]
    maker()  # refuses an unknown name or a damaged policy before anything is played
    return maker, who, scenario, credit


def ready_for_files(*paths: Path | None) -> None:
    """Make sure, before long work, that these files can be written. ``None`` stands for a file that is not wanted.

    Raises:
        ValueError: If a path is a folder, or its folder cannot be written.
    """
    from ...files import output_folder

    for path in paths:
        if path is not None and path.is_dir():
            raise ValueError(f"{str(path)!r} is a folder: name a file in it")
        if path is not None:
            output_folder(path.parent)


def agent_named(name: str, policy: Path | None) -> Agent:
    """The agent of that name. The agent ``learned`` plays the policy."""
    from ... import agents as proxies

    if name == "learned" and policy is None:
        raise ValueError("agent 'learned' needs a policy: give the folder of a training run with --policy")
    return proxies.make(name, path=policy) if name == "learned" else proxies.make(name)
