r"""What false names gain under rules that resist them, what honest members pay for it, and which cheats pay at all.

**Names.** In the shipped cooperatives one principal appears under two or three names, and all contribute all that they have. Its names are
a *split* (each has some of the lots), *twins* (each has all of them), or *near twins* (the second name sends the same updates with noise of
a tenth of their norm). The ratio is what its names earn together, over what it earns under one name, in the first round of episodes, with
every principal in this place in turn. 1 means that names gain nothing. (In later rounds it is another model that is paid for.) No lot is
corrupt, and nobody screens. *Known names* means that the clusters are given, as from an identity check.

**The price.** How often agents of different principals are merged, names of one principal are not, and how far what honest agents are paid
is from what they would be paid without clusters.

**Cheats.** With ``--cheats``, the gain of every cheat of the red team under each rule, over the honest self, in reward units.

Run: ``python benchmarks/credit/resistance.py [--scenarios digits digits-mean breast_cancer] [--batches 8] [--cheats] [--splits 6]
[--markdown FILE]``; minutes of a core, and a quarter of an hour for the cheats.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from proxycoop import credit
from proxycoop.credit.resistant import false_merge_rate, false_split_rate, similar
from proxycoop.envs import Engine, Scenario, scenario
from proxycoop.envs.data.names import Names
from proxycoop.files import write_text
from proxycoop.training.analysis.summary import told
from proxycoop.training.evaluate import held_out_splits
from proxycoop.training.intervals import Estimate
from proxycoop.training.temptations.cheats import gains, tempting

SCENARIOS = ("digits", "digits-mean", "breast_cancer")
THRESHOLDS = (0.8, 0.9, 0.95, 0.99)
ATTACKS: dict[str, tuple[int, bool, bool]] = {
    "split, 2 names": (2, False, False),
    "split, 3 names": (3, False, False),
    "twins": (2, True, False),
    "near twins": (2, True, True),
    "twins, 3 names": (3, True, False),
}
"""By name: number of names, whether each has all lots, and whether the further ones add noise."""
RULES = (
    "shapley",
    "banzhaf",
    "loo",
    "quotient(similarity=0.95)",
    "quotient(similarity=0.8)",
    "quotient(copies='all')",
    "faithful_group_shapley",
)
KNOWN = "quotient, known names"
CHEATED = (
    "shapley",
    "quotient(similarity=0.95)",
    "faithful_group_shapley",
    "fact",
    "slashing(stake=0.02, audit_rate=0.5)",
    "slashing(rule='equal', stake=0.02, audit_rate=0.5)",
    "equal",
)


def shares(engine: Engine, rules: dict[str, credit.CreditRule], choices: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
    """What rules pay for an episode of the same choices ``(N, I)`` in every round, ``(E, N)`` each; and every round's clusters."""
    engine.reset(seeds)
    paid = {name: torch.zeros(engine.num_envs, engine.num_agents) for name in rules}
    for rule in rules.values():
        rule.reset(engine.num_envs, engine.num_agents)
    clusters = {threshold: [] for threshold in THRESHOLDS}  # type: dict[float, list[Tensor]]
    while engine.t < engine.horizon:
        engine.step(choices.expand(engine.num_envs, -1, -1))
        for name, rule in rules.items():
            paid[name] += engine.reward_scale * rule.assign(engine.round)
        for threshold, found in clusters.items():
            found.append(similar(engine.round.updates, threshold))
    return paid | {f"{threshold:g}": torch.cat(found) for threshold, found in clusters.items()}


def _changed(made: Scenario, **parts: object) -> Scenario:
    """A scenario with other parts, checked anew."""
    return Scenario.model_validate({key: getattr(made, key) for key in type(made).model_fields} | parts)


def played(made: Scenario, principal: int | None, n_names: int, copied: bool, noisy: bool) -> tuple[Engine, Tensor, Tensor, int]:
    """A cooperative in which a principal has several names: the engine, what everybody does, whose each name is, and how many episodes."""
    conduct = {"forgeries": [{"kind": "near_twin", "of": lot} for lot in range(made.lots.per_principal)]} if noisy else None
    changed = _changed(made, conduct=conduct)
    names = None
    if principal is not None:
        names = Names.of(made.principals, made.lots.per_principal, [(principal, n_names, copied)])
    engine = Engine(changed, None, 8, names=names)
    choices = torch.zeros(engine.num_agents, engine.num_items, dtype=torch.bool)
    choices[:, : engine.num_lots] = True
    owner = torch.tensor(list(range(made.principals)) if names is None else list(names.owner))
    if noisy:
        choices[made.principals :] = ~choices[made.principals :]  # the noisy updates instead of the lots
    return engine, choices, owner, 8


def ratios(name: str, n_batches: int) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float], dict[str, tuple[float, float]]]:
    """Of one scenario: ratios by attack and rule; false splits by attack and threshold; false merges and the price by threshold."""
    made = scenario.load(name, horizon=1, **{"lots.corruption.share": 0.0})
    free = made.screening.model_copy(update={"governance": "none", "guard": False})
    made = _changed(made, screening=free)
    seeds = [range(8 * batch, 8 * batch + 8) for batch in range(n_batches)]
    honest: dict[str, Tensor] = {}
    merged: dict[str, list[Tensor]] = {f"{one:g}": [] for one in THRESHOLDS}
    with_clusters = {f"quotient(similarity={one:g})": credit.make(f"quotient(similarity={one:g})") for one in THRESHOLDS}
    for some in seeds:
        engine, choices, owner, _ = played(made, None, 1, False, False)
        rules = {rule: credit.make(rule) for rule in RULES} | with_clusters
        found = shares(engine, rules, choices, some)
        for rule in rules:
            honest[rule] = honest.get(rule, torch.zeros(0, made.principals))
            honest[rule] = torch.cat([honest[rule], found[rule]])
        for threshold, all_merged in merged.items():
            all_merged.append(false_merge_rate(found[threshold], owner))
    price = {
        threshold: (
            float(torch.cat(rates).mean()),
            float((honest[f"quotient(similarity={threshold})"] - honest["shapley"]).abs().mean() / honest["shapley"].abs().mean()),
        )
        for threshold, rates in merged.items()
    }
    ratio: dict[tuple[str, str], float] = {}
    split: dict[tuple[str, str], float] = {}
    for attack, (n_names, copied, noisy) in ATTACKS.items():
        total: dict[str, float] = {}
        missed: dict[str, list[Tensor]] = {f"{one:g}": [] for one in THRESHOLDS}
        for principal in range(made.principals):
            for some in seeds:
                engine, choices, owner, _ = played(made, principal, n_names, copied, noisy)
                known = [[seat for seat in range(engine.num_agents) if owner[seat] == one] for one in range(made.principals)]
                rules = {rule: credit.make(rule) for rule in RULES} | {KNOWN: credit.make("quotient", by=known)}
                found = shares(engine, rules, choices, some)
                for rule in rules:
                    total[rule] = total.get(rule, 0.0) + float(found[rule][:, owner == principal].sum())
                for threshold, all_missed in missed.items():
                    all_missed.append(false_split_rate(found[threshold], owner))
        for rule, names_earn in total.items():
            ratio[attack, rule] = names_earn / float(honest["shapley" if rule == KNOWN else rule].sum())
        split |= {(attack, threshold): float(torch.cat(rates).mean()) for threshold, rates in missed.items()}
    return ratio, split, price


def names_tables(
    found: dict[str, tuple[dict[tuple[str, str], float], dict[tuple[str, str], float], dict[str, tuple[float, float]]]],
) -> list[str]:
    """The tables of names and of the price."""
    rules = (*RULES, KNOWN)
    lines = ["**What the names of a principal earn together, over what it earns under one**", ""]
    lines += [
        f"| scenario | attack | {' | '.join(f'`{rule}`' if rule != KNOWN else rule for rule in rules)} |",
        "|---|---|" + "---:|" * len(rules),
    ]
    for name, (ratio, _, _) in found.items():
        lines += [
            f"| `{name}` | {attack} | {' | '.join(f'{ratio[attack, rule]:.2f}'.replace('-', '−') for rule in rules)} |"
            for attack in ATTACKS
        ]
    lines += ["", "**Clusters by updates: what they miss, and what honest agents pay**", ""]
    lines += [
        f"| scenario | least cosine | {' | '.join(f'not merged: {one}' for one in ATTACKS)} | merged by mistake | change of honest pay |"
    ]
    lines += ["|---|---:|" + "---:|" * (len(ATTACKS) + 2)]
    for name, (_, split, price) in found.items():
        for threshold, (merge, change) in price.items():
            cells = [f"{split[attack, threshold]:.0%}" for attack in ATTACKS]
            lines.append(f"| `{name}` | {threshold} | {' | '.join(cells)} | {merge:.1%} | {change:.1%} |".replace("%", " %"))
    return [*lines, ""]


def cheats_table(name: str, rules: Sequence[str], episodes: int, splits: int) -> list[str]:
    """The table of cheats in one scenario: their gains under each rule."""
    columns: dict[str, dict[str, Estimate]] = {}
    for rule in tqdm(rules, unit=" rules"):
        made = tempting(scenario.load(name), rule)
        columns[rule] = {gain.cheat: gain.gain for gain in gains(made, rule, episodes=episodes, splits=held_out_splits(splits))}
    cheats = list(dict.fromkeys(cheat for column in columns.values() for cheat in column))
    lines = [f"**`{name}`: what each cheat gains over the honest self, reward units an episode**", ""]
    lines += [f"| cheat | {' | '.join(f'`{rule}`' for rule in rules)} |", "|---|" + "---:|" * len(rules)]
    for cheat in cheats:
        cells = [told(column[cheat], 1) if cheat in column else "–" for column in columns.values()]
        lines.append(f"| `{cheat}` | {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--batches", type=int, default=8, help="batches of 8 episodes")
    parser.add_argument("--cheats", action="store_true", help="measure every cheat too, in digits-mean")
    parser.add_argument("--splits", type=int, default=6, help="splits of the data on which cheats are measured")
    parser.add_argument("--markdown", type=Path, help="write the tables into this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = names_tables({name: ratios(name, arguments.batches) for name in tqdm(arguments.scenarios, unit=" scenarios")})
    if arguments.cheats:
        lines += cheats_table("digits-mean", CHEATED, 4, arguments.splits)
    text = "\n".join(lines)
    sys.stdout.write(text)
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
