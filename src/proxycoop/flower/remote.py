"""The engine of a federation's server: rounds are played as in the simulator, with updates that came from sites."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.linalg import vector_norm

from ..credit import CreditRule
from ..envs.data.lots import DrawnLots
from ..envs.devices import plain_torch
from ..envs.engine import Engine
from ..envs.model.substrates import Proposals
from ..envs.observations.memory import Past
from ..envs.records import Prospect, RoundResult
from ..envs.scenario import Scenario

MOST_ROWS = 2**40
"""Most rows that a lot may have, as its site says."""
_RULE_NEEDS = {
    "peer_gains": "asks members to try each other's updates on their own rows, and no message asks for that",
    "withheld": "asks what lots would have gained that were not contributed, and these never leave their sites",
}


def digest_of(scenario: Scenario) -> str:
    """Digest by which server and sites notice that their scenarios differ: SHA-256 of its YAML, in hexadecimal digits."""
    return hashlib.sha256(scenario.to_yaml().encode()).hexdigest()


def require_federated(scenario: Scenario) -> None:
    """Refuse a scenario that cannot be played in a federation.

    Args:
        scenario: The scenario.

    Raises:
        ValueError: If something in it needs what server or sites do not know; the message says what.
    """
    needs = set() if scenario.admission is None else set(scenario.admission.choose.needs)
    reasons = {
        f"substrate {scenario.substrate.kind}: only fedavg makes a lot's update at its site alone (proxycoop.traversal has the others)": (
            scenario.substrate.kind != "fedavg"
        ),
        "conduct and population: they play members that cheat, and in a federation members are who they are": (
            scenario.conduct is not None or bool(scenario.population)
        ),
        "participation: it draws who is present, and in a federation that is who answers": scenario.participation is not None,
        "privacy: its noise is drawn by the simulator": scenario.privacy is not None,
        "observations.marginal_gains: no real proxy could know them": scenario.observations.marginal_gains,
        "governance negotiate: it bargains over updates that were not offered too": scenario.screening.governance == "negotiate",
        "screening.harm: sites predict harm from the values' gradients, so it must be first_order": (
            scenario.screening.harm != "first_order"
        ),
        "an admission that needs wants: they follow from updates that were not offered": "wants" in needs,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"scenario {scenario.name!r} cannot be played in a federation: it has {reason}")


class RemoteEngine(Engine):
    """An :class:`~proxycoop.envs.Engine` of one environment whose updates come from sites. It never sees their rows.

    Of lots that were not offered it knows nothing. So in ``prospect`` their updates are zeros, they harm nothing, and nobody objects to
    them; of ``observations`` only what the server can know is right. What is the same as in the simulator: what was contributed, admitted
    and blocked, the step, the model, utility, values, credit, costs, rewards, revenue and payouts.

    Args:
        scenario: A scenario that ``require_federated`` accepts. With ``reward.scale: auto`` the scale is measured in the simulator, on
            the scenario's data; where sites have rows of their own, give it a number.
        credit: As for the engine.

    Raises:
        ValueError: As the engine; and if the scenario or the rule needs what the server does not know.
    """

    before: Prospect

    def __init__(self, scenario: Scenario, credit: CreditRule | str | None = "shapley") -> None:
        require_federated(scenario)
        super().__init__(scenario, credit)
        for need, why in _RULE_NEEDS.items():
            if self.rule is not None and need in self.rule.needs:
                raise ValueError(f"credit rule {self.rule_name!r} cannot serve a federation: it {why}")
        self._came: Tensor | None = None
        self._reported: tuple[Tensor, Tensor] | None = None

    def begin(self, seed: int, episode: int, samples: Tensor, tags: Tensor) -> None:
        """Begin an episode.

        Args:
            seed: Its seed.
            episode: Its number among those of the seed.
            samples: Rows of each lot, as the sites say, int64 ``(N, K)``.
            tags: Index of each lot's provenance tag, int64 ``(N, K)``.

        Raises:
            ValueError: If a shape or a number is wrong, or nobody has a row.
        """
        shape = (self.num_agents, self.num_lots)
        n_tags = max(len(self.scenario.lots.tags), 1)
        for name, numbers, most in (("samples", samples, MOST_ROWS), ("tags", tags, n_tags - 1)):
            if numbers.shape != shape or not ((numbers >= 0) & (numbers <= most)).all():
                raise ValueError(f"{name} of the sites are {numbers.tolist()}: must be {shape[0]} × {shape[1]} numbers from 0 to {most}")
        if not samples.sum():
            raise ValueError("no site has a row")
        self._reported, self._came = (samples, tags), None
        self.reset([seed], episode=episode)

    @plain_torch()
    def play(self, offered: Tensor, updates: Tensor) -> RoundResult:
        """Play a round with what came in.

        Args:
            offered: Which lots were offered, bool ``(1, N, K)``.
            updates: Their updates, ``(1, N, K, P)``; anything for the others.

        Returns:
            The round's result, as the engine's. What stood before the round, with these updates, is then ``before``.
        """
        self.require_running()
        self._came = torch.where(offered[..., None], updates, 0.0)
        try:
            self.prospect = self.before = self._look()
        finally:
            self._came = None
        return self.step(offered)

    @property
    def past(self) -> Past:
        """What observations need of the rounds so far."""
        return self._memory.past

    def _drawn(self, owned: Tensor) -> DrawnLots:
        """The lots as far as sites tell: how many rows each has, and its tag."""
        del owned
        if self._reported is None:
            raise RuntimeError("the engine of a federation begins an episode with begin, and not with reset")
        samples, tags = self._reported
        nothing = torch.zeros(1, *samples.shape)
        empty = torch.zeros(1, *samples.shape, 0, dtype=torch.int64)
        x = torch.zeros(*empty.shape, self.splits.n_features, dtype=self.dtype)
        return DrawnLots(
            y=empty,
            present=empty[0].bool(),
            corrupt=nothing.bool(),
            tags=tags[None],
            samples=samples,
            rows=empty,
            severity=nothing.double(),
            x=x,
            inputs=x,
        )

    def _propose(self) -> Proposals:
        """The updates that came in; zeros before they did."""
        lots = self._at_work
        updates = self.theta.new_zeros(*lots.tags.shape, self.theta.shape[1]) if self._came is None else self._came
        return Proposals(updates, lots.share, torch.zeros_like(lots.share), lots.filled)


def too_long(updates: Tensor, largest: float) -> Tensor:
    """Which updates ``(…, P)`` are finite and longer than the largest norm, bool ``(…)``."""
    norm = vector_norm(updates.double(), dim=-1)
    long: Tensor = norm.isfinite() & (norm > largest)
    return long
