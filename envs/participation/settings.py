"""The settings of partial participation, and what does not go with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from ...settings import Settings, misplaced

MOST_PRESENT = 1024
"""Largest number of agents that take part in one round."""
MOST_OF_ALL = 65_536
"""Largest number of principals where only some take part in each round."""


class Participation(Settings):
    """Only some of the agents take part in a round: in each, the server asks ``sample`` of them, drawn without replacement.

    Every set of so many agents is equally likely, in every round anew, whatever happened before.

    References:
        McMahan, Moore, Ramage, Hampson & Agüera y Arcas (2017), *Communication-efficient learning of deep networks from decentralized
        data*, AISTATS.
    """

    sample: int = Field(
        ge=1, le=MOST_PRESENT, description="Number of agents m that take part in a round, at most the number of principals."
    )

    @model_validator(mode="before")
    @classmethod
    def _says_how_many(cls, data: Any) -> Any:
        """Refuse a number alone, and nothing, with what to write."""
        if isinstance(data, int) and not isinstance(data, bool):
            raise ValueError(f"write {{sample: {data}}}")
        if isinstance(data, Mapping) and not data:
            raise misplaced(("sample",), "is missing: give the number of agents that take part in a round, as in {sample: 16}")
        return data

    def check(self, n_agents: int, **without: Any) -> None:
        """Refuse a sample that is too large, and what does not go with partial participation.

        Args:
            n_agents: Number of agents N.
            **without: What the scenario has, by the name of its key; empty or false where it has none.

        Raises:
            ValueError: If so. The error has its place in a scenario.
        """
        if self.sample > n_agents:
            raise misplaced(("participation", "sample"), f"must be at most the number of principals, {n_agents} (got {self.sample})")
        for key, has in without.items():
            if has:
                raise misplaced(key.split("."), f"{_WHY[key]}: leave one of the two out")


_WHY = {
    "conduct": "conduct does not go with participation, because forgeries, levers and names last from round to round",
    "substrate": "vertical does not go with participation, because its model needs the columns of all principals",
    "lots.rows": "one number a principal does not go with participation under substrate traversal, whose batch is of one size "
    "in all cooperatives",
    "screening.governance": "negotiate does not go with participation, because a bargain needs all principals",
    "screening.filter": "scale and project do not go with participation under governance quorum, weighted or stakeholders, which would "
    "have to rank the limits of all principals",
}
