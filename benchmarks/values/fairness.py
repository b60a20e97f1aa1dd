"""Fairness on Adult: learned cooperatives with and without screening, beside fairlearn's reduction trained centrally on the same data.

On every seed, which has a data split of its own, proxies are trained by PPO under Shapley credit: without screening, and under unanimous
screening by several filters. They then play, and each episode's final model is tested. The lots of the same episodes are also pooled in one
place, with the public rows on which the shared model starts. A logistic regression and fairlearn's ``ExponentiatedGradient`` with
``DemographicParity`` (Agarwal et al. 2018), at its default bound, are fitted to this pool: once to all lots with their labels as they are,
and once to the clean lots alone, which nobody could choose without knowing which lots are clean. ``ExponentiatedGradient`` knows
everybody's sex in training; the cooperative's principals know it only for their probe sets. The cooperative, for its part, pays for lots by
their gain on a validation set.

*Score gap* and *decision gap* are between men and women: in the mean probability of ``>50K``, and in the share of decisions for it
(``ExponentiatedGradient`` draws its decisions; its share is the expected one). *Odds gap* is the larger of the true-positive and the
false-positive gap. Losses are cross-entropies in nats; probabilities are clipped to [.001, .999]. ± is a 95 % Student interval over seeds.

Run: ``python benchmarks/values/fairness.py [--seeds 5] [--markdown FILE]``, with the extra ``fairness``; six minutes on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from proxycoop import agents
from proxycoop.envs import Engine, scenario
from proxycoop.files import write_text
from proxycoop.training.evaluate import Estimate
from proxycoop.training.libraries.registry import settings_for
from proxycoop.training.train import train

Floats = NDArray[np.float64]

POSITIVE = ">50K"
STEPS = 120_000
EPISODES = 4
FIRST_SEED, FIRST_COOPERATIVE = 10, 1_000_000
COOPERATIVES: dict[str, dict[str, Any]] = {
    "cooperative, nobody screens": {"screening": {"governance": "none"}},
    "cooperative, reject": {},
    "cooperative, reject, tolerances × 0.1": {"tolerances": 0.1},
    "cooperative, project, tolerances × 0.1": {"tolerances": 0.1, "screening": {"filter": "project"}},
}
MEASURES = {
    "accuracy": "accuracy, %",
    "loss": "cross-entropy",
    "score_gap": "score gap",
    "decision_gap": "decision gap",
    "odds_gap": "odds gap",
    "women": "loss, women",
    "men": "loss, men",
    "black": "loss, black",
}


def tested(score: Floats, decision: Floats, y: NDArray[np.int64], groups: dict[str, NDArray[np.bool_]]) -> dict[str, float]:
    """What a classifier does to people: probabilities of the positive class and (expected) decisions, ``(n,)`` each."""
    women, bounded = groups["women"], score.clip(0.001, 0.999)
    loss = -np.log(np.where(y == 1, bounded, 1 - bounded))

    def gap(of: Floats, among: NDArray[np.bool_]) -> float:
        return abs(float(of[women & among].mean() - of[~women & among].mean()))

    return {
        "accuracy": 100 * float(np.where(y == 1, decision, 1 - decision).mean()),
        "loss": float(loss.mean()),
        "score_gap": gap(score, np.ones_like(women)),
        "decision_gap": gap(decision, np.ones_like(women)),
        "odds_gap": max(gap(decision, y == 1), gap(decision, y == 0)),
        "women": float(loss[women].mean()),
        "men": float(loss[~women].mean()),
        "black": float(loss[groups["black"]].mean()),
    }


def of_seed(seed: int) -> dict[str, dict[str, float]]:
    """Every method's measures on one seed, means over its episodes."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    for label, changes in COOPERATIVES.items():
        found[label] = _mean(cooperative(changes, seed))
    for label, fit, clean in (
        ("central, logistic regression, all lots", logistic, False),
        ("central, ExponentiatedGradient, all lots", exponentiated_gradient, False),
        ("central, logistic regression, clean lots", logistic, True),
        ("central, ExponentiatedGradient, clean lots", exponentiated_gradient, True),
    ):
        found[label] = _mean(central(fit, seed, clean))
    return found


def _loaded(changes: dict[str, Any], seed: int) -> scenario.Scenario:
    shipped, factor = scenario.load("adult").unlimited(), changes.get("tolerances", 1.0)
    profiles = [profile.tightened(factor) for profile in shipped.profiles]
    return scenario.load(
        "adult", profiles=profiles, screening={"guard": False, **changes.get("screening", {})}, **{"data.split_seed": seed}
    )


def _test_groups(engine: Engine) -> dict[str, NDArray[np.bool_]]:
    return {name: members.numpy() for name, members in engine.splits.test.groups.items()}


def cooperative(changes: dict[str, Any], seed: int) -> list[dict[str, float]]:
    """Train proxies, let them play, test the models that they end with."""
    one = _loaded(changes, seed)
    with tempfile.TemporaryDirectory() as folder:
        train(settings_for(scenario=one, credit="shapley", seed=seed, total_steps=STEPS, splits=1), folder, tensorboard=False)
        policy = agents.make("learned", path=folder)
    engine = Engine(one, "shapley", EPISODES)
    agents.play(engine, policy, range(FIRST_COOPERATIVE, FIRST_COOPERATIVE + EPISODES))
    positive, rows = engine.splits.dataset.class_index(POSITIVE), engine.splits.test
    scores = engine.model.logits(engine.theta, rows.x).softmax(dim=-1)[..., positive].double().numpy()  # (E, rows)
    y = (rows.y == positive).long().numpy()
    return [tested(score, (score > 0.5).astype(float), y, _test_groups(engine)) for score in scores]


def central(fit: Callable[..., tuple[Floats, Floats]], seed: int, clean: bool) -> list[dict[str, float]]:
    """Fit on the pooled lots of the same episodes."""
    engine = Engine(_loaded({}, seed), None, EPISODES)
    engine.reset(range(FIRST_COOPERATIVE, FIRST_COOPERATIVE + EPISODES))
    positive, test, lots = engine.splits.dataset.class_index(POSITIVE), engine.splits.test, engine.lots
    made = []
    for e in range(EPISODES):
        chosen = ~lots.corrupt[e] if clean else torch.ones_like(lots.corrupt[e])  # (N, K)
        public = engine.splits.public  # on which the cooperative's model starts
        x = torch.cat([public.x, lots.x[e][chosen].flatten(end_dim=1)])
        y = torch.cat([public.y, lots.y[e][chosen].flatten()]) == positive
        women = torch.cat([public.groups["women"], engine.splits.train.groups["women"][lots.rows[e][chosen].flatten()]])
        score, decision = fit(x.double().numpy(), y.long().numpy(), women.numpy(), test.x.double().numpy())
        made.append(tested(score, decision, (test.y == positive).long().numpy(), _test_groups(engine)))
    return made


def logistic(x: Floats, y: NDArray[np.int64], women: NDArray[np.bool_], test: Floats) -> tuple[Floats, Floats]:
    """Scores and decisions of a logistic regression on the test rows."""
    from sklearn.linear_model import LogisticRegression

    del women
    score = LogisticRegression(max_iter=1000).fit(x, y).predict_proba(test)[:, 1]
    return score, (score > 0.5).astype(float)


def exponentiated_gradient(x: Floats, y: NDArray[np.int64], women: NDArray[np.bool_], test: Floats) -> tuple[Floats, Floats]:
    """Mean scores and expected decisions of fairlearn's randomised classifier on the test rows."""
    from fairlearn.reductions import DemographicParity, ExponentiatedGradient
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between libraries, not about this code
        fair = ExponentiatedGradient(LogisticRegression(max_iter=1000), DemographicParity())
        fair.fit(x, y, sensitive_features=women)
        score, decision = np.zeros(len(test)), np.zeros(len(test))
        for number, weight in fair.weights_.items():
            score += weight * fair.predictors_[number].predict_proba(test)[:, 1]
            decision += weight * fair.predictors_[number].predict(test)
    return score, decision


def _mean(of: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in of])) for name in MEASURES}


def table(found: list[dict[str, dict[str, float]]]) -> str:
    """Means over seeds with intervals, as Markdown."""
    lines = [f"| model | {' | '.join(MEASURES.values())} |", "|---|" + "---:|" * len(MEASURES)]
    for label in found[0]:
        cells = []
        for name in MEASURES:
            estimate, places = Estimate.of(torch.tensor([seed[label][name] for seed in found])), 1 if name == "accuracy" else 3
            half = "" if estimate.half_width is None else f" ± {estimate.half_width:.{places}f}"
            cells.append(f"{estimate.mean:.{places}f}{half}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    arguments = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(of_seed, seed) for seed in seeds]
        found = [future.result() for future in tqdm(running, unit=" seeds")]
    text = table(found)
    sys.stdout.write(f"\n{text}")
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)


if __name__ == "__main__":
    main()
