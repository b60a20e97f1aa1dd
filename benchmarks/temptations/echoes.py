"""What echoes of the last step do to the model: everybody plays all clean lots, with echoes and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from proxycoop.envs import Engine, scenario
from proxycoop.envs.metrics import episode_metrics
from proxycoop.training.analysis.summary import told
from proxycoop.training.evaluate import EVALUATION_SEED
from proxycoop.training.intervals import Estimate

ECHOES: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "clean lots": (0, {}),
    "clean lots, the server's steps twice as long": (0, {"server": {"kind": "sgd", "lr": 2}}),
    "clean lots, the server with momentum .5": (0, {"server": {"kind": "sgd", "momentum": 0.5}}),
    "clean lots, and one proxy's echo": (1, {}),
    "clean lots, and three proxies' echoes": (3, {}),
    "clean lots, and all proxies' echoes": (99, {}),
}
"""What everybody plays to show what echoes do to the model (:func:`echoes`): how many proxies send one, and settings of the scenario."""

EPISODES = 64
"""Episodes that are played of each."""


def echoes(names: Sequence[str]) -> str:
    """Welfare if all clean lots are contributed, with echoes and without, as Markdown. Intervals are over episodes."""
    lines = ["**All clean lots, with echoes and without: welfare**", "", f"| played | {' | '.join(f'`{name}`' for name in names)} |"]
    lines.append("|---|" + "---:|" * len(names))
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + EPISODES)
    for title, (n_echoes, settings) in ECHOES.items():
        cells = []
        for name in names:
            engine = Engine(scenario.load(name, conduct={"forgeries": [{"kind": "echo"}]}, **settings), "equal", len(seeds))
            engine.reset(seeds)
            while engine.t < engine.horizon:
                chosen = torch.zeros(len(seeds), engine.num_agents, engine.num_items, dtype=torch.bool)
                chosen[..., : engine.num_lots] = engine.lots.clean
                chosen[:, :n_echoes, engine.num_lots] = True
                engine.step(chosen)
            cells.append(told(Estimate.of(episode_metrics(engine)["welfare"]), 1))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
