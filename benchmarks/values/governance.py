"""What each governance admits, what it leads to, and how satisfied the principals are. Negotiation must never be worse than unanimity.

Random proxies play every scenario under every governance: the same proxies on the same lots, at the shipped tolerances and at a fifth of
them. *Gain* is the rise of the utility on the test set, in nats. *Harm* is the rise of the protected values' losses on their probe test
sets, each divided by its shipped tolerance, averaged. *Steps beyond* is the share of rounds whose step breaks somebody's profile to first
order. *Satisfaction* is that of :mod:`proxycoop.envs.screening.bargaining`, with each round's admitted step; 1 is the satisfaction with no
step at all. The table has the geometric mean over principals (Nash welfare), the worst-off profile, the 20th percentile, and the Gini
coefficient.

Negotiation considers what updates gain, which no other governance does. So there is a row in which nobody screens, and lots with no
predicted gain are withheld. It shows how much of negotiation's gain comes from that alone.

Then, in every round, the negotiated set is compared with the unanimous set. The command fails if Nash welfare is lower in any round.

Run: ``python benchmarks/values/governance.py [--rounds 100] [--markdown FILE]``; two minutes on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.envs.screening.bargaining import Offers, explain, measures, negotiate
from proxycoop.files import write_text

GAINS_ONLY = "none, and only lots with a predicted gain"
GOVERNANCES: dict[str, dict[str, Any]] = {
    "none": {"governance": "none"},
    GAINS_ONLY: {"governance": "none"},
    "own": {"governance": "own"},
    "quorum of one half": {"governance": "quorum", "quorum": 0.5},
    "weighted by data, one half": {"governance": "weighted", "quorum": 0.5},
    "stakeholders, one half": {"governance": "stakeholders", "quorum": 0.5},
    "unanimous": {"governance": "unanimous"},
    "negotiate, nash": {"governance": "negotiate"},
    "negotiate, worst_off": {"governance": "negotiate", "bargain": "worst_off"},
}
FACTORS = (1.0, 0.2)
MEASURES = ("nash_welfare", "worst_group", "percentile_20", "gini")


def measure(name: str, factor: float, rounds: int) -> tuple[list[str], int, int, str]:
    """A row for every governance; then in how many rounds negotiation was worse than unanimity, of how many, and one bargain in words."""
    torch.set_num_threads(1)
    rows, worse, of, told = [], 0, 0, ""
    for label, screening in GOVERNANCES.items():
        profiles = [profile.tightened(factor) for profile in scenario.load(name).unlimited().profiles]
        one = scenario.load(name, screening={"guard": False, **screening}, profiles=profiles, **{"reward.scale": 1.0})
        engine = Engine(one, None, -(-rounds // one.horizon))
        agent = agents.make("random")
        observations = engine.reset(range(engine.num_envs))
        agent.begin(engine.layout, engine.seeds)
        start, spread = engine.test(), []
        group = engine.profiles.kind
        assert group is not None
        group = torch.where(group < len(one.profiles), group, -1)
        while engine.t < engine.horizon:
            look, gain = engine.prospect, engine.predicted_gain()
            actions = agent.act(observations)
            if label == GAINS_ONLY:
                actions = actions & (gain > 0)
            result = engine.step(actions)
            observations = result.observations
            spread.append(measures(_satisfaction(engine, look, gain, result.contributed, result.admitted), group))
            if result.bargain is not None:
                before, after = (measures(one, group)["nash_welfare"] for one in (result.bargain.before, result.bargain.satisfaction))
                worse += int((after < before - 1e-6).sum()) if label == "negotiate, nash" else 0
                of += len(after) if label == "negotiate, nash" else 0
                told = told or explain(result.bargain, 0, [f"proxy_{i}" for i in range(engine.num_agents)], list(engine.values))
        end = engine.test()
        tolerance = torch.stack([result.tolerance for result in engine.history]).mean(dim=0)  # (E, M)
        change = torch.stack([end[f"value/{value}"] - start[f"value/{value}"] for value in engine.values], dim=-1)
        held = tolerance.isfinite()
        harm = torch.where(held, factor * change / tolerance, 0.0).sum(dim=-1) / held.sum(dim=-1).clamp(min=1)
        n_admitted, n_contributed = (
            sum(int(part.sum()) for part in parts)
            for parts in ([r.admitted for r in engine.history], [r.contributed for r in engine.history])
        )
        cells = [f"{float((end['utility'] - start['utility']).mean()):.3f}", f"{float(harm.mean()):+.2f}"]
        violations = torch.stack([result.violated for result in engine.history]).double().mean()
        cells += [f"{100 * n_admitted / n_contributed:.0f}", f"{100 * float(violations):.0f}"]
        cells += [f"{float(torch.stack([one[key] for one in spread]).mean()):.3f}" for key in MEASURES]
        rows.append(f"| `{name}` | {factor:g} | {label} | {' | '.join(cells)} |")
    return rows, worse, of, told


def _satisfaction(engine: Engine, look: Any, gain: Tensor, contributed: Tensor, admitted: Tensor) -> Tensor:
    """Everybody's satisfaction with the step of what was admitted, ``(E, N)``, on one scale for all governances.

    The most that could be gained is that of all contributed lots: were it that of the admitted ones, who admits little would gain most.
    """
    profiles = look.verdicts.profiles
    offers = Offers(
        candidates=contributed & look.verdicts.finite,
        start=admitted,
        share=look.proposals.share,
        gain=gain,
        harm=look.verdicts.harm,
        tolerance=profiles.tolerance,
        directions=profiles.direction_of_each,
        weights=engine.scenario.weights,
    )
    return negotiate(offers, budget=0).before


def main() -> None:
    """Print the table and a bargain; fail if negotiation was worse than unanimity."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="rounds of each scenario and governance, rounded up to whole episodes")
    parser.add_argument("--scenarios", nargs="+", default=scenario.names(), help="all by default")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        keys = [(name, factor) for name in arguments.scenarios for factor in FACTORS]
        running = {key: pool.submit(measure, *key, arguments.rounds) for key in keys}
        found = {key: future.result() for key, future in tqdm(running.items(), unit=" tables")}
    head = [
        "scenario",
        "tolerances ×",
        "governance",
        "gain",
        "harm",
        "admitted, %",
        "steps beyond, %",
        "Nash welfare",
        "worst profile",
        "20th percentile",
        "Gini",
    ]
    text = f"| {' | '.join(head)} |\n|---|---:|---|" + "---:|" * (len(head) - 3) + "\n"
    text += "".join(row + "\n" for rows, *_ in found.values() for row in rows)
    sys.stdout.write(f"\n{text}\n")
    for (name, factor), (_, worse, of, told) in found.items():
        sys.stdout.write(
            f"{name}, tolerances × {factor:g}: negotiation worse than unanimity in {worse} of {of} rounds; "
            f"the first round's bargain:\n{told}\n\n"
        )
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    if any(worse for _, worse, *_ in found.values()):
        sys.exit("negotiation was worse than unanimity")


if __name__ == "__main__":
    main()
