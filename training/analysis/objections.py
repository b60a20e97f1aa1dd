"""The objections of an audit: as records, as totals, by reason and profile, and the most harmful ones in words."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...envs.outcome import deadlock_in_words, watched
from ...text import one_line
from .audit import Audit

ROUNDING = 1e-6
"""How far a realised harm may exceed a tolerance without counting as beyond it."""


@dataclass(frozen=True)
class Objection:
    """One principal's objection to one contributed update, on one account (for one reason).

    Attributes:
        episode: The seed of the episode.
        round: The round, counted from 1.
        proxy: Number of the proxy that contributed the update.
        lot: Number of its lot.
        corrupt: Whether the lot is corrupt.
        whose: The profile of the proxy's principal, in short.
        objector: The principal that objects.
        profile: That principal's profile in short.
        account: The value, ``direction …``, ``norm``, ``tag …`` for one that is forbidden, or ``not finite``.
        predicted: The predicted harm, in the value's unit. For a direction it is the weighted sum of harms, for the norm the norm itself;
            ``None`` for other accounts.
        tolerance: What the objector allows ``predicted`` to be: its tolerance, or what is left of its limit if that is less.
        realised: Harm of the update, alone and at full length, on the value's probe test set; ``None`` if the account is not about harm.
        on_probe: The same on the screening's own probe set.
        outcome: ``rejected``, ``scaled`` or ``projected`` (to :attr:`kept`), ``admitted`` in spite of the objection, or ``bargained in``.
        kept: Norm of what entered, over the norm of the update.
    """

    episode: int
    round: int
    proxy: int
    lot: int
    corrupt: bool
    whose: str
    objector: int
    profile: str
    account: str
    predicted: float | None
    tolerance: float | None
    realised: float | None
    on_probe: float | None
    outcome: str
    kept: float


@dataclass(frozen=True)
class Account:
    """Objections of the holders of one profile on one account. An update counts once, however many holders object to it.

    Attributes:
        account: As in :class:`Objection`.
        profile: The profile in short.
        objected: Number of updates that they objected to.
        blocked: Number of those that did not enter the step.
        mended: Number of those that a filter mended.
        corrupt: Share of corrupt lots among the updates objected to.
        predicted: Mean predicted harm of the updates objected to.
        realised: Mean realised harm of the updates objected to, on the probe test set; see :class:`Objection`.
        tolerance: Mean of what the objectors allowed.
        rightly: Share of the updates objected to whose realised harm was indeed beyond the limit.
        missed: Share of the updates that entered the step whose realised harm, in the form in which they entered, was beyond the limit.
    """

    account: str
    profile: str
    objected: int
    blocked: int
    mended: int
    corrupt: float | None
    predicted: float | None
    realised: float | None
    tolerance: float | None
    rightly: float | None
    missed: float | None


@dataclass(frozen=True)
class Totals:
    """Numbers of contributed updates, over all rounds and episodes. Each is a pair: all updates, and those of corrupt lots.

    Attributes:
        contributed: All contributed updates.
        objected: Those to which somebody objected.
        blocked: Those that did not enter the step.
        mended: Those that entered after a filter had mended them.
        let_in: Those that entered unchanged although somebody objected: the governance allowed it.
        left_out: Those that did not enter although nobody objected: the bargain left them out.
    """

    contributed: tuple[int, int]
    objected: tuple[int, int]
    blocked: tuple[int, int]
    mended: tuple[int, int]
    let_in: tuple[int, int]
    left_out: tuple[int, int]


class Findings:
    """The findings of an audit.

    Args:
        audit: The audit.
    """

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        t, e, i, k, j, a = self._columns = audit.objections.unbind(dim=1)
        n_effects = audit.predicted.shape[-1]
        of_harm, of_norm = a < n_effects, a == n_effects
        place = a.clamp(max=max(n_effects - 1, 0))

        def harm(numbers: Tensor) -> Tensor:
            if not n_effects:
                return torch.full((len(a),), math.nan, dtype=numbers.dtype)
            return torch.where(of_harm, numbers[t, e, i, k, place], math.nan)

        norm = audit.norm[t, e, i, k]
        self.predicted = torch.where(of_norm, norm, harm(audit.predicted))
        self.realised, self.on_probe = harm(audit.realised), harm(audit.on_probe)
        limit = torch.where(of_harm, audit.limit[t, e, j, place], math.nan) if n_effects else torch.full_like(norm, math.nan)
        limit = torch.where(of_harm & (a >= len(audit.scenario.values)), 0.0, limit)  # the limit of a direction is 0, apart from rounding
        self.tolerance = torch.where(of_norm, audit.max_norm[e, j], limit)

    def records(self) -> list[Objection]:
        """Every objection, round by round."""
        return [self._record(row) for row in range(len(self.audit.objections))]

    @cached_property
    def totals(self) -> Totals:
        """Counts of updates."""
        audit = self.audit
        t, e, i, k, *_ = self._columns
        objected = torch.zeros_like(audit.contributed)
        objected[t, e, i, k] = True

        def count(which: Tensor) -> tuple[int, int]:
            return int(which.sum()), int((which & audit.corrupt).sum())

        whole = audit.admitted & (audit.kept >= 1)
        return Totals(
            contributed=count(audit.contributed),
            objected=count(objected),
            blocked=count(audit.contributed & ~audit.admitted),
            mended=count(audit.admitted & ~whole),
            let_in=count(whole & objected),
            left_out=count(audit.contributed & ~audit.admitted & ~objected),
        )

    @cached_property
    def rises(self) -> dict[str, tuple[float, float]]:
        """By how much each loss that a profile watches rose over the episodes, by name: in the mean, and in the worst episode."""
        audit = self.audit
        risen = (audit.value_losses[-1] - audit.value_losses[0]).double()  # (E, M)
        names = list(audit.scenario.values)
        of_each = {name: risen[:, names.index(name)] for name in watched(audit.scenario)}
        return {name: (float(rise.mean()), float(rise.max())) for name, rise in of_each.items()}

    @cached_property
    def limits(self) -> dict[str, float]:
        """The strictest limit on the rise of each limited value's loss over an episode, by name: the mean over episodes."""
        names, limit = list(self.audit.scenario.values), self.audit.max_rise.double().mean(dim=0)
        return {name: float(limit[names.index(name)]) for name in self.audit.scenario.limited}

    def notes(self) -> list[str]:
        """What the totals do not show, as sentences: how far watched losses rose, and in how many episodes nothing passed, and why."""
        audit = self.audit
        said = []
        if self.rises:
            limits = self.limits
            told = ", ".join(
                f"{one_line(name)} {mean:+z.3g} (worst episode {worst:+z.3g}{_of_limit(worst, limits.get(name))})"
                for name, (mean, worst) in self.rises.items()
            )
            alone = "" if limits else "; profiles limit updates, and not their sum"
            said.append(f"from start to end, the losses that profiles watch changed by: {told}{alone}")
        of_episode = (0, 2, 3)
        stuck = audit.contributed.sum(dim=of_episode).bool() & ~audit.admitted.sum(dim=of_episode).bool()  # (E,)
        if stuck.any():
            t, e, i, k, _, a = self._columns
            reasons = {}
            for account, name in enumerate(audit.accounts):
                mine = stuck[e] & (a == account)
                reasons[name] = len(torch.unique(torch.stack([t, e, i, k], dim=1)[mine], dim=0))
            n_updates = int(audit.contributed[:, stuck].sum())
            said.append(deadlock_in_words(audit.scenario, int(stuck.sum()), len(stuck), n_updates, reasons))
        return said

    @cached_property
    def accounts(self) -> list[Account]:
        """By account and profile, in the scenario's order. Accounts for which a profile sets no limit are left out."""
        audit = self.audit
        t, e, i, k, j, a = self._columns
        objector = audit.kind[e, j]
        made = []
        for account, name in enumerate(audit.accounts):
            for kind, profile in enumerate(audit.profile_names):
                mine = ((a == account) & (objector == kind)).nonzero()[:, 0]
                updates = torch.stack([t, e, i, k], dim=1)[mine]
                _, inverse = torch.unique(updates, dim=0, return_inverse=True)
                first = torch.full((int(inverse.max()) + 1 if len(inverse) else 0,), len(mine))
                # all holders of a profile object alike: the first stands for them
                first = first.scatter_reduce(0, inverse, torch.arange(len(mine)), "amin")
                mine = mine[first]
                missed = self._missed(account, kind)
                if len(mine) or missed is not None:
                    made.append(self._account(name, profile, mine, missed))
        return made

    def worst(self, top: int) -> list[str]:
        """The blocked or mended updates that would have done the most harm, in words. Of each lot and account, only the worst round.

        Realised harms are compared across values as multiples of the mean harm that was predicted where somebody objected on that account.
        """
        audit = self.audit
        t, e, i, k, j, a = self._columns
        chosen = (audit.kept[t, e, i, k] < 1) & self.realised.isfinite()
        if audit.scenario.screening.governance == "own":
            chosen &= i == j  # nobody else's objection counts
        rows = chosen.nonzero()[:, 0]
        scale = torch.ones(len(audit.accounts), dtype=torch.float64)
        for account in range(len(audit.accounts)):
            if (foreseen := self.predicted[(a == account) & self.predicted.isfinite()]).numel():
                scale[account] = max(float(foreseen.double().mean()), 1e-12)
        order = rows[(self.realised[rows].double() / scale[a[rows]]).argsort(descending=True, stable=True)]
        lots: dict[tuple[int, ...], dict[int, list[int]]] = {}  # for each lot and account, the rows of each round, the worst first
        for row, (moment, *rest, account) in zip(order.tolist(), audit.objections[order][:, [0, 1, 2, 3, 5]].tolist(), strict=True):
            lots.setdefault((*rest, account), {}).setdefault(moment, []).append(row)
        said = []
        for rounds in list(lots.values())[:top]:
            worst, *others = rounds.values()
            also = f"; the same lot in {len(others)} more {'round' if len(others) == 1 else 'rounds'}" if others else ""
            said.append(self._sentence([self._record(row) for row in sorted(worst)]) + also)
        return said

    def to_csv(self) -> str:
        """Every objection as CSV, one row each, with a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(Objection.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        for record in self.records():
            plain = asdict(record).items()
            writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else "" if value is None else value for name, value in plain})
        return text.getvalue()

    def to_dict(self, top: int) -> dict[str, Any]:
        """Totals, rises of watched losses, accounts and the worst as plain data for JSON."""
        return {
            "totals": {name: {"all": counts[0], "corrupt": counts[1]} for name, counts in asdict(self.totals).items()},
            "rises": {
                name: {"mean": mean, "worst": worst} | ({"limit": self.limits[name]} if name in self.limits else {})
                for name, (mean, worst) in self.rises.items()
            },
            "accounts": [asdict(account) for account in self.accounts],
            "worst": self.worst(top),
            "bargains": list(self.audit.bargains),
        }

    def _record(self, row: int) -> Objection:
        audit = self.audit
        t, e, i, k, j, a = (int(column[row]) for column in self._columns)
        profiles = audit.profile_names
        kept = float(audit.kept[t, e, i, k])
        return Objection(
            episode=audit.seeds[e],
            round=t + 1,
            proxy=i,
            lot=k,
            corrupt=bool(audit.corrupt[e, i, k]),
            whose=profiles[int(audit.kind[e, i])],
            objector=j,
            profile=profiles[int(audit.kind[e, j])],
            account=audit.accounts[a],
            predicted=_number(self.predicted[row]),
            tolerance=_number(self.tolerance[row]),
            realised=_number(self.realised[row]),
            on_probe=_number(self.on_probe[row]),
            outcome=self._outcome(bool(audit.admitted[t, e, i, k]), kept),
            kept=kept,
        )

    def _outcome(self, admitted: bool, kept: float) -> str:
        screening = self.audit.scenario.screening
        if not admitted:
            return "rejected"
        if kept < 1:
            return {"scale": "scaled", "project": "projected"}[screening.filter]
        return "bargained in" if screening.governance == "negotiate" else "admitted"

    def _missed(self, account: int, kind: int) -> float | None:
        """Share of the updates that entered whose realised harm, as they entered, exceeds the profile's limit; ``None`` without a limit."""
        audit = self.audit
        if account >= audit.predicted.shape[-1] or kind == len(audit.scenario.profiles):
            return None
        holds = audit.kind == kind  # (E, N)
        limit = torch.where(holds, audit.limit[..., account], math.inf).amin(dim=-1)  # (T, E): the same for all holders
        if not (limit.isfinite().any() and audit.admitted.any()):
            return None
        beyond = audit.entered[..., account] > limit[..., None, None] + ROUNDING
        return float((beyond & audit.admitted).sum() / audit.admitted.sum())

    def _account(self, name: str, profile: str, rows: Tensor, missed: float | None) -> Account:
        audit = self.audit
        t, e, i, k = (column[rows] for column in self._columns[:4])
        kept = audit.kept[t, e, i, k]
        judged = self.realised[rows].isfinite()
        rightly = _mean((self.realised[rows] > self.tolerance[rows] + ROUNDING)[judged].double())
        return Account(
            account=name,
            profile=profile,
            objected=len(rows),
            blocked=int((kept == 0).sum()),
            mended=int(((kept > 0) & (kept < 1)).sum()),
            corrupt=_mean(audit.corrupt[e, i, k].double()),
            predicted=_mean(self.predicted[rows]),
            realised=_mean(self.realised[rows]),
            tolerance=_mean(self.tolerance[rows]),
            rightly=rightly,
            missed=missed,
        )

    def _sentence(self, records: Sequence[Objection]) -> str:
        """A sentence about one update and one account, with all who object."""
        one = records[0]
        realised, predicted, tolerance = one.realised or 0.0, one.predicted or 0.0, min(record.tolerance or 0.0 for record in records)
        verb = "raised" if realised >= 0 else "lowered"
        what = f"gone against {one.account} by" if one.account.startswith("direction") else f"{verb} {one.account} by"
        who = _listed([f"proxy_{record.objector}" for record in records])
        done = {"rejected": "blocked", "scaled": "shrunk", "projected": "projected"}[one.outcome]
        share = f"{one.kept:.0%}" if one.kept < 0.995 else "over 99%"
        done += f" to {share} of its length" if one.outcome != "rejected" else ""
        by = f"{done} by {who}" if self.audit.scenario.screening.governance in ("own", "unanimous") else f"{done}, {who} objecting"
        n_lots, conduct = self.audit.scenario.lots.per_principal, self.audit.scenario.conduct
        if one.lot < n_lots or conduct is None:
            sent = f"lot {one.lot} ({'corrupt' if one.corrupt else 'clean'})"
        else:
            sent = f"{conduct.names[one.lot - n_lots]} (forged)"
        return (
            f"seed {one.episode}, round {one.round}: proxy_{one.proxy}'s {sent} would have {what} "
            f"{realised if what.startswith('gone') else abs(realised):.3g} (predicted {predicted:.3g}, allowed {tolerance:.3g}): {by}"
        )


def _mean(numbers: Tensor) -> float | None:
    numbers = numbers[numbers.isfinite()]
    return float(numbers.double().mean()) if len(numbers) else None


def _number(number: Tensor) -> float | None:
    return float(number) if number.isfinite() else None


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _of_limit(rise: float, limit: float | None) -> str:
    """A rise as a share of its limit, in words."""
    if limit is None:
        return ""
    return f", {100 * max(rise, 0.0) / limit:.0f} % of the limit {limit:.3g}" if limit > 0 else ", limit 0"
