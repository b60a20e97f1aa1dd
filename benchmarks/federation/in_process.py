"""Federations within one process: sites behind a Grid of function calls, which can be made to go wrong. Tests use it too."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # before flwr is imported

import torch
from flwr.app import Message
from flwr.clientapp import ClientApp
from torch import Tensor

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.envs.randomness import fold
from proxycoop.envs.scenario import Scenario
from proxycoop.flower import Federation, RemoteEngine, Site, serve

ROOT = Path(__file__).parents[2]
EXACT = ("contributed", "admitted", "blocked_by", "revenue", "payouts")
"""What must not differ at all between a federation and the simulator."""


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load_example("flower_digits")


def made(name: str = "digits", **settings: object) -> Scenario:
    """A scenario with money and few rounds."""
    return scenario.load(name, **{"horizon": 5, "settlement": {"period": 2}, **settings})


def _as_it_is(reply: Message, request: Message) -> list[Message]:
    del request
    return [reply]


class FaultyGrid(example.InProcessGrid):
    """Sites as function calls, whose replies something may happen to.

    Args:
        sites: The sites, by principal.
        fault: Called with every reply and the request: what comes instead, any number of replies.
    """

    def __init__(self, sites: list[Site], fault: Callable[[Message, Message], Iterable[Message]] = _as_it_is) -> None:
        app = ClientApp()
        serve(app, lambda context: sites[context.node_config["partition-id"]])
        super().__init__(app, len(sites))
        self.fault = fault

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Call the sites, and let happen to each reply what may happen to it."""
        replies = []
        for message in messages:
            (reply,) = super().send_and_receive([message], timeout=timeout)
            replies.extend(self.fault(reply, message))
        return replies


def sites_of(cooperative: Scenario, agent: str = "honest", **more: object) -> list[Site]:
    return [Site(cooperative, agent, i, **more) for i in range(cooperative.principals)]


def place_of(message: Message) -> int:
    """The principal of a node of the grid."""
    return message.metadata.src_node_id - 100 if message.metadata.src_node_id >= 100 else message.metadata.dst_node_id - 100


def differences(cooperative: Scenario, rule: str, agent: str, seed: int, folder: Path, ledger: Path | None = None) -> dict[str, float]:
    """Play an episode in a federation and in the simulator: the largest absolute difference of each quantity."""
    sites = sites_of(cooperative, agent)
    seen: list[Tensor] = []
    federation = Federation(cooperative, rule, seed=seed, folder=folder, ledger=ledger)
    federation.run(FaultyGrid(sites), lambda _: seen.append(torch.stack([site.observations[0, 0] for site in sites])))
    return compared(federation.engine, cooperative, rule, agent, seed, seen)


def compared(
    remote: RemoteEngine, cooperative: Scenario, rule: str, agent: str, seed: int, seen: Sequence[Tensor] = ()
) -> dict[str, float]:
    """The largest absolute differences of a federation's episode, and of the observations of its sites, from the simulator's."""
    engine, policy = Engine(cooperative, rule), agents.make(agent)
    observations = engine.reset([seed])
    policy.begin(engine.layout, fold(engine.seeds, engine.episode))
    largest: dict[str, float] = {}

    def compare(name: str, ours: Tensor, theirs: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float((ours.double() - theirs.double()).abs().max()))

    for t, played in enumerate(remote.history):
        if seen:
            compare("observations", observations[0], seen[t])
        result = engine.step(policy.act(observations))
        observations = result.observations
        for name in ("contributed", "admitted", "kept", "credit", "utility", "value_losses", "gamma", "rewards", "revenue", "payouts"):
            compare(name, getattr(result, name), getattr(played, name))
        offered = result.contributed[..., None]
        compare("blocked_by", result.blocked_by & offered, played.blocked_by & offered)
    compare("model", engine.theta, remote.theta)
    return largest


def n_differing(largest: dict[str, float]) -> int:
    """How many of the quantities differ that must not differ at all."""
    return sum(largest[name] != 0 for name in EXACT)


def cells(largest: dict[str, float], names: Sequence[str]) -> str:
    """Largest differences as cells of a table."""
    return " | ".join("0" if largest[name] == 0 else f"{largest[name]:.1e}" for name in names)
