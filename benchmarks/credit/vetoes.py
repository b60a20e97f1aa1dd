"""What the rules for vetoes pay: in an example that can be followed by hand, and in real scenarios.

The example is one round of three principals with one lot each, a quadratic utility and a value that Cleo holds; ``docs/credit/vetoes.md``
follows it step by step. Honest agents play 32 episodes of ``digits``, and agents that contribute everything play 32 of ``breast_cancer``.
In each, four of the six principals hold a value profile. Every round is paid under all the rules, and credit is summed over an episode.
Actions do not depend on the rule.

Run: ``python benchmarks/credit/vetoes.py [--episodes 32] [--markdown docs/credit/vetoes.md]``; a quarter of a minute on one core.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from proxycoop import agents, credit
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_text

NAMES = ("Ana", "Ben", "Cleo")
UPDATES = torch.tensor([[0.4, 0.0], [0.2, 0.2], [0.0, 0.1]], dtype=torch.float64)
TARGET = torch.tensor([1.0, 1.0], dtype=torch.float64)
HARM = torch.tensor([1.0, 0.0], dtype=torch.float64)  # gradient of the loss that Cleo's value is about
TOLERANCE = 0.3
HOLDERS = (False, False, True)
"""Who holds that value."""

PLAYED = {"digits": "honest", "breast_cancer": "all"}
"""Scenarios, and the agent who plays them: what honest proxies offer is useful, and vetoes cost; of all lots, many harm."""


def paid_by_rule(the_round: credit.Round) -> dict[str, Tensor]:
    """What each row of the tables pays for a round, ``(E, N)``."""
    own, veto = credit.veto_split(the_round)
    return {
        "`shapley`: screening fixed": credit.Shapley().assign(the_round),
        "`veto_shapley`": credit.VetoShapley().assign(the_round),
        "… its own part": own,
        "… its veto cost": veto,
        "`veto_own`": credit.VetoOwn().assign(the_round),
        "`veto_shared`": credit.VetoShared().assign(the_round),
    }


def example(tolerance: float = TOLERANCE) -> credit.Round:
    """Ana, Ben and Cleo's round: Cleo finds Ana's lot inadmissible, since it does more harm than her value tolerates."""
    harm = UPDATES @ HARM  # (N,)
    inadmissible = harm > tolerance
    blocked_by = inadmissible[:, None] & torch.tensor(HOLDERS)  # (N, N)
    admitted = ~blocked_by.any(dim=1)
    return credit.learning_round(
        (admitted[:, None] * UPDATES)[None],
        TARGET[None],
        admitted=admitted[None, :, None],
        contributed=torch.ones(1, 3, 1, dtype=torch.bool),
        blocked_by=blocked_by[None, :, None],
        lot_updates=UPDATES[None, :, None],
    )


def example_table() -> str:
    """What each rule pays in the example, as Markdown."""
    lines = ["| rule | " + " | ".join(NAMES) + " | sum |", "|---|" + "---:|" * (len(NAMES) + 1)]
    paid_by = {"`shapley`, if nobody had values": credit.Shapley().assign(example(tolerance=math.inf))[0]}
    paid_by |= {label: paid[0] for label, paid in paid_by_rule(example()).items()}
    for label, paid in paid_by.items():
        lines.append(f"| {label} | " + " | ".join(f"{number:.3f}" for number in (*paid.tolist(), paid.sum().item())) + " |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Episodes:
    """What E episodes of a scenario paid.

    Attributes:
        total: Credit of every principal over its episode, by rule, ``(E, N)``, in nats.
        holds: Who has a value profile, bool ``(E, N)``.
        struck_out: Share of the contributed lots that were not admitted.
    """

    total: dict[str, Tensor]
    holds: Tensor
    struck_out: float


def episodes(n_episodes: int, name: str) -> Episodes:
    """Episodes in a scenario, of seeds 0, 1, ….

    Raises:
        ValueError: If there are fewer than two, of which nobody can tell how they vary.
    """
    if n_episodes < 2:
        raise ValueError(f"episodes={n_episodes}: must be at least 2")
    engine = Engine(scenario.load(name).unlimited(), None, n_episodes, dtype=torch.float64)
    total: dict[str, Tensor] = {}

    def pay_all(engine: Engine) -> None:
        for label, paid in paid_by_rule(engine.round).items():
            total[label] = total.get(label, torch.zeros_like(paid)) + paid

    agents.play(engine, agents.make(PLAYED[name]), seeds=range(n_episodes), on_round=pay_all)
    n_contributed, n_admitted = 0, 0
    for result in engine.history:
        n_contributed += int(result.contributed.sum())
        n_admitted += int(result.admitted.sum())
    return Episodes(total, engine.profiles.tolerance.isfinite().any(dim=-1), 1 - n_admitted / n_contributed)


def real_table(played: Episodes) -> str:
    """Mean credit of an episode with and without a value profile, in millinats, as Markdown; ± is a standard error over episodes."""
    lines = ["| rule | with values | without | difference |", "|---|---:|---:|---:|"]
    holds = played.holds
    for label, paid in played.total.items():
        with_values = (paid * holds).sum(dim=1) / holds.sum(dim=1)  # (E,)
        without = (paid * ~holds).sum(dim=1) / (~holds).sum(dim=1)
        cells = [_mean(1000 * sample) for sample in (with_values, without, with_values - without)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    struck_out = f"{played.struck_out:.1%} of the contributed lots were struck out."
    return "\n".join([*lines, "", struck_out])


def _mean(sample: Tensor) -> str:
    return f"{sample.mean():.1f} ± {sample.std() / len(sample) ** 0.5:.1f}"


def replaced(page: str, name: str, table: str) -> str:
    """The page, with the table between the comments ``<!-- name -->`` and ``<!-- /name -->`` replaced.

    Raises:
        ValueError: If the page has no such comments.
    """
    between = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.DOTALL)
    if not between.search(page):
        raise ValueError(f"the page has no place for the table {name!r}: put it between <!-- {name} --> and <!-- /{name} -->")
    return between.sub(lambda place: f"{place[1]}{table}\n{place[2]}", page)


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=32, help="of each scenario, of seeds 0, 1, …; at least 2")
    parser.add_argument("--markdown", type=Path, help="rewrite the tables in this page instead of printing them")
    arguments = parser.parse_args()
    tables = {"example": example_table(), **{name: real_table(episodes(arguments.episodes, name)) for name in PLAYED}}
    if arguments.markdown is None:
        sys.stdout.write("\n\n".join(tables.values()) + "\n")
        return
    page = arguments.markdown.read_text(encoding="utf-8")
    for name, table in tables.items():
        page = replaced(page, name, table)
    write_text(arguments.markdown, page)


if __name__ == "__main__":
    main()
