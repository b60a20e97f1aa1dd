"""A cooperative's rounds, written into a ledger while it plays.

Every episode is a cooperative of its own there, with the proxies as its members, and the scenario's currency and policy. A round is one
transaction, with its credits and revenue; a settlement is another, under the key ``round-T``. The ledger computes what it pays by itself,
from what stands in it, and must come to what the engine paid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..credit.ledger.ledger import Ledger
from .engine import Engine
from .records import RoundResult


class Bookkeeper:
    """Writes the rounds of an engine of one environment into a ledger.

    What stands there already is not written again: an episode that is played again as it was adds nothing, and one that was cut off is
    completed by playing it again. Credit is written to its last bit, which another machine, or another version of PyTorch, may compute
    otherwise; such an episode counts as another.

    Attributes:
        ledger: The ledger.

    Args:
        engine: The cooperative.
        ledger: A ledger, its file or its database's URL; what is opened here is closed by :meth:`close`.
        name: What the cooperatives are called by, before seed and episode; scenario and rule if not given.

    Raises:
        ValueError: If the scenario has no settlement, the engine has several environments, or the ledger cannot be opened.
    """

    def __init__(self, engine: Engine, ledger: Ledger | str | Path, name: str | None = None) -> None:
        if engine.treasury is None:
            raise ValueError(
                f"scenario {engine.scenario.name!r} has no settlement, so there is no money to keep a ledger of: give it one, as in "
                "scenario.load(NAME, settlement={}) or --set settlement={}"
            )
        if engine.num_envs != 1:
            raise ValueError(f"num_envs={engine.num_envs}: a ledger is kept of one cooperative at a time")
        self._engine = engine
        self._treasury = engine.treasury
        self._owns = not isinstance(ledger, Ledger)
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        self._name = name if name is not None else f"{engine.scenario.name}/{engine.rule_name}"
        self._members = [f"proxy_{i}" for i in range(engine.num_agents)]
        self._episode: list[RoundResult] | None = None
        self._n_written = 0
        self._was_there = False

    @property
    def cooperative(self) -> str:
        """What the episode that is played is called in the ledger."""
        assert self._engine.seeds is not None
        return f"{self._name}/seed-{int(self._engine.seeds[0])}/episode-{self._engine.episode}"

    def write(self) -> None:
        """Write the rounds that were played since the last call.

        Raises:
            ValueError: If the ledger cannot be written, or holds other rounds under this cooperative's name.
        """
        history = self._engine.history
        if self._episode is not history:  # another episode began
            self._checked(self._begin)
            self._episode, self._n_written = history, 0
        for t in range(self._n_written, len(history)):
            self._checked(partial(self._write_round, t, history[t]))
            self._n_written = t + 1

    def close(self) -> None:
        """Close the ledger, if it was opened here; it is opened again if more is written."""
        if self._owns:
            self.ledger.close()

    def _begin(self) -> None:
        terms = self._treasury.terms
        try:
            self.ledger.cooperative(self.cooperative)
            self._was_there = True
        except ValueError:  # no such cooperative; whatever else is wrong, the next line says
            self._was_there = False
        self.ledger.init(self.cooperative, self._members, currency=terms.money.code, exponent=terms.money.exponent, policy=terms.policy)

    def _write_round(self, t: int, result: RoundResult) -> None:
        assert result.revenue is not None
        assert result.payouts is not None
        credited = dict(zip(self._members, result.credit[0].double().tolist(), strict=True))
        self.ledger.record(self.cooperative, t, credited, revenue=int(result.revenue[0]))
        if not self._treasury.settles_after(t):
            return
        since = (t // self._treasury.terms.period) * self._treasury.terms.period
        revenue = sum(int(past.revenue[0]) for past in self._engine.history[since : t + 1] if past.revenue is not None)
        payouts = dict(zip(self._members, result.payouts[0].tolist(), strict=True))
        if revenue == 0 and not any(payouts.values()):
            return  # which a ledger refuses: there is nothing to settle
        receipt = self.ledger.settle(self.cooperative, key=f"round-{t}")
        if receipt.payouts != payouts:
            raise ValueError(
                f"the ledger paid {receipt.payouts} after round {t} of {self.cooperative!r}, and the cooperative {payouts}: something else "
                "was recorded under this name"
            )

    def _checked(self, act: Callable[[], None]) -> None:
        """Do something, and where the ledger refuses because of what stands in it, say what to do."""
        try:
            act()
        except ValueError as refusal:
            if not self._was_there:
                raise
            raise ValueError(
                f"{refusal}; {self.cooperative!r} stood in the ledger before this episode: if others play it now, or under other settings, "
                "record it under another name (ledger_name=, or --cooperative)"
            ) from None
