"""Writes a cooperative's rounds into a ledger while it plays.

In the ledger every episode is a cooperative of its own. Its members are the proxies, and it has the scenario's currency and settlement
policy. A round is one transaction, with its credits and its revenue. A settlement is another, under the key ``round-T``. The ledger
computes the payouts from its own entries. They must equal what the engine paid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..credit.ledger.ledger import Ledger
from .engine import Engine
from .records import RoundResult


class Bookkeeper:
    """Writes the rounds of an engine of one environment into a ledger.

    Rounds that are in the ledger already are not written again. If the same episode is played again, nothing is added. If it was cut off,
    playing it again completes it. Credit is written to its last bit. Another machine, or another version of PyTorch, may compute another
    last bit; its episode then counts as a different one, and :meth:`write` refuses it.

    Attributes:
        ledger: The ledger.

    Args:
        engine: The cooperative; an engine with one environment.
        ledger: A ledger, its file or its database's URL. A ledger that is opened here is closed by :meth:`close`.
        name: First part of the cooperatives' names in the ledger; seed and episode follow. By default ``SCENARIO/RULE``.
        decided: What was decided in each round, by its number, to be recorded with it; see
            :meth:`~proxycoop.credit.ledger.Ledger.record`. By default nothing of it is recorded.

    Raises:
        ValueError: If the scenario has no settlement, the engine has several environments, or the ledger cannot be opened.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger | str | Path,
        name: str | None = None,
        decided: Callable[[int], Mapping[str, object] | None] | None = None,
    ) -> None:
        if engine.treasury is None:
            raise ValueError(
                f"scenario {engine.scenario.name!r} has no settlement, so a ledger would have no money to record: give it one, as in "
                "scenario.load(NAME, settlement={}) or --set settlement={}"
            )
        if engine.num_envs != 1:
            raise ValueError(f"num_envs={engine.num_envs}: must be 1, a ledger records one cooperative at a time")
        self._engine = engine
        self._treasury = engine.treasury
        self._owns = not isinstance(ledger, Ledger)
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        self._name = name if name is not None else f"{engine.scenario.name}/{engine.rule_name}"
        self._decided = decided
        self._members = [f"proxy_{i}" for i in range(engine.num_agents)]
        self._episode: list[RoundResult] | None = None
        self._n_written = 0
        self._was_there = False

    @property
    def cooperative(self) -> str:
        """The name of the current episode in the ledger."""
        assert self._engine.seeds is not None
        return f"{self._name}/seed-{int(self._engine.seeds[0])}/episode-{self._engine.episode}"

    def write(self) -> None:
        """Write the rounds that were played since the last call.

        Raises:
            ValueError: If the ledger cannot be written, or holds different rounds under this cooperative's name.
        """
        history = self._engine.history
        if self._episode is not history:  # another episode began
            self._checked(self._begin)
            self._episode, self._n_written = history, 0
        for t in range(self._n_written, len(history)):
            self._checked(partial(self._write_round, t, history[t]))
            self._n_written = t + 1

    def close(self) -> None:
        """Close the ledger if it was opened here. The next :meth:`write` opens it again."""
        if self._owns:
            self.ledger.close()

    def _begin(self) -> None:
        terms = self._treasury.terms
        try:
            self.ledger.cooperative(self.cooperative)
            self._was_there = True
        except ValueError:  # no such cooperative; if something else is wrong, the next call raises it
            self._was_there = False
        self.ledger.init(self.cooperative, self._members, currency=terms.money.code, exponent=terms.money.exponent, policy=terms.policy)

    def _write_round(self, t: int, result: RoundResult) -> None:
        assert result.revenue is not None
        assert result.payouts is not None
        credited = dict(zip(self._members, result.credit[0].double().tolist(), strict=True))
        decisions = None if self._decided is None else self._decided(t)
        self.ledger.record(self.cooperative, t, credited, revenue=int(result.revenue[0]), decisions=decisions)
        if not self._treasury.settles_after(t):
            return
        since = (t // self._treasury.terms.period) * self._treasury.terms.period
        revenue = sum(int(past.revenue[0]) for past in self._engine.history[since : t + 1] if past.revenue is not None)
        payouts = dict(zip(self._members, result.payouts[0].tolist(), strict=True))
        if revenue == 0 and not any(payouts.values()):
            return  # nothing to settle: the ledger would refuse
        receipt = self.ledger.settle(self.cooperative, key=f"round-{t}")
        if receipt.payouts != payouts:
            raise ValueError(
                f"after round {t} of {self.cooperative!r} the ledger paid {receipt.payouts}, but the engine paid {payouts}: something else "
                "was recorded under this name"
            )

    def _checked(self, act: Callable[[], None]) -> None:
        """Call ``act``. If the ledger refuses because of what it already holds, add to the error what to do."""
        try:
            act()
        except ValueError as refusal:
            if not self._was_there:
                raise
            raise ValueError(
                f"{refusal}; {self.cooperative!r} was in the ledger before this episode: if other policies play it now, or the settings "
                "changed, record it under another name (ledger_name=, or --cooperative)"
            ) from None
