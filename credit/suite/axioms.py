"""The test suite of credit rules: it tests what a rule promises and what every rule owes, and shows what a rule lacks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor

from .. import games
from ..games.round import Round
from ..rule import CreditRule, Family, GameRule, LotRule, make
from .battery import Case, Facts, battery, learning_round, random_round, veto_round

CHECKS = {
    "efficient": "if declared, credits sum to v(N); if not, some round breaks it",
    "symmetric": "if declared, interchangeable agents get the same; if not, some round breaks it",
    "null_player": "if declared, an agent that adds nothing to any coalition gets nothing; if not, some round breaks it",
    "finite": "credits are finite floats, one an agent and environment",
    "nothing": "a round in which nobody does anything pays everybody exactly 0",
    "batch": "a batch of environments is paid what each environment is paid by itself",
    "reset": "a rule that was reset, and a new rule, pay what the first one paid",
    "cost": "no more coalitions are evaluated than cost(n) says, v(∅) apart",
    "unchanged": "the rule changes neither the round nor what it paid before",
    "sizes": "reset refuses more agents than the rule serves, and no round of a size that it serves is refused",
    "lots": "a lot rule pays agents what their lots earn, and nothing to lots that were not contributed",
    "game": "a game rule reads nothing but the game, and values() gives what assign() pays",
    "manual": "the class names its source and family, and has a docstring with the formula",
}
"""What is checked, by the names that ``waive`` accepts."""
AXIOMS = ("efficient", "symmetric", "null_player")

TOLERANCE = 1e-8
"""Largest residual of an axiom that counts as kept, relative to the round's largest worth. Linear programmes leave that much. More is
allowed where numbers are in single precision."""
SHOWN = 1e-6
"""Smallest residual that proves that an axiom is not kept."""


@dataclass(frozen=True)
class AxiomReport:
    """How a rule fared with one axiom.

    Attributes:
        declared: Whether the rule promises it.
        held: Whether it was kept in every round.
        residual: Largest violation, relative to the largest worth of the round's game.
        witness: That violation in words: where, who, what was paid, and what should have been.
    """

    declared: bool
    held: bool
    residual: float
    witness: str


@dataclass(frozen=True)
class RuleReport:
    """What :func:`check_rule` found.

    Attributes:
        rule: The rule's name.
        sizes: Numbers of agents on which it was tried.
        n_rounds: Number of rounds in which its axioms were tested.
        axioms: The report on each of efficient, symmetric and null_player.
        findings: What is wrong, in words, by the names of :data:`CHECKS`; empty if nothing is.
        waived: Checks whose findings do not count.
    """

    rule: str
    sizes: tuple[int, ...]
    n_rounds: int
    axioms: dict[str, AxiomReport]
    findings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    waived: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        """The report as lines of text."""
        lines = [f"{self.rule}: tried in {self.n_rounds} rounds, of {', '.join(map(str, self.sizes))} agents"]
        for name, axiom in self.axioms.items():
            promise = "declared" if axiom.declared else "not declared"
            lines.append(f"  {name}: {promise}, {'kept' if axiom.held else 'broken: ' + axiom.witness}")
        lines += [f"  wrong ({check}): {finding}" for check, findings in self.findings.items() for finding in findings]
        lines += [f"  waived: {', '.join(self.waived)}"] if self.waived else []
        return "\n".join(lines)


class RuleViolation(AssertionError):  # noqa: N818 - a test that fails is no error in the program
    """A rule breaks a promise, or something that every rule owes. The message and ``report`` say where."""

    def __init__(self, report: RuleReport) -> None:
        self.report = report
        found = [f"  {check}: {finding}" for check, findings in report.findings.items() for finding in findings]
        super().__init__(f"{report.rule} does not pass:\n" + "\n".join(found))


def check_rule(
    rule: str | type[CreditRule] | Callable[[], CreditRule], *, waive: Collection[str] = (), cases: Iterable[Case] = ()
) -> RuleReport:
    """Put a credit rule through the tests that the rules of this package pass.

    One line tests a rule from anywhere::

        def test_my_rule():
            credit.check_rule(MyRule)

    The rule is tried on a battery of rounds, of every number of agents in it that the rule serves. There are random rounds of learning
    cooperatives of 1 to 12 agents: with twins, with agents that add nothing, with gains and losses, in units from 1e-8 to 1e8, and in
    single precision. There are episodes in which agents change their parts, random games, and games with known values, up to 64 players.
    :data:`CHECKS` says what is tested.

    Args:
        rule: A registered rule's name, with arguments if it takes any (``"shapley(budget=40)"``), a class, or any function of no arguments
            that builds the rule. A rule itself will not do, because new ones are needed.
        waive: Names of :data:`CHECKS` whose findings do not count. For a rule that breaks one on purpose (a minimum wage pays agents that
            add nothing), or whose failures the battery cannot show.
        cases: Further cases, such as one that shows what the rule lacks where the battery does not.

    Returns:
        The report, if the rule passes; print it.

    Raises:
        RuleViolation: If anything is wrong; the message lists all of it, with witnesses.
        ValueError: If ``rule`` cannot be built anew, serves no number of agents in the battery, or ``waive`` names no check.
    """
    if unknown := set(waive) - CHECKS.keys():
        raise ValueError(f"waive={sorted(unknown)}: the checks are {', '.join(CHECKS)}")
    trial = _Trial(_factory(rule), rule if isinstance(rule, str) else None, (*battery(), *cases))
    findings = {check: tuple(trial.findings[check]) for check in CHECKS if check in trial.findings and check not in waive}
    waived = tuple(check for check in CHECKS if check in trial.findings and check in waive)
    report = RuleReport(trial.name, tuple(trial.sizes), trial.n_rounds, trial.axioms, findings, waived)
    if not report.ok:
        raise RuleViolation(report)
    return report


def _factory(rule: object) -> Callable[[], CreditRule]:
    if isinstance(rule, str):
        return lambda: make(rule)
    if not callable(rule):
        raise ValueError(f"rule={rule!r}: pass a name, a class or a function that builds the rule, since new ones are needed")
    try:
        inspect.signature(rule).bind()
    except (TypeError, ValueError) as error:  # some built-in functions have no signature
        raise ValueError(f"rule={rule!r}: must build the rule without arguments ({error}), as lambda: MyRule(budget=60) does") from None
    if missing := getattr(rule, "__abstractmethods__", None):
        raise ValueError(f"rule={rule!r}: lacks {', '.join(sorted(missing))}, so no rule can be built")
    first, second = rule(), rule()
    if not isinstance(first, CreditRule) or not isinstance(second, CreditRule):
        raise ValueError(f"rule={rule!r} builds {type(first).__name__}: must be a CreditRule")
    if first is second:
        raise ValueError(f"rule={rule!r} returns the same rule again: it must build a new one each time")
    return rule


class _Trial:
    """One rule's run through the battery; ``findings`` and ``axioms`` hold the results."""

    def __init__(self, new: Callable[[], CreditRule], name: str | None, cases: Sequence[Case]) -> None:
        self.new = new
        self.rule = new()  # the one whose attributes are read
        self.name = name or type(self.rule).__name__
        self.findings: dict[str, list[str]] = {}
        self.axioms: dict[str, AxiomReport] = {}
        self.n_rounds = 0
        self.pays = True  # whether it paid a proper credit in every round so far
        self.sizes = [n for n in sorted({case.n_agents for case in cases}) if self._serves(n)]
        if not self.sizes:
            tried = ", ".join(map(str, sorted({case.n_agents for case in cases})))
            raise ValueError(f"{self.name} serves none of the battery's numbers of agents ({tried}): pass cases of a number that it serves")
        self._manual()
        self._sizes()
        self._axioms([case for case in cases if case.n_agents in self.sizes])
        if not self.pays:
            return  # the other checks compare what was paid
        self._nothing()
        self._batch()
        self._reset()
        if isinstance(self.rule, GameRule):
            self._game()
        if isinstance(self.rule, LotRule):
            self._lots()

    def found(self, check: str, words: str) -> None:
        """Note that something is wrong. Of each kind, the first three are kept."""
        if len(self.findings.setdefault(check, [])) < 3:
            self.findings[check].append(words)

    def some_sizes(self, *wanted: int) -> list[int]:
        """Of the sizes that the rule serves, those closest to the wanted ones."""
        return sorted({min(self.sizes, key=lambda n: abs(n - size)) for size in wanted})

    def pay(self, rounds: Sequence[Round], rule: CreditRule | None = None) -> list[Tensor]:
        """What a new rule, or this one after a reset, pays in each round of an episode."""
        rule = self.new() if rule is None else rule
        rule.reset(rounds[0].num_envs, rounds[0].num_agents)
        return [rule.assign(the_round) for the_round in rounds]

    def _serves(self, n_agents: int) -> bool:
        try:
            self.rule.check(n_agents)
        except ValueError:
            return False
        return True

    # what the class says about itself

    def _manual(self) -> None:
        rule, cls = self.rule, type(self.rule)
        if not re.search(r"\.\. math::|:math:`", cls.__doc__ or ""):
            self.found("manual", f"{cls.__name__} has no docstring with its formula ('.. math::' or ':math:')")
        if rule.source == CreditRule.source or not rule.source:
            self.found("manual", f"source={rule.source!r}: say where the rule was defined")
        if rule.family not in get_args(Family):
            self.found("manual", f"family={rule.family!r}: must be one of {', '.join(get_args(Family))}")
        for axiom in AXIOMS:
            if not isinstance(getattr(rule, axiom), bool):
                self.found("manual", f"{axiom}={getattr(rule, axiom)!r}: must be True or False")

    def _sizes(self) -> None:
        if self.rule.max_players is None:
            return
        too_many = self.rule.max_players + 1
        for what in ("check", "reset"):
            rule = self.new()
            try:
                rule.check(too_many) if what == "check" else rule.reset(1, too_many)
            except ValueError:
                continue
            self.found("sizes", f"max_players={self.rule.max_players}, but {what} takes {too_many}")

    # the axioms, and what is checked on the way

    def _axioms(self, cases: Sequence[Case]) -> None:
        worst = dict.fromkeys(AXIOMS, (0.0, "no violation"))
        broken = dict.fromkeys(AXIOMS, 0)
        for case in cases:
            for k, (paid, facts) in enumerate(self._episode(case)):
                self.n_rounds += 1
                where = case.name if len(case.facts) == 1 else f"round {k} of {case.name}"
                tolerance = max(TOLERANCE, 1e3 * facts.precision, 1e3 * torch.finfo(paid.dtype).eps)
                for axiom, (residual, words) in _residuals(paid.double(), facts).items():
                    broken[axiom] += residual > tolerance
                    if residual > max(tolerance, worst[axiom][0]):
                        worst[axiom] = residual, f"in {where}, {words}"
        for axiom in AXIOMS:
            declared = bool(getattr(self.rule, axiom))
            residual, witness = worst[axiom]
            self.axioms[axiom] = AxiomReport(declared, broken[axiom] == 0, residual, witness)
            if declared and broken[axiom]:
                self.found(axiom, f"declared, but broken in {broken[axiom]} of {self.n_rounds} rounds: {witness}")
            if not declared and residual < SHOWN and self.n_rounds:
                self.found(
                    axiom,
                    f"not declared, but kept in all {self.n_rounds} rounds (largest residual {residual:.1g}): declare it, or pass a case "
                    "that breaks it",
                )

    def _episode(self, case: Case) -> Iterator[tuple[Tensor, Facts]]:
        """What is paid in each round of a case, one after another. It ends at a round that is paid no proper credit."""
        rounds, rule = case.build(), self.new()
        rule.reset(rounds[0].num_envs, rounds[0].num_agents)
        kept: list[tuple[Tensor, Tensor]] = []  # what was paid, and a copy from then
        for the_round, facts in zip(rounds, case.facts, strict=True):
            before = {name: tensor.clone() for name, tensor in _records(the_round).items()}
            try:
                paid = rule.assign(the_round)
            except ValueError as error:
                self.pays = False
                self.found("sizes", f"{case.name} is refused, after reset had taken its {case.n_agents} agents: {error}")
                return
            except Exception as error:
                error.add_note(f"while {self.name} was paying for {case.name}")
                raise
            self._count(case, the_round)
            changed = [name for name, tensor in _records(the_round).items() if not tensor.equal(before[name])]
            if (
                (the_round.gain - facts.gain).abs() > 1e3 * facts.precision * facts.scale
            ).any():  # rounding may depend on the coalitions evaluated with it
                changed.append("gain")
            if changed:
                self.found("unchanged", f"in {case.name}, the rule wrote into the round's {', '.join(changed)}")
            if not self._is_credit(case, paid, the_round):
                return
            kept.append((paid, paid.clone()))
            yield kept[-1][1], facts
        for k, (paid, copy) in enumerate(kept):
            if not paid.equal(copy):
                self.found("unchanged", f"in {case.name}, what was paid in round {k} was changed by a later round")

    def _count(self, case: Case, the_round: Round) -> None:
        n = the_round.num_agents
        asked = the_round.evaluations
        the_round.value(torch.zeros(1, n, dtype=torch.bool))
        asked -= the_round.evaluations == asked  # v(∅) had been asked for
        if asked > self.rule.cost(n):
            self.found("cost", f"in {case.name}, {asked} coalitions were evaluated, but cost({n}) is {self.rule.cost(n)}")

    def _is_credit(self, case: Case, paid: object, the_round: Round) -> bool:
        shape = (the_round.num_envs, the_round.num_agents)
        if not isinstance(paid, Tensor) or paid.shape != shape or not paid.is_floating_point():
            came = f"{paid.dtype} {tuple(paid.shape)}" if isinstance(paid, Tensor) else type(paid).__name__
            self.found("finite", f"in {case.name}, credit is {came}: must be floating point {shape}")
        elif not paid.isfinite().all():
            env, agent = (~paid.isfinite()).nonzero()[0].tolist()
            self.found("finite", f"in {case.name}, environment {env} pays agent {agent} {paid[env, agent]}")
        else:
            return True
        self.pays = False
        return False

    # what every rule owes, declared or not

    def _nothing(self) -> None:
        for n in self.sizes:
            for dtype in (torch.float32, torch.float64):
                nobody = torch.zeros(2, n, 2, dtype=torch.bool)
                zeros = torch.zeros(2, n, 4, dtype=dtype)
                the_round = learning_round(zeros, torch.ones(2, 4, dtype=dtype), admitted=nobody, contributed=nobody)
                paid = self.pay([the_round])[0]
                if paid.abs().max() != 0:
                    env, agent = (paid != 0).nonzero()[0].tolist()
                    self.found(
                        "nothing", f"in a round in which none of {n} agents does anything, agent {agent} is paid {paid[env, agent]:.6g}"
                    )

    def _batch(self) -> None:
        for n in self.some_sizes(3, 5, 10):
            together = [random_round(n, 60 + t, num_envs=4, t=t) for t in range(2)]
            tables = [the_round.game.values() for the_round in together]
            batch = self.pay([_part(the_round, v, slice(0, 4)) for the_round, v in zip(together, tables, strict=True)])
            for e in range(4):
                single = self.pay([_part(the_round, v, slice(e, e + 1)) for the_round, v in zip(together, tables, strict=True)])
                for t, v in enumerate(tables):
                    off = (batch[t][e] - single[t][0]).abs().max().item() / v[e].abs().max().item()
                    if off > max(1e-12, 1e2 * torch.finfo(batch[t].dtype).eps):
                        with_others, alone = _row(batch[t][e]), _row(single[t][0])
                        self.found("batch", f"in round {t}, environment {e} of 4 pays its {n} agents {with_others}; by itself {alone}")

    def _reset(self) -> None:
        for n in self.some_sizes(5, 10):
            first = self.pay([random_round(n, 70)])[0]
            used = self.new()
            for other in self.some_sizes(2, 4):
                self.pay([random_round(other, 71 + t, num_envs=3, t=t) for t in range(3)], used)
            alike = self.new()
            self.pay([random_round(n, 74 + t, t=t) for t in range(3)], alike)
            for what, rule in (
                ("a rule that had been used is reset", used),
                ("a rule that had paid rounds of the same size is reset", alike),
                ("a new rule is built", self.new()),
            ):
                again = self.pay([random_round(n, 70)], rule)[0]
                if not again.equal(first):
                    self.found("reset", f"when {what}, a round of {n} agents is paid {_row(again[0])} after {_row(first[0])} before")

    def _lots(self) -> None:
        for n in self.some_sizes(4, 10):
            paid, rule = self.pay([random_round(n, 80), veto_round(n, 81, t=1)]), self.new()
            assert isinstance(rule, LotRule)  # as the one whose attributes are read
            rounds = [random_round(n, 80), veto_round(n, 81, t=1)]
            rule.reset(rounds[0].num_envs, n)
            for the_round, of_agents in zip(rounds, paid, strict=True):
                of_lots = rule.assign_lots(the_round)
                if of_lots.shape != the_round.contributed.shape:
                    self.found("lots", f"what lots earn has shape {tuple(of_lots.shape)}, must be {tuple(the_round.contributed.shape)}")
                    return
                if (of_lots.sum(dim=-1) - of_agents).abs().max() > 1e-9 * of_lots.abs().max():
                    self.found(
                        "lots", f"lots of {n} agents earn {_row(of_lots.sum(dim=-1)[0])} in all, but agents are paid {_row(of_agents[0])}"
                    )
                if of_lots[~the_round.contributed].any():
                    self.found("lots", f"of {n} agents, lots are paid that were not contributed")

    def _game(self) -> None:
        for n in self.some_sizes(4, 10):
            v = torch.randn(2, 2**n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
            v[:, 0] = 0
            rule = self.new()
            assert isinstance(rule, GameRule)  # as the one whose attributes are read
            try:
                values = rule.values(games.table_game(v))
            except ValueError as error:
                if self.rule.family != "wrapper":  # which serves games only if the other rule does
                    self.found("game", f"a game of {n} players is refused: {error}")
                continue
            paid = []
            for seed in range(4):
                the_round = random_round(n, seed)
                the_round.game = games.table_game(v)
                paid += self.pay([the_round])
            if others := [one for one in paid if not one.equal(paid[0])]:
                self.found("game", f"two rounds of {n} agents with the same game are paid {_row(paid[0][0])} and {_row(others[0][0])}")
            if not values.equal(paid[0]):
                self.found(
                    "game", f"a game of {n} players has the values {_row(values[0])}, but a round with it is paid {_row(paid[0][0])}"
                )


def _residuals(paid: Tensor, facts: Facts) -> dict[str, tuple[float, str]]:
    """For each axiom, its largest violation: relative to the largest worth, and in words."""
    total = paid.sum(dim=1)
    inefficiency = (total - facts.gain).abs() / facts.scale  # (E,)
    asymmetry = (paid[:, :, None] - paid[:, None, :]).abs() * facts.alike / facts.scale[:, None, None]  # (E, N, N)
    overpay = paid.abs() * facts.null / facts.scale[:, None]  # (E, N)
    (e,), (f, i, j), (g, k) = _largest(inefficiency), _largest(asymmetry), _largest(overpay)
    return {
        "efficient": (inefficiency[e].item(), f"environment {e}: credits sum to {total[e]:.9g}, but v(N) = {facts.gain[e]:.9g}"),
        "symmetric": (
            asymmetry[f, i, j].item(),
            f"environment {f}: agents {j} and {i} are interchangeable, but paid {paid[f, j]:.9g} and {paid[f, i]:.9g}",
        ),
        "null_player": (
            overpay[g, k].item(),
            f"environment {g}: agent {k} adds nothing to any coalition, but is paid {paid[g, k]:.9g} instead of 0",
        ),
    }


def _largest(residual: Tensor) -> list[int]:
    return [int(index) for index in torch.unravel_index(residual.argmax(), residual.shape)]


def _records(the_round: Round) -> dict[str, Tensor]:
    """The round's tensors, except v(N)."""
    return {
        "contributed": the_round.contributed,
        "admitted": the_round.admitted,
        "blocked_by": the_round.blocked_by,
        "samples": the_round.samples,
        "updates": the_round.updates,
        "utility_gradient": the_round.utility_gradient(),
    }


def _part(the_round: Round, v: Tensor, envs: slice) -> Round:
    """Some environments of a round whose worths are ``v``."""

    def curvature(direction: Tensor) -> Tensor:
        everywhere = direction.new_zeros(the_round.num_envs, direction.shape[1])
        everywhere[envs] = direction
        return the_round.utility_curvature(everywhere)[envs]

    return Round(
        games.table_game(v[envs]),
        contributed=the_round.contributed[envs],
        admitted=the_round.admitted[envs],
        blocked_by=the_round.blocked_by[envs],
        samples=the_round.samples,
        updates=lambda: the_round.updates[envs],
        utility_gradient=lambda: the_round.utility_gradient()[envs],
        t=the_round.t,
        episode=the_round.episode,
        lots=the_round.lots.part(envs),
        lot_updates=lambda: the_round.lot_updates[envs],
        utility_curvature=curvature,
        peer_gains=lambda: the_round.peer_gains[envs],
        class_head=the_round.class_head,
        forged=the_round.forged[envs],
    )


def _row(credits: Tensor) -> str:
    return "[" + ", ".join(f"{c:.6g}" for c in credits.tolist()) + "]"
